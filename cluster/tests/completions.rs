//! `ledgerctl completions` prints a script that knows the commands, for each shell people use.

use std::process::Command;

#[test]
fn every_shell_gets_a_script_that_names_the_commands() {
    for (shell, of_its_own) in
        [("bash", "complete -F"), ("zsh", "#compdef ledgerctl"), ("fish", "complete -c ledgerctl")]
    {
        let out = Command::new(env!("CARGO_BIN_EXE_ledgerctl")).args(["completions", shell]).output().expect("runs");
        let script = String::from_utf8(out.stdout).expect("text");
        assert!(out.status.success(), "{shell}: {:?}", String::from_utf8_lossy(&out.stderr));
        for word in [of_its_own, "demo", "transfer-leader", "reservation", "--endpoints"] {
            let bare = word.trim_start_matches("--");
            assert!(script.contains(word) || script.contains(&format!("-l {bare}")), "{shell}: no {word}");
        }
    }
    let out = Command::new(env!("CARGO_BIN_EXE_ledgerctl")).args(["completions", "basic"]).output().expect("runs");
    assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "an unknown shell is a usage error");
}
