//! The binary as its users meet it.

use std::process::{Command, Output};

fn order_worker(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_order-worker"));
    command.env_clear().args(arguments).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_new_key_goes_to_stdout_and_its_public_half_can_be_shown() {
    let made = order_worker(&["keys", "new"]);
    assert!(made.status.success());
    let secret = text(&made.stdout);
    let public = text(&made.stderr).trim().trim_start_matches("public: ").to_owned();
    assert!(secret.starts_with("holdfast-open-1:") && public.starts_with("holdfast-seal-1:"), "{public}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &secret).expect("written");
    let shown = order_worker(&["keys", "show", &file.path().to_string_lossy()]);
    assert_eq!(text(&shown.stdout).trim(), public);
    assert!(!text(&shown.stdout).contains(secret.trim()));
}

#[test]
fn key_file_that_others_read_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("worker.keys");
    let file = path.to_string_lossy();
    let made = [order_worker(&["keys", "new", &file]), order_worker(&["keys", "new", &file])];
    assert!(made.iter().all(|made| made.status.success() && made.stdout.is_empty()), "{made:?}");
    let shown = order_worker(&["keys", "show", &file]);
    assert_eq!(text(&shown.stdout).lines().count(), 2, "a new key stands beside the old one");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("set");
    for arguments in [["keys", "show", &file], ["keys", "new", &file]] {
        let refused = order_worker(&arguments);
        let why = text(&refused.stderr);
        assert!(!refused.status.success() && why.contains("chmod 600"), "{arguments:?}: {why}");
    }
}

#[test]
fn the_printed_configuration_is_one() {
    let printed = order_worker(&["run", "--print-config", "--lease", "45s"]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let printed = text(&printed.stdout);
    assert!(printed.contains("lease = \"45s\" # flag --lease"), "{printed}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &printed).expect("written");
    let again = order_worker(&["run", "--print-config", "--config", &file.path().to_string_lossy()]);
    assert!(again.status.success(), "{}", text(&again.stderr));
}

#[test]
fn what_is_wrong_with_the_configuration_is_told_with_exit_code_two() {
    for arguments in
        [&["run", "--lease", "soon"][..], &["run", "--config", "/nowhere"], &["run", "--no-such"], &["walk"]]
    {
        let output = order_worker(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn help_teaches_how_to_begin() {
    let help = text(&order_worker(&["--help"]).stdout);
    assert!(help.contains("keys new") && help.contains("run --config"), "{help}");
    let help = text(&order_worker(&["run", "--help"]).stdout);
    assert!(help.contains("--payment-secret-key-file") && help.contains("/webhooks/stripe"), "{help}");
}
