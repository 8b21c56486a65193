//! Snapshots on their way in: a leader offers one, this side pulls its chunks.
//!
//! **Owns** who may pull at a time, and the end of a pull that nobody waits for. **Must never** put a file in place: that is the state
//! machine's, once openraft has cut what the snapshot contradicts from the log. **Read next**: [`crate::snapshot`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::checks;
use super::frame::Kind;
use super::link::{Link, lock};
use super::network::{Offer, meta_of};
use super::server::Registry;
use crate::api::NodeId;
use crate::codec::{self, malformed};
use crate::group::GroupCore;
use crate::limits::{
    ADDRESS_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_WITHIN, SNAPSHOT_CHUNKS_IN_FLIGHT, SNAPSHOT_TRANSFER_WITHIN,
};
use crate::memory::AcknowledgedBy;
use crate::repair;
use crate::seam::Disk;
use crate::snapshot::{SnapshotFile, SnapshotStore, blocking};

/// The one pull of a group: its leader's term, and how to end it.
#[derive(Default)]
pub(crate) struct PullSlot(Mutex<Option<(u64, CancellationToken)>>);

/// The right to pull; given back on drop.
struct PullClaim<'a> {
    slot: &'a PullSlot,
    over: CancellationToken,
}

impl PullSlot {
    /// One at a time. A leader of a later term does not wait for what an earlier one began: that pull ends.
    fn claim(&self, term: u64) -> io::Result<PullClaim<'_>> {
        let mut slot = lock(&self.0);
        if let Some((under, over)) = &*slot {
            if *under >= term && !over.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "a snapshot is being received"));
            }
            over.cancel();
        }
        let over = CancellationToken::new();
        *slot = Some((term, over.clone()));
        Ok(PullClaim { slot: self, over })
    }
}

impl Drop for PullClaim<'_> {
    fn drop(&mut self) {
        let mut slot = lock(&self.slot.0);
        // One that was taken over is not ours to give back.
        if !self.over.is_cancelled() {
            *slot = None;
        }
    }
}

/// Pulls the snapshot that a leader offers, and hands it to openraft.
pub(crate) async fn take_offer(
    registry: &Registry,
    (from, host): (NodeId, SocketAddr),
    core: &Arc<GroupCore>,
    body: &mut Bytes,
) -> io::Result<Bytes> {
    let vote = codec::take_vote(body)?;
    let offer = Offer::take(body)?;
    let by = AcknowledgedBy::take(body)?;
    let raft = core.raft()?;
    checks::vote(&vote, true, from, &core.known())?;
    checks::snapshot(&vote, &offer.last, &core.known())?;
    // Before it is installed: a snapshot would cover up what is missing.
    repair::remembers(core, &by, vote.leader_id.term)?;
    let addr = std::str::from_utf8(body).ok().filter(|a| a.len() <= ADDRESS_BYTES_MAX);
    let addr = addr.ok_or_else(|| malformed("snapshot offer"))?;
    let link = registry.links.to(from, address_on(addr, host.ip())).bulk;
    let claim = core.pulling.claim(vote.leader_id.term)?;
    let (snapshots, disk) = (core.snapshots.clone(), core.seams.disk.clone());
    tracing::debug!(group = core.id.0, from = from.0, "a snapshot is being installed");
    let file = tokio::select! {
        biased;
        () = core.stop.cancelled() => return Err(io::Error::other("the group stopped")),
        () = claim.over.cancelled() => return Err(io::Error::other("a later leader's snapshot is received instead")),
        file = pull(Pull { group: core.id.0, link, snapshots, disk }, &offer) => file?,
    };
    // Time has passed.
    checks::snapshot(&vote, &file.head.last, &core.known())?;
    let snapshot = openraft::Snapshot { meta: meta_of(&file), snapshot: file };
    let r = core.seeded(raft.install_full_snapshot(vote, snapshot)).await.map_err(io::Error::other)?;
    // Refused, else: this replica has voted in a later term meanwhile.
    if r.vote == vote {
        tracing::debug!(group = core.id.0, "a snapshot was installed");
        core.memory.acknowledges(vote.leader_id.term, offer.last);
    }
    let mut b = BytesMut::new();
    codec::put_vote(&mut b, &r.vote);
    Ok(b.freeze())
}

