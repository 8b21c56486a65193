//! Never stranded: when every hold has ended, what is not sold is available.
//!
//! **Owns** this one property. **Must never** run before the last hold's deadline has passed. **Read next**: [`super::ends_once`].

use crate::history::Run;

/// Holds that live beyond their deadline, and products with units held though no live hold is left.
pub fn check(run: &Run) -> Vec<String> {
    let newest = run.events.iter().filter_map(|e| e.answer.time_ms()).max().unwrap_or(0);
    let live = |id: &&crate::history::FinalId| id.state == "held";
    let mut wrong: Vec<String> = run
        .ids
        .iter()
        .filter(live)
        .filter(|id| id.deadline_ms.is_some_and(|deadline| deadline <= newest))
        .map(|id| format!("{} is held, though it was due at {:?} and it is {newest}", id.id, id.deadline_ms))
        .collect();
    if run.ids.iter().any(|id| live(&id)) {
        return wrong;
    }
    for stock in &run.stock {
        for offer in stock.offers.iter().filter(|o| o.units.held > 0) {
            let (held, sale) = (offer.units.held, offer.sale.as_deref().unwrap_or("-"));
            wrong.push(format!("{} (sale {sale}) on node {}: {held} held, but no hold is live", stock.sku, stock.node));
        }
    }
    wrong
}
