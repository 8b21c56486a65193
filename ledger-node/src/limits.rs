//! Every bound of the node, by name, with its reason.
//!
//! **Owns** the numbers. **Must never** hold what replicas have to agree on: that lives in the core's limits or goes through
//! the log. **Read next**: [`crate::door`].

use std::time::Duration;

use crate::history::PageBounds;

/// Calls waiting at one shard's door. Eight full entries, of which reserves may use six: about 150 ms of work at full speed.
pub const QUEUE_CALLS_DEFAULT: usize = 65_536;
/// Bytes that the calls waiting at one shard's queue take, at least as many as they really do.
pub const QUEUE_BYTES_DEFAULT: usize = 24 << 20;
/// Most bytes that one call takes while it waits: an order with all its lines, keys and sealed contents.
pub const QUEUED_CALL_BYTES_MAX: usize = 10 << 10;
/// ... and what a reserve of one line takes, with the longest names.
pub const QUEUED_RESERVE_BYTES: usize = 512;
/// Percent of the queue that only confirms, releases, fences, ticks and reports may use: they free stock and must get through.
pub const RESERVED_PERCENT_DEFAULT: u32 = 25;
/// Calls or bytes of a queue that reserves may use: all but the reserved share.
pub const fn bulk_share(all: usize, reserved_percent: u32) -> usize {
    all - all / 100 * reserved_percent as usize - all % 100 * reserved_percent as usize / 100
}
/// Entries of one shard in flight at once. Measured: 1 costs 15 %, 2 loses 3–8 %, more than 4 gains nothing.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// Bytes of one entry, well below what the core's decoder and the log accept: calls are taken until their bytes reach it, and the last
/// of them goes in whole. Half of what the log takes, should that be less.
pub const ENTRY_BYTES_SOFT_MAX: usize = 2 << 20;
/// After every peer was asked in vain to repair a stopped replica, the first pause before they are asked again ...
pub const REPAIR_PAUSE_MIN: Duration = Duration::from_secs(1);
/// ... and the longest: a peer that comes back is found soon.
pub const REPAIR_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often deadlines are looked at while something waits past one. One scan a shard, not a timer a call.
pub const DEADLINE_SCAN: Duration = Duration::from_millis(5);
/// What a caller is told to wait when the queue is full.
pub const RETRY_OVERLOADED_MS: u32 = 20;
/// What a caller is told to wait while an election is under way.
pub const RETRY_ELECTION_MS: u32 = 50;
/// When to come back after a connection that came beyond the bound.
pub const RETRY_CONNECTIONS_MS: u32 = 1_000;
/// What a caller is told to wait when disk or clock forbid writing.
pub const RETRY_UNWELL_MS: u32 = 500;
/// The leader proposes a tick that soon after something became due on an idle shard (the contract says 50 ms).
pub const TICK_AFTER_DUE: Duration = Duration::from_millis(10);
/// How often an idle leader looks whether something is due at all; also bounds how late it learns of a new due instant.
pub const TICK_LOOK: Duration = Duration::from_millis(25);
/// How often a queue that takes no calls looks whether its shard has a quorum, and a queue in which
/// nothing waits whether it takes calls.
pub const QUORUM_LOOK_EVERY: Duration = Duration::from_secs(1);
/// A replica that was not current for that long makes its node unready. Replicas learn how current
/// they are once a second.
pub const READY_AGE_MAX: Duration = Duration::from_secs(5);
/// What a node waits for is logged when it changes, and again that often.
pub const WAITING_LOGGED_EVERY: Duration = Duration::from_secs(30);
/// How long the node's own commands (ticks, slots, settings) wait for their answer.
pub const OWN_COMMAND_WITHIN: Duration = Duration::from_secs(5);
/// How often the leader compares digests with the other replicas.
pub const DIGEST_COMPARE_EVERY: Duration = Duration::from_secs(1);
/// How long a peer may take to answer a question of the node's.
pub const PEER_QUESTION_WITHIN: Duration = Duration::from_secs(1);
/// How often the reconciler looks when nothing woke it.
pub const RECONCILE_EVERY: Duration = Duration::from_millis(500);
/// How often the balancer looks.
pub const BALANCE_EVERY: Duration = Duration::from_secs(1);
/// Entries the preferred replica may be behind before leadership is handed to it.
pub const BALANCE_BEHIND_MAX: u64 = 64;
/// How long one leadership transfer may take.
pub const TRANSFER_WITHIN: Duration = Duration::from_secs(2);
/// After a transfer that did not happen, the balancer leaves the shard alone for so long.
pub const BALANCE_BACK_OFF: Duration = Duration::from_secs(30);
/// How long `init` waits for one other node to answer.
pub const JOIN_WITHIN: Duration = Duration::from_secs(5);
/// How long `init` waits until every shard has a leader and its slots.
pub const INIT_WITHIN: Duration = Duration::from_secs(30);
/// Members of a cluster: each is a voter of the meta group, where it learns what to run, and more voters than that only slow it down.
pub const MEMBERS_MAX: usize = 5;
/// Longest address of a member: a name of 255 bytes and a port, with room.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Replicas of a shard.
pub const REPLICAS_MAX: u32 = 5;
/// Shards of a cluster; each group costs tasks and wake-ups, so tens, not thousands.
pub const SHARDS_MAX: u32 = 256;
/// Largest message of the node's own to a peer or in the meta group.
pub const META_BYTES_MAX: usize = 1 << 20;
/// Tries of a change of the placement while others change it, too.
pub const CHANGE_TRIES: usize = 8;
/// Shortest retention an operator may set: below it the ledger remembers longer anyway.
pub const RETAIN_MS_MIN: u64 = ledger_core::limits::RETAIN_MS_MIN;
/// Longest retention: ten years; what is kept is kept in memory.
pub const RETAIN_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;
/// Fewest ids a shard must be allowed to remember: with fewer, one herd would leave no room for the next reserve.
pub const REMEMBERED_MIN: u64 = 10_000;
/// Offers of one page of products: it ends with the product that reaches them, so that its answer stays small and the ledger is locked shortly.
pub const PAGE_OFFERS_MAX: usize = 8_192;
/// Bytes of an ended reservation with a limit key, its indexes included. A new cluster's shards remember so many ids that those
/// of all replicas take half of what a node's records may.
pub const REMEMBERED_ID_BYTES: u64 = 200;
/// Most ids a shard may be allowed to remember; each costs about a hundred bytes.
pub const REMEMBERED_MAX: u64 = 1_000_000_000;
/// A ledger of at most so many records is audited as it stands, too: a few milliseconds under its lock.
pub const AUDIT_IN_PLACE_RECORDS: u64 = 1_024;
/// Reservations, orders and references that a node's own audit keeps when it recomputes history, a few hundred bytes each: about 100 MB. With more
/// it goes on with balances alone; `ledgerctl audit` keeps more, on the operator's machine.
pub const AUDIT_BOOK_RECORDS_MAX: usize = 250_000;
/// An audit under way says in the log how far it is, so often.
pub const AUDIT_LOGGED_EVERY: Duration = Duration::from_secs(10);
/// Records that an audit reads from history at once.
pub const AUDIT_PAGE: PageBounds = PageBounds { records: 1_024, bytes: 4 << 20 };
/// History may lag so many entries behind before the log stops waiting for it and it becomes
/// gapped. Their bytes are bounded by `raft.snapshot_every_bytes`.
pub const HISTORY_BACKLOG_ENTRIES_MAX: u64 = 200_000;

