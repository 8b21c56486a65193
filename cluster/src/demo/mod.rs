//! `ledgerctl demo`: a flash sale from start to audited end.
//!
//! **What it is.** Three node processes, a catalog, a sale, a crowd, a killed leader; customers whose orders are paid by workers at a provider that
//! turns bad; and then the books. **Owns** the order of
//! events. **Must never** leave a process behind, or end well when anything could not be checked.
//! **Read next**: [`crowd`], [`journal`], [`verify`], [`report`].

mod crowd;
mod journal;
mod orders;
mod progress;
mod report;
mod verify;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client_sdk::{Client, OfferKey, Policy, ReservationId, SaleId};

use crate::books::Books;
use crate::catalog::{Catalog, CatalogLine};
use crate::cli::{DemoArgs, Victim};
use crate::commands::{SalePlan, all_products, audit_cluster, create_sale, import_lines, shard_of, wait_caught_up};
use crate::dev_cluster::{DevCluster, NodeProgram};
use crate::limits;
use crate::link::{ClusterLink, NodeLink, connect};
use crate::output::{Failure, Outcome, Printer};
use crate::shop::Shop;
use crowd::Place;
use journal::Journal;
use orders::Customers;
pub use orders::OrdersDoc;
pub use report::{DemoDoc, KillDoc, StockRow};

/// The catalog that ships with the project.
pub const SAMPLE_CATALOG: &str = include_str!("../../catalog/flash-sale.csv");
const SALE: &str = "flash-sale";
/// Other products in the sale, each with half of its units.
const ALSO_ON_SALE: usize = 8;

fn refused(e: impl std::fmt::Display) -> Failure {
    Failure::refused(e.to_string())
}

/// Runs the demo.
///
/// # Errors
/// [`Failure::Refused`] when the audit does not hold or the cluster failed; the directory is kept then.
pub async fn run(args: DemoArgs, printer: Printer) -> Outcome {
    let began = Instant::now();
    let plan = Plan::new(&args)?;
    let dir = tempfile::Builder::new().prefix("holdfast-demo-").tempdir().map_err(refused)?;
    let path = dir.path().to_owned();
    let ended = tokio::select! {
        ended = play(&args, &plan, path.clone(), began) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::refused("interrupted; all nodes were ended")),
    };
    let held = match &ended {
        Ok(document) => {
            printer.print(document, report::to_text)?;
            document.holds
        }
        Err(_) => false,
    };
    if held && !args.keep {
        drop(dir);
    } else {
        eprintln!("kept: {}", dir.keep().display());
    }
    match ended? {
        document if document.holds => Ok(()),
        document => {
            let what =
                format!("the audit does not hold: {} findings", document.findings.len() + document.incomplete.len());
            Err(Failure::refused(what).hint(format!(
                "ls {}   (logs of nodes and workers, the crowd's journal.jsonl, the provider's book)",
                path.display()
            )))
        }
    }
}

/// What will be sold.
struct Plan {
    lines: Vec<CatalogLine>,
    hot: OfferKey,
    hot_units: u32,
    sale: SaleId,
    seed: u64,
}

impl Plan {
    fn new(args: &DemoArgs) -> Outcome<Self> {
        if args.buyers > limits::BUYERS_MAX {
            return Err(Failure::usage(format!("--buyers is at most {}", limits::BUYERS_MAX)));
        }
        let catalog = match &args.catalog {
            Some(path) => Catalog::open(path).map_err(|e| crate::commands::bad_file(path, &e))?,
            None => Catalog::read(SAMPLE_CATALOG.as_bytes())
                .map_err(|e| crate::commands::bad_file("the sample".as_ref(), &e))?,
        };
        let lines = catalog.lines;
        let hot = match &args.hot {
            Some(sku) => lines.iter().find(|l| l.sku.as_str() == sku),
            None => lines.first(),
        };
        let hot = hot.ok_or_else(|| Failure::usage(format!("{:?} is not in the catalog", args.hot)))?.sku.clone();
        let there: u64 =
            lines.iter().filter(|l| l.sku == hot).filter_map(|l| l.units).map(client_sdk::Units::get).sum();
        let hot_units = args.units.unwrap_or_else(|| there.min(50) as u32);
        if hot_units == 0 || u64::from(hot_units) > there {
            return Err(Failure::usage(format!(
                "{hot} has {there} units in the catalog, {hot_units} are to be on sale"
            ))
            .hint("choose --units, --hot or a catalog with enough of it"));
        }
        let sale = SaleId::new(SALE).map_err(refused)?;
        let hot = OfferKey { sku: hot, sale: Some(sale.clone()) };
        Ok(Self { lines, hot, hot_units, sale, seed: args.seed.unwrap_or_else(rand::random) })
    }

