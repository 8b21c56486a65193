//! `ledgerctl audit`: the promises recomputed on the live cluster.
//!
//! **What it is.** Three looks that do not trust each other: every node recomputes its shards from its records; digests and
//! totals of replicas are compared at equal indexes; and stock is recomputed here from the feed, by [`crate::books`].
//! **Owns** their comparison. **Must never** call a look that could not be taken a success.
//! **Read next**: [`crate::books`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use client_sdk::{Client, Cursor, Position, v1};
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
    /// Replicas beyond the first of each shard whose digests were compared with that one's, at common indexes.
    pub digests_compared: u64,
    /// Changes read from the feed.
    pub changes: u64,
    /// Whether stock stood still, so that the books could be compared with what the ledger answers to reads.
    pub compared: bool,
    /// Units by the books.
    pub books: Option<Sums>,
    /// Products whose first changes are no longer kept, so that they could not be recomputed.
    pub not_recomputable: u64,
    /// After so many changes the books kept balances alone, since there were more reservations, orders and references than they keep: ends, deadlines,
    /// references, orders and money were not recomputed from there on.
    pub balances_after: Option<u64>,
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
    let (document, _) =
        audit_cluster(&link, &client, args.within.unwrap_or(limits::AUDIT_WITHIN_MAX), !args.no_history).await?;
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
    if let Some(changes) = audit.balances_after {
        out.push_str(&format!(
            "\nafter {changes} changes the books kept balances alone: ends, deadlines, references, orders and money were not recomputed from there on"
        ));
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
    let until = Instant::now() + within.min(limits::AUDIT_WITHIN_MAX);
    let mut document = AuditDoc::default();
    let follow_until = until.min(Instant::now() + limits::AUDIT_FOLLOW_WITHIN);
    let committed = follow(&link.nodes, follow_until, Silent::LeftOut, &mut document).await;
    document.take(look_at_nodes(link, &client.routing(), until).await);
    let mut books = Books::bounded(limits::AUDIT_BOOK_RECORDS_MAX);
    if history {
        // What was created before the oldest change that is kept is not lost.
        if is_cut(&link.nodes).await {
            books.history_is_cut();
        }
        let read = tokio::time::timeout_at(until.into(), read_history(client, &committed, &mut books)).await;
        let late = |_| Err(format!("its end was not reached in time, after {} changes", books.changes()));
        match read.unwrap_or_else(late) {
            Ok(compared) => {
                books.close();
                document.compared = compared;
                document.changes = books.changes();
                document.books = Some(books.total());
                document.not_recomputable = books.truncated() as u64;
                document.balances_after = books.reduced_after();
            }
            Err(why) => document.incomplete.push(format!("history: {why}")),
        }
        document.findings.extend_from_slice(books.findings());
    }
    document.decide();
    Ok((document, books))
}