const _: () = assert!(RETAIN_MS_MIN < ledger_core::limits::RETAIN_REFUSED_MS_DEFAULT);
const _: () = assert!(REMEMBERED_MIN < ledger_core::limits::REMEMBERED_MAX_DEFAULT);
const _: () = assert!(ENTRY_BYTES_SOFT_MAX * 2 <= ledger_core::limits::ENTRY_BYTES_MAX);
// Whatever the decoder accepts, the log takes; and the log takes it in every segment that a node may be configured with.
const _: () = assert!(ledger_core::limits::ENTRY_BYTES_MAX <= ledger_raft::limits::ENTRY_BYTES_MAX);
const _: () = assert!(META_BYTES_MAX <= ledger_raft::limits::ENTRY_BYTES_MAX);
const _: () = assert!(TICK_AFTER_DUE.as_millis() + TICK_LOOK.as_millis() < 50);
// A caller that keeps as many full frames of reserves of one line under way as there may be entries in flight is never turned away: neither by calls nor by bytes.
const _: () = assert!(
    bulk_share(QUEUE_CALLS_DEFAULT, RESERVED_PERCENT_DEFAULT)
        >= ledger_proto::limits::CALLS_PER_FRAME_MAX * ENTRIES_IN_FLIGHT_MAX
);
const _: () = assert!(
    bulk_share(QUEUE_BYTES_DEFAULT, RESERVED_PERCENT_DEFAULT)
        >= QUEUED_RESERVE_BYTES * ledger_proto::limits::CALLS_PER_FRAME_MAX * ENTRIES_IN_FLIGHT_MAX
);

