//! `ledgerctl audit`: the promises recomputed on the live cluster.
//!
//! **What it is.** Three looks that do not trust each other: every node recomputes its shards from its records; digests and
//! totals of replicas are compared at equal indexes; and stock is recomputed here from the feed, by [`crate::books`].
//! **Owns** their comparison. **Must never** call a look that could not be taken a success.
//! **Read next**: [`crate::books`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client_sdk::{Client, Cursor, LedgerTime, v1};
use serde::Serialize;

use super::Desk;
use super::product::all_products;
use crate::books::{Books, Finding, Sums};
use crate::cli::AuditArgs;
use crate::limits;
use crate::link::{ClusterLink, NodeLink, brief, timed};
use crate::output::{Failure, Outcome, num, table, text};

/// What an audit says of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every look was taken, and nothing is wrong.
    Holds,
    /// Something is wrong.
    Broken,
    /// Nothing is wrong in what was seen, but not everything was seen.
    #[default]
    NotKnown,
}

/// What an audit saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AuditDoc {
    /// What it says.
    pub verdict: Verdict,
    /// Whether every promise holds and every look was taken: the verdict is `holds`.
    pub holds: bool,
    /// Nodes that recomputed their shards.
    pub nodes: u64,
    /// Replicas compared by their digests, at equal indexes.
    pub digests_compared: u64,
    /// Changes read from the feed.
    pub changes: u64,
    /// Whether stock stood still, so that the books could be compared with what the ledger answers to reads.
    pub compared: bool,
    /// Units by the books.
    pub books: Option<Sums>,
    /// Products whose first changes are no longer kept, so that they could not be recomputed.
    pub not_recomputable: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Looks that could not be taken.
    pub incomplete: Vec<String>,
}

impl AuditDoc {
    /// Makes the verdict of what was seen.
    pub fn decide(&mut self) {
        self.verdict = match (self.findings.is_empty(), self.incomplete.is_empty()) {
            (false, _) => Verdict::Broken,
            (true, false) => Verdict::NotKnown,
            (true, true) => Verdict::Holds,
        };
        self.holds = self.verdict == Verdict::Holds;
    }
}

pub(super) async fn run(desk: &Desk, args: AuditArgs) -> Outcome {
    let link = desk.link()?.with_members().await?;
    let client = desk.client().await?;
    let (document, _) = audit_cluster(&link, &client, args.within, !args.no_history).await?;
    desk.printer.print(&document, to_text)?;
    let (findings, incomplete) = (document.findings.len(), document.incomplete.len());
    match document.verdict {
        Verdict::Holds => Ok(()),
        Verdict::Broken => {
            let why = format!("{findings} findings, {incomplete} looks could not be taken");
            Err(Failure::refused(format!("the audit does not hold: {why}")).hint("ledgerctl audit -o json"))
        }
        Verdict::NotKnown => {
            let why = format!("{incomplete} looks could not be taken, nothing is wrong in the others");
            Err(Failure::unknown(format!("the audit could not look everywhere: {why}")).hint("ledgerctl status"))
        }
    }
}

fn to_text(audit: &AuditDoc) -> String {
    let mut out = format!(
        "{} nodes recomputed their shards; {} digests of replicas compared; {} changes of history entered into the books",
        audit.nodes, audit.digests_compared, audit.changes
    );
    if let Some(Sums { received, available, held, sold }) = audit.books {
        let rows = [[num(received), num(available), num(held), num(sold)]];
        out.push_str(&format!("\n\n{}", table(["RECEIVED", "AVAILABLE", "HELD", "SOLD"], rows)));
    }
    if audit.books.is_some() && !audit.compared {
        out.push_str(
            "\nstock kept changing, so the books were checked against the feed's own balances, not against reads",
        );
    }
    if audit.not_recomputable > 0 {
        out.push_str(&format!("\n{} products reach back further than history is kept", audit.not_recomputable));
    }
    if !audit.findings.is_empty() {
        let rows = audit.findings.iter().take(limits::FINDINGS_SHOWN).map(|f| [text(&f.invariant), text(&f.what)]);
        out.push_str(&format!("\n\n{}", table(["BROKEN", "WHAT"], rows)));
    }
    for look in &audit.incomplete {
        out.push_str(&format!("\nnot looked at: {look}"));
    }
    out.push_str(match audit.verdict {
        Verdict::Holds => "\n\nthe audit holds",
        Verdict::Broken => "\n\nthe audit does NOT hold",
        Verdict::NotKnown => "\n\nthe audit could not look everywhere: nothing is wrong in what it saw",
    });
    out
}

