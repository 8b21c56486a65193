//! The audit of the shards here, beside the calls: a shard goes on while it is audited.
//!
//! **What it is.** Under the ledger's lock only the sums are taken and a frozen view, which copies nothing. The view is written out, read back
//! and audited on a thread of its own (inline under simulation), so that the audit proves the snapshot as well. What is derived from the records
//! is built anew in that copy; a ledger of at most [`AUDIT_IN_PLACE_RECORDS`] is audited as it stands, too, under the lock. Then the auditor that
//! `ledgerctl audit` uses on the feed recomputes stock from this node's history, and compares it with the copy: what one finds, the other finds.
//! **Owns** that copy: one at a time on a node. **Must never** hold the ledger's lock for as long as the ledger is large.
//! **Read next**: [`crate::status`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use auditor::{Books, Finding};
use ledger_core::ledger::{Digest, Frozen};
use ledger_core::view::Totals;
use ledger_core::{IndexSeed, Ledger, Position, codec};
use ledger_proto::v1;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use crate::history::History;
use crate::limits::{AUDIT_HISTORY_CHANGES_MAX, AUDIT_IN_PLACE_RECORDS, AUDIT_PAGE};
use crate::node::{AdminError, Node, lock};
use crate::shard::Shard;
use crate::status::totals;

/// The audits of one node since its start, for metrics and tests.
#[derive(Debug, Default)]
pub struct Audits {
    one_at_a_time: Arc<tokio::sync::Mutex<Latest>>,
    /// Calls so far.
    asked: AtomicU64,
    under_way: watch::Sender<bool>,
    run: AtomicU64,
    findings: AtomicU64,
    longest_lock_us: AtomicU64,
}

/// The audit that ended last.
#[derive(Debug, Default)]
struct Latest {
    /// It began after so many calls had come.
    asked: u64,
    answer: v1::AuditResponse,
}

impl Audits {
    /// Whether one is under way, watched.
    pub fn under_way(&self) -> watch::Receiver<bool> {
        self.under_way.subscribe()
    }
    /// Audits that ended.
    pub fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }
    /// What they found, in all.
    pub fn findings(&self) -> u64 {
        self.findings.load(Ordering::Relaxed)
    }
    /// Longest time a ledger was locked for one, microseconds.
    pub fn longest_lock_us(&self) -> u64 {
        self.longest_lock_us.load(Ordering::Relaxed)
    }
}

/// An audit's turn: the next one waits for as long as it lives. The thread that audits has it as
/// well, since it goes on when its caller does not wait any more.
struct Turn {
    under_way: watch::Sender<bool>,
    one_at_a_time: Mutex<OwnedMutexGuard<Latest>>,
}

impl Turn {
    /// The turn to audit, or what an audit found that began after this call came: however many ask, each waits for two at most.
    async fn of(audits: &Audits) -> Result<Arc<Self>, v1::AuditResponse> {
        let asked = audits.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut latest = audits.one_at_a_time.clone().lock_owned().await;
        if latest.asked >= asked {
            return Err(latest.answer.clone());
        }
        // Of one that breaks down nothing is left.
        *latest = Latest::default();
        audits.under_way.send_replace(true);
        Ok(Arc::new(Self { under_way: audits.under_way.clone(), one_at_a_time: Mutex::new(latest) }))
    }

    fn ended(&self, asked: u64, answer: &v1::AuditResponse) {
        **lock(&self.one_at_a_time) = Latest { asked, answer: answer.clone() };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.under_way.send_replace(false);
    }
}

impl Node {
    /// Admin.Audit: recomputes every invariant of the shards here, one after the other; calls are answered meanwhile. Callers that
    /// wait for the same turn share an audit.
    ///
    /// # Errors
    /// The audit itself broke down; nothing is known then.
    pub async fn audit(self: &Arc<Self>) -> Result<v1::AuditResponse, AdminError> {
        let turn = match Turn::of(self.audits()).await {
            Ok(turn) => turn,
            Err(shared) => return Ok(shared),
        };
        // It ends though its caller does not wait any more: others share it.
        let node = self.clone();
        let audit = tokio::spawn(async move { node.audit_in(turn).await });
        audit.await.unwrap_or_else(|error| Err(AdminError::Failed(format!("the audit broke: {error}"))))
    }

    async fn audit_in(&self, turn: Arc<Turn>) -> Result<v1::AuditResponse, AdminError> {
        let audits = self.audits();
        let asked = audits.asked.load(Ordering::Acquire);
        let inline = self.seams().raft.disk.inline();
        let mut response = v1::AuditResponse::default();
        for shard in self.shards() {
            let began = Instant::now();
            let taken = Taken::of(&shard);
            audits.longest_lock_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
            let (index, sums, digest) = (taken.index, taken.totals.clone(), taken.digest);
            let (findings, changes) = if inline {
                taken.findings()
            } else {
                let turn = turn.clone();
                let copy = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    taken.findings()
                });
                copy.await.map_err(|e| AdminError::Failed(format!("the audit of shard {} broke: {e}", shard.id())))?
            };
            audits.findings.fetch_add(findings.len() as u64, Ordering::Relaxed);
            let id = shard.id();
            response.shards.push(v1::audit_response::Shard {
                shard: id,
                index,
                totals: Some(totals(&sums)),
                changes,
                digest: bytes::Bytes::copy_from_slice(&digest.value.to_be_bytes()),
            });
            response.findings.extend(findings.into_iter().map(|finding| v1::audit_response::Finding {
                shard: id,
                invariant: finding.invariant,
                what: finding.what,
            }));
        }
        audits.run.fetch_add(1, Ordering::Relaxed);
        turn.ended(asked, &response);
        Ok(response)
    }
}

