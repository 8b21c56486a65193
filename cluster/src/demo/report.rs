//! The audited table at the end of the demo.
//!
//! **Owns** what is summed up and the verdict. **Must never** leave a finding out of the verdict. **Read next**: [`super::verify`].

use std::collections::BTreeMap;
use std::time::Duration;

use client_sdk::{OfferKey, ProductView};
use serde::Serialize;

use super::journal::{Closed, Kill};
use super::orders::OrdersDoc;
use super::verify::{ReadBack, acknowledged_sold};
use crate::books::{Books, Finding, Sums};
use crate::cli::DemoArgs;
use crate::commands::AuditDoc;
use crate::limits;
use crate::output::{micros, num, table, text, unit};

pub(super) struct Context<'a> {
    pub(super) args: &'a DemoArgs,
    pub(super) plan_hot: &'a OfferKey,
    pub(super) hot_units: u32,
    pub(super) seed: u64,
    pub(super) still_held: u64,
    pub(super) crowd_took: Duration,
}

/// One line of stock: as the ledger says, and as recomputed.
#[derive(Debug, Clone, Serialize)]
pub struct StockRow {
    /// What.
    pub what: String,
    /// Received plus adjusted (of the hot product: allotted to the sale).
    pub received: i128,
    /// Sold, as the ledger answers.
    pub sold: i128,
    /// Held.
    pub held: i128,
    /// Available.
    pub available: i128,
    /// Sold, recomputed from history.
    pub recomputed_sold: i128,
    /// Sold, by the buyers' journal.
    pub acknowledged_sold: Option<u64>,
}

/// One kill.
#[derive(Debug, Clone, Serialize)]
pub struct KillDoc {
    /// Who was killed.
    pub who: String,
    /// Longest silence of the hot shard since: from the last success before to the first after, milliseconds.
    pub without_leader_ms: u64,
}

/// The demo's end.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DemoDoc {
    /// Whether the audit held.
    pub holds: bool,
    /// Seeds the crowd's choices.
    pub seed: u64,
    /// Buyers of the hot product.
    pub buyers: usize,
    /// Stock at the end.
    pub stock: Vec<StockRow>,
    /// Answers by verb and word.
    pub answers: BTreeMap<String, u64>,
    /// Answers altogether.
    pub answers_total: u64,
    /// Answers a second while the crowd was there.
    pub answers_per_s: u64,
    /// Definite answers.
    pub acknowledged: u64,
    /// Units sold or held beyond what there was.
    pub oversold: i128,
    /// Units neither sold, nor held, nor available.
    pub stranded: i128,
    /// Acknowledged ids that were not there at the end.
    pub lost: u64,
    /// Answers that stayed unknown and were resolved by reading.
    pub unknown_resolved: u64,
    /// Ids read from a follower by name, and linearizably.
    pub read_back: (u64, u64),
    /// Changes the stock was recomputed from.
    pub changes: u64,
    /// Digests of replicas compared.
    pub digests_compared: u64,
    /// Each kill and the time without a leader.
    pub kills: Vec<KillDoc>,
    /// The customers' orders, in all books.
    pub orders: OrdersDoc,
    /// Milliseconds: p50, p95, p99, max of the crowd's calls, retries included.
    pub latency_us: [u64; 4],
    /// From the start of the command.
    pub seconds: f64,
    /// Where logs and journal lie, if kept.
    pub directory: String,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub incomplete: Vec<String>,
}

pub(super) fn document(
    context: &Context<'_>,
    products: &[ProductView],
    books: &Books,
    audit: AuditDoc,
    read_back: ReadBack,
    closed: &Closed,
    kills: Vec<Kill>,
) -> DemoDoc {
    let mut findings = audit.findings;
    findings.extend(read_back.findings);
    let stock = stock_rows(context, products, books, closed);
    let total = books.total();
    let hot = books.offer(context.plan_hot);
    let oversold =
        (hot.sold + hot.held - i128::from(context.hot_units)).max(total.sold + total.held - total.received).max(0);
    let stranded = total.received - total.sold - total.held - total.available;
    if context.still_held > 0 {
        findings
            .push(Finding::new("stranded", format!("{} units are held though all holds are due", context.still_held)));
    }
    let answered = acknowledged_sold(closed, context.plan_hot);
    if i128::from(answered) > hot.sold {
        findings.push(Finding::new("lost", format!("buyers were told {answered} sold, history has {}", hot.sold)));
    }
    let histogram = &closed.latency;
    let at = |q| histogram.value_at_quantile(q);
    let holds =
        findings.is_empty() && audit.incomplete.is_empty() && oversold == 0 && stranded == 0 && read_back.lost == 0;
    DemoDoc {
        holds,
        seed: context.seed,
        buyers: context.args.buyers,
        stock,
        answers: closed.words.iter().map(|((verb, word), n)| (format!("{verb}: {word}"), *n)).collect(),
        answers_total: closed.answers,
        answers_per_s: (closed.answers as f64 / context.crowd_took.as_secs_f64()) as u64,
        acknowledged: closed.acknowledged,
        oversold,
        stranded,
        lost: read_back.lost,
        unknown_resolved: read_back.resolved,
        read_back: (read_back.stale, read_back.linearizable),
        changes: audit.changes,
        digests_compared: audit.digests_compared,
        kills: kills
            .iter()
            .map(|k| KillDoc { who: k.who.clone(), without_leader_ms: k.silent.as_millis() as u64 })
            .collect(),
        latency_us: [at(0.5), at(0.95), at(0.99), histogram.max()],
        findings,
        incomplete: audit.incomplete,
        ..DemoDoc::default()
    }
}

