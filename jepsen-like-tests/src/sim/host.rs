//! One simulated machine: a process that runs on a runtime of its own, whose time goes on only when we say so.
//!
//! **What it is.** A single-threaded tokio runtime with paused time. A tick lets it run until nothing is left to do and a
//! millisecond (in long runs a few) of its own clock has passed. A process that is paused gets no tick: its clock stands, messages pile up at its sockets, and when it
//! goes on, all that time has passed in one moment. A process whose timers run fast or slow gets its milliseconds a little more or
//! less often than others.
//!
//! **Owns** the runtime. **Must never** know what runs inside. **Read next**: [`super::strikes`].

use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, LocalSet};

/// What a process ends with.
pub(super) type Ended = Result<(), String>;
type Software = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Ended>>>>;

const MS_IN_US: i64 = 1_000;

/// A machine and the process on it.
pub(super) struct Host {
    runtime: Runtime,
    local: LocalSet,
    software: Software,
    process: Option<JoinHandle<Ended>>,
    /// Milliseconds of one tick.
    tick_ms: i64,
    /// Time of others that has not passed here yet, microseconds.
    owed_us: i64,
    drift_ppm: i64,
    paused: bool,
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("no more than memory is needed")
}

impl Host {
    /// A machine that runs `software` at once, and again each time it is started; `tick` is a whole number of milliseconds.
    pub(super) fn new<F: Future<Output = Ended> + 'static>(tick: Duration, software: impl Fn() -> F + 'static) -> Self {
        let software: Software = Box::new(move || Box::pin(software()));
        let mut host = Self {
            runtime: runtime(),
            local: LocalSet::new(),
            software,
            process: None,
            tick_ms: tick.as_millis() as i64,
            owed_us: 0,
            drift_ppm: 0,
            paused: false,
        };
        host.start();
        host
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts the process, if none runs.
    pub(super) fn start(&mut self) {
        if self.process.is_none() {
            (self.owed_us, self.paused) = (0, false);
            let future = (self.software)();
            self.process = Some(self.local.spawn_local(future));
        }
    }

    /// Runs something inside the process, as an operator's call would.
    pub(super) fn inside<F: Future<Output = ()> + 'static>(&self, what: F) {
        if self.process.is_some() {
            self.local.spawn_local(what);
        }
    }

    /// The process is gone, between one instruction and the next.
    pub(super) fn stop(&mut self) {
        if self.process.take().is_some() {
            self.discard();
        }
    }

    /// Whatever the process spawned ends with it.
    fn discard(&mut self) {
        let local = std::mem::replace(&mut self.local, LocalSet::new());
        let runtime = std::mem::replace(&mut self.runtime, runtime());
        {
            let _inside = runtime.enter();
            drop(local);
        }
        drop(runtime);
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Its monotonic clock and its timers run fast (or slow) by so many millionths.
    pub(super) fn drift(&mut self, ppm: i64) {
        self.drift_ppm = ppm;
    }

    /// A tick passes; how the process ended, if it did.
    pub(super) fn tick(&mut self) -> Option<Ended> {
        let process = self.process.as_ref()?;
        let tick_us = self.tick_ms * MS_IN_US;
        self.owed_us += tick_us + tick_us * self.drift_ppm / 1_000_000;
        if self.paused || self.owed_us < MS_IN_US {
            return None;
        }
        let ms = self.owed_us / MS_IN_US;
        self.owed_us %= MS_IN_US;
        let tick_ms = self.tick_ms;
        self.runtime.block_on(self.local.run_until(async {
            if ms > 2 * tick_ms {
                tokio::time::advance(Duration::from_millis((ms - tick_ms) as u64)).await;
                tokio::time::sleep(Duration::from_millis(tick_ms as u64)).await;
            } else {
                tokio::time::sleep(Duration::from_millis(ms as u64)).await;
            }
        }));
        if !process.is_finished() {
            return None;
        }
        let process = self.process.take()?;
        let ended = self.runtime.block_on(process).unwrap_or_else(|e| Err(e.to_string()));
        self.discard();
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;
    use tokio::time::Instant;

    type Beats = Rc<RefCell<Vec<u64>>>;

    const MS: Duration = Duration::from_millis(1);

    fn beating(tick: Duration) -> (Host, Beats) {
        let beats = Beats::default();
        let heard = beats.clone();
        let host = Host::new(tick, move || {
            let heard = heard.clone();
            async move {
                let began = Instant::now();
                loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    heard.borrow_mut().push(began.elapsed().as_millis() as u64);
                }
            }
        });
        (host, beats)
    }

    fn ticks(host: &mut Host, n: u32) {
        (0..n).for_each(|_| assert!(host.tick().is_none()));
    }

    #[test]
    fn a_paused_process_finds_that_all_its_time_has_passed_at_once() {
        let (mut host, beats) = beating(MS);
        ticks(&mut host, 25);
        assert_eq!(beats.borrow_mut().split_off(0).len(), 2);
        host.pause(true);
        ticks(&mut host, 500);
        assert_eq!(*beats.borrow(), Vec::<u64>::new(), "it ran while it was paused");
        host.pause(false);
        ticks(&mut host, 1);
        let woke = beats.borrow()[0];
        assert!(woke >= 500, "it woke at {woke} ms of its own clock");
    }

    #[test]
    fn timers_drift() {
        let (mut fast, fast_beats) = beating(MS);
        fast.drift(100_000);
        let (mut slow, slow_beats) = beating(MS);
        slow.drift(-100_000);
        ticks(&mut fast, 1_000);
        ticks(&mut slow, 1_000);
        assert_eq!((fast_beats.borrow().len(), slow_beats.borrow().len()), (109, 89));
    }

    #[test]
    fn ticks_may_be_longer_and_timers_still_fire_when_they_are_due() {
        let (mut host, beats) = beating(4 * MS);
        ticks(&mut host, 25);
        assert_eq!(*beats.borrow(), (1..10).map(|n| 10 * n).collect::<Vec<_>>());
        let (mut slow, slow_beats) = beating(4 * MS);
        slow.drift(-100_000);
        ticks(&mut slow, 250);
        assert_eq!(slow_beats.borrow().len(), 89);
    }

    #[test]
    fn a_process_that_ended_can_be_started_again() {
        let mut host = Host::new(MS, || async { Err("full".to_owned()) });
        assert_eq!(host.tick(), Some(Err("full".to_owned())));
        assert!(!host.is_running());
        host.start();
        assert_eq!(host.tick(), Some(Err("full".to_owned())));
    }
}
