//! What a bench prints.
//!
//! **Owns** the fields of its JSON. **Must never** round a failure away. **Read next**: [`super::meter`].

use serde::Serialize;

use super::Load;
use super::meter::{Costs, Meter, NodeCost};
use super::outage::OutageDoc;
use crate::cli::Shape;
use crate::output::{grouped, micros, num, table, text, unit};

/// All measurements of one command.
#[derive(Debug, Clone, Serialize)]
pub struct BenchDoc {
    /// Cores of this machine.
    pub host_cores: usize,
    /// One a measurement.
    pub runs: Vec<RunDoc>,
    /// One a run of shape orders-outage.
    pub outages: Vec<OutageDoc>,
}

/// What a process beside the nodes cost.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessCost {
    /// Its name.
    pub name: String,
    /// CPU microseconds an operation.
    pub cpu_us_per_op: f64,
}

/// Orders after a load, in the books that were compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OrderBooksDoc {
    /// Orders that are there.
    pub placed: u64,
    /// Of those, sold.
    pub sold: u64,
    /// Orders that the provider keeps money of.
    pub paid: u64,
    /// Minor units of what is sold.
    pub sold_minor: u64,
    /// Minor units that the provider keeps.
    pub kept_minor: i64,
    /// Orders whose receiver was told more than once, which is allowed.
    pub told_again: u64,
    /// Orders that were not done, or that no two books agree on.
    pub unbalanced: u64,
    /// From the end of the load until no order was open, milliseconds.
    pub drained_ms: u64,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct RunDoc {
    /// The shape's name in the targets.
    pub shape: String,
    /// What was switched on.
    pub feature: String,
    /// Products the load was spread over.
    pub products: usize,
    /// Operations a second asked for; null for a closed loop.
    pub rate_asked: Option<u64>,
    /// Seconds measured.
    pub seconds: f64,
    /// Operations answered Ok.
    pub ok: u64,
    /// Operations answered otherwise.
    pub other: u64,
    /// One of those answers.
    pub other_example: Option<String>,
    /// Ok a second.
    pub per_second: f64,
    /// Microseconds: 50th percentile.
    pub p50_us: u64,
    /// 95th.
    pub p95_us: u64,
    /// 99th.
    pub p99_us: u64,
    /// 99.9th.
    pub p999_us: u64,
    /// Longest.
    pub max_us: u64,
    /// CPU microseconds an operation, in this process.
    pub client_cpu_us_per_op: f64,
    /// In the nodes that lead.
    pub leader_cpu_us_per_op: f64,
    /// In a node that only follows, on average.
    pub follower_cpu_us_per_op: Option<f64>,
    /// Syncs a second, on the busiest node.
    pub syncs_per_second: f64,
    /// Operations an entry of the log.
    pub ops_per_entry: f64,
    /// Costs by node.
    pub nodes: Vec<NodeCost>,
    /// Costs of workers and provider, in shape orders.
    pub processes: Vec<ProcessCost>,
    /// The compared books, in shape orders.
    pub orders: Option<OrderBooksDoc>,
    /// Whether the audit after it held.
    pub audit_holds: bool,
    /// What it found.
    pub findings: Vec<String>,
}

pub(super) fn name(shape: Shape) -> &'static str {
    match shape {
        Shape::A1 => "a1",
        Shape::A2 => "a2",
        Shape::B => "b",
        Shape::C => "c",
        Shape::D => "d",
        Shape::E => "e",
        Shape::F => "f",
        Shape::G => "g",
        Shape::GStale => "g-stale",
        Shape::OrdersAccepted => "orders-accepted",
        Shape::OrdersPlaced => "orders-placed",
        Shape::Orders => "orders",
        Shape::OrdersOutage => "orders-outage",
    }
}

fn process(name: &str, cpu_us_per_op: f64) -> ProcessCost {
    ProcessCost { name: name.to_owned(), cpu_us_per_op }
}

