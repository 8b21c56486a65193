//! What the system gives a simulated run instead of its own chance and clocks: `getrandom` and `clock_gettime` of the C library.
//!
//! **What it is.** Everything of ours asks the seams, but libraries ask the system: the keys of a `HashMap` (map fields of a message are
//! written in its order), the `date` header of an answer, how old a reset stream is. The standard library looks these two up by name
//! so that a program may put its own in their place; on a thread that runs a simulation they answer out of the seed and
//! simulated time, on any other thread they are the system's own.
//!
//! **Owns** a thread's simulated time, which is the one source of "now" in a run. **Must never** change what another thread is told.
//! **Read next**: [`super::host`], which moves it.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

use crate::world::EPOCH_MS;

#[derive(Clone, Copy)]
struct Inside {
    elapsed: Duration,
    chance: u64,
    /// So far time leaps each time somebody looks.
    leap: Duration,
}

thread_local! {
    static INSIDE: Cell<Option<Inside>> = const { Cell::new(None) };
}

/// Where the monotonic clock of a simulated thread begins; so far from zero that subtracting a long time stays positive.
const MONOTONIC_EPOCH: Duration = Duration::from_secs(1_000_000);

/// This thread is a simulation now, at time zero.
pub(super) fn enter(seed: u64) {
    INSIDE.set(Some(Inside { elapsed: Duration::ZERO, chance: seed ^ 0x6a09_e667_f3bc_c908, leap: Duration::ZERO }));
}

/// Does something on a thread of its own where each look at the clock finds a second gone: who measures clocks against each other, for a
/// while of its own choice, is done at once.
pub(super) fn in_no_time(what: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        INSIDE.set(Some(Inside { elapsed: Duration::ZERO, chance: 0, leap: Duration::from_secs(1) }));
        what();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// This thread is as others are again.
pub(super) fn leave() {
    INSIDE.set(None);
}

/// Simulated time of this thread goes on.
pub(super) fn advance_to(elapsed: Duration) {
    if let Some(inside) = INSIDE.get() {
        INSIDE.set(Some(Inside { elapsed, ..inside }));
    }
}

/// Simulated time since the run began; none outside of a run.
pub(crate) fn elapsed() -> Option<Duration> {
    INSIDE.get().map(|inside| inside.elapsed)
}

/// What a look at the clock finds.
fn look() -> Option<Duration> {
    let inside = INSIDE.get()?;
    if !inside.leap.is_zero() {
        INSIDE.set(Some(Inside { elapsed: inside.elapsed + inside.leap, ..inside }));
    }
    Some(inside.elapsed)
}

/// SplitMix64.
fn draw() -> Option<u64> {
    let mut inside = INSIDE.get()?;
    inside.chance = inside.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    INSIDE.set(Some(inside));
    let mut z = inside.chance;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(z ^ (z >> 31))
}

/// The C library's `getrandom`.
///
/// # Safety
/// `buf` is valid for writes of `len` bytes, as the C library demands.
#[expect(unsafe_code, reason = "the name the standard library looks up; it writes where its caller said")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buf: *mut c_void, len: usize, flags: c_uint) -> isize {
    if elapsed().is_none() {
        // SAFETY: the caller's own arguments, passed on to the system call of the same contract.
        return unsafe { libc::syscall(libc::SYS_getrandom, buf, len, flags) as isize };
    }
    for at in 0..len {
        let byte = draw().unwrap_or_default() as u8;
        // SAFETY: `at < len`, and the caller vouches for `len` bytes.
        unsafe { buf.cast::<u8>().add(at).write(byte) };
    }
    len as isize
}

/// The C library's `clock_gettime`.
///
/// # Safety
/// `at` is valid for a write, as the C library demands.
#[expect(unsafe_code, reason = "the name the standard library calls; it writes where its caller said")]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, at: *mut libc::timespec) -> c_int {
    let Some(elapsed) = look() else {
        // SAFETY: the caller's own arguments, passed on to the system call of the same contract.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, at) as c_int };
    };
    let base = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Duration::from_millis(EPOCH_MS),
        _ => MONOTONIC_EPOCH,
    };
    let now = base + elapsed;
    let told = libc::timespec { tv_sec: now.as_secs() as i64, tv_nsec: i64::from(now.subsec_nanos()) };
    // SAFETY: the caller vouches for `at`.
    unsafe { at.write(told) };
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    fn order_of_a_map(seed: u64) -> Vec<u32> {
        let run = move || {
            enter(seed);
            (0..100).map(|n| (n, ())).collect::<HashMap<u32, ()>>().into_keys().collect()
        };
        std::thread::spawn(run).join().expect("it runs")
    }

    #[test]
    fn the_order_of_a_map_is_the_seeds() {
        assert_eq!(order_of_a_map(1), order_of_a_map(1));
        assert_ne!(order_of_a_map(1), order_of_a_map(2));
    }

    fn wall() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
    }

    #[test]
    fn the_systems_clocks_are_simulated_inside_and_real_outside() {
        let inside = std::thread::spawn(|| {
            enter(7);
            let began = (wall(), Instant::now());
            advance_to(Duration::from_millis(1_500));
            let then = (wall() - began.0, began.1.elapsed());
            leave();
            (began.0, then, wall())
        });
        let (began, then, after) = inside.join().expect("it runs");
        assert_eq!(began, Duration::from_millis(EPOCH_MS));
        assert_eq!(then, (Duration::from_millis(1_500), Duration::from_millis(1_500)));
        let real = wall();
        assert!(real >= after && real - after < Duration::from_secs(60), "{after:?} and then {real:?}");
    }
}
