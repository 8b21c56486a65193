//! Conserved: received + adjusted = available + held + sold, and what the clients put in is what was received.
//!
//! **Owns** this one property. **Must never** count an unknown receive as done or as not done. **Read next**: [`super::oversold`].

use std::collections::BTreeMap;

use crate::history::{Answer, Op, Run};

/// The least and the most that may have come in.
#[derive(Clone, Copy, Default)]
struct Range {
    least: i128,
    most: i128,
}

/// Products whose units do not add up.
pub fn check(run: &Run) -> Vec<String> {
    let received = moved(run, |op| match op {
        Op::Receive { offer, units, reference } => Some((&offer.sku, reference, i128::from(*units))),
        _ => None,
    });
    let adjusted = moved(run, |op| match op {
        Op::Adjust { offer, delta, reference, .. } => Some((&offer.sku, reference, i128::from(*delta))),
        _ => None,
    });
    let mut wrong = Vec::new();
    for stock in &run.stock {
        let who = format!("{} on node {}", stock.sku, stock.node);
        let inside = i128::from(stock.available()) + i128::from(stock.held()) + i128::from(stock.sold());
        let put_in = i128::from(stock.received) + i128::from(stock.adjusted);
        if inside != put_in {
            wrong.push(format!("{who}: {put_in} put in, {inside} inside"));
        }
        let told = [
            ("received", &received, i128::from(stock.received)),
            ("adjusted by", &adjusted, i128::from(stock.adjusted)),
        ];
        for (verb, ranges, has) in told {
            let Range { least, most } = ranges.get(stock.sku.as_str()).copied().unwrap_or_default();
            if !(least..=most).contains(&has) {
                wrong.push(format!("{who}: clients {verb} {least} to {most}, the ledger {has}"));
            }
        }
        let returned: u64 = run
            .ids
            .iter()
            .flat_map(|id| &id.lines)
            .filter(|l| l.line.offer.sku == stock.sku)
            .map(|l| u64::from(l.returned))
            .sum();
        if returned != stock.returned {
            wrong.push(format!("{who}: its ids brought back {returned}, the ledger {}", stock.returned));
        }
    }
    wrong
}

/// Per product, what its references moved: each counts once, however often it was told.
fn moved<'a>(run: &'a Run, of: impl Fn(&'a Op) -> Option<(&'a String, &'a String, i128)>) -> BTreeMap<&'a str, Range> {
    let mut references: BTreeMap<(&str, &str), (Option<i128>, Range)> = BTreeMap::new();
    for event in &run.events {
        let Some((sku, reference, units)) = of(&event.op) else { continue };
        let (sure, maybe) = references.entry((sku, reference)).or_default();
        match event.answer {
            Answer::Ok { .. } => *sure = Some(units),
            Answer::Unknown { .. } => {
                (maybe.least, maybe.most) = (maybe.least.min(units), maybe.most.max(units));
            }
            Answer::Refused { .. } | Answer::NotNow { .. } => {}
        }
    }
    let mut products: BTreeMap<&str, Range> = BTreeMap::new();
    for ((sku, _), (sure, maybe)) in references {
        let range = products.entry(sku).or_default();
        range.least += sure.unwrap_or(maybe.least);
        range.most += sure.unwrap_or(maybe.most);
    }
    products
}