// ---------------------------------------------------------------- history and feed

/// A file of records that has grown so long is full; retention removes whole files.
pub const HISTORY_FILE_BYTES: usize = 64 << 20;
/// History files that are open for reading at once.
pub const HISTORY_FILES_OPEN_MAX: usize = 64;
/// Longest record that is believed: the longest that the core makes.
pub const HISTORY_RECORD_BYTES_MAX: usize = ledger_core::limits::RECORD_BYTES_MAX;
/// Bytes of records that may wait for the store, over all shards; beyond them the node becomes gapped.
pub const HISTORY_BACKLOG_BYTES_MAX: usize = 256 << 20;
/// A page of records is full at so many bytes: large enough that its entry in the index costs little a record, small enough that
/// its table is read for one record.
pub const HISTORY_PAGE_BYTES: usize = 64 << 10;
/// ... or at so many records, which bounds the table.
pub const HISTORY_PAGE_RECORDS: usize = 1_024;
/// The writer lets records gather for that long, so that a page of a shard with few entries has more than one; readers find them in
/// the backlog meanwhile. Well below [`HISTORY_SYNC_EVERY`], which is what a power cut costs anyway ...
pub const HISTORY_GATHER: Duration = Duration::from_millis(500);
/// ... or until so many bytes wait.
pub const HISTORY_GATHER_BYTES: usize = 1 << 20;
/// Bytes one write to the store may carry; keeps the writer's lock holds and memory small.
pub const HISTORY_BATCH_BYTES: usize = 4 << 20;
/// Records one write to the store may carry.
pub const HISTORY_BATCH_RECORDS: usize = 1_024;
/// The store is synced that often while something is written ...
pub const HISTORY_SYNC_EVERY: Duration = Duration::from_secs(1);
/// ... or after that many bytes: small syncs, since they share the disk with the log.
pub const HISTORY_SYNC_BYTES: usize = 16 << 20;
/// How long a snapshot waits for history to become durable before it gives up.
pub const HISTORY_SYNC_WITHIN: Duration = Duration::from_secs(30);
/// Records whose chain is checked when the store is opened: enough to notice a tail that an abrupt stop spoilt.
pub const HISTORY_VERIFY_LAST: usize = 64;
/// Gaps of one shard that are told apart; more are joined, which only means that more is fetched again.
pub const HISTORY_GAPS_MAX: usize = 16;
/// A reader whose records retention or an install changed while it looked looks again so often; both are rare.
pub const HISTORY_READ_TRIES: usize = 8;
/// sled's segment: entries are small, and a segment is a buffer in memory.
pub const HISTORY_SEGMENT_BYTES: usize = 512 << 10;
/// sled's page cache.
pub const HISTORY_CACHE_BYTES: u64 = 16 << 20;
/// How often retention looks, and a store that failed gets another chance.
pub const HISTORY_RETAIN_EVERY: Duration = Duration::from_secs(10);
/// Records that are removed at once.
pub const HISTORY_RETAIN_BATCH: usize = 4_096;
/// Records that one turn of dropping them may drop of all shards: half a second or so, after which what waits is written, and then
/// the next turn goes on.
pub const HISTORY_RETAIN_RECORDS_MAX: usize = 65_536;
/// Records that it drops of one shard to make room, before it looks which shard reaches back furthest: each such step is stored.
pub const HISTORY_RETAIN_STEP: usize = 16_384;
/// ... and bytes of them: a file's worth.
pub const HISTORY_RETAIN_BYTES: usize = HISTORY_FILE_BYTES;
/// The rate at which history grows is that of about so long.
pub const HISTORY_RATE_OVER: Duration = Duration::from_secs(600);
/// History that grows so slowly that its bytes last longer counts as lasting so long: ten years.
pub const HISTORY_FITS_MAX: Duration = Duration::from_secs(3_650 * 24 * 3_600);
/// A watch whose next change is among so much of what is kept, from the oldest on, may be cut off.
pub const WATCH_NEAR_OLDEST_PERCENT: u64 = 10;
/// ... which the log says again so often.
pub const WATCH_NEAR_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// What an answer between peers may carry (as ledger-raft bounds it).
pub const PEER_ANSWER_BYTES_MAX: usize = 4 << 20;
/// How often a gapped node asks its peers.
pub const BACKFILL_EVERY: Duration = Duration::from_secs(1);
/// Bytes of records one backfill answer carries; well below what a peer's answer may have.
pub const BACKFILL_BYTES: usize = 2 << 20;
/// Records one backfill answer carries.
pub const BACKFILL_RECORDS: usize = 2_048;
/// Rounds of one backfill before others get their turn.
pub const BACKFILL_ROUNDS_MAX: usize = 64;
/// A peer must say so often that it misses records, with all others asked in between, before they count as lost: it may be fetching them itself.
pub const BACKFILL_MISSES: u32 = 3;
/// Bytes of the newest records of one shard that are kept in memory for watchers.
pub const FEED_RING_BYTES: usize = 16 << 20;
/// Records of one shard kept in memory for watchers: bounds the ring when records are tiny.
pub const FEED_RING_RECORDS: usize = 65_536;
/// Changes one frame of a watch carries.
pub const WATCH_FRAME_CHANGES: usize = 1_024;
/// About as many bytes, by the lengths of the records; the last change may pass it.
pub const WATCH_FRAME_BYTES: usize = 64 << 10;
/// What a change takes in a frame besides its part of the record.
pub const WATCH_CHANGE_BYTES: usize = 64;
/// Records a watcher reads at once from one shard.
pub const WATCH_READ_RECORDS: usize = 64;
/// Bytes of records a watcher reads at once from one shard: a frame's worth. Those of the ring are
/// shared, those of history are not.
pub const WATCH_READ_BYTES: usize = WATCH_FRAME_BYTES;
/// Watches that make a part of a frame at once, of a node: with more, callers of everything else
/// would wait until hundreds have made theirs.
pub const WATCH_TURNS_AT_ONCE: usize = 1;
/// Watches that read history at once, of a node: each read has a thread, and threads take the time
/// of the one that serves.
pub const WATCH_READS_AT_ONCE: usize = 2;
/// Explanations that walk through history at once, of a node, for the same reason.
pub const EXPLAINS_AT_ONCE: usize = 2;
/// Explanations of one source under way, those included that wait for their turn: a caller waits
/// behind so many of each other source at most.
pub const EXPLAINS_PER_SOURCE: usize = 16;
/// Records of a shard that are kept decoded for its watchers: more than the places at which those
/// who keep up read.
pub const FEED_DECODED_RECORDS: usize = 16;
/// Bytes that these were decoded from; the newest may pass it.
pub const FEED_DECODED_BYTES: usize = 4 << 20;
/// A watcher that is up to date lets changes gather for that long, so that it costs a frame for many entries.
pub const WATCH_GATHER: Duration = Duration::from_millis(2);
/// A watcher to which nothing happens is told the shards' times that often.
pub const WATCH_IDLE: Duration = Duration::from_secs(1);
/// A node whose part of a watch is silent for that long is taken for gone: it sends a frame every [`WATCH_IDLE`].
pub const WATCH_SILENT_MAX: Duration = Duration::from_secs(10);
/// Frames of a watch that were made and wait for HTTP/2, which asked for them: none is made ahead.
pub const WATCH_FRAMES_WAITING: usize = 1;
/// A watch that nobody asks for a frame for so long ends: its caller goes on with the cursor when it
/// has room.
pub const WATCH_UNREAD_WITHIN: Duration = Duration::from_secs(10);
/// Watches of one connection.
pub const WATCHES_PER_CONNECTION: usize = 256;
/// Watches that another node passes on of shards that have no replica there: they share one
/// connection.
pub const WATCHES_PASSED_ON: usize = 320;
/// Watches of one source.
pub const WATCHES_PER_SOURCE: usize = 512;
/// Watches of one source that need other nodes, as shards have no replica here: another node counts
/// this one's as of one source, and several callers share them.
pub const WATCHES_AWAY_PER_SOURCE: usize = 80;
/// Watches of one node: each costs a frame in memory when its caller does not read.
pub const WATCHES_MAX: usize = 2_048;
/// Percent of a machine's memory, or of its container's, that records may take when nothing is configured. A snapshot is read back
/// into a second ledger before it counts, and what is written meanwhile copies chunks that the snapshot needs: three times that, and
/// buffers.
pub const MEMORY_DEFAULT_PERCENT: u64 = 30;
/// Percent of what records may take from which on the node says so.
pub const MEMORY_ALARM_PERCENT: u64 = 80;
/// Percent of what records may take that one shard's may, where a node has several.
pub const MEMORY_SHARD_PERCENT: u64 = 50;
/// When to come back with what is refused since records take all the memory that they may.
pub const RETRY_MEMORY_MS: u32 = 1_000;
/// When to come back for a watch beyond the bounds.
pub const RETRY_WATCHES_MS: u32 = 1_000;
/// Changes one explanation answers with when the caller does not say, and at most.
pub const EXPLAIN_DEFAULT: usize = 100;
/// Most changes of one explanation.
pub const EXPLAIN_MAX: usize = 1_000;
/// Records one explanation reads at most: pointers that lead nowhere end here.
pub const EXPLAIN_RECORDS_MAX: usize = 4_096;