/// Whether a node has dropped history of a shard.
async fn is_cut(nodes: &[NodeLink]) -> bool {
    let statuses = futures::future::join_all(nodes.iter().map(NodeLink::status)).await;
    statuses.iter().flatten().flat_map(|status| &status.shards).any(|shard| shard.history_oldest > 0)
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

/// Waits until every replica has applied what was committed when its nodes were first heard of;
/// answers that index of each shard.
async fn follow(nodes: &[NodeLink], until: Instant, silent: Silent, document: &mut AuditDoc) -> BTreeMap<u32, u64> {
    let mut committed: BTreeMap<u32, u64> = BTreeMap::new();
    let mut heard: BTreeSet<&str> = BTreeSet::new();
    loop {
        let each = nodes.iter().map(async |node| Some((node.address.as_str(), node.status().await.ok()?)));
        let statuses: Vec<_> = futures::future::join_all(each).await.into_iter().flatten().collect();
        for (address, status) in &statuses {
            if heard.insert(*address) {
                for s in &status.shards {
                    let most = committed.entry(s.shard).or_insert(0);
                    *most = s.committed_index.max(*most);
                }
            }
        }
        let mut behind = Vec::new();
        for (address, status) in &statuses {
            for s in &status.shards {
                let most = committed.get(&s.shard).copied().unwrap_or(0);
                if s.applied_index < most {
                    behind.push(format!(
                        "{address}, shard {}: does not follow: it has applied {} of {most}",
                        s.shard, s.applied_index
                    ));
                }
            }
        }
        let silent_nodes = nodes.len() - statuses.len();
        if behind.is_empty() && (silent_nodes == 0 || silent == Silent::LeftOut) {
            return committed;
        }
        if Instant::now() >= until {
            document.incomplete.extend(behind);
            if silent == Silent::Awaited && silent_nodes > 0 {
                document.incomplete.push(format!("{silent_nodes} nodes do not answer"));
            }
            return committed;
        }
        tokio::time::sleep(limits::POLL).await;
    }
}

/// What replicas answered, by shard and index.
type AtIndex<T> = BTreeMap<(u32, u64), Vec<T>>;

/// One look at all nodes.
#[derive(Default)]
struct Looked {
    nodes: u64,
    digests_compared: u64,
    findings: Vec<Finding>,
    incomplete: Vec<String>,
    /// Shards whose replicas were not all compared with each other, and those that were.
    not_compared: Vec<(u32, Vec<String>)>,
}

impl AuditDoc {
    fn take(&mut self, looked: Looked) {
        self.nodes = looked.nodes;
        self.digests_compared = looked.digests_compared;
        self.findings.extend(looked.findings);
        self.incomplete.extend(looked.incomplete);
        let not_compared = |(shard, apart): (u32, Vec<String>)| {
            format!("shard {shard}: its replicas were seen at no common index: {}", apart.join(" | "))
        };
        self.incomplete.extend(looked.not_compared.into_iter().map(not_compared));
    }
}

/// What was seen of replicas so far.
#[derive(Default)]
struct Seen {
    totals: AtIndex<(String, v1::Totals)>,
    digests: AtIndex<(String, Vec<u8>)>,
    audited: BTreeSet<(u32, String)>,
}

impl Seen {
    fn digest(&mut self, shard: u32, index: u64, address: &str, value: Vec<u8>) {
        let at = self.digests.entry((shard, index)).or_default();
        // A node's audit may have been at this very index, or an earlier look.
        if !at.iter().any(|(known, seen)| known == address && *seen == value) {
            at.push((address.to_owned(), value));
        }
    }
}

/// Has each node recompute its shards, one node after the other, and compares digests, until all replicas were compared or it was tried often enough.
async fn look_at_nodes(link: &ClusterLink, routing: &v1::Routing, until: Instant) -> Looked {
    let mut seen = Seen::default();
    let began = Instant::now();
    let mut audits = audit_nodes(link, until, &mut seen).await;
    let is_quick = began.elapsed() < limits::AUDIT_QUICK;
    for look in 1.. {
        let mut looked = Looked { nodes: audits.nodes, ..Looked::default() };
        looked.findings.extend_from_slice(&audits.findings);
        looked.incomplete.extend_from_slice(&audits.incomplete);
        take_digests(link, &mut seen, &mut looked).await;
        compare(routing, &seen, &mut looked);
        let is_last = look == limits::AUDIT_LOOKS || Instant::now() >= until;
        if is_last || looked.not_compared.is_empty() || !looked.findings.is_empty() || !looked.incomplete.is_empty() {
            return looked;
        }
        // Replicas that were just started have few digests: an audit takes one more.
        if is_quick {
            audits = audit_nodes(link, until, &mut seen).await;
        } else {
            tokio::time::sleep(limits::AUDIT_PROGRESS_EVERY).await;
        }
    }
    unreachable!("the last look is answered")
}

/// One node after the other: an audit takes processor time and memory that the others need to go on.
async fn audit_nodes(link: &ClusterLink, until: Instant, seen: &mut Seen) -> Looked {
    let mut looked = Looked::default();
    seen.totals.clear();
    seen.audited.clear();
    for node in &link.nodes {
        let address = node.address.clone();
        let audit = match audit_node(node, until).await {
            Ok(audit) => audit,
            Err(status) => {
                looked.incomplete.push(format!("{address}: {}", brief(&status)));
                continue;
            }
        };
        looked.nodes += 1;
        for f in audit.findings {
            let what = format!("{address}, shard {}: {}", f.shard, f.what);
            looked.findings.push(Finding::new(f.invariant, what));
        }
        for s in audit.shards {
            seen.audited.insert((s.shard, address.clone()));
            seen.totals.entry((s.shard, s.index)).or_default().push((address.clone(), s.totals.unwrap_or_default()));
            seen.digest(s.shard, s.index, &address, s.digest.to_vec());
        }
    }
    looked
}

/// Whether a node's audit makes progress.
struct Headway {
    last: Option<v1::AuditProgress>,
    moved: Instant,
}

impl Headway {
    /// Takes what the node's status says; answers it if it is new.
    fn see(&mut self, progress: Option<v1::AuditProgress>, now: Instant) -> Option<&v1::AuditProgress> {
        if progress.is_none() || progress == self.last {
            return None;
        }
        (self.last, self.moved) = (progress, now);
        self.last.as_ref()
    }
    fn is_stalled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) >= limits::AUDIT_STALLED
    }
}

