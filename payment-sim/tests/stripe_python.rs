//! Stripe's own Python library is content with the simulator. Needs python3, pip and a package index; says so loudly where one of
//! them is missing, and passes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library's version: its release of the API version the events name.
const STRIPE: &str = "16.1.0";

/// Where the library is, installed once a build directory.
fn installed() -> Result<PathBuf, String> {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = tmp.join(format!("stripe-python-{STRIPE}"));
    if library.join("stripe").is_dir() {
        return Ok(library);
    }
    let fresh = tempfile::tempdir_in(tmp).map_err(|e| e.to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(fresh.path());
    let output = pip.arg(format!("stripe=={STRIPE}")).output().map_err(|e| format!("python3: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // Another run may have been first, with the same.
    if std::fs::rename(fresh.path(), &library).is_err() && !library.join("stripe").is_dir() {
        return Err(format!("{} cannot be made", library.display()));
    }
    Ok(library)
}

#[test]
fn the_library_is_content() {
    let library = match installed() {
        Ok(library) => library,
        Err(why) => {
            eprintln!("SKIPPED: Stripe's Python library {STRIPE} could not be installed, so nothing was tested: {why}");
            return;
        }
    };
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stripe_client.py"))
        .args([Path::new(env!("CARGO_BIN_EXE_payment-sim")), dir.path()])
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 runs");
    let (told, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("all well"), "{told}\n{failed}");
}
