//! The audit of the shards here, beside the calls: a shard goes on while it is audited.
//!
//! **What it is.** Under the ledger's lock only sums are taken and a frozen view, which copies nothing. The view is audited on a thread of its own
//! (inline under simulation), one shard after the other, in the memory that [`ledger_core::limits::AUDIT_BYTES_MAX`] says. A ledger of at most
//! [`AUDIT_IN_PLACE_RECORDS`] is audited as it stands, too, and written and read back; that a large one can be read back is proven by the snapshots
//! that are taken of it anyway. The auditor that `ledgerctl audit` uses on the feed recomputes stock from this node's history, before the view is taken
//! as far as that goes, and compares it with what the audit recomputed: what one finds, the other finds.
//! **Owns** that view: one at a time on a node. **Must never** hold the ledger's lock for as long as the ledger is large.
//! **Read next**: [`progress`], then [`crate::status`].

mod books;
mod progress;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use auditor::Finding;
use ledger_core::Ledger;
use ledger_core::ledger::{AuditView, Frozen};
use ledger_core::outcome::Bound;
use ledger_core::view::Totals;
use ledger_proto::v1;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use self::books::HistoryBooks;
use self::progress::{Progress, Reporter};
use crate::limits::AUDIT_IN_PLACE_RECORDS;
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
    progress: Mutex<Option<Progress>>,
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
    /// How far the one that is under way has come.
    pub fn progress(&self) -> Option<v1::AuditProgress> {
        lock(&self.progress).map(Progress::to_wire)
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

    async fn audit_in(self: Arc<Self>, turn: Arc<Turn>) -> Result<v1::AuditResponse, AdminError> {
        let asked = self.audits().asked.load(Ordering::Acquire);
        let inline = self.seams().raft.disk.inline();
        let mut response = v1::AuditResponse::default();
        for shard in self.shards() {
            let id = shard.id();
            let audited = if inline {
                audit_shard(&self, &shard)
            } else {
                let (node, turn) = (self.clone(), turn.clone());
                let audit = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    audit_shard(&node, &shard)
                });
                audit.await.map_err(|e| AdminError::Failed(format!("the audit of shard {id} broke: {e}")))?
            };
            self.audits().findings.fetch_add(audited.findings.len() as u64, Ordering::Relaxed);
            response.shards.push(audited.shard);
            response.findings.extend(audited.findings.into_iter().map(|finding| v1::audit_response::Finding {
                shard: id,
                invariant: finding.invariant,
                what: finding.what,
            }));
        }
        self.audits().run.fetch_add(1, Ordering::Relaxed);
        turn.ended(asked, &response);
        Ok(response)
    }
}

/// What is taken of a ledger under its lock.
struct Taken {
    view: AuditView,
    /// Of a small ledger: what its audit in place found, and a view to be written.
    small: Option<(Vec<Finding>, Frozen)>,
}

impl Taken {
    fn of(shard: &Shard) -> Self {
        let mut ledger = lock(&shard.state().ledger);
        let view = ledger.freeze_for_audit();
        let totals = view.totals();
        let references = ledger.records().into_iter().find(|(kind, ..)| *kind == Bound::References);
        let beside = totals.limit_counts + totals.orders + references.map_or(0, |(_, count, _)| count);
        let records = totals.products + totals.offers + totals.live + totals.sold + totals.remembered + beside;
        // The audit in place takes for granted what the frozen one checks: of a state that is broken there it would end the process.
        let is_small =
            records <= AUDIT_IN_PLACE_RECORDS && ledger.freeze_for_audit().audit(&mut ()).findings.is_empty();
        let small = is_small.then(|| (ledger.audit().findings.into_iter().map(found).collect(), ledger.freeze()));
        Self { view, small }
    }
}

/// The audit of one shard.
struct Audited {
    shard: v1::audit_response::Shard,
    findings: Vec<Finding>,
}

fn audit_shard(node: &Node, shard: &Shard) -> Audited {
    let audits = node.audits();
    let reporter = Reporter::new(&audits.progress, shard.id());
    let mut books = HistoryBooks::new(&**shard.history(), shard.id());
    // While a view lives, every write of the shard to a chunk for the first time copies that chunk: what can be read before it is.
    let applied = lock(&shard.state().ledger).position().index;
    books.read_to(applied, &reporter);
    let began = Instant::now();
    let Taken { view, small } = Taken::of(shard);
    audits.longest_lock_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
    let (index, digest, time) = (view.position().index, view.digest(), view.time());
    let sums = totals(view.totals());
    let mut findings = match small {
        Some((in_place, frozen)) => read_back(in_place, frozen, view.totals(), shard),
        None => Vec::new(),
    };
    books.read_to(index, &reporter);
    books.close(time);
    let audit = view.audit(&mut books.observer(&reporter));
    for finding in audit.findings.into_iter().map(found) {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    let (changes, balances_after) = books.end(&mut findings);
    let shard = v1::audit_response::Shard {
        shard: shard.id(),
        index,
        totals: Some(sums),
        changes,
        digest: bytes::Bytes::copy_from_slice(&digest.value.to_be_bytes()),
        balances_after,
    };
    Audited { shard, findings }
}

/// Writes a small ledger, reads it back, and audits the copy, in which all that is derived was made anew.
fn read_back(mut findings: Vec<Finding>, frozen: Frozen, totals: &Totals, shard: &Shard) -> Vec<Finding> {
    let broken = |what: String| Finding::new("snapshot", what);
    let mut bytes = Vec::new();
    if let Err(error) = frozen.write(&mut bytes) {
        findings.push(broken(format!("the state cannot be written: {error}")));
        return findings;
    }
    let copy = match Ledger::thaw(&mut bytes.as_slice(), shard.index_seed()) {
        Ok(copy) => copy,
        Err(error) => {
            findings.push(broken(format!("the state written cannot be read back: {error}")));
            return findings;
        }
    };
    let audit = copy.audit();
    // A counter that counts nothing any more is dropped late, so that their number is no truth.
    let counted = Totals { limit_counts: totals.limit_counts, ..audit.totals };
    if counted != *totals {
        findings.push(broken(format!("sums: kept {totals:?}, of the copy {counted:?}")));
    }
    for finding in audit.findings.into_iter().map(found) {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

fn found(finding: ledger_core::view::Finding) -> Finding {
    Finding::new(finding.invariant, finding.what)
}