/// Waits for a node's audit for as long as that makes progress, and says how far it is.
async fn audit_node(node: &NodeLink, until: Instant) -> Result<v1::AuditResponse, tonic::Status> {
    let mut admin = node.admin();
    let audit = admin.audit(v1::AuditRequest {});
    tokio::pin!(audit);
    let mut headway = Headway { last: None, moved: Instant::now() };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if let Ok(answer) = tokio::time::timeout(limits::AUDIT_PROGRESS_EVERY.min(left), &mut audit).await {
            return answer.map(tonic::Response::into_inner);
        }
        if Instant::now() >= until {
            return Err(tonic::Status::deadline_exceeded("its audit did not end in time"));
        }
        let progress = node.status().await.ok().and_then(|status| status.audit);
        if let Some(v1::AuditProgress { shard, doing, done, of }) = headway.see(progress, Instant::now()) {
            eprintln!("audit of {}: shard {shard}: {done} of {of} of its {doing} read", node.address);
        }
        if headway.is_stalled(Instant::now()) {
            let why = format!("its audit made no progress for {:?}", limits::AUDIT_STALLED);
            return Err(tonic::Status::deadline_exceeded(why));
        }
    }
}

/// Digests that the nodes took lately, of all at once: so that they have the same indexes.
async fn take_digests(link: &ClusterLink, seen: &mut Seen, looked: &mut Looked) {
    let each = link.nodes.iter().map(async |node| {
        (node.address.as_str(), timed(limits::TRY_WITHIN, node.admin().digests(v1::DigestsRequest {})).await)
    });
    for (address, taken) in futures::future::join_all(each).await {
        match taken {
            Ok(taken) => {
                for one in taken.digests {
                    seen.digest(one.shard, one.index, address, one.value.to_vec());
                }
            }
            Err(status) => looked.incomplete.push(format!("digests of {address}: {}", brief(&status))),
        }
    }
}

/// Compares what was seen of replicas at equal indexes.
fn compare(routing: &v1::Routing, seen: &Seen, looked: &mut Looked) {
    looked.incomplete.extend(not_audited(routing, &seen.audited));
    let differ = seen.totals.iter().flat_map(|(&(shard, index), seen)| different_totals(shard, index, seen));
    looked.findings.extend(differ);
    for ((shard, index), seen) in &seen.digests {
        let Some(((first, as_first), others)) = seen.split_first() else { continue };
        for (address, _) in others.iter().filter(|(_, value)| value != as_first) {
            let what = format!("shard {shard} at index {index}: {first} and {address} differ");
            looked.findings.push(Finding::new("diverged", what));
        }
    }
    let shards: BTreeSet<u32> = seen.audited.iter().map(|(shard, _)| *shard).collect();
    for shard in shards {
        let replicas: Vec<&str> =
            seen.audited.iter().filter(|(of, _)| *of == shard).map(|(_, address)| &**address).collect();
        let at_index = seen.digests.iter().filter(|((of, _), _)| *of == shard).map(|(_, seen)| seen.as_slice());
        let together = compared_together(&replicas, at_index);
        looked.digests_compared += (replicas.len() - together.len()) as u64;
        if together.len() > 1 {
            let apart = together.iter().map(|group| group.join(", ")).collect();
            looked.not_compared.push((shard, apart));
        }
    }
}