/// Takes all three looks. The books are returned for further questions.
///
/// # Errors
/// When the cluster does not answer reads at all.
pub async fn audit_cluster(
    link: &ClusterLink,
    client: &Client,
    within: Duration,
    history: bool,
) -> Outcome<(AuditDoc, Books)> {
    let until = Instant::now() + within;
    let mut document = AuditDoc::default();
    let follow_until = until.min(Instant::now() + limits::AUDIT_FOLLOW_WITHIN);
    follow(&link.nodes, follow_until, Silent::LeftOut, &mut document).await;
    for look in 1..=limits::AUDIT_LOOKS {
        let seen = ask_nodes(link).await;
        let is_last = look == limits::AUDIT_LOOKS || Instant::now() >= until;
        if is_last || seen.not_compared.is_empty() || !seen.findings.is_empty() || !seen.incomplete.is_empty() {
            document.take(seen);
            break;
        }
    }
    let mut books = Books::new();
    if history {
        match read_history(client, until, &mut books).await {
            Ok(compared) => {
                books.close();
                document.compared = compared;
                document.changes = books.changes();
                document.books = Some(books.total());
                document.not_recomputable = books.truncated() as u64;
                document.findings.extend_from_slice(books.findings());
            }
            Err(why) => document.incomplete.push(format!("history: {why}")),
        }
    }
    document.decide();
    Ok((document, books))
}

/// Waits until every node has applied all that is committed now.
pub(crate) async fn wait_caught_up(nodes: &[NodeLink], document: &mut AuditDoc) {
    follow(nodes, Instant::now() + limits::CATCH_UP_WITHIN, Silent::Awaited, document).await;
}

/// What becomes of nodes that do not answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silent {
    /// They are waited for.
    Awaited,
    /// They are left out: the next look names them.
    LeftOut,
}

/// Waits until every replica has applied what was committed when this began.
async fn follow(nodes: &[NodeLink], until: Instant, silent: Silent, document: &mut AuditDoc) {
    let mut wanted: Option<BTreeMap<u32, u64>> = None;
    loop {
        let each = nodes.iter().map(async |node| (node.address.as_str(), node.status().await));
        let answers = futures::future::join_all(each).await;
        let mut behind = Vec::new();
        let told: Vec<_> = answers.iter().filter_map(|(address, s)| Some((*address, s.as_ref().ok()?))).collect();
        let wanted = wanted.get_or_insert_with(|| {
            let mut committed = BTreeMap::new();
            for s in told.iter().flat_map(|(_, status)| &status.shards) {
                let most = committed.entry(s.shard).or_insert(0);
                *most = s.committed_index.max(*most);
            }
            committed
        });
        for (address, status) in &told {
            for s in &status.shards {
                let most = wanted.get(&s.shard).copied().unwrap_or(0);
                if s.applied_index < most {
                    behind.push(format!(
                        "{address}, shard {}: does not follow: it has applied {} of {most}",
                        s.shard, s.applied_index
                    ));
                }
            }
        }
        let away = answers.len() - told.len();
        if behind.is_empty() && (away == 0 || silent == Silent::LeftOut) {
            return;
        }
        if Instant::now() >= until {
            document.incomplete.extend(behind);
            if silent == Silent::Awaited && away > 0 {
                document.incomplete.push(format!("{away} nodes do not answer"));
            }
            return;
        }
        tokio::time::sleep(limits::POLL).await;
    }
}

