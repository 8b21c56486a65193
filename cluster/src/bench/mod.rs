//! `ledgerctl bench`: what a cluster does a second, how fast, and what it costs.
//!
//! **What it is.** The shapes of the project's targets, in a closed loop (so many calls outstanding) or an open one (so many a
//! second, latency counted from when a call was due). **Owns** the runs and their order. **Must never** report a run whose audit
//! does not hold as good. **Read next**: [`meter`], [`streams`], [`callers`], [`orders`].

mod callers;
mod catch_up;
mod http;
mod meter;
mod orders;
mod outage;
mod report;
mod streams;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client_sdk::{Client, LimitKey, OfferKey, Policy, Sku, Slot, v1};
use futures::StreamExt;

use crate::books::Books;
use crate::cli::{BenchArgs, Shape};
use crate::commands::{all_products, audit_cluster, shard_of};
use crate::dev_cluster::{DevCluster, NodeProgram};
use crate::limits;
use crate::link::{ClusterLink, connect};
use crate::output::{Failure, Outcome, Printer};
use meter::Meter;
pub use outage::{OutageDoc, PhaseDoc};
pub use report::{BenchDoc, OrderBooksDoc, ProcessCost, RunDoc};

/// What one measurement has switched on.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    shape: Shape,
    seconds: u64,
    warmup: u64,
    rate: Option<u64>,
    callers: Option<usize>,
    in_flight: usize,
    products: usize,
    keys: bool,
    hold: Option<Duration>,
    watchers: usize,
    workers: usize,
    concurrency: Option<u64>,
    order_rate: u64,
    phases: [Duration; 3],
    feature: &'static str,
}

/// One product to reserve, and where its leader is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) sku: Sku,
    pub(crate) slot: Slot,
}

/// Products by the address of the node that leads them.
pub(crate) type Targets = Vec<(String, Vec<Target>)>;

fn refused(e: impl std::fmt::Display) -> Failure {
    Failure::refused(e.to_string())
}

/// Runs all measurements asked for.
///
/// # Errors
/// [`Failure::Refused`] when the cluster fails or an audit does not hold.
pub async fn run(args: BenchArgs, endpoints: Vec<String>, printer: Printer) -> Outcome {
    let loads = loads(&args);
    if let Some(load) = loads.iter().find(|load| load.shape.has_orders() && !args.spawn) {
        let what = format!("shape {} needs a cluster of its own", report::name(load.shape));
        return Err(Failure::usage(what).hint(format!("ledgerctl bench --spawn --shape {}", report::name(load.shape))));
    }
    if !args.spawn && !args.catch_up {
        printer.ask(&format!(
            "create {} products named bench-… and send load for {} s",
            args.products,
            loads.len() as u64 * args.seconds
        ))?;
    }
    let mut document = BenchDoc {
        host_cores: std::thread::available_parallelism().map_or(0, usize::from),
        runs: Vec::new(),
        outages: Vec::new(),
    };
    for load in loads {
        if load.shape == Shape::OrdersOutage {
            let outage = spawned(&args, async |endpoints, dir| outage::run(endpoints, dir, &load).await).await?;
            document.outages.push(outage);
            continue;
        }
        eprintln!("{} ({}): {} s …", report::name(load.shape), load.feature, load.warmup + load.seconds);
        if args.catch_up {
            document.runs.extend(catch_up::run(&args, &load).await?);
            continue;
        }
        // A cluster of its own for each measurement: none pays for what the one before has left.
        let run = if args.spawn {
            spawned(&args, async |endpoints, dir| match load.shape {
                Shape::Orders => orders::run(endpoints, dir, &load).await,
                _ => measure(endpoints, &load, true).await,
            })
            .await?
        } else {
            measure(&endpoints, &load, true).await?
        };
        eprintln!("  {}", report::brief(&run));
        document.runs.push(run);
    }
    printer.print(&document, report::to_text)?;
    let runs = document.runs.iter().filter(|r| !r.audit_holds).map(|r| (r.shape.as_str(), &r.findings));
    let outages =
        document.outages.iter().filter(|o| !o.holds).map(|o| (report::name(Shape::OrdersOutage), &o.findings));
    match runs.chain(outages).next() {
        None => Ok(()),
        Some((shape, findings)) => {
            let some = &findings[..findings.len().min(limits::FINDINGS_SHOWN)];
            Err(refused(format!(
                "the audit after shape {shape} does not hold: {} findings: {}",
                findings.len(),
                some.join("; ")
            )))
        }
    }
}

