//! Whether a group has a quorum, as seen from one of its replicas, and who is missing.
//!
//! **What it is.** A replica knows when it last heard the leader, and a leader when a quorum last
//! acknowledged it. Once that is long past, the group has no quorum as far as this replica can
//! tell: a call to it could only wait. Who is missing is what the connections to the other voters
//! say.
//!
//! **Owns** that judgement and its text. **Must never** change who votes or leads: it only reports.
//! **Read next**: [`crate::group`], [`crate::transport::link`].

use std::fmt;
use std::time::Duration;

use crate::api::NodeId;
use crate::transport::link::Fault;

/// A group has no quorum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NoQuorum {
    /// Milliseconds since the leader was heard or, on the leader, since a quorum acknowledged it.
    pub for_ms: u64,
    /// The voters that do not take part, as far as that is known.
    pub missing: Vec<MissingVoter>,
}

/// A voter that does not take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingVoter {
    /// Which one.
    pub node: NodeId,
    /// For people: what it does not do, and why.
    pub why: String,
    /// For how long, milliseconds.
    pub for_ms: u64,
}

impl NoQuorum {
    /// Who is missing and why, without the times: the same text as long as nothing changes.
    pub fn who(&self) -> String {
        self.list(|one| format!("node {} {}", one.node.0, one.why))
    }

    fn list(&self, one: impl Fn(&MissingVoter) -> String) -> String {
        match self.missing.is_empty() {
            true => "every other voter is reached, and no majority follows a leader".to_owned(),
            false => self.missing.iter().map(one).collect::<Vec<_>>().join(", "),
        }
    }
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |one: &MissingVoter| format!("node {} {} ({})", one.node.0, one.why, seconds(one.for_ms));
        write!(f, "no quorum ({}): {}", seconds(self.for_ms), self.list(one))
    }
}

fn seconds(ms: u64) -> String {
    format!("for {}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// The judgement: silent for so long, where that is too long; what is wrong with the other voters.
pub(crate) fn judge(
    silent: Duration,
    too_long: Duration,
    others: impl IntoIterator<Item = (NodeId, Option<Fault>)>,
) -> Option<NoQuorum> {
    if silent < too_long {
        return None;
    }
    let missing = others.into_iter().filter_map(|(node, fault)| {
        let Fault { why, lasts } = fault?;
        Some(MissingVoter { node, why, for_ms: lasts.as_millis() as u64 })
    });
    Some(NoQuorum { for_ms: silent.as_millis() as u64, missing: missing.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(1_800);

    fn fault(why: &str, lasts_ms: u64) -> Option<Fault> {
        Some(Fault { why: why.to_owned(), lasts: Duration::from_millis(lasts_ms) })
    }

    #[test]
    fn a_leader_that_is_silent_for_less_than_the_bound_is_no_lost_quorum() {
        let others = [(NodeId(2), fault("is unreachable", 900))];
        assert_eq!(judge(Duration::ZERO, AFTER, others.clone()), None);
        assert_eq!(judge(AFTER - Duration::from_millis(1), AFTER, others.clone()), None);
        assert!(judge(AFTER, AFTER, others).is_some());
    }

    #[test]
    fn those_who_are_missing_are_named_with_reason_and_time_and_the_others_are_not() {
        let others = [
            (NodeId(2), fault("is unreachable: connection refused", 12_345)),
            (NodeId(3), None),
            (NodeId(5), fault("gives no vote: it is being repaired", 90)),
        ];
        let found = judge(Duration::from_millis(12_049), AFTER, others).expect("no quorum");
        assert_eq!(found.missing.iter().map(|one| one.node.0).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(
            found.to_string(),
            "no quorum (for 12.0 s): node 2 is unreachable: connection refused (for 12.3 s), \
             node 5 gives no vote: it is being repaired (for 0.0 s)"
        );
        assert_eq!(
            found.who(),
            "node 2 is unreachable: connection refused, node 5 gives no vote: it is being repaired"
        );
    }

    #[test]
    fn without_anybody_missing_the_text_says_so() {
        let found = judge(AFTER, AFTER, [(NodeId(2), None)]).expect("no quorum");
        assert!(found.missing.is_empty() && found.to_string().contains("every other voter is reached"), "{found}");
    }
}
