//! Log lines where nothing can be written: the program goes on.

use std::fs::File;
use std::process::{Command, Stdio};

use settings::Logs;

/// Set for the process that logs.
const LOGS: &str = "SETTINGS_TEST_LOGS";

#[test]
fn lines_that_cannot_be_written_end_no_program() {
    if std::env::var_os(LOGS).is_some() {
        Logs::text("info").start();
        (0..3).for_each(|n| tracing::error!(n, "nobody can read this"));
        return;
    }
    // Every write to it fails as on a full disk.
    let full = File::options().write(true).open("/dev/full").expect("the system has it");
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(["--exact", "lines_that_cannot_be_written_end_no_program", "--nocapture"]).env(LOGS, "1");
    let status = again.stdout(Stdio::null()).stderr(full).status().expect("it runs");
    assert!(status.success(), "{status}");
}
