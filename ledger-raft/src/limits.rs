//! Every bound of this crate, by name, with its reason.
//!
//! **Owns** the numbers. **Must never** hold what replicas must agree on as configuration. **Read next**: [`crate::api`].

use std::time::Duration;

/// Largest entry that is proposed, and that the log and the wire carry: as much as the ledger's decoder accepts.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Room in the log beside an entry's bytes: its head.
pub const ENTRY_HEAD_ROOM: usize = 64;
/// The log takes no entry above this part of a segment, so that a segment is never nearly empty for one entry that does not fit.
pub const ENTRIES_PER_SEGMENT_MIN: u64 = 4;
/// Terms of leaders that a replica distinguishes in what it acknowledged since it started. Elections
/// are rare; of an older term the replica takes what others remember for its own.
pub const ACKNOWLEDGED_TERMS_MAX: usize = 64;
/// A voter says within that what it remembers of a replica that has started.
pub const REMEMBERED_WITHIN: Duration = Duration::from_millis(500);
/// Pause before those that did not answer are asked again, while the replica may not vote: short
/// beside an election.
pub const REMEMBERED_ASK_AGAIN: Duration = Duration::from_millis(100);
/// ... and once it may.
pub const REMEMBERED_ASK_LATE: Duration = Duration::from_secs(1);
/// Once a quorum has answered, the others have so long to answer, too: a dial and a request over a
/// distance. A host that is silent delays a vote by no more than that, and an election takes longer.
pub const REMEMBERED_GRACE: Duration = Duration::from_millis(200);
/// So often the replica that asks looks whether its members have changed.
pub const REMEMBERED_LOOK: Duration = Duration::from_secs(1);
const _: () = assert!(REMEMBERED_GRACE.as_millis() * 2 <= ELECTION_MIN.as_millis());
/// A replica begins a group once a majority of its founders has answered; it is tried again after
/// that. Longer than the longest pause between dials and one question.
pub const FOUNDERS_WITHIN: Duration = Duration::from_secs(2);
const _: () = assert!(
    FOUNDERS_WITHIN.as_millis()
        > REDIAL_MAX.as_millis() + REMEMBERED_WITHIN.as_millis() + REMEMBERED_ASK_AGAIN.as_millis()
);
/// A peer tells its term within that; a repair that hears nothing by then names it as missing.
pub const TERM_WITHIN: Duration = Duration::from_secs(5);
/// Pause before voters that came during a repair are asked again.
pub const SURVEY_AGAIN: Duration = Duration::from_secs(1);
/// Smallest log segment that a node may be configured with. [`ENTRY_BYTES_MAX`] fits into any segment from here on, so that members
/// need not agree on the size: what one of them takes into its log, all take.
pub const SEGMENT_BYTES_FLOOR: u64 = 20 << 20;
/// Largest log segment: offsets in it are 32 bits, and half of them are enough.
pub const SEGMENT_BYTES_MAX: u64 = 2 << 30;
/// Soft size of one append request: entries are added until it is passed, so one request is at most this plus one entry.
pub const APPEND_BYTES_SOFT: usize = 1 << 20;
/// Most entries of one append request.
pub const APPEND_ENTRIES_MAX: u64 = 512;
/// Largest frame between peers; anything longer closes the connection before it is allocated.
pub const FRAME_BYTES_MAX: usize = ENTRY_BYTES_MAX + APPEND_BYTES_SOFT + (1 << 20);
/// Largest answer or question of [`crate::RaftNode::ask_peer`].
pub const ASK_BYTES_MAX: usize = 4 << 20;

/// Version of the frames between peers and of their bodies; peers of another one are refused.
pub const PEER_PROTOCOL: u16 = 5;