const _: () = assert!(WATCH_SILENT_MAX.as_millis() >= 5 * WATCH_IDLE.as_millis());
const _: () = assert!(WATCHES_AWAY_PER_SOURCE * 4 <= WATCHES_PASSED_ON && WATCHES_PASSED_ON <= WATCHES_PER_SOURCE);
const _: () = assert!(WATCHES_PER_CONNECTION <= WATCHES_PER_SOURCE && WATCHES_PER_SOURCE <= WATCHES_MAX);
const _: () = assert!(WATCH_UNREAD_WITHIN.as_millis() < service::limits::WRITE_STALLED_WITHIN.as_millis());
const _: () = assert!(BACKFILL_BYTES * 2 <= PEER_ANSWER_BYTES_MAX);
const _: () = assert!(HISTORY_BACKLOG_BYTES_MAX > HISTORY_RECORD_BYTES_MAX);
// A full file still takes one batch, each record of which may be as long as allowed; offsets in it have 32 bits.
const _: () = assert!(2 * HISTORY_FILE_BYTES + HISTORY_BATCH_BYTES + HISTORY_RECORD_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(HISTORY_GATHER_BYTES < HISTORY_BACKLOG_BYTES_MAX && HISTORY_GATHER.as_millis() < 1_000);
const _: () = assert!(FEED_RING_BYTES < HISTORY_BACKLOG_BYTES_MAX);

// ---------------------------------------------------------------- gRPC and HTTP

/// Nodes to which connections are kept for what is passed on; more than that are not in a cluster.
pub const FORWARD_NODES_MAX: usize = 64;
/// A connection to the leader that takes longer failed.
pub const FORWARD_CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A forwarded call is waited for that much longer than its deadline: the leader says what it was then.
pub const FORWARD_GRACE: Duration = Duration::from_millis(100);
/// Calls of one stream in flight; beyond them the stream is not read, so its caller waits.
pub const STREAM_CALLS_IN_FLIGHT: usize = 65_536;
/// Frames of one stream taken before its answers are looked at.
pub const STREAM_FRAMES_AT_ONCE: usize = 16;
/// Answers one frame carries; more go into the next.
pub const ANSWERS_PER_FRAME: usize = 16_384;
/// Streams one connection may have open: callers that wait for answers each hold one.
pub const GRPC_STREAMS_PER_CONNECTION: u32 = 4_096;
/// An idle gRPC connection is pinged that often ...
pub const GRPC_KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// ... and closed when the answer takes longer.
pub const GRPC_KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);
/// Streams that a client reset before they were served; one that has more of them loses its
/// connection. As many as it may have open: who cancels every call of a full connection at once
/// does nothing wrong.
pub const GRPC_RESETS_PENDING_MAX: usize = GRPC_STREAMS_PER_CONNECTION as usize;
/// Streams that the node reset because a client broke HTTP/2's rules; one that goes on loses its
/// connection.
pub const GRPC_RESETS_LOCAL_MAX: usize = 1_024;
/// Control frames of HTTP/2 (all but those of calls) that are read of one source in a second: more
/// than round trips there are for pings that measure them, and a percent or two of a core. Beyond
/// them its connections are not read until it is time.
pub const CONTROL_FRAMES_PER_SECOND: u64 = 32_768;
/// ... and at once, after a while with fewer.
pub const CONTROL_FRAMES_AT_ONCE: u64 = 8_192;
/// Calls of one source that may begin at once ...
pub const CALLS_AT_ONCE: u64 = 256;
/// ... and again so many in each of these. Beyond them its calls begin in turns until none of them
/// waits: calls of others wait for few of them at a time instead of for all. To begin one takes some
/// tens of microseconds, so that a source in turns can still take all of a node that nobody else
/// asks.
pub const CALLS_AT_ONCE_WITHIN: Duration = Duration::from_millis(10);
/// Calls that begin in a turn ...
pub const TURN_CALLS: u64 = 64;
/// ... of as many connections at most, in equal parts.
pub const TURN_CONNECTIONS: usize = 8;
/// Bytes of one stream's answers that wait for its caller before the next is made: a watch holds a
/// frame more.
pub const UNREAD_PER_STREAM: usize = 128 << 10;
/// What a part of an answer takes besides its bytes, here and in HTTP/2's queue.
pub const PART_BYTES: usize = 512;
/// A message of a request that began must go on within that.
pub const REQUEST_GOES_ON_WITHIN: Duration = Duration::from_secs(30);
/// What an answer counts that waits to be packed into a frame: about what it takes in memory.
pub const ANSWER_UNREAD_BYTES: usize = 192;
/// Bytes of calls on their way to one other node, those included that nobody waits for any more;
/// beyond them callers are turned away. That node buffers them with its answers.
pub const FORWARDED_BYTES_MAX: usize = 32 << 20;
/// What each of them counts at least: 4,096 calls at once.
pub const FORWARDED_CALL_BYTES: usize = 8 << 10;
/// Lists on their way to one other node at once, others wait: their answers share the connection with
/// calls.
pub const FORWARDED_LISTS_MAX: usize = 8;
/// Lists of one source under way that other nodes are asked for, for the same reason.
pub const LISTS_AWAY_PER_SOURCE: usize = 64;
/// HTTP/2's window of a watch on another node: a frame and the next.
pub const WATCH_STREAM_WINDOW: u32 = 128 << 10;
/// ... and of all of them: none waits for another that is not read.
pub const WATCH_CONNECTION_WINDOW: u32 = WATCHES_PASSED_ON as u32 * WATCH_STREAM_WINDOW;
/// Bytes of headers of one gRPC call.
pub const GRPC_HEADER_BYTES: u32 = 16 << 10;
/// A member comes back on an empty disk so often at most.
pub const DISK_GENERATION_MAX: u64 = 1 << 32;
/// Most that the disk generation of an empty node may be beyond the next one: each attempt on the same
/// directory is of a later one.
pub const DISK_GENERATION_STEP_MAX: u64 = 1_000;
/// How long a linearizable read waits for the leader's word when its caller names no time.
pub const READ_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of one HTTP request's body: a reservation of the most lines is far smaller.
pub const HTTP_BODY_BYTES: usize = 64 << 10;
/// A client has so long for the body of a request, counted from its headers.
pub const HTTP_BODY_WITHIN: Duration = Duration::from_secs(10);
/// HTTP connections open at once, less where descriptors are few; beyond them one that does nothing
/// gives way.
pub const HTTP_CONNECTIONS_MAX: usize = 1_024;
/// gRPC connections open at once, less where descriptors are few; beyond them one that does nothing
/// gives way.
pub const GRPC_CONNECTIONS_MAX: usize = 4_096;
/// Fewer descriptors than that leave too little for the log, history and the other nodes.
pub const DESCRIPTORS_MIN: u64 = 512;
/// Descriptors for files: the log's segments, snapshots and history.
pub const DESCRIPTORS_FILES_PERCENT: u64 = 50;
/// ... at least.
pub const DESCRIPTORS_FILES_MIN: u64 = 256;
/// Descriptors for connections with the other nodes.
pub const DESCRIPTORS_PEERS: u64 = 64;
/// Descriptors that no share has: calls passed on to leaders, listeners, connections about to be
/// refused.
pub const DESCRIPTORS_KEPT: u64 = 32;
/// Samples of histograms are folded together that often, whether or not anybody reads the page.
pub const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