fn loads(args: &BenchArgs) -> Vec<Load> {
    let mut loads = Vec::new();
    for shape in &args.shape {
        let plain = Load {
            shape: *shape,
            seconds: args.seconds,
            warmup: args.warmup,
            rate: args.rate,
            callers: args.callers,
            in_flight: args.in_flight,
            products: args.products.max(1),
            keys: args.keys,
            hold: args.hold,
            watchers: args.watchers,
            workers: args.workers as usize,
            concurrency: args.concurrency,
            order_rate: args.order_rate,
            phases: args.phases.map(Duration::from_secs),
            feature: "as asked",
        };
        if !args.feature_cost {
            loads.push(plain);
            continue;
        }
        let base = Load { keys: false, hold: None, watchers: 0, feature: "plain", ..plain };
        loads.push(base.clone());
        loads.push(Load { keys: true, feature: "limits", ..base.clone() });
        loads.push(Load { hold: Some(Duration::from_millis(500)), feature: "expiry 500 ms", ..base.clone() });
        loads.push(Load { watchers: 2, feature: "2 watchers", ..base.clone() });
        loads.push(Load {
            keys: true,
            hold: Some(Duration::from_millis(500)),
            watchers: 2,
            feature: "all of them",
            ..base
        });
    }
    loads
}

/// Runs a measurement on a cluster of its own, whose files are in the directory that is given.
async fn spawned<T>(args: &BenchArgs, run: impl AsyncFnOnce(&[String], &Path) -> Outcome<T>) -> Outcome<T> {
    let dir = tempfile::Builder::new().prefix("holdfast-bench-").tempdir().map_err(refused)?;
    let program = NodeProgram::this().map_err(refused)?;
    let mut cluster = DevCluster::start(program, dir.path(), 3, args.shards, &reserve(args)).await.map_err(refused)?;
    let endpoints = cluster.endpoints();
    let run = tokio::select! {
        run = run(&endpoints, dir.path()) => run,
        _ = tokio::signal::ctrl_c() => Err(refused("interrupted; all nodes were ended")),
    };
    if run.is_err() {
        for id in 1..=3 {
            if let Err(ended) = cluster.check_alive(id) {
                eprintln!("{ended}");
            }
        }
    }
    cluster.stop_all().await;
    run
}

/// What nodes of a bench are told: to be ready for the herd, as before a sale.
pub(crate) fn reserve(args: &BenchArgs) -> [String; 2] {
    let bytes_a_second = args.shape.iter().map(|shape| match shape {
        Shape::OrdersAccepted | Shape::OrdersPlaced => 128 << 20,
        Shape::B | Shape::C => 64 << 20,
        _ => 0,
    });
    let seconds = args.warmup.saturating_add(args.seconds);
    let usual = (1 << 30) + seconds.saturating_mul(bytes_a_second.max().unwrap_or(0));
    ["--memory-reserve-bytes".to_owned(), args.memory_reserve.unwrap_or(usual.min(3 << 30)).to_string()]
}

/// One measurement; with an audit all members are asked, so all must be up.
async fn measure(endpoints: &[String], load: &Load, with_audit: bool) -> Outcome<RunDoc> {
    let client = connect(endpoints).await?;
    let skus = fill(&client, load).await?;
    let targets = targets(&client, &skus).await?;
    let link = ClusterLink::new(endpoints)?;
    let link = if with_audit { link.with_members().await? } else { link };
    let watchers: Vec<_> = (0..load.watchers).map(|_| tokio::spawn(read_along(client.clone()))).collect();
    let meter = Arc::new(Meter::new(load.warmup, load.seconds));
    let sampler = tokio::spawn(meter::sample(meter.clone(), link.clone(), Vec::new()));
    match load.shape {
        Shape::A1 | Shape::B | Shape::C | Shape::OrdersAccepted | Shape::OrdersPlaced => {
            streams::drive(load, &targets, &meter).await?;
        }
        Shape::A2 | Shape::D | Shape::E | Shape::G | Shape::GStale => {
            callers::drive(load, &client, &targets, &meter).await?
        }
        Shape::F => http::drive(load, &client, &targets, &meter).await?,
        Shape::Orders | Shape::OrdersOutage => return Err(refused("this shape has a run of its own")),
    }
    let costs = sampler.await.map_err(refused)?;
    for watcher in &watchers {
        watcher.abort();
    }
    let mut run = report::run_document(load, &meter, &costs);
    if with_audit {
        let (findings, _) = audit(&link, &client, &skus, false).await?;
        run.audit_holds = findings.is_empty();
        run.findings = findings;
    } else {
        run.audit_holds = true;
    }
    client.close().await;
    Ok(run)
}