pub(super) fn run_document(load: &Load, meter: &Meter, costs: &Costs) -> RunDoc {
    let seconds = meter.seconds();
    let (leaders, followers): (Vec<&NodeCost>, Vec<&NodeCost>) = costs.nodes.iter().partition(|n| n.leads > 0);
    meter.counts(|counts| {
        let per_op = |ms: u64| if counts.ok == 0 { 0.0 } else { ms as f64 * 1e3 / counts.ok as f64 };
        let at = |q| counts.latency.value_at_quantile(q);
        let sum = |nodes: &[&NodeCost]| nodes.iter().map(|n| n.cpu_ms).sum::<u64>();
        let entries: u64 = leaders.iter().map(|n| n.entries).sum();
        RunDoc {
            shape: name(load.shape).into(),
            feature: load.feature.into(),
            products: load.products,
            rate_asked: load.rate,
            seconds,
            ok: counts.ok,
            other: counts.other,
            other_example: counts.example.clone(),
            per_second: counts.ok as f64 / seconds,
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: counts.latency.max(),
            client_cpu_us_per_op: per_op(costs.client_cpu_ms),
            leader_cpu_us_per_op: per_op(sum(&leaders)),
            follower_cpu_us_per_op: (!followers.is_empty()).then(|| per_op(sum(&followers)) / followers.len() as f64),
            syncs_per_second: costs.nodes.iter().map(|n| n.syncs).max().unwrap_or(0) as f64 / seconds,
            ops_per_entry: if entries == 0 { 0.0 } else { counts.ok as f64 / entries as f64 },
            nodes: costs.nodes.clone(),
            processes: costs.processes.iter().map(|(name, ms)| process(name, per_op(*ms))).collect(),
            orders: None,
            audit_holds: false,
            findings: Vec::new(),
        }
    })
}

pub(super) fn brief(run: &RunDoc) -> String {
    let audit = if run.audit_holds { "audit holds" } else { "audit does NOT hold" };
    format!(
        "{:.0}/s, p50 {}, p99 {}, {} not ok; {audit}",
        run.per_second,
        micros(run.p50_us),
        micros(run.p99_us),
        run.other
    )
}

pub(super) fn to_text(bench: &BenchDoc) -> String {
    let rows = bench.runs.iter().map(|r| {
        [
            text(&r.shape),
            text(&r.feature),
            num(r.per_second as u64),
            unit(micros(r.p50_us)),
            unit(micros(r.p95_us)),
            unit(micros(r.p99_us)),
            unit(micros(r.p999_us)),
            unit(micros(r.max_us)),
            num(r.other),
            unit(format!("{:.2} µs", r.client_cpu_us_per_op)),
            unit(format!("{:.2} µs", r.leader_cpu_us_per_op)),
            r.follower_cpu_us_per_op.map_or(unit("-"), |f| unit(format!("{f:.2} µs"))),
            num(r.syncs_per_second as u64),
            unit(format!("{:.1}", r.ops_per_entry)),
            text(if r.audit_holds { "holds" } else { "BROKEN" }),
        ]
    });
    let header = [
        "SHAPE",
        "FEATURES",
        "OK/S",
        "P50",
        "P95",
        "P99",
        "P99.9",
        "MAX",
        "NOT OK",
        "CPU CLIENT",
        "LEADER",
        "FOLLOWER",
        "SYNCS/S",
        "OPS/ENTRY",
        "AUDIT",
    ];
    let mut out = if bench.runs.is_empty() { String::new() } else { table(header, rows) };
    for run in &bench.runs {
        if !run.processes.is_empty() {
            let each = run.processes.iter().map(|p| format!("{} {:.1} µs", p.name, p.cpu_us_per_op));
            out.push_str(&format!("\n{}: CPU an order: {}", run.shape, each.collect::<Vec<_>>().join(", ")));
        }
        if let Some(books) = &run.orders {
            out.push_str(&format!("\n{}: {}", run.shape, books_line(books)));
        }
        if let Some(example) = &run.other_example {
            out.push_str(&format!("\n{}: not ok, for example {example}", run.shape));
        }
    }
    for outage in &bench.outages {
        out.push_str(&super::outage::to_text(outage));
    }
    out
}

/// The compared books in a line.
pub(super) fn books_line(books: &OrderBooksDoc) -> String {
    format!(
        "{} orders placed, {} sold for {}, {} paid at the provider, which keeps {}; {} do not balance",
        grouped(books.placed),
        grouped(books.sold),
        grouped(books.sold_minor),
        grouped(books.paid),
        grouped(books.kept_minor),
        grouped(books.unbalanced)
    )
}
