//! How a run begins and how it is read out: init, connections, and the final reads that the checkers judge.
//!
//! **Owns** nothing but questions. **Must never** change what it reads: unknown answers are resolved by reading, not by a fence.
//! **Read next**: [`crate::checkers`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client_sdk::{Client, IdView, Outcome, ReservationId, ReservationView, Status};
use futures::future::join_all;
use ledger_proto::v1;

use crate::checkers;
use crate::history::{FinalDigest, FinalId, FinalLine, FinalOffer, FinalStatus, FinalStock, Watched};
use crate::sometimes;
use crate::workload::watching::{Begin, one_watch};
use crate::workload::{self, Failure, Journal, Load, Site};

/// Tries of each final read before the run counts as not converged.
const TRIES: u32 = 200;
/// Looks for a moment at which all nodes have applied the same.
const DIGEST_TRIES: u32 = 10;
/// Reads of all feeds, of which the last is judged whatever it has.
const FEED_READS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Ids read at once.
const AT_ONCE: usize = 64;

/// `cluster init`, repeated until it is done: that must be safe.
///
/// # Errors
/// When it never is.
pub async fn init_cluster(site: &Site, shards: u32) -> Result<(), Failure> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match init_once(site, shards, site.node(0)).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("the cluster was never initialised: {last}").into())
}

/// `cluster init` through one node, once.
///
/// # Errors
/// Why it is not begun.
pub async fn init_once(site: &Site, shards: u32, through: u64) -> Result<(), Failure> {
    let mut admin = site.admin(through).await?;
    admin.init(init_request(site, shards)).await?;
    Ok(())
}

fn init_request(site: &Site, shards: u32) -> v1::InitRequest {
    let member =
        |(node, client): &(u64, String)| v1::Member { node: *node, client: client.clone(), ..Default::default() };
    v1::InitRequest { members: site.nodes().iter().map(member).collect(), shards, replicas: 0 }
}