/// Creates the products and fills them, with names of their own for each run.
async fn fill(client: &Client, load: &Load) -> Outcome<Vec<Sku>> {
    let run: u32 = rand::random();
    let policy = Policy { per_key_max: load.keys.then_some(1_000_000), ..Policy::default() };
    let names = (0..load.products)
        .map(|i| Sku::new(format!("bench-{run:08x}-{i}")).map_err(refused))
        .collect::<Outcome<Vec<_>>>()?;
    let made = names.iter().map(|sku| {
        let policy = policy.clone();
        async move {
            client.create_product(sku, policy).await.into_result()?;
            client.receive(sku, limits::BENCH_UNITS, "bench").await.into_result()
        }
    });
    let mut made = futures::stream::iter(made).buffer_unordered(limits::IMPORT_IN_FLIGHT);
    while let Some(one) = made.next().await {
        one?;
    }
    drop(made);
    Ok(names)
}

async fn targets(client: &Client, skus: &[Sku]) -> Outcome<Targets> {
    let until = std::time::Instant::now() + limits::COMMAND_WITHIN;
    loop {
        let routing = client.routing();
        if let Some(targets) = group(&routing, skus) {
            return Ok(targets);
        }
        if std::time::Instant::now() >= until {
            return Err(refused("not every shard has a known leader"));
        }
        // A linearizable read makes the client learn who leads.
        for sku in skus.iter().take(8) {
            drop(client.stock(sku).await);
        }
        tokio::time::sleep(limits::POLL).await;
    }
}

fn group(routing: &v1::Routing, skus: &[Sku]) -> Option<Targets> {
    let mut targets: Targets = Vec::new();
    for sku in skus {
        let shard = shard_of(routing, sku)?;
        let leader = routing.shards.iter().find(|s| s.shard == shard)?.leader;
        let address = &routing.nodes.iter().find(|n| n.node == leader)?.client;
        let target = Target { sku: sku.clone(), slot: Slot::of(sku) };
        match targets.iter_mut().find(|(a, _)| a == address) {
            Some((_, list)) => list.push(target),
            None => targets.push((address.clone(), vec![target])),
        }
    }
    Some(targets)
}

async fn read_along(client: Client) {
    let Ok(mut watch) = client.watch_from_now().await else { return };
    while let Some(Ok(_)) = watch.next().await {}
}

/// What the audit finds, with or without the recomputation from history, and whether every unit of these products is somewhere.
async fn audit(link: &ClusterLink, client: &Client, skus: &[Sku], history: bool) -> Outcome<(Vec<String>, Books)> {
    let (audit, books) = audit_cluster(link, client, limits::AUDIT_ALL_WITHIN, history).await?;
    let mut findings: Vec<String> = audit.findings.iter().map(|f| format!("{}: {}", f.invariant, f.what)).collect();
    findings.extend(audit.incomplete);
    for product in all_products(client).await?.iter().filter(|p| skus.contains(&p.sku)) {
        let units: u64 = product.offers.iter().map(|o| o.balance.available + o.balance.held + o.balance.sold).sum();
        if units != product.received {
            findings.push(format!("{}: {} received, {units} there", product.sku, product.received));
        }
    }
    Ok((findings, books))
}

/// The offer, keys and hold of one reservation of the load.
pub(crate) fn command(load: &Load, target: &Target, id: client_sdk::ReservationId, buyer: u64) -> client_sdk::Command {
    let key = LimitKey::new(format!("buyer-{:06}", buyer % 1_000_000)).ok();
    let quantity = client_sdk::Quantity::new(1).ok();
    let offer = OfferKey { sku: target.sku.clone(), sale: None };
    client_sdk::Command::Reserve {
        id,
        keys: key.into_iter().collect(),
        lines: quantity.map(|quantity| client_sdk::Line { offer, quantity }).into_iter().collect(),
        hold_ms: Some(load.hold.map_or(600_000, |h| h.as_millis() as u64)),
    }
}
