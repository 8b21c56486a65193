//! What is said of a run that failed: what disagrees, where first, the journal, and how to have it again.
//!
//! **Owns** the words. **Must never** leave out what is needed to repeat the run. **Read next**: [`super::sim`].

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::process::Command;

use jepsen_like_tests::checkers::Violation;
use jepsen_like_tests::history::Run;
use jepsen_like_tests::sim::{Report, Setting};

/// Violations shown of one property; the others are counted.
const SHOWN: usize = 5;

/// The commit this was built from, as far as the source tree tells, and whether it was changed since.
pub(super) fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain", "-uno"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit} with changes that are not committed"),
        (None, _) => "unknown".to_owned(),
    }
}

/// The build, as far as it matters to a run.
pub(super) fn build() -> &'static str {
    match (cfg!(debug_assertions), jepsen_like_tests::bad::is_known_bad_build()) {
        (true, false) => "debug",
        (false, false) => "release",
        (true, true) => "debug, --cfg holdfast_known_bad",
        (false, true) => "release, --cfg holdfast_known_bad",
    }
}

/// The command before its own arguments.
pub(super) fn cargo() -> &'static str {
    if cfg!(debug_assertions) {
        "cargo run -p jepsen-like-tests --bin jepsen --"
    } else {
        "cargo run --release -p jepsen-like-tests --bin jepsen --"
    }
}

/// The violations, by property, the first of each first.
pub(super) fn violations(violations: &[Violation]) {
    let mut properties: Vec<&str> = Vec::new();
    for violation in violations {
        if !properties.contains(&violation.property) {
            properties.push(violation.property);
        }
    }
    for property in properties {
        let of: Vec<&Violation> = violations.iter().filter(|v| v.property == property).collect();
        println!("  {property}: {} violation{}", of.len(), if of.len() == 1 { "" } else { "s" });
        for violation in of.iter().take(SHOWN) {
            println!("    {}", violation.what.replace('\n', "\n    "));
        }
        if of.len() > SHOWN {
            println!("    … and {} more", of.len() - SHOWN);
        }
    }
}

/// Writes a journal; says where it is.
pub(super) fn journal(run: &Run, file: &Path) {
    let written = File::create(file).and_then(|f| {
        let mut to = BufWriter::new(f);
        run.write_events(&mut to)?;
        io::Write::flush(&mut to)
    });
    match written {
        Ok(()) => println!(
            "journal:    {} ({} operations); judge it again: {} check {0}",
            file.display(),
            run.events.len(),
            cargo()
        ),
        Err(error) => println!("the journal could not be written to {}: {error}", file.display()),
    }
}

/// Everything about a failed run of the simulation.
pub(super) fn failed(setting: &Setting, report: &Report, history: &Path) {
    println!("seed {} FAILED after {:.1} s of simulated time", report.seed, report.simulated.as_secs_f64());
    violations(&report.violations);
    println!("faults:     {} planned", report.plan.len());
    for planned in &report.plan {
        println!("  {:>6} ms  {:?}", planned.at_ms, planned.fault);
    }
    journal(&report.run, history);
    println!("commit:     {}", commit());
    println!("build:      {}", build());
    match serde_json::to_string(setting) {
        Ok(text) => println!("setting:    {text}"),
        Err(error) => println!("setting:    {setting:?} ({error})"),
    }
    let usual = Setting { known_bad: setting.known_bad.clone(), ..Setting::stretched(setting.seed, setting.stretch) }
        == *setting;
    if usual {
        let mut more = if setting.stretch > 1 { format!(" --stretch {}", setting.stretch) } else { String::new() };
        if !setting.known_bad.is_empty() {
            more = format!("{more} --known-bad {}", setting.known_bad);
        }
        println!("reproduce:  {} sim --seed {}{more} --verbose", cargo(), setting.seed);
        println!("smaller:    {} shrink --seed {}{more}", cargo(), setting.seed);
    } else {
        println!("reproduce:  write the setting to a file, then {} sim --plan FILE --verbose", cargo());
    }
}
