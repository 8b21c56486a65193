//! Every bound of the client, named, with its reason.

use std::time::Duration;

use ledger_proto::limits as wire;

use crate::breaker::BreakerNumbers;

/// Deadline of calls that name none.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(2);
/// One attempt waits so long for its answer; then it counts as in doubt, and the call is asked again through another node, with the same
/// id. Half the default deadline, so that one frozen node does not use it up.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Calls that may wait for answers on one stream. More than that wait for room: back-pressure instead of memory.
pub const IN_FLIGHT_MAX: usize = 65_536;
/// Bytes of calls that may wait to be sent on one stream: some frames, so that a connection that
/// takes nothing costs little.
pub const UNSENT_BYTES_MAX: usize = 8 << 20;
/// A frame is closed at so many bytes, well below what a node takes, so that no single call can push it over the bound.
pub const FRAME_BYTES: usize = 1 << 20;
/// A frame is closed at so many calls.
pub const FRAME_CALLS: usize = wire::CALLS_PER_FRAME_MAX;
/// Streams per node at most: more only cost wake-ups.
pub const STREAMS_MAX: usize = 64;
/// A connection must stand within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A node that has said nothing for so long is pinged.
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
/// A ping unanswered for so long means that the connection is dead.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// First pause between tries of a call, and between tries to open a stream; doubled each time, and
/// drawn from the upper half.
pub const BACKOFF_MIN: Duration = Duration::from_millis(4);
/// Longest pause between tries of a call.
pub const BACKOFF_MAX: Duration = Duration::from_millis(128);
/// Longest time after which a caller is told to come back, whatever a server says: a wrong number must not send it away for weeks.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// A deadline that lies further ahead than the clock can tell is this far ahead instead.
pub const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Pause between two dials of a node that does not answer, at first ...
pub const DIAL_PAUSE_MIN: Duration = Duration::from_millis(50);
/// ... and at last: a client that has nothing to ask may live for days beside a dead node.
pub const DIAL_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest pause between tries to open a stream over a connection that stands.
pub const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// A leader named by a node is followed at once so many times a call; then pauses keep two nodes that name each other from spinning.
pub const HINTS_MAX: u32 = 2;
/// Routing is asked for anew at most so often.
pub const REFRESH_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between questions for the routing while no node answers them. A caller who needs
/// it shortens one to [`RECONNECT_MAX`].
pub const REFRESH_FAILED_MAX: Duration = Duration::from_secs(5);
/// Routing is asked for anew at least so often.
pub const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// One node has so long to answer with its routing.
pub const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);
/// Nodes asked for their routing at the same time.
pub const REFRESH_NODES: usize = 3;
/// How long `connect` tries to learn the routing.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Offers read together in one call.
pub const READS_PER_CALL: usize = wire::OFFERS_PER_READ_MAX;
/// Such calls under way per node; a read waits for the next one, never behind the one after.
pub const READS_IN_FLIGHT: usize = 4;
/// How long there is to pay for orders that do not say.
pub const PAY_WITHIN_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Leases of claims that do not say: a few times what the slowest step of a worker takes.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// What an attempt to pay takes at most, for claims that do not say: two time-outs of a provider.
pub const ATTEMPT_DEFAULT: Duration = Duration::from_secs(10);
/// Whoever waits for an order looks at it at least so often, whatever the feed says.
pub const WAIT_LOOK_EVERY: Duration = Duration::from_secs(1);
/// When reads of stock that may fall back stop asking the leader.
pub const STOCK_BREAKER: BreakerNumbers =
    BreakerNumbers { failures: 7, window: Duration::from_secs(60), open_for: Duration::from_secs(10) };
/// Frames of a watch that wait for a slow consumer; then its node waits.
pub const WATCH_FRAMES: usize = 16;
/// Nodes that may answer one after the other that a watch does not go on behind its cursor, before it ends: more than replicas a shard has.
pub const WATCH_REFUSALS_MAX: u32 = 8;
/// HTTP/2's window of one watch: a frame and the next.
pub const WATCH_STREAM_WINDOW: u32 = 128 << 10;
/// ... and of all watches of a client on one node: so many that none waits for one that is not read.
pub const WATCH_CONNECTION_WINDOW: u32 = 256 * WATCH_STREAM_WINDOW;
/// A watch that hears nothing for so long asks another node; a node sends a frame every second even when nothing happens.
pub const WATCH_SILENT_MAX: Duration = Duration::from_secs(15);

const _: () = assert!(FRAME_BYTES * 2 <= UNSENT_BYTES_MAX);
const _: () = assert!(FRAME_BYTES * 2 <= wire::FRAME_BYTES_MAX);
const _: () = assert!(PATIENCE.as_millis() * 2 <= DEADLINE_DEFAULT.as_millis());
