//! Whether enough replicas have answered for a damaged one to be repaired.
//!
//! **What it is.** A pure function of the answers so far. A damaged replica may have forgotten a
//! vote that it gave and entries that it acknowledged. Neither matters once every other voter has
//! answered with its term, and the whole ones among them are a quorum: what was acknowledged with
//! the damaged ones' help, or committed, is in the log of a whole one that every later leader
//! needs.
//!
//! **Owns** that judgement. **Must never** take an answer of a node that is no voter any more for
//! one of a voter, or fewer than all voters for all. **Read next**: [`super`].

use std::collections::{BTreeMap, BTreeSet};

use crate::types::StoredMembership;

/// What a replica says of itself.
#[derive(Debug, Clone)]
pub(crate) struct TermAnswer {
    /// It remembers all that it promised: it is neither damaged nor under repair.
    pub(crate) whole: bool,
    /// The highest term it knows.
    pub(crate) term: u64,
    /// The members, as far as it knows.
    pub(crate) members: StoredMembership,
}

/// What the answers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Survey {
    /// These are voters, and were not asked yet.
    Ask(BTreeSet<u64>),
    /// A repair has to wait: these voters do not answer, those are damaged themselves.
    Missing { silent: Vec<u64>, damaged: Vec<u64> },
    /// These voters have answered, and no other is needed.
    Complete(BTreeSet<u64>),
}

/// Judges the answers of all replicas, this one's own (which counts for what it knows of members)
/// included.
///
/// Voters are those of every configuration of the newest membership among the answers, joint ones
/// included. A change of members is known to a quorum of the configuration before it: so asking all
/// of these finds it, and the question goes on to its voters.
pub(crate) fn survey(me: u64, answers: &BTreeMap<u64, TermAnswer>, silent: &BTreeSet<u64>) -> Survey {
    let newest = answers.values().map(|answer| &answer.members).max_by_key(|members| *members.log_id());
    let configs = newest.map(|members| members.membership().get_joint_config().clone()).unwrap_or_default();
    let voters: BTreeSet<u64> = configs.iter().flatten().copied().filter(|id| *id != me).collect();
    let ask: BTreeSet<u64> =
        voters.iter().copied().filter(|id| !answers.contains_key(id) && !silent.contains(id)).collect();
    if !ask.is_empty() {
        return Survey::Ask(ask);
    }
    let is_whole = |id: &u64| *id != me && answers.get(id).is_some_and(|answer| answer.whole);
    let all_answered = voters.iter().all(|id| answers.contains_key(id));
    let quorums = configs.iter().all(|config| config.iter().filter(|id| is_whole(id)).count() > config.len() / 2);
    let enough = all_answered && quorums || crate::bad!("repair-without-all-voters");
    if enough && !configs.is_empty() {
        return Survey::Complete(voters);
    }
    let gone = |id: &u64| !answers.contains_key(id);
    // Without members nobody is known to be a voter: each that did not answer may be one.
    let asked: BTreeSet<u64> = if configs.is_empty() { silent.clone() } else { voters.clone() };
    Survey::Missing {
        silent: asked.iter().copied().filter(gone).collect(),
        damaged: answers.keys().copied().filter(|id| voters.contains(id) && !is_whole(id)).collect(),
    }
}

