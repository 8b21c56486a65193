//! Never oversold: no more units are sold than came in, and what clients were sold is what the ledger sold.
//!
//! **Owns** this one property. **Must never** use the ledger's sum where the ids' sum can be taken. **Read next**: [`super::stranded`].

use std::collections::BTreeMap;

use crate::history::{Answer, Op, Run};

/// Products sold beyond what came in, or whose sold units disagree with their ids.
pub fn check(run: &Run) -> Vec<String> {
    let mut kept: BTreeMap<&str, u64> = BTreeMap::new();
    for line in run.ids.iter().flat_map(|id| &id.lines) {
        *kept.entry(line.line.offer.sku.as_str()).or_default() += u64::from(line.sold - line.returned);
    }
    let told = told_sold(run);
    let mut wrong = Vec::new();
    for stock in &run.stock {
        let by_ids = kept.get(stock.sku.as_str()).copied().unwrap_or(0);
        let came_in = i128::from(stock.received) + i128::from(stock.adjusted);
        if i128::from(by_ids) > came_in {
            wrong.push(format!("{}: {by_ids} sold, {came_in} came in", stock.sku));
        }
        let told = told.get(stock.sku.as_str()).copied().unwrap_or(0);
        if i128::from(told) > came_in + i128::from(stock.returned) {
            wrong.push(format!("{}: clients were told that {told} are theirs, {came_in} came in", stock.sku));
        }
        if by_ids != stock.sold() {
            wrong.push(format!(
                "{} on node {}: its ids were sold {by_ids}, the ledger says {}",
                stock.sku,
                stock.node,
                stock.sold()
            ));
        }
    }
    wrong
}

/// Units that clients were told they bought, by their own journal alone: a confirm of all that was reserved, or of the lines it named.
fn told_sold(run: &Run) -> BTreeMap<&str, u64> {
    let mut asked: BTreeMap<&str, &Op> = BTreeMap::new();
    for event in run.events.iter().filter(|e| e.answer.is_ok()) {
        if let Op::Reserve { id, .. } = &event.op {
            asked.insert(id, &event.op);
        }
    }
    let mut bought: BTreeMap<&str, u64> = BTreeMap::new();
    let mut counted: BTreeMap<&str, ()> = BTreeMap::new();
    for event in &run.events {
        let (Op::Confirm { id, lines }, Answer::Ok { .. }) = (&event.op, &event.answer) else { continue };
        if counted.insert(id, ()).is_some() {
            continue;
        }
        let all = match asked.get(id.as_str()) {
            Some(Op::Reserve { lines, .. }) => lines.as_slice(),
            _ => &[],
        };
        for line in lines.as_deref().filter(|l| !l.is_empty()).unwrap_or(all) {
            *bought.entry(line.offer.sku.as_str()).or_default() += u64::from(line.quantity);
        }
    }
    bought
}
