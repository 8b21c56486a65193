//! Replicas agree: same index, same digest; and at the end every node says the same of every product.
//!
//! **Owns** this one property. **Must never** compare different indexes. **Read next**: [`super::order`].

use std::collections::BTreeMap;

use crate::history::Run;

/// Indexes at which two replicas' digests differ, and products of which two nodes say different things.
pub fn check(run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::new();
    for digest in &run.digests {
        let first = seen.entry((digest.shard, digest.index)).or_insert(digest);
        if first.value != digest.value {
            wrong.push(format!(
                "shard {} at index {}: node {} has {}, node {} has {}",
                digest.shard, digest.index, first.node, first.value, digest.node, digest.value
            ));
        }
    }
    let mut stock = BTreeMap::new();
    for s in &run.stock {
        let now = (s.received, s.adjusted, s.available, s.held, s.sold);
        let (node, first) = *stock.entry(&s.sku).or_insert((s.node, now));
        if first != now {
            wrong.push(format!("{}: node {node} says {first:?}, node {} says {now:?}", s.sku, s.node));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::check;

    #[test]
    fn a_differing_digest_is_found() {
        let mut run = sample::good();
        run.digests[2].value = "bb".into();
        assert_eq!(check(&run).len(), 1);
    }

    #[test]
    fn a_differing_stock_is_found() {
        let mut run = sample::good();
        run.stock[2].available = 0;
        assert_eq!(check(&run).len(), 1);
    }
}
