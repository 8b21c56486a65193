//! `jepsen list`: what there is to press with, and what is looked for.
//!
//! **Owns** the listing. **Must never** list what does not run. **Read next**: `docs/testing.md`.

use jepsen_like_tests::faults::plan;
use jepsen_like_tests::real::Nemesis;
use jepsen_like_tests::workload::Kind;
use jepsen_like_tests::{bad, checkers, corpus, sometimes};

use super::Held;

fn heading(text: &str) {
    println!("\n{text}");
}

pub(super) fn run() -> Held {
    println!("Workloads (each simulated run draws some of them)");
    Kind::ALL.into_iter().for_each(|kind| println!("  {}", kind.name()));
    heading("Faults of the simulation (each run draws some kinds; docs/testing.md says what each does)");
    plan::names().for_each(|name| println!("  {name}"));
    heading("Nemeses of real processes");
    for nemesis in Nemesis::ALL.into_iter().chain([Nemesis::Program]) {
        println!("  {nemesis:<20} {}", nemesis.what());
    }
    heading("Checkers");
    checkers::ALL.iter().for_each(|(property, _)| println!("  {property}"));
    heading("Rare states that a campaign must reach");
    sometimes::ALL.iter().for_each(|rare| println!("  {:<28} {}", rare.name, rare.what));
    heading("Known-bad builds (jepsen mutation-test)");
    bad::ALL.iter().for_each(|bad| println!("  {:<28} {}", bad.name, bad.what));
    heading("Seeds that once failed (jepsen corpus)");
    corpus::built_in()?.iter().for_each(|kept| println!("  {:<12} {}", kept, kept.found));
    Ok(true)
}