fn stock_rows(context: &Context<'_>, products: &[ProductView], books: &Books, closed: &Closed) -> Vec<StockRow> {
    let offers = || products.iter().flat_map(|p| &p.offers);
    let hot = offers().find(|o| o.offer == *context.plan_hot).map(|o| o.balance).unwrap_or_default();
    let sum = |of: fn(&client_sdk::Balance) -> u64| offers().map(|o| i128::from(of(&o.balance))).sum::<i128>();
    let total: Sums = books.total();
    let received = products.iter().map(|p| i128::from(p.received) + i128::from(p.adjusted)).sum();
    vec![
        StockRow {
            what: format!("{} (hot, in the sale)", context.plan_hot.sku),
            received: context.hot_units.into(),
            sold: hot.sold.into(),
            held: hot.held.into(),
            available: hot.available.into(),
            recomputed_sold: books.offer(context.plan_hot).sold,
            acknowledged_sold: Some(acknowledged_sold(closed, context.plan_hot)),
        },
        StockRow {
            what: format!("all {} products", products.len()),
            received,
            sold: sum(|b| b.sold),
            held: sum(|b| b.held),
            available: sum(|b| b.available),
            recomputed_sold: total.sold,
            acknowledged_sold: None,
        },
    ]
}

fn orders_text(orders: &OrdersDoc) -> String {
    let mut rows =
        vec![[text("placed"), num(orders.placed)], [text("refused, nothing reserved"), num(orders.not_placed)]];
    rows.extend(orders.endings.iter().map(|(ending, n)| [text(format!("ended: {ending}")), num(*n)]));
    let euros = |minor: i64| unit(format!("{:.2} EUR", minor as f64 / 100.0));
    rows.extend([
        [text("sold, by the ledger"), euros(orders.sold_minor as i64)],
        [text("kept, by the provider's book"), euros(orders.kept_minor)],
        [text("orders whose books disagree"), num(orders.unbalanced)],
        [text("buyers told by mail"), num(orders.mails.1)],
        [text("mails, repeated ones included"), num(orders.mails.0)],
        [text("last order done after the crowd had gone"), unit(format!("{} ms", orders.drained_ms))],
    ]);
    table(["ORDERS", "RESULT"], rows)
}

pub(super) fn to_text(demo: &DemoDoc) -> String {
    let stock = table(
        ["STOCK", "RECEIVED", "SOLD", "HELD", "AVAILABLE", "SOLD BY HISTORY", "SOLD BY BUYERS"],
        demo.stock.iter().map(|s| {
            [
                text(&s.what),
                num(s.received),
                num(s.sold),
                num(s.held),
                num(s.available),
                num(s.recomputed_sold),
                s.acknowledged_sold.map_or(text("-"), num),
            ]
        }),
    );
    let answers = table(["ANSWERS", "COUNT"], demo.answers.iter().map(|(word, n)| [text(word), num(*n)]));
    let [p50, p95, p99, max] = demo.latency_us.map(micros);
    let mut checks = vec![
        [text("oversold"), unit(format!("{} units", demo.oversold))],
        [text("stranded"), unit(format!("{} units", demo.stranded))],
        [text("acknowledged and lost"), unit(format!("{} of {}", demo.lost, demo.acknowledged))],
        [text("unknown, resolved by reading"), num(demo.unknown_resolved)],
        [text("ids read back: from a follower"), num(demo.read_back.0)],
        [text("ids read back: linearizably"), num(demo.read_back.1)],
        [text("changes recomputed"), num(demo.changes)],
        [text("replica digests compared"), num(demo.digests_compared)],
    ];
    for kill in &demo.kills {
        checks.push([
            text(format!("hot shard silent after kill -9 of {}", kill.who)),
            unit(format!("{} ms", kill.without_leader_ms)),
        ]);
    }
    checks.push([text("answers a second"), num(demo.answers_per_s)]);
    for (name, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("max", max)] {
        checks.push([text(format!("latency {name}, retries included")), unit(value)]);
    }
    let mut out = format!("{stock}\n\n{answers}\n\n{}", table(["CHECK", "RESULT"], checks));
    if demo.orders.placed > 0 {
        out.push_str(&format!("\n\n{}", orders_text(&demo.orders)));
    }
    for finding in demo.findings.iter().take(limits::FINDINGS_SHOWN) {
        out.push_str(&format!("\nBROKEN {}: {}", finding.invariant, finding.what));
    }
    for look in &demo.incomplete {
        out.push_str(&format!("\nNOT LOOKED AT {look}"));
    }
    let verdict = if demo.holds { "the audit holds" } else { "the audit does NOT hold" };
    out.push_str(&format!("\n\n{verdict} (seed {}, {:.1} s)", demo.seed, demo.seconds));
    out
}
