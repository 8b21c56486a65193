//! Never stranded: when every hold has ended, what is not sold is available.
//!
//! **Owns** this one property. **Must never** run before the last hold's deadline has passed. **Read next**: [`super::replicas`].

use crate::history::Run;

/// Products with units held though no live hold is left.
pub fn check(run: &Run) -> Vec<String> {
    let live = run.ids.iter().any(|id| id.state == "held");
    run.stock
        .iter()
        .filter(|s| s.held > 0 && !live)
        .map(|s| format!("{} on node {}: {} held, but no hold is live", s.sku, s.node, s.held))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::check;

    #[test]
    fn a_held_unit_without_a_hold_is_found() {
        let mut run = sample::good();
        run.stock[2].held = 1;
        run.stock[2].available = 0;
        assert_eq!(check(&run).len(), 1);
    }
}