/// What a repair waits for, for people.
pub(crate) fn waits_for(silent: &[u64], damaged: &[u64]) -> String {
    let names = |ids: &[u64]| ids.iter().map(|id| format!("node {id}")).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !silent.is_empty() {
        parts.push(format!("{} must answer, and do not: start them", names(silent)));
    }
    if !damaged.is_empty() {
        parts.push(format!(
            "{} are damaged as well, so that the whole ones are no quorum; if volumes were restored, put back snapshots of one moment",
            names(damaged)
        ));
    }
    if parts.is_empty() {
        parts.push("no replica that answers is whole and knows the members".to_owned());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Membership, Peer, log_id};

    fn members(index: u64, configs: &[&[u64]]) -> StoredMembership {
        if configs.is_empty() {
            return StoredMembership::default();
        }
        let nodes: BTreeMap<u64, Peer> =
            configs.iter().flat_map(|config| config.iter()).map(|id| (*id, Peer::default())).collect();
        let configs = configs.iter().map(|config| config.iter().copied().collect()).collect();
        StoredMembership::new(Some(log_id(1, index)), Membership::new(configs, nodes).expect("members"))
    }

    fn answer(whole: bool, index: u64, configs: &[&[u64]]) -> TermAnswer {
        TermAnswer { whole, term: 7, members: members(index, configs) }
    }

    fn judge(answers: &[(u64, TermAnswer)], silent: &[u64]) -> Survey {
        survey(1, &answers.iter().cloned().collect(), &silent.iter().copied().collect())
    }

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    const THREE: &[&[u64]] = &[&[1, 2, 3]];
    const FIVE: &[&[u64]] = &[&[1, 2, 3, 4, 5]];

    #[test]
    fn every_other_voter_is_asked_and_one_that_is_silent_is_named() {
        let two = (2, answer(true, 1, THREE));
        assert_eq!(judge(std::slice::from_ref(&two), &[]), Survey::Ask(set(&[3])));
        assert_eq!(judge(std::slice::from_ref(&two), &[3]), Survey::Missing { silent: vec![3], damaged: vec![] });
        assert_eq!(judge(&[two, (3, answer(true, 1, THREE))], &[]), Survey::Complete(set(&[2, 3])));
    }

    /// {1, 2, 3} became {1, 2, 4}. Node 1 is damaged and asks node 2, which lags; 4 has
    /// acknowledged what 2 has not.
    #[test]
    fn members_1_2_3_that_became_1_2_4_are_found_through_the_one_that_was_removed() {
        let lagging = (2, answer(true, 1, THREE));
        let removed = (3, answer(true, 5, &[&[1, 2, 3], &[1, 2, 4]]));
        assert_eq!(judge(&[lagging.clone(), removed.clone()], &[]), Survey::Ask(set(&[4])));
        let silent = judge(&[lagging.clone(), removed.clone()], &[4]);
        assert_eq!(silent, Survey::Missing { silent: vec![4], damaged: vec![] });
        let newer = (4, answer(true, 6, &[&[1, 2, 4]]));
        assert_eq!(judge(&[lagging.clone(), removed, newer], &[]), Survey::Complete(set(&[2, 4])));
        // A removed node's answer never counts for one of a voter.
        let of_removed = (3, answer(true, 6, &[&[1, 2, 4]]));
        assert_eq!(judge(&[lagging, of_removed], &[4]), Survey::Missing { silent: vec![4], damaged: vec![] });
    }

    #[test]
    fn both_configurations_of_a_joint_one_need_a_whole_quorum() {
        let joint: &[&[u64]] = &[&[1, 2, 3], &[1, 4, 5]];
        let all = |whole: [bool; 4]| {
            let each = [2, 3, 4, 5].into_iter().zip(whole);
            judge(&each.map(|(id, whole)| (id, answer(whole, 9, joint))).collect::<Vec<_>>(), &[])
        };
        assert_eq!(all([true; 4]), Survey::Complete(set(&[2, 3, 4, 5])));
        assert_eq!(all([true, true, true, false]), Survey::Missing { silent: vec![], damaged: vec![5] });
    }

    #[test]
    fn two_damaged_of_five_do_not_wait_for_each_other_and_two_of_three_do_not_repair() {
        let whole = |id| (id, answer(true, 3, FIVE));
        let five = [whole(3), whole(4), whole(5)];
        let with = |more: &[(u64, TermAnswer)]| judge(&[&five[..], more].concat(), &[]);
        assert_eq!(with(&[(2, answer(false, 0, &[]))]), Survey::Complete(set(&[2, 3, 4, 5])));
        let three = judge(&[(2, answer(false, 0, &[])), (3, answer(true, 1, THREE))], &[]);
        assert_eq!(three, Survey::Missing { silent: vec![], damaged: vec![2] });
        assert_eq!(judge(&[(1, answer(false, 4, FIVE)), five[0].clone()], &[2]), Survey::Ask(set(&[4, 5])));
    }

    #[test]
    fn a_group_of_which_nobody_knows_the_members_is_not_repaired() {
        assert_eq!(judge(&[(2, answer(true, 0, &[]))], &[3]), Survey::Missing { silent: vec![3], damaged: vec![] });
        assert_eq!(judge(&[], &[]), Survey::Missing { silent: vec![], damaged: vec![] });
        assert!(matches!(judge(&[(1, answer(false, 1, &[&[1]]))], &[]), Survey::Missing { .. }), "it is alone");
    }
}
