//! Never oversold: no more units are sold than came in, and what clients were sold is what the ledger sold.
//!
//! **Owns** this one property. **Must never** use the ledger's sum where the ids' sum can be taken. **Read next**: [`super::stranded`].

use std::collections::BTreeMap;

use crate::history::{Op, Run};

/// Products sold beyond what was received, or whose sold units disagree with their ids.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let product_of: BTreeMap<&str, &str> = run
        .events
        .iter()
        .filter_map(|e| match &e.op {
            Op::Reserve { id, sku, .. } => Some((id.as_str(), sku.as_str())),
            _ => None,
        })
        .collect();
    let mut sold: BTreeMap<&str, u64> = BTreeMap::new();
    for id in &run.ids {
        if let Some(sku) = product_of.get(id.id.as_str()) {
            *sold.entry(sku).or_default() += id.sold;
        }
    }
    for stock in &run.stock {
        let by_ids = sold.get(stock.sku.as_str()).copied().unwrap_or(0);
        let came_in = i128::from(stock.received) + i128::from(stock.adjusted);
        if i128::from(by_ids) > came_in {
            wrong.push(format!("{}: {by_ids} sold, {came_in} came in", stock.sku));
        }
        if by_ids != stock.sold {
            wrong.push(format!(
                "{} on node {}: its ids were sold {by_ids}, the ledger says {}",
                stock.sku, stock.node, stock.sold
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::check;

    #[test]
    fn more_sold_than_received_is_found() {
        let mut run = sample::good();
        run.ids[1].state = "confirmed".into();
        run.ids[1].sold = 2;
        assert!(check(&run).iter().any(|w| w.contains("3 sold, 2 came in")));
    }
}