/// Divides replicas by what was compared: two are together when a chain of common indexes leads from one to the other.
fn compared_together<'a>(
    replicas: &[&'a str],
    at_index: impl Iterator<Item = &'a [(String, Vec<u8>)]>,
) -> Vec<Vec<&'a str>> {
    let mut together: Vec<Vec<&str>> = replicas.iter().map(|replica| vec![*replica]).collect();
    for seen in at_index {
        let met = |group: &Vec<&str>| group.iter().any(|replica| seen.iter().any(|(address, _)| address == replica));
        let (joined, others): (Vec<_>, Vec<_>) = together.into_iter().partition(met);
        together = others;
        together.extend(Some(joined.concat()).filter(|joined| !joined.is_empty()));
    }
    together
}

/// Replicas of the placement that no node's audit had: a node may be starting, or lack a shard that
/// it should have.
fn not_audited(routing: &v1::Routing, audited: &BTreeSet<(u32, String)>) -> Vec<String> {
    if routing.shards.is_empty() {
        return vec!["no node says which shards there are".to_owned()];
    }
    let mut missing = Vec::new();
    for shard in &routing.shards {
        for replica in &shard.replicas {
            let address = routing.nodes.iter().find(|node| node.node == *replica).map(|node| &node.client);
            if !address.is_some_and(|address| audited.contains(&(shard.shard, address.clone()))) {
                missing.push(format!("the replica of shard {} on node {replica} was not audited", shard.shard));
            }
        }
    }
    missing
}

/// Replicas whose totals at one index are others than the first one's.
fn different_totals(shard: u32, index: u64, seen: &[(String, v1::Totals)]) -> Vec<Finding> {
    // A counter that counts nothing any more is dropped late, and a replica restored from a snapshot
    // has none of those: replicas do not share their number.
    let shared = |totals: &v1::Totals| v1::Totals { limit_counts: 0, ..*totals };
    let Some(((first, as_first), others)) = seen.split_first() else { return Vec::new() };
    let others = others.iter().filter(|(_, totals)| shared(totals) != shared(as_first));
    let finding = |(address, totals): &(String, v1::Totals)| {
        let what =
            format!("totals of shard {shard} at index {index}: {first} has {as_first:?}, {address} has {totals:?}");
        Finding::new("diverged", what)
    };
    others.map(finding).collect()
}

/// How far the feed was read in one shard.
struct Reached {
    index: u64,
    at: Instant,
}