/// Append requests of one stream that wait for an answer; the receiver's queue has the same length, so a stream never
/// blocks the connection it shares.
pub const STREAM_IN_FLIGHT_MAX: usize = 64;
/// Bytes of one stream that wait for an answer.
pub const STREAM_BYTES_IN_FLIGHT_MAX: usize = 16 << 20;
/// Word of a commit alone waits so long for entries that bring it as well: a message, its answer and two wake-ups less.
pub const COMMIT_WORD_WAITS: Duration = Duration::from_millis(2);
/// ... but not when so many bytes of entries were committed, which a follower should apply meanwhile.
pub const COMMIT_WORD_WAITS_BYTES: usize = 4 << 10;
/// Largest term of any message or log: an election a millisecond for a hundred million years. openraft adds one to terms, and no
/// vote may be given that nobody can outbid.
pub const TERM_MAX: u64 = 1 << 62;
/// A message is refused that names a term so far above the receiver's: an election every 0.1 s for 13 years, while the receiver was
/// away. So one false message cannot use the terms up.
pub const TERM_STEP_MAX: u64 = 1 << 32;
/// Largest index of any message or log: a million entries a second for a hundred thousand years.
pub const INDEX_MAX: u64 = 1 << 62;
/// Largest stamp of an entry and largest reading of a wall clock: the end of the year 9999. Sums with any interval of the ledger
/// stay far below 2^63.
pub const STAMP_MS_MAX: u64 = 253_402_300_799_999;
/// Largest snapshot that is pulled from a peer.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

/// Streams one peer may have open on one connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 4096;
/// Control requests of one peer that are worked on at once; more wait in the socket.
pub const CONTROL_IN_FLIGHT_MAX: usize = 256;
/// Frames queued for a connection's writer.
pub const SEND_QUEUE_FRAMES: usize = 1024;
/// Bytes of answers queued for a connection's writer; an answer alone may be larger. Beyond them
/// nothing more is answered until the peer has read.
pub const SEND_QUEUE_BYTES: usize = 16 << 20;
/// Openings and closes of streams queued for a connection's writer: one of each for every stream.
/// Beyond them the connection ends.
pub const SEND_URGENT_MAX: usize = 2 * STREAMS_PER_CONNECTION_MAX;
/// Frames one write call gathers.
pub const WRITE_BATCH_FRAMES: usize = 64;
/// Bytes a connection's reader asks for at first: an idle peer takes no more.
pub const READ_BUFFER_MIN: usize = 4 << 10;
/// Bytes it asks for at once when the peer sends much.
pub const READ_CHUNK_BYTES: usize = 128 << 10;

/// A connection attempt that takes longer failed.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A handshake that takes longer failed.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted, if the system allows as many: what one host opens at once must leave room, or the next
/// caller's first packet is dropped and comes again a second later.
pub const LISTEN_BACKLOG: u32 = 4_096;
/// Accepted connections that have not sent a hello: beyond it the oldest of the source with most of them is closed. A member
/// says so with its first packet.
pub const GREETINGS_MAX: usize = 32;
/// ... of one source: beyond it its oldest is closed. All other members may come from one, each with both lanes at once.
pub const GREETINGS_PER_SOURCE_MAX: usize = 16;
/// Connections of one member for one lane: the one in use, and one that its member has lost and this node has not noticed yet. Beyond it
/// the oldest is closed.
pub const PEER_CONNECTIONS_PER_LANE_MAX: usize = 2;
/// First pause after a failed connection attempt; doubled up to [`REDIAL_MAX`], with jitter.
pub const REDIAL_MIN: Duration = Duration::from_millis(50);
/// Longest pause between connection attempts.
pub const REDIAL_MAX: Duration = Duration::from_secs(1);
/// A run of a node that is heard so long after a newer one connected may be a second live process: what
/// a process sent before its end is mostly read long before.
pub const TWIN_AFTER: Duration = Duration::from_secs(5);
/// It is one when it is heard for so long: what lies in a socket that nobody read is read at once.
pub const TWIN_PROVED: Duration = Duration::from_secs(2);
/// A second process counts as live for so long after it was heard.
pub const TWIN_FRESH: Duration = Duration::from_secs(60);
/// An idle connection is pinged that often, so that a half-open one is noticed.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// A connection that was silent for that long is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
/// An append stream that waits longer for one answer is given up; larger than any healthy sync.
pub const STREAM_STALL_MAX: Duration = Duration::from_secs(8);