/// What replicas said, by shard and index.
type AtIndex<T> = BTreeMap<(u32, u64), Vec<T>>;

/// One look at all nodes.
#[derive(Default)]
struct Looked {
    nodes: u64,
    digests_compared: u64,
    findings: Vec<Finding>,
    incomplete: Vec<String>,
    /// Shards of which several replicas answered, and none at an index of another.
    not_compared: Vec<u32>,
}

impl AuditDoc {
    fn take(&mut self, looked: Looked) {
        self.nodes = looked.nodes;
        self.digests_compared = looked.digests_compared;
        self.findings.extend(looked.findings);
        self.incomplete.extend(looked.incomplete);
        let not_compared =
            |shard| format!("shard {shard}: its replicas were seen at different indexes, none was compared");
        self.incomplete.extend(looked.not_compared.into_iter().map(not_compared));
    }
}

async fn ask_nodes(link: &ClusterLink) -> Looked {
    let mut looked = Looked::default();
    let mut totals: AtIndex<(String, v1::Totals)> = BTreeMap::new();
    let mut digests: AtIndex<(String, Vec<u8>)> = BTreeMap::new();
    let mut replicas: BTreeMap<u32, u64> = BTreeMap::new();
    let each = link.nodes.iter().map(async |node| {
        let audit = timed(limits::AUDIT_WITHIN, node.admin().audit(v1::AuditRequest {})).await;
        let digests = timed(limits::TRY_WITHIN, node.admin().digests(v1::DigestsRequest {})).await;
        (node.address.clone(), audit, digests)
    });
    for (address, audit, told) in futures::future::join_all(each).await {
        match audit {
            Ok(audit) => {
                looked.nodes += 1;
                for f in audit.findings {
                    let what = format!("{address}, shard {}: {}", f.shard, f.what);
                    looked.findings.push(Finding::new(f.invariant, what));
                }
                for s in audit.shards {
                    *replicas.entry(s.shard).or_default() += 1;
                    totals.entry((s.shard, s.index)).or_default().push((address.clone(), s.totals.unwrap_or_default()));
                    digests.entry((s.shard, s.index)).or_default().push((address.clone(), s.digest.to_vec()));
                }
            }
            Err(status) => looked.incomplete.push(format!("{address}: {}", brief(&status))),
        }
        match told {
            Ok(told) => {
                for one in told.digests {
                    let at = digests.entry((one.shard, one.index)).or_default();
                    // A node's audit may have been at this very index.
                    if at.iter().all(|(known, _)| *known != address) {
                        at.push((address.clone(), one.value.to_vec()));
                    }
                }
            }
            Err(status) => looked.incomplete.push(format!("digests of {address}: {}", brief(&status))),
        }
    }
    let different = |shard: u32, index: u64, a: &str, b: &str| {
        Finding::new("diverged", format!("shard {shard} at index {index}: {a} and {b} differ"))
    };
    looked.findings.extend(totals.iter().flat_map(|(&(shard, index), told)| different_totals(shard, index, told)));
    let mut compared: BTreeMap<u32, u64> = BTreeMap::new();
    for ((shard, index), told) in &digests {
        *compared.entry(*shard).or_default() += told.len() as u64 - 1;
        for (address, _) in told.iter().skip(1).filter(|(_, value)| *value != told[0].1) {
            looked.findings.push(different(*shard, *index, &told[0].0, address));
        }
    }
    looked.digests_compared = compared.values().sum();
    let several = replicas.into_iter().filter(|(_, replicas)| *replicas > 1).map(|(shard, _)| shard);
    looked.not_compared = several.filter(|shard| compared.get(shard).is_none_or(|n| *n == 0)).collect();
    looked
}