/// Reads the feed from its beginning to what was committed when the audit began, and on while
/// nothing else comes; then compares with a linearizable read.
///
/// While others keep changing stock the read and the feed cannot be taken at the same instant; then the comparison is left out
/// and only the feed's own balances are checked.
async fn read_history(client: &Client, committed: &BTreeMap<u32, u64>, books: &mut Books) -> Result<bool, String> {
    let before = all_products(client).await.map_err(|e| e.to_string())?;
    let mut watch = client.watch(Cursor::oldest());
    let mut say_at = Instant::now() + limits::AUDIT_PROGRESS_EVERY;
    let mut reached: BTreeMap<u32, Reached> =
        committed.keys().map(|shard| (*shard, Reached { index: 0, at: Instant::now() })).collect();
    let mut busy_until: Option<Instant> = None;
    loop {
        let next = tokio::time::timeout(limits::FEED_SILENT_MAX, watch.next()).await;
        let happenings = match next {
            Err(_) => return Err(format!("the feed was silent for {:?}", limits::FEED_SILENT_MAX)),
            Ok(None) => return Err("the feed ended".into()),
            Ok(Some(Err(ended))) => return Err(ended.to_string()),
            Ok(Some(Ok(happenings))) => happenings,
        };
        for happened in &happenings.changes {
            books.enter(happened.position, happened.time, &happened.change);
            let Position { shard, index, .. } = happened.position;
            reached.insert(shard, Reached { index, at: Instant::now() });
        }
        if Instant::now() >= say_at {
            eprintln!("reading history: {} changes so far …", books.changes());
            say_at = Instant::now() + limits::AUDIT_PROGRESS_EVERY;
        }
        // An empty frame with times comes while nothing happens, so that all there was is entered.
        let idle = happenings.changes.is_empty() && !happenings.shard_times.is_empty();
        if idle && (books.changes() > 0 || before.is_empty()) {
            for (shard, time) in happenings.shard_times {
                books.advance(shard, time);
            }
            break;
        }
        // Entries may change nothing: a shard may never be seen at its last index.
        let is_read = |(shard, to): (&u32, &u64)| {
            reached.get(shard).is_none_or(|r| r.index >= *to || r.at.elapsed() > limits::FEED_SHARD_SILENT)
        };
        if committed.iter().all(is_read)
            && Instant::now() >= *busy_until.get_or_insert_with(|| Instant::now() + limits::FEED_SHARD_SILENT)
        {
            return Ok(false);
        }
    }
    let after = all_products(client).await.map_err(|e| e.to_string())?;
    let still = before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| same_stock(a, b));
    if still {
        books.compare(&after);
        books.nothing_is_lost();
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
    fn replicas_are_compared_when_common_indexes_connect_them() {
        let at = |addresses: &[&str]| addresses.iter().map(|a| ((*a).to_owned(), vec![7])).collect::<Vec<_>>();
        let replicas = ["a", "b", "c", "d", "e"];
        let halves = [at(&["a", "b"]), at(&["c", "d", "e"]), at(&["c"])];
        let apart = compared_together(&replicas, halves.iter().map(Vec::as_slice));
        assert_eq!(apart.len(), 2, "{apart:?}");
        let chain = [at(&["a", "b"]), at(&["c", "d", "e"]), at(&["b", "e"])];
        assert_eq!(compared_together(&replicas, chain.iter().map(Vec::as_slice)).len(), 1);
        assert_eq!(compared_together(&["a"], std::iter::empty()).len(), 1, "one alone needs no other");
    }

    #[test]
    fn replicas_differ_by_what_they_share_and_not_by_counters_dropped_late() {
        let totals = |live: u64, limit_counts: u64| v1::Totals { live, limit_counts, ..v1::Totals::default() };
        let seen = |name: &str, totals| (name.to_owned(), totals);
        let same = [seen("a", totals(3, 7)), seen("b", totals(3, 5))];
        assert!(different_totals(1, 9, &same).is_empty());
        let other = [seen("a", totals(3, 7)), seen("b", totals(3, 7)), seen("c", totals(4, 7))];
        let found = different_totals(1, 9, &other);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("c has") && found[0].what.contains("index 9"), "{}", found[0].what);
    }

    #[test]
    fn audit_of_a_node_is_given_up_when_its_progress_stands_still() {
        let began = Instant::now();
        let after = |seconds: u64| began + Duration::from_secs(seconds);
        let at = |done| Some(v1::AuditProgress { shard: 1, doing: "records".to_owned(), done, of: 9 });
        let mut headway = Headway { last: None, moved: began };
        assert!(headway.see(at(1), after(50)).is_some() && !headway.is_stalled(after(109)), "the first is new");
        assert!(headway.see(at(1), after(100)).is_none() && headway.is_stalled(after(110)), "the same again is not");
        assert!(headway.see(None, after(105)).is_none() && headway.is_stalled(after(110)), "nor is silence");
        assert!(headway.see(at(2), after(109)).is_some() && !headway.is_stalled(after(110)));
    }

    #[test]
    fn a_replica_that_no_node_audited_is_named() {
        let node = |node, client: &str| v1::NodeRoute { node, client: client.to_owned(), ..Default::default() };
        let shard = |shard| v1::ShardRoute { shard, replicas: vec![1, 2], ..Default::default() };
        let routing = v1::Routing {
            shards: vec![shard(1), shard(2)],
            nodes: vec![node(1, "a"), node(2, "b")],
            ..Default::default()
        };
        let seen = |shards: &[(u32, &str)]| shards.iter().map(|(s, a)| (*s, (*a).to_owned())).collect();
        assert!(not_audited(&routing, &seen(&[(1, "a"), (1, "b"), (2, "a"), (2, "b")])).is_empty());
        // It answered, and lacks a shard; it is starting, and has none.
        let lacks = not_audited(&routing, &seen(&[(1, "a"), (1, "b"), (2, "a")]));
        assert_eq!(lacks, ["the replica of shard 2 on node 2 was not audited"]);
        assert_eq!(not_audited(&routing, &seen(&[(1, "a"), (2, "a")])).len(), 2);
        assert_eq!(not_audited(&v1::Routing::default(), &seen(&[])).len(), 1, "nothing is known of it");
    }
}