/// Takes down what nodes say that run on an empty disk.
pub async fn stay_out(site: &Site, journal: &Journal, emptied: &[u64]) {
    for node in emptied {
        let mut found = (false, String::new());
        for _ in 0..TRIES {
            match workload::readiness(site, *node).await {
                Ok(status) => found = status,
                // It may have just been started.
                Err(error) => found.1 = error.to_string(),
            }
            if checkers::lost_disks::is_outside(&found.1) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let (ready, says) = found;
        let mut run = journal.lock().expect("never poisoned");
        run.statuses.push(FinalStatus { node: *node, ready, says });
        run.about.emptied.push(*node);
        sometimes::reached("stayed-out");
    }
}

/// `node rejoin` through one node, once.
///
/// # Errors
/// Why the node is not back.
pub async fn rejoin_once(site: &Site, through: u64, node: u64) -> Result<(), Failure> {
    let mut admin = site.admin(through).await?;
    let member = v1::Member { node, ..v1::Member::default() };
    admin.rejoin(v1::RejoinRequest { members: vec![member] }).await?;
    Ok(())
}

/// Brings nodes back that run on an empty disk, and waits until each votes again in all of its
/// groups.
///
/// # Errors
/// When one is never repaired.
pub async fn come_back(site: &Site, emptied: &[u64]) -> Result<(), Failure> {
    for node in emptied {
        let mut last = String::new();
        let others = site.nodes().iter().map(|(id, _)| *id).filter(|id| id != node).cycle();
        let mut back = false;
        for through in others.take(TRIES as usize) {
            match rejoin_once(site, through, *node).await {
                Ok(()) => back = true,
                Err(error) => last = error.to_string(),
            }
            if back && is_repaired(site, *node).await {
                sometimes::reached("rejoined");
                break;
            }
            (back, last) = (false, if back { "it is not repaired yet".to_owned() } else { last });
            tokio::time::sleep(PAUSE).await;
        }
        if !back {
            return Err(format!("node {node} never came back: {last}").into());
        }
    }
    Ok(())
}

/// Whether a node votes and may lead in every group that it has.
async fn is_repaired(site: &Site, node: u64) -> bool {
    let Ok(mut admin) = site.admin(node).await else { return false };
    let Ok(status) = admin.node_status(v1::NodeStatusRequest {}).await else { return false };
    let status = status.into_inner();
    let takes_part = |shard: &v1::ShardStatus| matches!(shard.role.as_str(), "leader" | "follower");
    let all = !status.shards.is_empty() && status.shards.iter().all(takes_part);
    status.state == "serving" && status.unrepaired.is_empty() && all
}

/// The SDK's client, asked for until a node answers.
///
/// # Errors
/// When none ever does.
pub async fn connect(site: &Site, seed: u64) -> Result<Client, Failure> {
    let mut last = None;
    for _ in 0..TRIES {
        match site.client(seed).await {
            Ok(client) => return Ok(client),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("no client: {last:?}").into())
}

/// Waits until every product is served and every node has applied the same.
///
/// # Errors
/// When that never comes.
pub async fn converged(client: &Client, site: &Site, load: Load) -> Result<(), Failure> {
    let skus = workload::products(load);
    let mut last = String::new();
    for _ in 0..10 * TRIES {
        let reads = join_all(skus.iter().map(|sku| client.product(sku).into_future())).await;
        let unread = reads.into_iter().find(|read| !read.is_ok());
        last = match (unread, positions(site, &skus).await) {
            (Some(read), _) => format!("{read:?}"),
            (None, Err(error)) => error.to_string(),
            (None, Ok(positions)) if positions.len() == skus.len() => return Ok(()),
            (None, Ok(positions)) => format!("{positions:?}"),
        };
        tracing::info!(last, "not converged yet");
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("the nodes never had the same: {last}").into())
}

async fn positions(site: &Site, skus: &[String]) -> Result<BTreeSet<(String, u64)>, Failure> {
    let mut positions = BTreeSet::new();
    for (node, _) in site.nodes() {
        positions.extend(read_stock_of(site, *node, skus).await?.into_iter().map(|s| (s.sku, s.index)));
    }
    Ok(positions)
}

/// Reads out everything the checkers judge: ids, stock, feeds, digests, audits and the size of each node's log. When it returns, all nodes have converged.
///
/// # Errors
/// What could not be read within the tries: the run has not converged.
pub async fn read_out(client: &Client, site: &Site, load: Load, journal: &Journal) -> Result<(), Failure> {
    let skus = workload::products(load);
    let hostile = journal.lock().expect("never poisoned").hostile.is_some();
    for (node, _) in site.nodes().iter().filter(|_| hostile) {
        is_ready(site, *node).await?;
        for what in workload::after_faults(site, *node).await? {
            journal.lock().expect("never poisoned").hostile.get_or_insert_default().wrong(what);
        }
    }
    let ids: BTreeSet<String> = {
        let run = journal.lock().expect("never poisoned");
        // Hostile clients' ids are as many as they like, and no checker's.
        let run = checkers::hostile::others(&run);
        let of_events = run.events.iter().filter_map(|e| e.op.id()).map(str::to_owned);
        let of_feed = run.watched.iter().flat_map(|w| &w.changes).filter_map(|c| c.id.clone());
        of_events.chain(of_feed).collect()
    };
    let ids: Vec<String> = ids.into_iter().collect();
    let mut finals = Vec::with_capacity(ids.len());
    for some in ids.chunks(AT_ONCE) {
        for read in join_all(some.iter().map(|id| read_id(client, id))).await {
            finals.push(read?);
        }
    }
    let stock = read_stock(site, &skus).await?;
    let feeds = read_feeds(site).await?;
    for (node, _) in site.nodes().iter().filter(|_| hostile) {
        is_ready(site, *node).await?;
    }
    let mut digests = digests_now(site).await?;
    let mut findings = Vec::new();
    for (node, _) in site.nodes() {
        let mut admin = site.admin(*node).await?;
        for one in admin.digests(v1::DigestsRequest {}).await?.into_inner().digests {
            let value = one.value.iter().map(|b| format!("{b:02x}")).collect();
            digests.push(FinalDigest { node: *node, shard: one.shard, index: one.index, value });
        }
        for finding in admin.audit(v1::AuditRequest {}).await?.into_inner().findings {
            findings.push(format!("node {node}: {}: {}", finding.invariant, finding.what));
        }
        findings.extend(log_above_its_bound(site, *node).await?);
    }
    let mut run = journal.lock().expect("never poisoned");
    (run.ids, run.stock, run.digests, run.findings) = (finals, stock, digests, findings);
    run.watched.extend(feeds);
    Ok(())
}

/// Whether a node's log stays larger than what is kept in it allows: it may be while live entries are being carried forward.
async fn log_above_its_bound(site: &Site, node: u64) -> Result<Option<String>, Failure> {
    let mut last = v1::LogUsage::default();
    for _ in 0..TRIES {
        let status = site.admin(node).await?.node_status(v1::NodeStatusRequest {}).await?.into_inner();
        last = status.log.unwrap_or_default();
        if last.bytes <= last.bytes_max {
            return Ok(None);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Some(format!("node {node}: the log's size is bounded by what is kept: {last:?}")))
}

/// More disks than a quorum survives have lost something: nothing is answered, and each damaged node says why. Takes down both, for the
/// checkers to judge.
///
/// # Errors
/// When a node cannot be asked.
pub async fn stays_unavailable(
    client: &Client,
    site: &Site,
    load: Load,
    journal: &Journal,
    damaged: &[u64],
) -> Result<(), Failure> {
    workload::try_some(client, site, load, journal).await;
    for node in damaged {
        let mut status = FinalStatus { node: *node, ready: false, says: String::new() };
        for _ in 0..TRIES {
            match workload::readiness(site, *node).await {
                Ok((ready, says)) => (status.ready, status.says) = (ready, says),
                Err(error) => status.says = error.to_string(),
            }
            if checkers::lost_disks::says_so(&status.says) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        journal.lock().expect("never poisoned").statuses.push(status);
    }
    workload::try_some(client, site, load, journal).await;
    sometimes::reached("stayed-unavailable");
    Ok(())
}

/// A node is ready again, once all is healed.
async fn is_ready(site: &Site, node: u64) -> Result<(), Failure> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match workload::ready(site, node).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("node {node} is never ready: {last}").into())
}

/// The digest of each shard on every node, taken by its audit; again until all are of the same index, and what there is if they never are.
async fn digests_now(site: &Site) -> Result<Vec<FinalDigest>, Failure> {
    let mut digests: Vec<FinalDigest> = Vec::new();
    for _ in 0..DIGEST_TRIES {
        digests.clear();
        for (node, _) in site.nodes() {
            let audit = site.admin(*node).await?.audit(v1::AuditRequest {}).await?.into_inner();
            let of = |one: v1::audit_response::Shard| FinalDigest {
                node: *node,
                shard: one.shard,
                index: one.index,
                value: one.digest.iter().map(|b| format!("{b:02x}")).collect(),
            };
            digests.extend(audit.shards.into_iter().map(of));
        }
        let positions: BTreeSet<(u32, u64)> = digests.iter().map(|one| (one.shard, one.index)).collect();
        let shards: BTreeSet<u32> = digests.iter().map(|one| one.shard).collect();
        if positions.len() == shards.len() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(digests)
}

async fn read_id(client: &Client, text: &str) -> Result<FinalId, Failure> {
    let id: ReservationId = text.parse()?;
    let mut last = String::new();
    for _ in 0..TRIES {
        match client.reservation(id).await {
            Outcome::Ok(answered) => return Ok(final_id(text, answered.value)),
            other => last = format!("{other:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("{text} cannot be read: {last}").into())
}

fn final_id(id: &str, view: IdView) -> FinalId {
    let without = |state: &str| FinalId {
        id: id.to_owned(),
        state: state.to_owned(),
        reserved_at_ms: None,
        deadline_ms: None,
        ended_at_ms: None,
        lines: Vec::new(),
        no: None,
    };
    match view {
        IdView::Reservation(r) => reserved(id, &r),
        IdView::Refused(why) => FinalId { no: Some((&why).into()), ..without("refused") },
        IdView::Fenced => without("fenced"),
        IdView::Unknown => without("unknown"),
        IdView::Forgotten => without("forgotten"),
        IdView::SlotElsewhere => without("slot elsewhere"),
    }
}

fn reserved(id: &str, r: &ReservationView) -> FinalId {
    let state = match r.status {
        Status::Held => "held",
        Status::Confirmed => "confirmed",
        Status::Released => "released",
        Status::Expired => "expired",
    };
    let line = |l: &client_sdk::LineView| FinalLine {
        line: crate::history::Line { offer: (&l.offer).into(), quantity: l.reserved },
        sold: l.sold,
        returned: l.returned,
    };
    FinalId {
        id: id.to_owned(),
        state: state.to_owned(),
        reserved_at_ms: Some(r.reserved_at.0),
        deadline_ms: Some(r.deadline.0),
        ended_at_ms: r.ended_at.map(|t| t.0),
        lines: r.lines.iter().map(line).collect(),
        no: None,
    }
}

/// Every node's own view of every product, once they all have applied the same; what they say last if they never do.
async fn read_stock(site: &Site, skus: &[String]) -> Result<Vec<FinalStock>, Failure> {
    let mut stock: Vec<FinalStock> = Vec::new();
    for _ in 0..TRIES {
        stock.clear();
        for (node, _) in site.nodes() {
            stock.extend(read_stock_of(site, *node, skus).await?);
        }
        let positions: BTreeSet<(&str, u64)> = stock.iter().map(|s| (s.sku.as_str(), s.index)).collect();
        if positions.len() == skus.len() {
            return Ok(stock);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(stock)
}

async fn read_stock_of(site: &Site, node: u64, skus: &[String]) -> Result<Vec<FinalStock>, Failure> {
    let mut ledger = site.ledger(node).await?;
    let mut found = Vec::new();
    for sku in skus {
        let request = v1::GetProductRequest { sku: sku.clone(), consistency: v1::Consistency::Stale.into() };
        let answer = ledger.get_product(request).await?.into_inner();
        let product = answer.product.ok_or_else(|| format!("node {node} does not know {sku}"))?;
        let offer = |o: v1::OfferView| {
            let balance = o.balance.unwrap_or_default();
            let sale = o.offer.map(|key| key.sale).filter(|sale| !sale.is_empty());
            let (available, held, sold) = (balance.available, balance.held, balance.sold);
            FinalOffer { sale, units: crate::history::Units { available, held, sold } }
        };
        found.push(FinalStock {
            node,
            sku: product.sku,
            index: answer.as_of.and_then(|a| a.position).map_or(0, |p| p.index),
            received: product.received,
            adjusted: product.adjusted,
            returned: product.returned,
            offers: product.offers.into_iter().map(offer).collect(),
        });
    }
    Ok(found)
}

/// The whole feed as each node has it. A hold of a hostile client may end while they are read, so
/// they are read again while one ends later than another; the checker judges what stays different.
async fn read_feeds(site: &Site) -> Result<Vec<Watched>, Failure> {
    let mut feeds = Vec::new();
    for _ in 0..FEED_READS {
        feeds.clear();
        for (node, _) in site.nodes() {
            feeds.push(read_feed(site, *node).await?);
        }
        let ends: BTreeSet<_> = feeds.iter().map(ends_of).collect();
        if ends.len() == 1 {
            break;
        }
    }
    Ok(feeds)
}

/// How many changes of each shard a consumer received.
fn ends_of(watched: &Watched) -> BTreeMap<u32, usize> {
    let mut ends = BTreeMap::new();
    for change in &watched.changes {
        *ends.entry(change.at.shard).or_default() += 1;
    }
    ends
}

/// The whole feed as one node has it, from the oldest change it keeps to the newest.
async fn read_feed(site: &Site, node: u64) -> Result<Watched, Failure> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let watched = one_watch(site, 0, node, Begin::Oldest, std::future::pending(), &mut Vec::new()).await;
        if watched.ended == "caught up" {
            return Ok(watched);
        }
        last = watched.ended;
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("the feed of node {node} cannot be read to its end: {last}").into())
}
