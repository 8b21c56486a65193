//! HTTP/2's control frames of one host: pings, settings, resets and the like, which cost a caller nothing.
//!
//! **What it is.** Frames are counted as they are read. A connection whose host has sent more than its share is not read for a while, so
//! its caller waits as it does for a closed window. Nobody who sends what the protocol needs comes near.
//!
//! **Owns** each host's share. **Must never** close a connection, or look into a frame. **Read next**: [`super::connection`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::Source;
use tokio::time::Instant;

use crate::limits::{CONTROL_FRAMES_AT_ONCE, CONTROL_FRAMES_PER_SECOND};

/// What a connection begins with: `PRI * HTTP/2.0`, blank lines and `SM`.
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// With so many shares, those of hosts that left and owe nothing are looked for.
const SHARES_SWEPT: usize = 256;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The shares of all hosts that are connected.
#[derive(Debug, Default)]
pub(super) struct ControlShares(Mutex<BTreeMap<Source, Share>>);

/// One host's.
#[derive(Debug)]
struct Share {
    connections: usize,
    /// When what was sent so far would have been sent at the rate that it may be.
    even: Instant,
}

impl ControlShares {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Source, Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's control frames.
#[derive(Debug)]
pub(super) struct ControlFrames {
    shares: Arc<ControlShares>,
    source: Source,
    /// Bytes to pass over until a frame begins.
    skip: usize,
    /// What came of a frame's head.
    head: [u8; HEAD_BYTES],
    came: usize,
}

impl ControlFrames {
    /// Of a connection that was just accepted.
    pub(super) fn new(shares: Arc<ControlShares>, source: Source) -> Self {
        let mut all = shares.lock();
        let now = Instant::now();
        if all.len() >= SHARES_SWEPT && !all.contains_key(&source) {
            all.retain(|_, share| share.connections > 0 || share.even > now);
        }
        all.entry(source).or_insert(Share { connections: 0, even: now }).connections += 1;
        drop(all);
        Self { shares, source, skip: PREFACE_BYTES, head: [0; HEAD_BYTES], came: 0 }
    }

    /// Counts what was read. Some: no more may be read until then.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<Instant> {
        let frames = self.count(bytes);
        if frames == 0 {
            return None;
        }
        let now = Instant::now();
        let takes = |frames: u64| Duration::from_nanos(frames * 1_000_000_000 / CONTROL_FRAMES_PER_SECOND);
        let mut shares = self.shares.lock();
        let share = shares.get_mut(&self.source)?;
        share.even = share.even.max(now) + takes(frames);
        let until = share.even - takes(CONTROL_FRAMES_AT_ONCE);
        (until > now).then_some(until)
    }

    /// Control frames that begin in these bytes: their heads end there.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut frames = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD_BYTES - self.came);
            self.head[self.came..self.came + taken].copy_from_slice(&bytes[..taken]);
            self.came += taken;
            bytes = &bytes[taken..];
            if self.came == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                (self.skip, self.came) = (u32::from_be_bytes([0, a, b, c]) as usize, 0);
                frames += u64::from(!matches!(kind, DATA | HEADERS | CONTINUATION));
            }
        }
        frames
    }
}

impl Drop for ControlFrames {
    fn drop(&mut self) {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get_mut(&self.source) {
            share.connections -= 1;
            // Who comes again within the time that it owes still owes it.
            if share.connections == 0 && share.even <= Instant::now() {
                shares.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], &vec![0; payload]].concat()
    }

    fn of(shares: &Arc<ControlShares>, host: u8) -> ControlFrames {
        ControlFrames::new(shares.clone(), Source::from(IpAddr::from([10, 0, 0, host])))
    }

    #[tokio::test(start_paused = true)]
    async fn control_frames_are_counted_however_bytes_come() {
        const PING: u8 = 6;
        let all = [
            vec![b'x'; PREFACE_BYTES],
            frame(4, 6),
            frame(HEADERS, 300),
            frame(PING, 8),
            frame(DATA, 0),
            frame(PING, 8),
        ];
        let bytes = all.concat();
        for step in [1, 2, 7, 9, 24, 33, bytes.len()] {
            let mut frames = of(&Arc::default(), 1);
            let counted: u64 = bytes.chunks(step).map(|part| frames.count(part)).sum();
            assert_eq!((counted, frames.came, frames.skip), (3, 0, 0), "{step} bytes at a time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn host_with_more_control_frames_waits_on_all_of_its_connections_and_no_other_does() {
        let shares = Arc::new(ControlShares::default());
        let (mut one, mut same, mut other) = (of(&shares, 1), of(&shares, 1), of(&shares, 2));
        assert_eq!(one.read(&[b'x'; PREFACE_BYTES]), None);
        assert_eq!(same.read(&[b'x'; PREFACE_BYTES]), None);
        assert_eq!(other.read(&[b'x'; PREFACE_BYTES]), None);
        let pings = |count: u64| frame(6, 8).repeat(count as usize);
        let now = Instant::now();
        assert_eq!(one.read(&pings(CONTROL_FRAMES_AT_ONCE)), None);
        let until = same.read(&pings(CONTROL_FRAMES_PER_SECOND)).expect("it waits");
        assert_eq!(until - now, Duration::from_secs(1));
        assert_eq!(one.read(&frame(DATA, 9)), None, "what is a call's does not count");
        assert_eq!(other.read(&pings(1)), None);
        // A host that connects anew owes what the connections before it owed.
        drop((one, same));
        let mut again = of(&shares, 1);
        again.read(&[b'x'; PREFACE_BYTES]);
        assert!(again.read(&pings(1)).is_some_and(|until| until - now > Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(again.read(&pings(1)), None);
        drop((again, other));
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(of(&shares, 1));
        assert!(!shares.lock().contains_key(&Source::from(IpAddr::from([10, 0, 0, 1]))));
    }
}
