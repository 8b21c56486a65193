//! Every bound of the bridge, named, with its reason.
//!
//! **Owns** the numbers. **Must never** be configuration: what an operator may choose is in [`crate::config`].

use std::time::Duration;

/// Events taken from the feed and not confirmed: above it no frame is taken, and the node waits.
pub const WAITING_EVENTS: usize = 4_096;
/// Their bytes: above it no frame is taken.
pub const WAITING_BYTES: usize = 16 << 20;
/// Most messages that may be unconfirmed at the same time.
pub const UNCONFIRMED_MAX: usize = WAITING_EVENTS;
/// Messages handed over in one go, before verdicts are looked at again.
pub const BATCH: usize = 256;
/// The cursor is stored at most so often: each time is an fsync, and what a crash repeats is what was confirmed since.
pub const STORE_EVERY: Duration = Duration::from_millis(250);
/// A connection to the broker must stand within this time.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A batch must be on its way within this time.
pub const PUBLISH_WITHIN: Duration = Duration::from_secs(10);
/// With messages unconfirmed and no verdict for so long, the connection is given up.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// First pause between tries to connect, and after a refused message; doubled each time, drawn from the upper half.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between tries.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a connection on which nothing happens is looked at.
pub const LINK_LOOK: Duration = Duration::from_millis(500);
/// How often the cluster's ledger time is asked of the client's routing.
pub const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// Connections to the port of health and metrics.
pub const METRICS_CONNECTIONS_MAX: usize = 32;
/// Longest line that is read from a cursor file.
pub const CURSOR_FILE_BYTES_MAX: u64 = 1 << 20;

const _: () = assert!(BATCH <= UNCONFIRMED_MAX);
