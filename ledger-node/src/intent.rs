//! Changing what the cluster intends: compare-and-set on the placement, through the meta group's leader.
//!
//! **What it is.** [`Node::change_placement`] is the one way to change a placement, by a command of the meta group. Two things use it: the settings that operators give all
//! shards, and a member that tells where it is reached now ([`Node::tell_addresses`]). Shards learn of either by the reconciler and the steward.
//! **Owns** these changes. **Must never** make a node a member, or take a replica away from one. **Read next**: [`crate::meta`], [`crate::settings`].

use std::sync::Arc;
use std::time::Duration;

use ledger_raft::{NodeId, Role};

use crate::limits;
use crate::meta::{self, MemberEntry, MetaCommand, Placed, Placement};
use crate::node::{AdminError, Node, Running};
use crate::peers::Question;
use crate::serve::announced;

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    /// This node does not lead the meta group.
    #[error("this node does not lead the meta group; {}", leader.map_or("nobody does just now".to_owned(), |l| format!("node {} does", l.0)))]
    NotLeader {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// What was asked for is not possible.
    #[error(transparent)]
    Refused(#[from] AdminError),
    /// It may have been made, or may yet be: look, and repeat it.
    #[error("the change may or may not have been made ({0}); look, and repeat it: it is safe to repeat")]
    Unsure(String),
}

impl From<ChangeError> for AdminError {
    fn from(why: ChangeError) -> Self {
        match why {
            ChangeError::Refused(why) => why,
            why => Self::NotNow(why.to_string()),
        }
    }
}

impl Node {
    /// The placement as of now.
    pub(crate) async fn placement_now(
        &self,
        running: &Running,
        within: Duration,
    ) -> Result<Arc<Placement>, AdminError> {
        let confirmed = running.meta().read_index(within).await;
        confirmed.map_err(|e| AdminError::NotNow(format!("the meta group: {e}; repeat the command")))?;
        self.placement().ok_or_else(|| AdminError::NotNow("the cluster has no placement yet".to_owned()))
    }

    /// Proposes the command that `change` makes of the present placement; the result is what is in force then, and whether it was
    /// changed. A change that leaves it as it is costs no entry.
    pub(crate) async fn change_placement(
        &self,
        change: impl Fn(&Placement) -> Result<MetaCommand, AdminError>,
    ) -> Result<(Arc<Placement>, bool), ChangeError> {
        let Some(running) = self.running() else {
            return Err(AdminError::NotNow("this node belongs to no cluster yet".to_owned()).into());
        };
        for _ in 0..limits::CHANGE_TRIES {
            let status = running.meta().status();
            if status.role != Role::Leader {
                return Err(ChangeError::NotLeader { leader: status.leader });
            }
            let present = self.placement_now(&running, limits::OWN_COMMAND_WITHIN).await?;
            let command = change(&present)?;
            let wanted = command.over(Some(&present)).ok_or_else(|| {
                AdminError::Refused("the change is not one of the placement that is in force".to_owned())
            })?;
            if wanted.members == present.members && wanted.settings == present.settings {
                return Ok((present, false));
            }
            let bytes = meta::encode(&command).map_err(|e| AdminError::Invalid(e.to_string()))?;
            let committed = match tokio::time::timeout(limits::OWN_COMMAND_WITHIN, running.meta().propose(bytes)).await
            {
                Ok(Ok(committed)) => committed,
                Ok(Err(ledger_raft::ProposeError::NotLeader { leader, .. })) => {
                    return Err(ChangeError::NotLeader { leader });
                }
                Ok(Err(ledger_raft::ProposeError::Unknown { why })) => return Err(ChangeError::Unsure(why)),
                Ok(Err(e)) => return Err(AdminError::NotNow(e.to_string()).into()),
                Err(_) => return Err(ChangeError::Unsure("no quorum took it in time".to_owned())),
            };
            if committed.reply.downcast::<Placed>().is_ok_and(|placed| placed.taken) {
                self.kick.notify_one();
                return Ok((Arc::new(wanted), true));
            }
        }
        Err(AdminError::NotNow("others keep changing the placement; repeat the command".to_owned()).into())
    }

    /// Tells the meta group where this node is reached, when that is not what others know. Asked in turn, since who leads the meta group is
    /// learnt from those who cannot reach this node yet.
    pub(crate) async fn tell_addresses(&self, running: &Running) {
        let me = running.stamp().node;
        let members = self.members();
        let Some(known) = members.iter().find(|member| member.node == me) else { return };
        let mine = self.addresses(known);
        if mine == *known {
            return;
        }
        tracing::info!(?known, now = ?mine, "this node is reached elsewhere than others know: telling them");
        if self.take_addresses(&mine).await.is_ok() {
            return;
        }
        let question = Question::Moved(mine);
        for other in members.iter().filter(|member| member.node != me) {
            match self.ask(NodeId(other.node), &question).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(node = other.node, %error, "it does not take this node's addresses"),
            }
        }
    }

    /// A member's new addresses, if this node leads the meta group.
    pub(crate) async fn take_addresses(&self, entry: &MemberEntry) -> Result<(), ChangeError> {
        let change = |placement: &Placement| {
            let taken = |other: &MemberEntry| {
                other.node != entry.node && (other.client == entry.client || other.peer == entry.peer)
            };
            if let Some(other) = placement.members.iter().find(|other| taken(other)) {
                let why = format!(
                    "node {} has the client address {} or the peer address {}",
                    other.node, entry.client, entry.peer
                );
                return Err(AdminError::Refused(why));
            }
            match placement.member(entry.node) {
                Some(_) => {
                    Ok(MetaCommand::SetMemberAddress { generation: placement.generation, member: entry.clone() })
                }
                None => Err(AdminError::Refused(format!("node {} is no member", entry.node))),
            }
        };
        let (_, changed) = self.change_placement(change).await?;
        if changed {
            tracing::info!(
                node = entry.node,
                client = entry.client,
                peer = entry.peer,
                "a member is reached elsewhere now"
            );
        }
        Ok(())
    }

    /// How this node is reached by its configuration, where that says more than what is known.
    fn addresses(&self, known: &MemberEntry) -> MemberEntry {
        let (config, ports) = (self.config(), self.ports);
        MemberEntry {
            node: known.node,
            client: announced(&config.client, ports.client, &known.client),
            peer: announced(&config.peer, ports.peer, &known.peer),
            http: announced(&config.http, ports.http, &known.http),
        }
    }
}
