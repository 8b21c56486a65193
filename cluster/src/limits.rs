//! Every bound of the operator's tools, named, with its reason.

use std::time::Duration;

/// How long one operator command keeps asking before it says *unknown* or *not now*. Long enough for a failover.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(10);
/// How long one try of a call may take; several fit into [`COMMAND_WITHIN`].
pub const TRY_WITHIN: Duration = Duration::from_secs(3);
/// How long a connection attempt may take.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two tries of a command that was answered *not now* without a time.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between tries, whatever the answer says: the operator waits.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long one call may take that brings members back: two questions to each node and two to each of those, at 5 s.
pub const REJOIN_WITHIN: Duration = Duration::from_secs(60);
/// Longest time that a repair may be waited for: instants end somewhere.
pub const REPAIRED_WITHIN_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// A node's audit that makes no progress for so long is given up: one that waits for another's turn sees the progress of that one.
pub const AUDIT_STALLED: Duration = Duration::from_secs(60);
/// When all nodes were audited within this, they are audited again if their replicas could not be compared; otherwise only digests are taken again.
pub const AUDIT_QUICK: Duration = Duration::from_secs(5);
/// Reservations, orders and references that the books of an audit keep, a few hundred bytes each: about a gigabyte. With more they go on with
/// balances alone.
pub const AUDIT_BOOK_RECORDS_MAX: usize = 2_000_000;
/// How long a node may take to build a snapshot (it writes every record).
pub const SNAPSHOT_WITHIN: Duration = Duration::from_secs(180);
/// How long replicas may take to apply what was committed when an audit began.
pub const AUDIT_FOLLOW_WITHIN: Duration = Duration::from_secs(20);
/// Longest time that an audit may be given: instants end somewhere.
pub const AUDIT_WITHIN_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// A shard whose feed brings nothing for so long, while others bring something, is read to its end.
/// Longer than the pause after which a node says that nothing happens.
pub const FEED_SHARD_SILENT: Duration = Duration::from_secs(3);
/// How long a whole audit may take unless its caller says otherwise.
pub const AUDIT_ALL_WITHIN: Duration = Duration::from_secs(600);
/// Looks at all nodes of one audit: replicas are compared at equal indexes, and an entry may come
/// between the looks at two of them.
pub const AUDIT_LOOKS: u32 = 3;
/// How often an audit says how far it is, and asks a node how far that one is.
pub const AUDIT_PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Largest message taken from a node: a full page of products, or a batch of 8,190 answers.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Products asked for at a time when listing.
pub const PAGE: u32 = 500;
/// Rows a catalog file may have; a larger import is split.
pub const CATALOG_ROWS_MAX: usize = 1_000_000;
/// Errors of a catalog file shown at once; the rest are counted.
pub const CATALOG_ERRORS_SHOWN: usize = 20;
/// Bytes that one record of a catalog may take, with the comments before it: a quote that is never closed would take in the rest of the file.
pub const CATALOG_RECORD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a product's name in a catalog, all of which are kept in memory until the file was checked.
pub const CATALOG_NAME_BYTES_MAX: usize = 256;
/// Characters of a wrong value that a complaint repeats.
pub const CATALOG_VALUE_SHOWN: usize = 48;
/// Lines that an import could not do, kept with their reasons; more are counted.
pub const IMPORT_FAILED_KEPT: usize = 1_000;
/// Import lines in flight at a time.
pub const IMPORT_IN_FLIGHT: usize = 64;
/// Bytes of a file's name that go into a reference; the whole reference stays below the ledger's 64.
pub const REFERENCE_NAME_BYTES: usize = 40;
/// How long a freshly started node may take until it answers.
pub const NODE_UP_WITHIN: Duration = Duration::from_secs(20);
/// How long a node may take to stop after SIGTERM before it is killed.
pub const NODE_DOWN_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks at something that is awaited and cannot notify.
pub const POLL: Duration = Duration::from_millis(25);
/// Lines of a node's log shown when it fails.
pub const LOG_TAIL_LINES: usize = 20;
/// How long replicas may take to catch up at the end of a demo or bench.
pub const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);
/// A replica that was last current so long ago is shown with its age.
pub const AGE_SHOWN_MS: u64 = 5_000;
/// A watch that has said nothing for so long while it should be read to its end has failed.
pub const FEED_SILENT_MAX: Duration = Duration::from_secs(10);
pub use auditor::limits::FINDINGS_MAX;
/// Findings shown in a table; all kept ones are in the JSON output.
pub const FINDINGS_SHOWN: usize = 20;
/// Buyers a demo may have.
pub const BUYERS_MAX: usize = 200_000;
/// Tries one buyer makes for the hot product before giving up.
pub const BUYER_TRIES_MAX: u32 = 8;
/// How long one call of a buyer may take, retries by the SDK included.
pub const BUYER_DEADLINE: Duration = Duration::from_secs(8);
/// The crowd goes home after so long, whatever happens.
pub const CROWD_WITHIN: Duration = Duration::from_secs(60);
/// Ids read back at a time.
pub const READ_BACK_IN_FLIGHT: usize = 256;
/// Highest latency a histogram records, microseconds.
pub const LATENCY_US_MAX: u64 = 120_000_000;
/// Units received on each product of a bench: more than any run can hold.
pub const BENCH_UNITS: i64 = 1 << 40;
/// Calls an open-loop bench may have waiting before it stops offering more: beyond that the rate is not reached anyway.
pub const BENCH_WAITING_MAX: usize = 200_000;
/// Memory a bench's client takes before its clock starts: what [`BENCH_WAITING_MAX`] calls use. Were it taken as they pile up,
/// the client would fall behind for want of pages and measure itself.
pub const BENCH_MEMORY_BYTES: u64 = 256 << 20;
/// Orders sealed before a load, for each second of it: sealing is the shop's cost and not the ledger's. Beyond that they are sealed as they come.
pub const BENCH_SEALED_A_SECOND: u64 = 6_000;
/// How long orders may take to be done once nothing stands in their way: an open breaker's time and the longest pause between runs, with room to spare.
pub const ORDERS_DONE_WITHIN: Duration = Duration::from_secs(180);
/// Furthest a node's clock may differ from the operator's at `cluster init`. Far beyond what time servers leave and a call takes.
pub const INIT_CLOCK_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(REFERENCE_NAME_BYTES + 12 < ledger_core::limits::REFERENCE_BYTES_MAX);
const _: () = assert!(TRY_WITHIN.as_millis() < COMMAND_WITHIN.as_millis());
