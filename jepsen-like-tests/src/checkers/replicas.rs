//! Replicas are byte-identical: same index, same digest; and at the end every node says the same of every product.
//!
//! **Owns** this one property. **Must never** compare different indexes. **Read next**: [`super::feed`].

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
        let now = (s.index, s.received, s.adjusted, s.returned, &s.offers);
        let (node, first) = *stock.entry(&s.sku).or_insert((s.node, now));
        if first.0 != now.0 {
            wrong.push(format!("{}: node {node} ends at index {}, node {} at {}", s.sku, first.0, s.node, now.0));
        } else if first != now {
            wrong.push(format!("{}: node {node} says {first:?}, node {} says {now:?}", s.sku, s.node));
        }
    }
    wrong
}
