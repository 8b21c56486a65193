//! Bounds of commands, checked by the same functions when a command is written and when it is read.
//!
//! **Owns** what the types of a command leave open: numbers of lines and keys, intervals, policies, ranges of slots. **Must never** change for a format
//! that was released: `tests/golden/entries-v1.txt` keeps bytes and verdicts. **Read next**: [`super::commands`].

use crate::command::{LimitKeys, Lines};
use crate::limits;
use crate::types::{Line, Policy, Slot};

/// Why a value has no place in an entry.
pub(super) type Checked<T = ()> = Result<T, String>;

#[inline]
pub(super) fn lines(lines: &[Line]) -> Checked {
    // An entry that nobody can decode has to get into the log for a replica to end at it.
    if crate::bad!("undecodable-entry-aborts") {
        return Ok(());
    }
    if crate::bad!("entry-bounds-unchecked") {
        return Ok(());
    }
    line_count(lines.len() as u64).map(drop)
}

#[inline]
pub(super) fn line_count(n: u64) -> Checked<usize> {
    ranged("the number of lines", n, 1, limits::LINES_MAX as u64).map(|n| n as usize)
}

#[inline]
pub(super) fn key_count(n: u64) -> Checked<usize> {
    ranged("the number of limit keys", n, 0, limits::LIMIT_KEYS_MAX as u64).map(|n| n as usize)
}

pub(super) fn reserve(reserve: Option<&(LimitKeys, Lines)>) -> Checked {
    let Some((keys, given)) = reserve else { return Ok(()) };
    key_count(keys.len() as u64)?;
    lines(given)
}

#[inline]
pub(super) fn hold_ms(n: u64) -> Checked<u64> {
    ranged("a hold's time", n, limits::HOLD_MS_MIN, u64::MAX)
}

pub(super) fn pay_within_ms(n: u64) -> Checked<u64> {
    ranged("the time to pay", n, limits::HOLD_MS_MIN, u64::MAX)
}

pub(super) fn lease_ms(n: u64) -> Checked<u64> {
    ranged("a lease's time", n, limits::LEASE_MS_MIN, limits::LEASE_MS_MAX)
}

pub(super) fn attempt_ms(n: u64) -> Checked<u64> {
    ranged("an attempt's time", n, 0, limits::LEASE_MS_MAX)
}

pub(super) fn claim(n: u64) -> Checked<u32> {
    ranged("orders of a claim", n, 1, limits::CLAIM_MAX.into()).map(|n| n as u32)
}

pub(super) fn after_ms(n: u64) -> Checked<u64> {
    ranged("a delay", n, 0, limits::DELAY_MS_MAX)
}

pub(super) fn generation(n: u64) -> Checked<u32> {
    ranged("a generation", n, 1, u32::MAX.into()).map(|n| n as u32)
}

pub(super) fn secret(text: &str) -> Checked {
    ranged("the bytes of a secret", text.len() as u64, 0, limits::SECRET_BYTES_MAX as u64).map(drop)
}

pub(super) fn delta(n: i64) -> Checked<i64> {
    if n == 0 { Err("an adjustment by nothing".to_owned()) } else { Ok(n) }
}

pub(super) fn policy(policy: &Policy) -> Checked {
    policy.validate().map_err(|why| why.to_string())
}

/// A newer build's version is not proposed by this one: it would stop at its own entry.
pub(super) fn behaviour(n: u64) -> Checked {
    ranged("a behaviour version", n, 0, limits::BEHAVIOUR_VERSION_MAX.into()).map(drop)
}

pub(super) fn range_count(n: u64) -> Checked<usize> {
    ranged("the number of slot ranges", n, 0, limits::SLOT_RANGES_MAX as u64).map(|n| n as usize)
}

/// One more range, behind the last one.
pub(super) fn range(before: Option<(Slot, Slot)>, (from, to): (Slot, Slot)) -> Checked {
    if from > to || before.is_some_and(|(_, end)| end >= from) {
        return Err("slot ranges are not sorted and disjoint".to_owned());
    }
    Ok(())
}

pub(super) fn ranges(ranges: &[(Slot, Slot)]) -> Checked {
    range_count(ranges.len() as u64)?;
    let mut before = None;
    ranges.iter().try_for_each(|&one| range(before.replace(one), one))
}

#[inline]
fn ranged(what: &str, n: u64, min: u64, max: u64) -> Checked<u64> {
    if (min..=max).contains(&n) { Ok(n) } else { Err(out_of_range(what, n, min, max)) }
}

#[cold]
fn out_of_range(what: &str, n: u64, min: u64, max: u64) -> String {
    format!("{what} is {n}, allowed is {min} to {max}")
}