/// Replicas whose totals at one index are others than the first one's.
fn different_totals(shard: u32, index: u64, told: &[(String, v1::Totals)]) -> Vec<Finding> {
    // A counter that counts nothing any more is dropped late, and a replica restored from a snapshot has none of those: their
    // number is no truth that replicas share.
    let shared = |totals: &v1::Totals| v1::Totals { limit_counts: 0, ..*totals };
    let Some(((first, as_first), others)) = told.split_first() else { return Vec::new() };
    let others = others.iter().filter(|(_, totals)| shared(totals) != shared(as_first));
    let say = |(address, totals): &(String, v1::Totals)| {
        format!("totals of shard {shard} at index {index}: {first} has {as_first:?}, {address} has {totals:?}")
    };
    others.map(|other| Finding::new("diverged", say(other))).collect()
}

/// Reads the feed from its beginning to what is current when this is called, then compares with a linearizable read.
///
/// While others keep changing stock the read and the feed cannot be taken at the same instant; then the comparison is left out
/// and only the feed's own balances are checked.
async fn read_history(client: &Client, until: Instant, books: &mut Books) -> Result<bool, String> {
    let before = all_products(client).await.map_err(|e| e.to_string())?;
    let mut watch = client.watch(Cursor::oldest());
    let mut quiet = false;
    let mut say_at = Instant::now() + limits::AUDIT_PROGRESS_EVERY;
    let mut last_change = Instant::now();
    let mut times: BTreeMap<u32, LedgerTime> = BTreeMap::new();
    while !quiet {
        let next = tokio::time::timeout(limits::FEED_SILENT_MAX, watch.next()).await;
        let happenings = match next {
            Err(_) => return Err(format!("the feed said nothing for {:?}", limits::FEED_SILENT_MAX)),
            Ok(None) => return Err("the feed ended".into()),
            Ok(Some(Err(ended))) => return Err(ended.to_string()),
            Ok(Some(Ok(happenings))) => happenings,
        };
        for happened in &happenings.changes {
            books.enter(happened.position, happened.time, &happened.change);
        }
        times.extend(happenings.shard_times);
        if Instant::now() >= say_at {
            eprintln!("reading history: {} changes so far …", books.changes());
            say_at = Instant::now() + limits::AUDIT_PROGRESS_EVERY;
        }
        if Instant::now() >= until {
            return Err(format!("its end was not reached in time, after {} changes", books.changes()));
        }
        // An empty frame is sent while nothing happens: all that there was has been told.
        quiet = happenings.changes.is_empty() && (books.changes() > 0 || before.is_empty());
        if !happenings.changes.is_empty() {
            last_change = Instant::now();
        }
        if last_change.elapsed() > limits::FEED_SILENT_MAX {
            return Err("the feed does not reach the present".into());
        }
    }
    for (shard, time) in times {
        books.advance(shard, time);
    }
    let after = all_products(client).await.map_err(|e| e.to_string())?;
    let still = before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| same_stock(a, b));
    if still {
        books.compare(&after);
    }
    Ok(still)
}

fn same_stock(a: &client_sdk::ProductView, b: &client_sdk::ProductView) -> bool {
    let balances =
        |v: &client_sdk::ProductView| v.offers.iter().map(|o| (o.offer.clone(), o.balance)).collect::<Vec<_>>();
    (a.received, a.adjusted, a.returned) == (b.received, b.adjusted, b.returned) && balances(a) == balances(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_differ_by_what_they_share_and_not_by_counters_dropped_late() {
        let totals = |live: u64, limit_counts: u64| v1::Totals { live, limit_counts, ..v1::Totals::default() };
        let told = |name: &str, totals| (name.to_owned(), totals);
        let same = [told("a", totals(3, 7)), told("b", totals(3, 5))];
        assert!(different_totals(1, 9, &same).is_empty());
        let other = [told("a", totals(3, 7)), told("b", totals(3, 7)), told("c", totals(4, 7))];
        let found = different_totals(1, 9, &other);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("c has") && found[0].what.contains("index 9"), "{}", found[0].what);
    }
}