/// One slot of the identity file: what a disk writes at once, and tears at worst as a whole.
pub const IDENTITY_SLOT_BYTES: usize = 4096;
/// Bytes of one checksummed chunk of a snapshot file.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Snapshot chunks sent and not yet acknowledged.
pub const SNAPSHOT_CHUNKS_IN_FLIGHT: usize = 8;
/// One chunk takes at most that long.
pub const SNAPSHOT_CHUNK_WITHIN: Duration = Duration::from_secs(30);
/// Snapshot files of a group that are kept: the newest, and the one before it should the newest be rotten.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Longest membership a snapshot header or an entry may carry.
pub const MEMBERS_MAX: usize = 64;
/// Longest peer address.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// A whole snapshot transfer, building and installing included, takes at most that long.
pub const SNAPSHOT_TRANSFER_WITHIN: Duration = Duration::from_secs(600);
/// The log is purged when at least that many entries can go at once.
pub const PURGE_BATCH_ENTRIES: u64 = 4096;
/// How often the snapshot schedule looks at a group.
pub const SNAPSHOT_LOOK_EVERY: Duration = Duration::from_secs(1);
/// A state machine or a core that the snapshot schedule asks has that long to answer; it is asked again at a later look.
pub const UPKEEP_CALL_WITHIN: Duration = Duration::from_secs(5);
/// A snapshot is the only one that is built on its node for that long; a larger one then shares the disk with the next.
pub const SNAPSHOT_ALONE_WITHIN: Duration = Duration::from_secs(60);
/// A snapshot of at most so many bytes is built whenever it is due. A larger one waits until the log has grown by as much as the last one took, so
/// that snapshots are at most half of what a busy group writes, however large its state. The log then has up to twice the state's bytes.
pub const SNAPSHOT_SMALL_BYTES: u64 = 64 << 20;
/// It waits for so many times the entries after which a small one is due at most: each costs a few bytes of index, and a start applies them again.
pub const SNAPSHOT_LATE_FACTOR: u64 = 16;
/// After a snapshot could not be built, or not be read back, the next attempt waits that long.
pub const SNAPSHOT_RETRY: Duration = Duration::from_secs(30);
/// A group that applied no more than [`QUIET_BYTES`] for that long is quiet: a snapshot is worth building once it sets a log segment free.
pub const QUIET_AFTER: Duration = Duration::from_secs(120);
/// Sweeps, ticks and a caller now and then.
pub const QUIET_BYTES: u64 = 1 << 20;

/// Leader's heartbeat: 100 ms, so that a follower learns of a commit and of a lost leader soon; an idle group costs ten small
/// messages a second and follower.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
/// Shortest election time; its longest one is the leader's lease.
pub const ELECTION_MIN: Duration = Duration::from_millis(400);
/// Longest election time, and the lease that followers give a leader. A killed leader is replaced when it is over.
pub const ELECTION_MAX: Duration = Duration::from_millis(600);
/// A group has no quorum once no leader was heard for so many of the longest election times: the
/// lease of the last leader, an election, and one more for a vote that was split.
pub const NO_QUORUM_AFTER_ELECTIONS: u32 = 3;
/// What was last found out about the way to a peer says nothing about it any more after that time.
/// A candidate asks all voters within an election time, and a redial is due after [`REDIAL_MAX`].
pub const PEER_FAULT_FRESH: Duration = Duration::from_secs(5);
/// A peer that answers on an open connection is heard at least that often; one that is not does not
/// answer.
pub const PEER_SILENT_AFTER: Duration = Duration::from_secs(2);
/// A disk that stalls for that long costs no leader its lease.
pub const STALL_BUDGET: Duration = Duration::from_millis(300);
/// What is left for the network and for processes that wait for a processor.
pub const ROUND_TRIP_BUDGET: Duration = Duration::from_millis(100);
// Between two heartbeats lies their interval, the look that finds it due (13/64 of it), and the pause after an acknowledgement that
// makes one needless (half of it).
const _: () = assert!(
    HEARTBEAT.as_millis() * (64 + 13 + 32) / 64 + STALL_BUDGET.as_millis() + ROUND_TRIP_BUDGET.as_millis()
        < ELECTION_MAX.as_millis()
);
/// A port that neither takes nor refuses a connection within that time says nothing about its process.
pub const FAILOVER_PROBE_WITHIN: Duration = Duration::from_millis(100);
/// A port that takes a connection is asked so often whether its process is gone.
pub const FAILOVER_PROBES: u32 = 3;
/// ... after this pause.
pub const FAILOVER_PROBE_AGAIN: Duration = Duration::from_millis(20);
/// A candidate's vote is left alone for so many looks: two syncs and an answer, also on a slow disk.
pub const FAILOVER_CANDIDATE_LOOKS: u32 = 3;
/// Once its leader's process is gone, a voter stands for election that often, until the lease is over and another leads.
pub const FAILOVER_AGAIN: Duration = Duration::from_millis(50);
/// A vote that is split, or lost to a voter with a longer log, is repeated that often behind the lease.
pub const FAILOVER_TRIES_AFTER_LEASE: u32 = 10;

