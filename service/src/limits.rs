//! Every bound on connections, named, with its reason.
//!
//! **Owns** the numbers. **Must never** be configuration: a program chooses how many connections it
//! takes, not these.
//! **Read next**: [`crate::gate`].

use std::time::Duration;

/// Share of a port's connections that one source may have, so that others always find room.
pub const CONNECTIONS_PER_SOURCE_PERCENT: usize = 50;
/// Connections from untrusted networks: enough that a client at a wrong address reads why it is
/// refused, and probes get in.
pub const UNTRUSTED_CONNECTIONS_MAX: usize = 16;
/// ... of one source.
pub const UNTRUSTED_PER_SOURCE_MAX: usize = 2;
/// A connection from an untrusted network is closed after so long, whatever it does.
pub const UNTRUSTED_WITHIN: Duration = Duration::from_secs(5);
/// HTTP connections beyond the bound that may ask for health and metrics; the oldest gives way to
/// the next.
pub const HTTP_PROBE_PLACES: usize = 64;
/// Such a connection must have sent its request after so long ...
pub const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// ... and is closed after so long.
pub const PROBE_CLOSED_AFTER: Duration = Duration::from_secs(5);
/// A client that connects has something to say: its first byte must come so soon ...
pub const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(5);
/// ... and its first call so soon, both counted from the accept.
pub const FIRST_CALL_WITHIN: Duration = Duration::from_secs(10);
/// How long an HTTP connection may stay idle between two requests, and the headers of a later one
/// may take: longer than proxies keep idle connections, which would send a request as it is
/// closed. The first request is bounded by [`FIRST_CALL_WITHIN`], and at a bound an idle connection
/// gives way long before.
pub const HTTP_HEADERS_WITHIN: Duration = Duration::from_secs(75);
/// A connection that made calls and has been idle for so long may lose its place to a newcomer, at
/// a bound only.
pub const IDLE_REPLACED_AFTER: Duration = Duration::from_secs(1);
/// A connection whose peer takes nothing for so long is closed.
pub const WRITE_STALLED_WITHIN: Duration = Duration::from_secs(30);
/// Bytes buffered for one connection: answers that its peer has not taken, and requests that it has
/// not finished. Beyond them the connection is closed. More than any client that reads lets gather.
pub const BUFFERED_PER_CONNECTION: usize = 64 << 20;
/// ... for all connections of a port: of the source with the most, the connection with the most is
/// closed.
pub const BUFFERED_MAX: usize = 256 << 20;
/// A connection of whose buffered bytes none was taken, and no request went on, for so long is
/// closed: its peer answers pings, and reads nothing.
pub const BUFFERED_WITHIN: Duration = Duration::from_secs(30);
/// Calls under way on one port: each costs a stream's state, and what its request needs.
pub const CALLS_MAX: usize = 16_384;
/// ... of one source.
pub const CALLS_PER_SOURCE_MAX: usize = 8_192;
/// So many connections may have given way and not be gone yet: with more, the next is not accepted.
pub const CLOSING_MAX: usize = 4;
/// ... but for so long at most.
pub const REPLACED_GONE_WITHIN: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections are logged that often, with their count.
pub const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Descriptors beyond these are of no use to any program here.
pub const DESCRIPTORS_WANTED: u64 = 65_536;

const _: () = assert!(FIRST_BYTE_WITHIN.as_millis() <= FIRST_CALL_WITHIN.as_millis());
const _: () = assert!(BUFFERED_PER_CONNECTION * 2 <= BUFFERED_MAX);
const _: () = assert!(CALLS_PER_SOURCE_MAX * 2 <= CALLS_MAX);
const _: () = assert!(PROBE_WITHIN.as_millis() < PROBE_CLOSED_AFTER.as_millis());
const _: () = assert!(UNTRUSTED_PER_SOURCE_MAX <= UNTRUSTED_CONNECTIONS_MAX);
