//! What the clients of a run saw: their own journal, as JSON lines for tools that are not ours.
//!
//! **Owns** the event format. **Must never** ask the ledger anything: a journal that the ledger writes proves nothing.
//! **Read next**: [`crate::checkers`].

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the command's own")]
pub enum Op {
    Receive { sku: String, units: u64, reference: String },
    Reserve { id: String, sku: String, quantity: u32, key: String, hold_ms: u64 },
    Confirm { id: String },
    Release { id: String },
    Read { sku: String },
}

/// A position in the log, as answers carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct At {
    /// Shard.
    pub shard: u32,
    /// Log index.
    pub index: u64,
    /// Place in the entry.
    pub place: u16,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the contract names them")]
pub enum Answer {
    Ok { at: Option<At>, time_ms: u64, replayed: bool },
    Refused { at: Option<At>, why: String },
    NotNow { why: String },
    Unknown { why: String },
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Which client.
    pub client: u32,
    /// What was asked.
    #[serde(flatten)]
    pub op: Op,
    /// Simulated milliseconds when it was asked.
    pub asked_ms: u64,
    /// Simulated milliseconds when the answer came.
    pub answered_ms: u64,
    /// What came back.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What one node says of one product at the end, asked as a stale read by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalStock {
    /// Which node was asked.
    pub node: u64,
    /// The product.
    pub sku: String,
    /// Ever received.
    pub received: u64,
    /// Sum of adjustments.
    pub adjusted: i64,
    /// Free.
    pub available: u64,
    /// In live holds.
    pub held: u64,
    /// Sold and not returned.
    pub sold: u64,
}

/// What is known of one id at the end, by a linearizable read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalId {
    /// The id.
    pub id: String,
    /// held, confirmed, released, expired, refused, fenced, unknown, forgotten.
    pub state: String,
    /// Units sold under it.
    pub sold: u64,
}

/// A replica's digest at an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalDigest {
    /// Which node.
    pub node: u64,
    /// Which shard.
    pub shard: u32,
    /// At which index.
    pub index: u64,
    /// Hexadecimal.
    pub value: String,
}

/// Everything a checker may look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The clients' journal.
    pub events: Vec<Event>,
    /// Stock at the end, as each node says.
    pub stock: Vec<FinalStock>,
    /// Ids at the end.
    pub ids: Vec<FinalId>,
    /// Digests at the end.
    pub digests: Vec<FinalDigest>,
    /// Findings of the nodes' own audits.
    pub findings: Vec<String>,
}

impl Run {
    /// Writes the journal as JSON lines.
    ///
    /// # Errors
    /// Only those of `to`.
    pub fn write_events(&self, to: &mut dyn Write) -> io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut *to, event)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}