/// The leader asks its peers for their clocks that often.
pub const CLOCK_ASK_EVERY: Duration = Duration::from_secs(1);
/// ... and that often while it has no quorum of them.
pub const CLOCK_ASK_EVERY_UNSURE: Duration = Duration::from_millis(100);
/// By how much more than elapsed time a leader's clock may move ledger time on while replicas run that heard a leader, by default. An
/// honest cluster sees the bound of its clocks, and what a time server sets right after the nodes began: seconds.
pub const CLOCK_JUMP_MAX: Duration = Duration::from_secs(60);
/// What a replica expects of ledger time falls by so much a second at most while a leader says a little less: elapsed time that goes
/// one per cent too fast.
pub const CLOCK_EXPECTED_DRIFT_MS: i64 = 10;
/// ... and by this part of the difference, so that one question that came late changes little.
pub const CLOCK_EXPECTED_FOLLOWS: i64 = 64;
/// A clock answer that took longer to arrive says nothing.
pub const CLOCK_ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// A leader that was unsure of its clock for that long hands leadership over.
pub const CLOCK_UNSURE_HANDOVER: Duration = Duration::from_secs(2);
/// ... and does not try again before that.
pub const CLOCK_HANDOVER_EVERY: Duration = Duration::from_secs(10);

/// Reads that wait for a ReadIndex round.
pub const READS_QUEUED_MAX: usize = 1 << 16;
/// One ReadIndex round takes at most that long, then its readers try again or give up.
pub const READ_ROUND_WITHIN: Duration = Duration::from_secs(1);
/// Pause of a reader before it asks again when there is no leader and nothing changes.
pub const READ_RETRY_PAUSE: Duration = Duration::from_millis(20);
/// A peer answers within that for the hash of one entry.
pub const ENTRY_ASK_WITHIN: Duration = Duration::from_secs(2);
/// Pause before the peers are asked again for an entry that no quorum confirmed.
pub const ENTRY_ASK_AGAIN: Duration = Duration::from_millis(500);
/// A leader that does not know a committed entry tries to hand over that often.
pub const HALTED_HANDOVER_EVERY: Duration = Duration::from_secs(1);
/// A reinstall waits so long for the end of the state machine before: it ends what it has begun, at
/// most the install of one snapshot.
pub const MACHINE_ENDS_WITHIN: Duration = SNAPSHOT_TRANSFER_WITHIN;
/// Entries applied before the state machine's task lets others run.
pub const APPLY_AT_ONCE_ENTRIES: usize = 32;
/// Bytes of entries applied without letting others run first: some seventy reserves, a tenth of a millisecond.
pub const APPLY_AT_ONCE_BYTES: usize = 4 << 10;
/// Entries read from the log at once to be applied.
pub const APPLY_READ_ENTRIES: u64 = 256;
/// Status is published at most that often for mere progress; changes of role, leader and members are never held back.
pub const STATUS_EVERY: Duration = Duration::from_millis(10);

const _: () = assert!(TWIN_PROVED.as_millis() >= 2 * PING_EVERY.as_millis());
const _: () = assert!(PEER_SILENT_AFTER.as_millis() >= 2 * PING_EVERY.as_millis());
const _: () = assert!(PEER_FAULT_FRESH.as_millis() > 2 * REDIAL_MAX.as_millis());
const _: () = assert!(ENTRY_HEAD_ROOM >= crate::codec::ENTRY_HEAD_BYTES);
const _: () = assert!((ENTRY_BYTES_MAX + ENTRY_HEAD_ROOM) as u64 * ENTRIES_PER_SEGMENT_MIN <= SEGMENT_BYTES_FLOOR);
const _: () = assert!(SEGMENT_BYTES_FLOOR.is_multiple_of(4096) && SEGMENT_BYTES_FLOOR < SEGMENT_BYTES_MAX);
const _: () = assert!(TERM_MAX < u64::MAX / 2 && TERM_STEP_MAX < TERM_MAX && INDEX_MAX < u64::MAX / 2);
const _: () = assert!(STAMP_MS_MAX < 1 << 48);
const _: () = assert!(APPEND_BYTES_SOFT < FRAME_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX + APPEND_BYTES_SOFT < FRAME_BYTES_MAX);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES < FRAME_BYTES_MAX && (SNAPSHOT_CHUNK_BYTES as u64) < SNAPSHOT_BYTES_MAX);
const _: () = assert!(ASK_BYTES_MAX < FRAME_BYTES_MAX);