/// The offered address where it is one of the host that offers; else none, and the link goes where
/// it is known to go: an offer leads nobody to another host.
fn address_on(addr: &str, host: IpAddr) -> &str {
    let is_there = addr.parse().is_ok_and(|addr: SocketAddr| addr.ip().to_canonical() == host.to_canonical());
    if is_there { addr } else { "" }
}

/// What pulling a snapshot takes.
pub(crate) struct Pull {
    pub(crate) group: u32,
    pub(crate) link: Arc<Link>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) disk: Arc<dyn Disk>,
}

/// Pulls a snapshot file from a peer, a few chunks at a time, and checks it. It is not in place yet, and gone once nobody holds it.
pub(crate) async fn pull(p: Pull, offer: &Offer) -> io::Result<Arc<SnapshotFile>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the snapshot did not arrive in time");
    tokio::time::timeout(SNAPSHOT_TRANSFER_WITHIN, pull_chunks(p, offer)).await.map_err(late)?
}

async fn pull_chunks(p: Pull, offer: &Offer) -> io::Result<Arc<SnapshotFile>> {
    let Pull { group, link, snapshots, disk } = p;
    let (store, wanted) = (snapshots.clone(), offer.clone());
    let incoming = Arc::new(blocking(&disk, move || store.receive(&wanted)).await?);
    let (index, total) = (offer.last.index, offer.bytes);
    futures::stream::iter((0..total).step_by(SNAPSHOT_CHUNK_BYTES))
        .map(|offset| {
            let (link, incoming, disk) = (link.clone(), incoming.clone(), disk.clone());
            async move {
                let len = (total - offset).min(SNAPSHOT_CHUNK_BYTES as u64) as usize;
                let mut q = BytesMut::with_capacity(20);
                q.put_u64_le(index);
                q.put_u64_le(offset);
                q.put_u32_le(len as u32);
                let bytes = link.call(Kind::SnapshotRead, group, q.freeze(), SNAPSHOT_CHUNK_WITHIN).await?;
                if bytes.len() != len {
                    return Err(malformed("snapshot range"));
                }
                blocking(&disk, move || incoming.put(offset, &bytes)).await
            }
        })
        .buffered(SNAPSHOT_CHUNKS_IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    let incoming = Arc::into_inner(incoming).ok_or_else(|| io::Error::other("a chunk is still being written"))?;
    blocking(&disk, move || snapshots.received(incoming)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_offer_does_not_redirect_the_link_to_another_host() {
        let host = "10.0.0.2".parse().expect("an address");
        assert_eq!(address_on("10.0.0.2:7103", host), "10.0.0.2:7103");
        assert_eq!(address_on("[::ffff:10.0.0.2]:7103", host), "[::ffff:10.0.0.2]:7103");
        for other in ["10.0.0.3:7103", "node-2:7103", "", "10.0.0.2"] {
            assert_eq!(address_on(other, host), "", "{other}");
        }
    }

    #[test]
    fn one_pull_at_a_time_and_a_later_leader_ends_an_earlier_one() {
        let slot = PullSlot::default();
        let first = slot.claim(4).expect("free");
        assert!(slot.claim(4).is_err(), "the same leader waits");
        assert!(slot.claim(3).is_err(), "an earlier one, too");
        let second = slot.claim(5).expect("a later leader does not wait");
        assert!(first.over.is_cancelled());
        drop(first);
        assert!(slot.claim(5).is_err(), "the one that was taken over gives nothing back");
        drop(second);
        assert!(slot.claim(1).is_ok());
    }
}
