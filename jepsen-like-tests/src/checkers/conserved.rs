//! Conserved: received + adjusted = available + held + sold, and what the clients put in is what was received.
//!
//! **Owns** this one property. **Must never** count an unknown receive as done or as not done. **Read next**: [`super::oversold`].

use std::collections::BTreeMap;

use crate::history::{Answer, Op, Run};

/// Products whose units do not add up.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sure: BTreeMap<&str, u64> = BTreeMap::new();
    let mut maybe: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &run.events {
        if let Op::Receive { sku, units, .. } = &event.op {
            match event.answer {
                Answer::Ok { replayed: false, .. } => *sure.entry(sku).or_default() += units,
                Answer::Ok { .. } | Answer::Unknown { .. } => *maybe.entry(sku).or_default() += units,
                Answer::Refused { .. } | Answer::NotNow { .. } => {}
            }
        }
    }
    for stock in &run.stock {
        let inside = i128::from(stock.available) + i128::from(stock.held) + i128::from(stock.sold);
        let put_in = i128::from(stock.received) + i128::from(stock.adjusted);
        if inside != put_in {
            wrong.push(format!("{} on node {}: {put_in} put in, {inside} inside", stock.sku, stock.node));
        }
        let least = sure.get(stock.sku.as_str()).copied().unwrap_or(0);
        let most = least + maybe.get(stock.sku.as_str()).copied().unwrap_or(0);
        if !(least..=most).contains(&stock.received) {
            wrong.push(format!(
                "{} on node {}: clients put in {least} to {most}, the ledger received {}",
                stock.sku, stock.node, stock.received
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
    fn a_vanished_unit_is_found() {
        let mut run = sample::good();
        run.stock[1].available = 0;
        assert_eq!(check(&run).len(), 1);
    }

    #[test]
    fn a_receive_taken_twice_is_found() {
        let mut run = sample::good();
        run.stock[0].received = 4;
        run.stock[0].available = 3;
        assert_eq!(check(&run).len(), 1);
    }
}
