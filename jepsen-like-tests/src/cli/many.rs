//! Many runs side by side, each in a process of its own, with progress while they go.
//!
//! **Owns** the workers. **Must never** let a run see another, or print anything to stdout. **Read next**: [`super::sums`].

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jepsen_like_tests::sim::apart::Apart;
use jepsen_like_tests::sim::{Report, Setting};

/// Runs settings with `jobs` workers; `each` sees every report as it comes and may end it all.
pub(super) fn run(
    apart: &Apart,
    settings: impl Iterator<Item = Setting> + Send,
    jobs: usize,
    mut each: impl FnMut(Setting, Report) -> ControlFlow<()>,
) -> io::Result<()> {
    let settings = Mutex::new(settings);
    let over = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (settings, over, tell) = (&settings, &over, tell.clone());
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let next = settings.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(setting) = next else { return };
                    let report = apart.run(&setting);
                    if tell.send(report.map(|report| (setting, report))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut first_error = Ok(());
        for answer in told {
            let go_on = match answer {
                Ok((setting, report)) => each(setting, report),
                Err(error) => {
                    first_error = Err(error);
                    ControlFlow::Break(())
                }
            };
            if go_on.is_break() {
                over.store(true, Ordering::Relaxed);
            }
        }
        first_error
    })
}

/// Progress for people on stderr; lines instead of a bar where there is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    lines: bool,
    every: u64,
}

impl Progress {
    /// Of so many steps; none: not known.
    pub(super) fn new(steps: Option<u64>, what: &'static str) -> Self {
        let bar = steps.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let lines = bar.is_hidden();
        if lines {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = "{elapsed_precise} {wide_bar} {pos}/{len} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar, lines, every: steps.map_or(10, |n| (n / 20).max(1)) }
    }

    /// One more step; `now` in a few words.
    pub(super) fn step(&self, now: &str) {
        self.bar.inc(1);
        self.bar.set_message(now.to_owned());
        if self.lines && self.bar.position().is_multiple_of(self.every) {
            eprintln!("{:>6.1} s  {:>5} done  {now}", self.bar.elapsed().as_secs_f64(), self.bar.position());
        }
    }

    /// Something worth a line of its own.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// For how long.
    pub(super) fn elapsed(&self) -> std::time::Duration {
        self.bar.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Workers when none are asked for: one a core, two at most, since each run is a whole cluster.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(2)))
}
