//! One write-ahead log for all groups of a node.
//!
//! **What it is.** Preallocated, recycled segment files; one writer that takes whatever waits as one round, writes it,
//! syncs it once for all groups and only then tells anybody.
//!
//! # Torn or rotten
//!
//! A crash leaves the last round half-written (*torn*): nobody was told of it, it is cut. Rot changes a round that was
//! acknowledged: cutting that would break a promise. They are told apart by what lies in each 512-byte block, which a
//! device writes whole or not at all, and which carries a stamp of its own (segment generation, round, place in the
//! round, checksum over all of that and its position):
//!
//! 1. No block is written twice in one generation: a start always begins a segment of a new generation. So under a
//!    torn round lie zeroes or good blocks of an older generation, never anything else.
//! 2. An acknowledged round was synced: every block of it was written. So a round of which some block is zero or older is torn or a
//!    write the disk lost; if anything of this generation follows it (the writer begins a round only after the sync of
//!    the one before), it was acknowledged and the disk lost it: rot.
//! 3. A block that is neither good nor zero is rot, wherever something was or may have been written: inside a round, or
//!    at the place where the next round would begin.
//! 4. A marker round after 20 ms of idleness and at close, and the header of the next segment (which says where the one before it ended) follow the last round, so
//!    that a lost write of it is proved too. A disk that lies about a sync and loses a whole last round within these
//!    20 ms is beyond what this log can see; a quorum of the other replicas is what is left then.
//!
//! # Who lost something
//!
//! Every record that changes a group takes the next number of the group's own sequence; markers and checkpoints repeat
//! the last one. A jump is a loss; a rotten place after which a group's numbers go on, or are confirmed, cost it nothing; a group
//! that nothing vouches for after the place is damaged. Damage is written into the next checkpoint and stays until
//! [`GroupLog::clear_damage`]. A [reset](GroupLog::reset) changes it to that of an [emptied](Damage::emptied) log, so that what is found
//! after it, in the middle of a repair, is told from what the repair is for.
//!
//! # Dead and recycled
//!
//! A segment is dead once no group has a live entry in it or in an older one. That mark is made durable (a record, or the next
//! header) before the file is begun anew. Each segment begins with a checkpoint of everything but the entries, and entries that would keep
//! old segments for long are [carried](carry) forward, so a quiet group costs a busy one nothing.
//!
//! **Owns** votes and entries on disk, and the order of both. **Must never** acknowledge before the sync, retry a failed
//! one, look into an entry, or treat rot as torn.
//!
//! **Read next**: [`log`](Wal) and [`group`](GroupLog) (the interface), `frame`, `round`, `waiting`, `writer`, `carry`, `shell` (the way
//! down), `recover`, `scan`, `replay` (the way back up). Byte tables: `docs/storage-format.md`.

mod carry;
mod error;
mod frame;
pub(crate) mod fuzzing;
mod group;
mod index;
mod limits;
mod log;
pub(crate) mod look;
mod loss;
mod outcome;
mod reader;
mod recover;
mod replay;
mod round;
mod scan;
mod segment;
mod shared;
mod shell;
mod waiting;
mod writer;

pub use error::{Damage, WalError};
pub use group::{AppendDone, GroupLog, GroupLogState, WalEntry};
pub(crate) use limits::GENERATION_MAX;
pub use log::{SegmentsBegun, Wal, WalConfig, WalIdentity, WalUsage};
