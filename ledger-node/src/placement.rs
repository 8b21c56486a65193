//! The first placement of a new cluster: slots over shards, replicas over nodes.
//!
//! **Owns** the plan, as a pure function of what `cluster init` was told. **Must never** ask anything.
//! **Read next**: [`crate::meta`].

use std::collections::BTreeSet;

use ledger_core::limits::SLOTS;

use crate::limits::{REPLICAS_MAX, SHARDS_MAX};
use crate::meta::{MemberEntry, Placement, ShardPlacement};

/// Spreads the slots evenly over the shards (0: one a member), and each shard's replicas (0: three, or five from five members
/// on) over the members, in turn, so that every node should lead about as many.
pub(crate) fn plan(members: &[MemberEntry], shards: u32, replicas: u32) -> Placement {
    let n = members.len() as u32;
    let shards = if shards == 0 { n } else { shards }.clamp(1, SHARDS_MAX);
    let usual = if n >= 5 { 5 } else { 3 };
    let replicas = if replicas == 0 { usual } else { replicas }.min(REPLICAS_MAX).min(n);
    let slots = u32::from(SLOTS);
    let shard = |i: u32| ShardPlacement {
        shard: i + 1,
        slots: vec![((slots * i / shards) as u16, (slots * (i + 1) / shards - 1) as u16)],
        replicas: (0..replicas).map(|r| members[((i + r) % n) as usize].node).collect(),
    };
    Placement {
        generation: 1,
        members: members.to_vec(),
        shards: (0..shards).map(shard).collect(),
        settings: None,
        begun: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(n: u64) -> Vec<MemberEntry> {
        let member = |node| MemberEntry { node, client: String::new(), peer: String::new(), http: String::new() };
        (1..=n).map(member).collect()
    }

    #[test]
    fn every_slot_has_exactly_one_shard_whatever_the_numbers() {
        for (n, shards, replicas) in [(3, 0, 0), (3, 1, 3), (5, 7, 3), (1, 3, 0), (4, 256, 5)] {
            let placement = plan(&members(n), shards, replicas);
            let mut next = 0;
            for shard in &placement.shards {
                for &(from, to) in &shard.slots {
                    assert_eq!(u32::from(from), next, "{n} {shards}");
                    assert!(to >= from);
                    next = u32::from(to) + 1;
                }
                let mut distinct = shard.replicas.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), shard.replicas.len());
            }
            assert_eq!(next, u32::from(SLOTS));
        }
    }

    #[test]
    fn each_node_should_lead_one_shard_by_default() {
        let placement = plan(&members(3), 0, 0);
        let leaders: Vec<u64> = placement.shards.iter().map(|s| s.replicas[0]).collect();
        assert_eq!(leaders, [1, 2, 3]);
        assert!(placement.shards.iter().all(|s| s.replicas.len() == 3));
    }
}