/// What is taken of a ledger under its lock.
struct Taken {
    index: u64,
    totals: Totals,
    digest: Digest,
    in_place: Vec<Finding>,
    frozen: Frozen,
    index_seed: IndexSeed,
    shard: u32,
    history: Arc<dyn History>,
}

impl Taken {
    fn of(shard: &Shard) -> Self {
        let mut ledger = lock(&shard.state().ledger);
        let totals = ledger.totals();
        let records = totals.products + totals.offers + totals.live + totals.sold + totals.remembered;
        let in_place = if records <= AUDIT_IN_PLACE_RECORDS { ledger.audit().findings } else { Vec::new() };
        Self {
            index: ledger.position().index,
            totals,
            digest: ledger.digest(),
            in_place: in_place.into_iter().map(found).collect(),
            frozen: ledger.freeze(),
            index_seed: shard.index_seed(),
            shard: shard.id(),
            history: shard.history().clone(),
        }
    }

    /// Audits a copy that went through the snapshot's bytes, and history; answers how many changes that had.
    fn findings(self) -> (Vec<Finding>, u64) {
        let Self { index, totals, in_place: mut findings, frozen, index_seed, shard, history, .. } = self;
        let mut bytes = Vec::new();
        let written = frozen.write(&mut bytes);
        // While the view lives, every write of the shard to a chunk for the first time copies that chunk.
        drop(frozen);
        let broken = |what: String| Finding::new("snapshot", what);
        if let Err(error) = written {
            findings.push(broken(format!("the state cannot be written: {error}")));
            return (findings, 0);
        }
        let copy = match Ledger::thaw(&mut bytes.as_slice(), index_seed) {
            Ok(copy) => copy,
            Err(error) => {
                findings.push(broken(format!("the state written cannot be read back: {error}")));
                return (findings, 0);
            }
        };
        drop(bytes);
        let audit = copy.audit();
        // A counter that counts nothing any more is dropped late, so that their number is no truth.
        let counted = Totals { limit_counts: totals.limit_counts, ..audit.totals };
        if counted != totals {
            findings.push(broken(format!("sums: kept {totals:?}, of the copy {counted:?}")));
        }
        for finding in audit.findings.into_iter().map(found) {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        let mut books = match books_of(&*history, shard, index) {
            Ok(books) => books,
            Err(why) => {
                tracing::warn!(shard, why, "the audit did not recompute stock from history");
                return (findings, 0);
            }
        };
        books.advance(shard, copy.time());
        books.close();
        books.compare(&copy.products(None, usize::MAX));
        findings.extend_from_slice(books.findings());
        (findings, books.changes())
    }
}

fn found(finding: ledger_core::view::Finding) -> Finding {
    Finding::new(finding.invariant, finding.what)
}

/// Stock recomputed from history up to an index; or why not: it is gapped, too long, or cut by
/// retention meanwhile.
fn books_of(history: &dyn History, shard: u32, index: u64) -> Result<Books, String> {
    history.sync_through(shard, index).map_err(|error| error.to_string())?;
    let kept = history.coverage(shard);
    if let Some(gap) = kept.gaps.first() {
        return Err(format!("indexes {} to {} are missing", gap.after + 1, gap.through));
    }
    let mut books = Books::new();
    if kept.oldest > 0 {
        books.history_is_cut();
    }
    let mut from = kept.oldest.max(1);
    while from <= index {
        let page = history.read(shard, from, AUDIT_PAGE).map_err(|error| error.to_string())?;
        for (at, bytes) in page.records.iter().take_while(|(at, _)| *at <= index) {
            // One that is not its chain's is found by whoever reads history, and fetched anew.
            let record = codec::decode_record(bytes).ok().filter(|record| record.position.index == *at);
            let record = record.ok_or_else(|| format!("record {at} is malformed"))?;
            for change in &record.changes {
                books.enter(Position { place: change.place, ..record.position }, record.time, change);
            }
        }
        if books.changes() > AUDIT_HISTORY_CHANGES_MAX {
            return Err(format!(
                "it has more than {AUDIT_HISTORY_CHANGES_MAX} changes: ledgerctl audit recomputes any"
            ));
        }
        if page.next <= from {
            return Err(format!("it ends at index {from}"));
        }
        from = page.next;
    }
    Ok(books)
}
