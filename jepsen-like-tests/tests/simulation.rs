//! A handful of seeds, so that the tests alone notice a broken cluster; `jepsen sim` runs hundreds.

use jepsen_like_tests::history::Answer;
use jepsen_like_tests::sim::{self, Setting};

#[test]
fn the_first_seeds_hold() {
    for seed in 1..=6 {
        let report = sim::run(Setting::of(seed));
        assert_eq!(report.violations, vec![], "seed {seed}: jepsen sim --seed {seed} --verbose");
        let sold = report.run.events.iter().filter(|e| matches!(e.answer, Answer::Ok { .. })).count();
        assert!(sold > 50, "seed {seed}: only {sold} operations succeeded: the run proves nothing");
    }
}