// Who cancels every call of a full connection at once does not wait.
const _: () = assert!(GRPC_RESETS_PENDING_MAX as u64 * 2 <= CONTROL_FRAMES_AT_ONCE);
// A client that reads is never closed: neither with as many watches as it may have, nor with all
// calls of a stream answered at once, nor with the largest answer.
const _: () = assert!(
    WATCHES_PER_CONNECTION * (UNREAD_PER_STREAM + WATCH_FRAME_BYTES) < service::limits::BUFFERED_PER_CONNECTION
);
const _: () =
    assert!(WATCHES_PASSED_ON * (UNREAD_PER_STREAM + WATCH_FRAME_BYTES) < service::limits::BUFFERED_PER_CONNECTION);
const _: () = assert!(FORWARDED_BYTES_MAX * 2 <= service::limits::BUFFERED_PER_CONNECTION);
const _: () = assert!(4 * STREAM_CALLS_IN_FLIGHT * ANSWER_UNREAD_BYTES < service::limits::BUFFERED_PER_CONNECTION);
const _: () = assert!(ledger_proto::limits::ANSWER_BYTES_MAX * 2 <= service::limits::BUFFERED_PER_CONNECTION);
/// ... and what both ports have beside their shares: untrusted connections, and probes.
pub const DESCRIPTORS_BESIDE: u64 = 96;
const _: () = assert!(
    DESCRIPTORS_BESIDE as usize == 2 * service::limits::UNTRUSTED_CONNECTIONS_MAX + service::limits::HTTP_PROBE_PLACES
);
const _: () =
    assert!(DESCRIPTORS_FILES_MIN + DESCRIPTORS_PEERS + DESCRIPTORS_KEPT + DESCRIPTORS_BESIDE < DESCRIPTORS_MIN);
// Both lanes to each other node, what each of them may have here, and connections that have not sent a hello.
const _: () = assert!(
    DESCRIPTORS_PEERS as usize
        >= (2 + 2 * ledger_raft::limits::PEER_CONNECTIONS_PER_LANE_MAX) * (MEMBERS_MAX - 1)
            + ledger_raft::limits::GREETINGS_MAX
);

/// How long the allocator keeps freed pages before they go back to the system, milliseconds: longer than any lull within a sale.
pub const ALLOCATOR_KEEPS_MS: i64 = 10_000;
/// ... and with a reserve: they never go back.
pub const ALLOCATOR_KEEPS_FOR_EVER: i64 = -1;
/// The reserve is taken in steps of so many bytes, each of which the allocator can use again for anything.
pub const RESERVE_STEP: usize = 4 << 20;
/// Bytes of a page of memory: one write makes the system provide it.
pub const PAGE: usize = 4_096;
/// Most memory a node may reserve.
pub const MEMORY_RESERVE_BYTES_MAX: u64 = 1 << 40;