    /// Puts the hot product and some others into the sale.
    async fn open_sale(&self, client: &Client) -> Outcome<Vec<(OfferKey, u32)>> {
        let hold_ms_max = Policy::default().hold_ms_max;
        let hot_policy =
            Policy { per_key_max: Some(1), per_order_max: 1, low_stock_at: 5, hold_ms_max, ..Policy::default() };
        let hot = SalePlan {
            sale: self.sale.clone(),
            allotments: vec![(self.hot.sku.clone(), self.hot_units.into())],
            policy: hot_policy,
        };
        create_sale(client, &hot).await?;
        let mut rest = Vec::new();
        let mut allotments = Vec::new();
        for line in self.lines.iter().filter(|l| l.sku != self.hot.sku) {
            let half = line.units.map_or(0, |u| u.get() / 2) as i64;
            if half > 0 && allotments.len() < ALSO_ON_SALE && !allotments.iter().any(|(sku, _)| *sku == line.sku) {
                allotments.push((line.sku.clone(), half));
                rest.push((OfferKey { sku: line.sku.clone(), sale: Some(self.sale.clone()) }, 3));
            }
            rest.push((OfferKey { sku: line.sku.clone(), sale: None }, line.policy.per_order_max));
        }
        let policy = Policy { per_key_max: Some(3), ..Policy::default() };
        create_sale(client, &SalePlan { sale: self.sale.clone(), allotments, policy }).await?;
        Ok(rest)
    }
}

async fn play(args: &DemoArgs, plan: &Plan, dir: PathBuf, began: Instant) -> Outcome<DemoDoc> {
    eprintln!("seed {}; starting three nodes in {} …", plan.seed, dir.display());
    let program = NodeProgram::this().map_err(refused)?;
    let mut cluster = DevCluster::start(program, &dir, 3, 3, &[]).await.map_err(refused)?;
    let client = connect(&cluster.endpoints()).await?;
    eprintln!("{:>5.1} s  three nodes serve; importing {} products …", began.elapsed().as_secs_f64(), plan.lines.len());
    let imported = import_lines(&client, &plan.lines, "demo-catalog").await;
    if let Some(failed) = imported.failed.first() {
        return Err(refused(format!("catalog line {}: {}: {}", failed.line, failed.sku, failed.why)));
    }
    let rest = plan.open_sale(&client).await?;
    let hot_shard = shard_of(&client.routing(), &plan.hot.sku)
        .ok_or_else(|| refused("no shard owns the slot of the hot product"))?;
    eprintln!(
        "{:>5.1} s  {} units received; sale {SALE} is open: {} buyers for {} units of {}, {} shoppers for the rest",
        began.elapsed().as_secs_f64(),
        imported.received_units,
        args.buyers,
        plan.hot_units,
        plan.hot.sku,
        args.shoppers
    );
    let place = Arc::new(Place {
        client: client.clone(),
        journal: Journal::create(&dir, hot_shard).map_err(refused)?,
        hot: plan.hot.clone(),
        rest,
        waiting: AtomicU64::new(0),
        closing: AtomicBool::new(false),
    });
    let mut shop = Shop::open(&dir, &cluster.endpoints(), &orders::shop_plan()).await?;
    let customers = Arc::new(Customers::default());
    eprintln!(
        "{:>5.1} s  payment provider, mail relay and two order workers are up; {} customers will order",
        began.elapsed().as_secs_f64(),
        args.orders
    );
    let crowd_began = Instant::now();
    let mut ordering = orders::send(&place, &shop, &customers, args.orders, plan.seed);
    let mut crowd = crowd::send(&place, args.buyers, args.shoppers, plan.seed);
    let ticker = tokio::spawn(progress::tick(place.clone(), hot_shard, began));
    let trouble = async { if args.orders == 0 { Ok(()) } else { orders::trouble(&mut shop, plan.seed, began).await } };
    let (chaos, trouble) = tokio::join!(chaos(&mut cluster, &place, hot_shard, args, began), trouble);
    let home = tokio::time::timeout(limits::CROWD_WITHIN, wait_home(&place)).await;
    place.closing.store(true, Ordering::Relaxed);
    let all_home =
        tokio::time::timeout(limits::BUYER_DEADLINE * 2, async { while crowd.join_next().await.is_some() {} }).await;
    while ordering.join_next().await.is_some() {}
    ticker.abort();
    chaos?;
    trouble?;
    let crowd_took = crowd_began.elapsed();
    if home.is_err() || all_home.is_err() {
        return Err(refused(format!("the crowd was not served within {:?}", limits::CROWD_WITHIN)));
    }
    eprintln!("{:>5.1} s  the crowd has gone; waiting for the last orders …", began.elapsed().as_secs_f64());
    let (done, drained_ms) = orders::wait_done(&place, &mut shop, &customers).await?;
    eprintln!("{:>5.1} s  {} orders are done; auditing …", began.elapsed().as_secs_f64(), done.len());
    let mut document = close_books(args, plan, &cluster, &place, crowd_took, began).await;
    if let Ok((document, books)) = &mut document {
        let (balance, wrong) = orders::compare(&place, &shop, &customers, &done, books, drained_ms).await?;
        document.holds &= wrong.is_empty();
        document.findings.extend(wrong);
        document.orders = balance;
    }
    let document = document.map(|(document, _)| document);
    shop.close().await;
    client.close().await;
    cluster.stop_all().await;
    document.map(|d| DemoDoc { directory: dir.display().to_string(), seconds: began.elapsed().as_secs_f64(), ..d })
}

async fn wait_home(place: &Place) {
    while place.waiting.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(limits::POLL).await;
    }
}

/// Kills whom the arguments name while the herd is in flight, and starts them again, as often as asked for.
async fn chaos(cluster: &mut DevCluster, place: &Place, hot_shard: u32, args: &DemoArgs, began: Instant) -> Outcome {
    let mut answered_before = 0;
    for _ in 0..args.kills {
        let leader = cluster.leader_of(hot_shard).await;
        // In the middle of the herd: a part of it was answered, most of it is on its way.
        let until = Instant::now() + Duration::from_secs(3);
        let enough = answered_before + (args.buyers as u64 / 8).max(1);
        while place.journal.hot_answers() < enough && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let Some(leader) = leader else { return Err(refused("the hot shard has no leader to kill")) };
        let (victims, who): (Vec<u64>, _) = match args.victim {
            Victim::Leader => (vec![leader], format!("node {leader}, the leader of the hot shard")),
            Victim::Follower => {
                let follower = cluster.nodes().iter().map(|n| n.id).find(|id| *id != leader).unwrap_or(leader);
                (vec![follower], format!("node {follower}, a follower of the hot shard"))
            }
            Victim::All => (cluster.nodes().iter().map(|n| n.id).collect(), "all nodes at once".to_owned()),
        };
        place.journal.killed(&who);
        for victim in &victims {
            cluster.kill(*victim).map_err(refused)?;
        }
        eprintln!("{:>5.1} s  kill -9 of {who}", began.elapsed().as_secs_f64());
        let all = victims.len() == cluster.nodes().len();
        if !all {
            wait_recovered(place).await?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for victim in &victims {
            cluster.spawn(*victim).map_err(refused)?;
        }
        for victim in &victims {
            cluster.wait_up(*victim).await.map_err(refused)?;
        }
        eprintln!("{:>5.1} s  back: {who}", began.elapsed().as_secs_f64());
        wait_recovered(place).await?;
        answered_before = place.journal.hot_answers();
    }
    Ok(())
}

async fn wait_recovered(place: &Place) -> Outcome {
    let until = Instant::now() + limits::NODE_UP_WITHIN;
    while !place.journal.recovered() {
        if Instant::now() >= until {
            let why = format!("no answer from the hot shard for {:?} after the kill", limits::NODE_UP_WITHIN);
            return Err(refused(why));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn close_books(
    args: &DemoArgs,
    plan: &Plan,
    cluster: &DevCluster,
    place: &Place,
    crowd_took: Duration,
    began: Instant,
) -> Outcome<(DemoDoc, Books)> {
    let closed = place.journal.close();
    let still_held = verify::wait_for_holds(&place.client).await?;
    let link = ClusterLink::new(&cluster.endpoints())?;
    let mut late = crate::commands::AuditDoc::default();
    wait_caught_up(&link.nodes, &mut late).await;
    let (mut audit, books) = audit_cluster(&link, &place.client, limits::AUDIT_ALL_WITHIN, true).await?;
    audit.incomplete.extend(late.incomplete);
    if !audit.compared {
        audit
            .incomplete
            .push("stock kept changing after the crowd had gone: the books could not be compared with reads".into());
    }
    eprintln!(
        "{:>5.1} s  {} changes recomputed; reading {} ids back …",
        began.elapsed().as_secs_f64(),
        audit.changes,
        closed.claims.len()
    );
    let followers = followers(cluster, place).await;
    let routing = place.client.routing();
    let follower = |id: ReservationId| {
        let slot = u32::from(id.slot().get());
        let shard = routing.shards.iter().find(|s| s.slots.iter().any(|r| (r.from..=r.to).contains(&slot)))?;
        followers.get(&shard.shard).cloned()
    };
    let read_back = verify::read_back(&place.client, follower, &closed, &books).await;
    let products = all_products(&place.client).await?;
    let context = report::Context {
        args,
        plan_hot: &plan.hot,
        hot_units: plan.hot_units,
        seed: plan.seed,
        still_held,
        crowd_took,
    };
    let document = report::document(&context, &products, &books, audit, read_back, &closed, place.journal.kills());
    Ok((document, books))
}

/// For each shard a node that does not lead it: ids are read back from there.
async fn followers(cluster: &DevCluster, place: &Place) -> HashMap<u32, NodeLink> {
    let mut followers = HashMap::new();
    for route in place.client.routing().shards {
        let leader = cluster.leader_of(route.shard).await;
        if let Some(node) = cluster.nodes().iter().find(|n| Some(n.id) != leader) {
            followers.insert(route.shard, node.link());
        }
    }
    followers
}
