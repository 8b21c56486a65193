//! `node rejoin`: members whose data directories are empty come back through repair.
//!
//! **What it is.** The member that is asked (1) asks every other member what it knows, and goes on
//! only if the whole ones can repair the empty ones; (2) has each empty node draw a disk id for this
//! one attempt; (3) has every other member record the new disks, durably:
//! from then on it refuses the old ones; (4) sends the empty nodes the plan. They stamp themselves,
//! and all that they had counts as lost until the ordinary repair has ended.
//!
//! Repeating the command after a crash anywhere finishes it. Safety does not depend on the member
//! that is asked: a disk counts once every other voter has answered it, which each does only while
//! it knows that disk, and what a member knows only ever rises.
//!
//! **Owns** these steps, on all sides. **Must never** let a member go back to a disk that was
//! replaced. **Read next**: `docs/decisions/0017-an-empty-disk-rejoins.md`, [`crate::init`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::join_all;
use ledger_proto::v1;
use ledger_raft::{DiskId, GroupId, NodeId};
use tokio::time::{Instant, timeout_at};

use crate::data_dir::{MemberDisk, Stamp, hex};
use crate::init::{disk_of, invalid, of_peer, on_disk, silent, stopping, under_way};
use crate::limits;
use crate::meta::{META_GROUP, MemberEntry, Placement, ShardPlacement};
use crate::node::{AdminError, Node, lock};
use crate::peers::Question;

/// Disks of members, by node.
pub(crate) type Disks = BTreeMap<u64, MemberDisk>;

/// What a node that is to come back says of its directory.
enum Found {
    /// It is empty.
    Empty,
    /// It is the member's since an earlier call.
    Joined(MemberDisk),
}

/// What a member knows that matters to a rejoin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// The disks of the members that were asked about.
    pub(crate) disks: Disks,
    /// Those of them that it has just heard from, on that disk.
    pub(crate) heard: BTreeSet<u64>,
    /// Its groups whose replica has lost nothing.
    pub(crate) whole: BTreeSet<u32>,
}

impl Node {
    /// Admin.Rejoin.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn rejoin(self: &Arc<Self>, request: v1::RejoinRequest) -> Result<v1::RejoinResponse, AdminError> {
        let Some(running) = self.running() else {
            return Err(AdminError::Refused(
                "this node belongs to no cluster yet; hint: ask a member that runs; where there is none, nobody could \
                 repair the empty ones"
                    .to_owned(),
            ));
        };
        let Ok(_one_at_a_time) = self.joining.try_lock() else { return Err(under_way()) };
        let stamp = running.stamp();
        let back = self.named(&request, &stamp)?;
        let mut found = BTreeMap::new();
        for member in &back {
            found.insert(member.node, self.look(member, &stamp).await?);
        }
        let empty: BTreeSet<u64> =
            back.iter().map(|m| m.node).filter(|node| matches!(found[node], Found::Empty)).collect();
        let views = self.views(&found.keys().copied().collect(), &empty, &stamp).await?;
        let wanted = found.iter().map(|(node, found)| Ok((*node, wanted(*node, found, &views)?)));
        let mut wanted = wanted.collect::<Result<Disks, AdminError>>()?;
        let mut plan = stamp.as_ref().clone();
        found.iter().for_each(|(node, found)| {
            if let Found::Joined(disk) = found {
                plan.set_disk(*node, *disk);
            }
        });
        // It has its stamp, and may not run as that yet: then nothing but the plan starts it.
        for member in back.iter().filter(|member| !empty.contains(&member.node) && !views.contains_key(&member.node)) {
            self.send_back(member, &plan).await?;
        }
        if !empty.is_empty() {
            let Some(placement) = self.placement() else {
                return Err(AdminError::NotNow("the placement is not known here yet; repeat the command".to_owned()));
            };
            can_be_repaired(&stamp, &placement, &empty, &views)?;
        }
        for member in back.iter().filter(|member| empty.contains(&member.node)) {
            if let Some(disk) = wanted.get_mut(&member.node) {
                *disk = self.draw(member, disk.generation).await?;
            }
        }
        let others = stamp.members.iter().map(|member| member.node).filter(|node| !empty.contains(node));
        self.record(&wanted, others, &views).await?;
        let stamp = running.stamp();
        for member in back.iter().filter(|member| empty.contains(&member.node)) {
            self.send_back(member, &stamp).await?;
        }
        let one = |(node, disk): (&u64, &MemberDisk)| v1::rejoin_response::One {
            node: *node,
            disk: disk.id.0.to_vec().into(),
            disk_generation: disk.generation,
            already: !empty.contains(node),
        };
        Ok(v1::RejoinResponse { members: wanted.iter().map(one).collect() })
    }

    /// The members that are to come back, with the address of each.
    fn named(&self, request: &v1::RejoinRequest, stamp: &Stamp) -> Result<Vec<MemberEntry>, AdminError> {
        let members = self.members();
        let mut back: BTreeMap<u64, MemberEntry> = BTreeMap::new();
        for asked in &request.members {
            let Some(member) = members.iter().find(|member| member.node == asked.node) else {
                return Err(AdminError::NotFound(format!("node {} is no member of this cluster", asked.node)));
            };
            if asked.node == stamp.node {
                let why = format!("node {} runs, and is the one that is asked; hint: ask another member", asked.node);
                return Err(AdminError::Refused(why));
            }
            let client = if asked.client.is_empty() { member.client.clone() } else { asked.client.clone() };
            if back.insert(asked.node, MemberEntry { client, ..member.clone() }).is_some() {
                return Err(invalid(&format!("node {} is named twice", asked.node)));
            }
        }
        if back.is_empty() {
            return Err(invalid("no member is named"));
        }
        Ok(back.into_values().collect())
    }

    /// Asks a node that is to come back whose its directory is.
    async fn look(&self, member: &MemberEntry, stamp: &Stamp) -> Result<Found, AdminError> {
        let answer = self.ask_back(member, 0).await?;
        if answer.cluster.is_empty() {
            return Ok(Found::Empty);
        }
        let there = answer.member.unwrap_or_default();
        let disk = MemberDisk { generation: there.disk_generation, id: disk_of(&there)? };
        if answer.cluster[..] != stamp.cluster || answer.incarnation != stamp.incarnation || there.node != member.node {
            return Err(AdminError::Refused(format!(
                "the directory of the node at {} belongs to node {} of cluster {}; hint: start node {} on an empty directory",
                member.client,
                there.node,
                hex(&answer.cluster),
                member.node
            )));
        }
        if disk.generation == 0 {
            return Err(AdminError::Refused(format!(
                "node {} runs at {} on the directory that it joined with: it has nothing to come back from; hint: ledgerctl status",
                member.node, member.client
            )));
        }
        Ok(Found::Joined(disk))
    }

    /// Has an empty node draw a disk id for this attempt, of this generation at least.
    async fn draw(&self, member: &MemberEntry, generation: u64) -> Result<MemberDisk, AdminError> {
        let answer = self.ask_back(member, generation).await?;
        if !answer.cluster.is_empty() {
            return Err(under_way());
        }
        let there = answer.member.unwrap_or_default();
        let most = limits::DISK_GENERATION_MAX.min(generation.saturating_add(limits::DISK_GENERATION_STEP_MAX));
        if !(generation..=most).contains(&there.disk_generation) {
            return Err(AdminError::Refused(format!(
                "node {node} answers with disk generation {}, and {generation} is next; hint: restart node {node} on its empty \
                 directory, and repeat the command",
                there.disk_generation,
                node = member.node
            )));
        }
        Ok(MemberDisk { generation: there.disk_generation, id: disk_of(&there)? })
    }

    async fn ask_back(&self, member: &MemberEntry, disk_generation: u64) -> Result<v1::JoinResponse, AdminError> {
        let asked =
            v1::Member { node: member.node, client: member.client.clone(), disk_generation, ..v1::Member::default() };
        let prepare = v1::JoinRequest {
            node: member.node,
            prepare: true,
            rejoin: true,
            members: vec![asked],
            ..v1::JoinRequest::default()
        };
        let mut client = self.dial(&member.client).await?;
        let answer = match timeout_at(Instant::now() + limits::JOIN_WITHIN, client.join(prepare)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(of_peer(member, &status)),
            Err(_) => return Err(silent(member)),
        };
        if !answer.rejoin {
            let why = format!("node {} at {} runs a build that knows no rejoin", member.node, member.client);
            return Err(AdminError::Refused(format!("{why}; hint: start a newer one on the empty directory")));
        }
        Ok(answer)
    }

    /// What every member but the empty ones knows of those that come back. The ones that are named may
    /// be missing: they need not run, and this member may not know the disk that they run on.
    async fn views(
        &self,
        back: &BTreeSet<u64>,
        empty: &BTreeSet<u64>,
        stamp: &Stamp,
    ) -> Result<BTreeMap<u64, View>, AdminError> {
        let question = Question::Disks(back.iter().copied().collect());
        let others = stamp.members.iter().map(|member| member.node);
        let others = others.filter(|node| *node != stamp.node && !empty.contains(node));
        let asked =
            others.map(|node| {
                let question = &question;
                async move {
                    (node, self.ask_within(NodeId(node), question, limits::JOIN_WITHIN).await.and_then(View::decode))
                }
            });
        let mut views = BTreeMap::from([(stamp.node, self.view(back))]);
        let mut missing = Vec::new();
        for (node, answer) in join_all(asked).await {
            match answer {
                Ok(view) => drop(views.insert(node, view)),
                Err(_) if back.contains(&node) => {}
                Err(why) => missing.push(format!("node {node} ({why})")),
            }
        }
        if missing.is_empty() {
            return Ok(views);
        }
        Err(AdminError::NotNow(format!(
            "every other member must refuse the old disk of {} from now on, and {} must answer: start what is missing and repeat \
             the command; nothing was changed",
            names(back.iter()),
            missing.join(", ")
        )))
    }

    /// What this node knows of these members.
    pub(crate) fn view(&self, of: &BTreeSet<u64>) -> View {
        let Some(running) = self.running() else { return View::default() };
        let stamp = running.stamp();
        let disks = of.iter().filter_map(|node| Some((*node, stamp.disk(*node)?))).collect();
        let heard = of.iter().copied().filter(|node| running.raft.hears_peer(NodeId(*node))).collect();
        let whole = running.raft.wholeness().into_iter().filter(|(_, whole)| *whole).map(|(GroupId(id), _)| id);
        View { disks, heard, whole: whole.collect() }
    }

    /// Every other member refuses the old disks from now on, this one first.
    async fn record(
        &self,
        wanted: &Disks,
        others: impl Iterator<Item = u64>,
        views: &BTreeMap<u64, View>,
    ) -> Result<(), AdminError> {
        let me = self.node_id().unwrap_or_default().0;
        self.take_disks(wanted.clone()).await.map_err(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied => AdminError::NotNow(format!("{e}; repeat the command")),
            _ => AdminError::Failed(format!("this node cannot record it: {e}")),
        })?;
        let question = Question::TakeDisks(wanted.clone());
        let knows = |view: &View, node, disk| view.disks.get(&node) == Some(disk);
        // Its own it has.
        let lacks = |other: u64| {
            let mut of_others = wanted.iter().filter(|(node, _)| **node != other);
            of_others.any(|(node, disk)| !views.get(&other).is_some_and(|view| knows(view, *node, disk)))
        };
        let others = others.filter(|node| *node != me && lacks(*node));
        let asked = others.map(|node| {
            let question = &question;
            async move { (node, self.ask_within(NodeId(node), question, limits::JOIN_WITHIN).await) }
        });
        let failed: Vec<_> =
            join_all(asked).await.into_iter().filter_map(|(node, done)| Some((node, done.err()?))).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let why: Vec<_> = failed.iter().map(|(node, why)| format!("node {node} ({why})")).collect();
        Err(AdminError::NotNow(format!(
            "{} did not record the new disk of {}, which others have recorded: repeat the command once all of them answer",
            why.join(", "),
            names(wanted.keys())
        )))
    }

    /// Takes these disks of other members for theirs, durably, and refuses the ones before. Taking
    /// them again does nothing.
    ///
    /// # Errors
    /// A later rejoin came first; or the disk's.
    pub(crate) async fn take_disks(&self, disks: Disks) -> io::Result<()> {
        let running = self.running().ok_or_else(|| io::Error::other("this node belongs to no cluster"))?;
        let dir = self.dir.clone();
        let take = move || {
            let write = |stamp: &Stamp| {
                let mut next = stamp.clone();
                for (node, disk) in &disks {
                    take_disk(&mut next, *node, *disk)?;
                }
                if next == *stamp {
                    return Ok(None);
                }
                let dir = lock(&dir);
                let dir = dir.as_ref().ok_or_else(|| io::Error::other("the node is stopping"))?;
                dir.stamp(&next).map_err(io::Error::other)?;
                Ok(Some(next))
            };
            running.change_stamp(write, |_| {
                disks.iter().for_each(|(node, disk)| running.raft.replace_peer_disk(NodeId(*node), disk.id));
            })
        };
        if self.seams().raft.disk.inline() {
            return take();
        }
        tokio::task::spawn_blocking(take).await.map_err(io::Error::other)?
    }

    /// Sends a node the plan: an empty one joins, one that has joined runs as what its stamp says.
    async fn send_back(&self, member: &MemberEntry, stamp: &Stamp) -> Result<(), AdminError> {
        let mut client = self.dial(&member.client).await?;
        // As they are reached now.
        let members = self.members();
        let join = v1::JoinRequest {
            cluster: stamp.cluster.to_vec().into(),
            incarnation: stamp.incarnation,
            node: member.node,
            rejoin: true,
            members: members.iter().map(|m| on_disk(m, stamp.disk(m.node))).collect(),
            shards: stamp.shards,
            replicas: stamp.replicas,
            ..v1::JoinRequest::default()
        };
        match timeout_at(Instant::now() + limits::JOIN_WITHIN, client.join(join)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(of_peer(member, &status)),
            Err(_) => Err(silent(member)),
        }
    }

    /// Whose the directory is, to the member that wants this node to come back on it. An empty one
    /// gets a disk id for this attempt when a generation is asked for. Later attempts are of later
    /// generations, so that the members end on the id that was drawn last.
    pub(crate) fn prepare_rejoin(
        &self,
        stamp: Option<&Stamp>,
        entry: &MemberEntry,
        generation: u64,
    ) -> Result<v1::JoinResponse, AdminError> {
        let Some(stamp) = stamp else {
            let answer = |disk| v1::JoinResponse {
                member: Some(on_disk(entry, disk)),
                rejoin: true,
                ..v1::JoinResponse::default()
            };
            if generation == 0 {
                return Ok(answer(None));
            }
            let mut last = lock(&self.rejoin_generation);
            let generation = generation.max(last.saturating_add(1));
            let random = &self.seams().raft.random;
            let drawn = self.identity_file.hand_out_for_rejoin(|| crate::data_dir::draw_disk_id(random.as_ref()));
            let id = drawn.map_err(|e| AdminError::Failed(format!("the disk's id cannot be written: {e}")))?;
            *last = generation;
            return Ok(answer(Some(MemberDisk { generation, id })));
        };
        let Some(own) = stamp.members.iter().find(|member| member.node == stamp.node) else { return Err(stopping()) };
        Ok(v1::JoinResponse {
            member: Some(on_disk(own, stamp.disk(stamp.node))),
            rejoin: true,
            cluster: stamp.cluster.to_vec().into(),
            incarnation: stamp.incarnation,
        })
    }
}

/// A member's disk, unless a later one is known.
fn take_disk(stamp: &mut Stamp, node: u64, disk: MemberDisk) -> io::Result<()> {
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    match stamp.disk(node) {
        None => refused(format!("node {node} is no member")),
        Some(known) if known == disk => Ok(()),
        Some(_) if node == stamp.node => refused(format!("node {node} runs here, on another disk")),
        Some(known) if known > disk => refused(format!("another rejoin of node {node} came first")),
        Some(known) if known.id == disk.id => {
            refused(format!("disk {} of node {node} has generation {} for ever", disk.id, known.generation))
        }
        Some(_) => {
            stamp.set_disk(node, disk);
            Ok(())
        }
    }
}

/// The disk that all others are to know a member by.
fn wanted(node: u64, found: &Found, views: &BTreeMap<u64, View>) -> Result<MemberDisk, AdminError> {
    let newest = views.values().filter_map(|view| view.disks.get(&node)).max().copied();
    let generation = newest.map_or(0, |newest| newest.generation);
    match found {
        Found::Joined(disk) if newest.is_some_and(|newest| newest > *disk) => Err(AdminError::Refused(format!(
            "node {node} came back on disk {}, and a later rejoin has made the members expect another one; hint: stop it, empty its \
             directory, start it, and repeat the command",
            disk.id
        ))),
        Found::Joined(disk) => Ok(*disk),
        Found::Empty => {
            let hears = views.iter().find(|(_, view)| view.heard.contains(&node));
            if let Some((other, _)) = hears {
                return Err(AdminError::NotNow(format!(
                    "node {node} runs on the disk that the members know: node {other} has just heard from it there; nothing was \
                     changed; hint: if that directory is to be given up, stop its process first, and repeat the command"
                )));
            }
            if generation >= limits::DISK_GENERATION_MAX {
                return Err(AdminError::Refused(format!("node {node} has come back on too many empty disks")));
            }
            // The node draws the id.
            Ok(MemberDisk { generation: generation + 1, id: DiskId::default() })
        }
    }
}

/// Whether the whole replicas of each group can repair the empty ones: they are a majority, and the
/// group has begun, unless another node is to begin it.
fn can_be_repaired(
    stamp: &Stamp,
    placement: &Placement,
    empty: &BTreeSet<u64>,
    views: &BTreeMap<u64, View>,
) -> Result<(), AdminError> {
    let meta = stamp.members.iter().map(|member| member.node).collect();
    let shards = placement.shards.iter().map(|shard| (shard.shard, shard.replicas.clone()));
    for (group, replicas) in std::iter::once((META_GROUP.0, meta)).chain(shards) {
        if !replicas.iter().any(|node| empty.contains(node)) {
            continue;
        }
        let is_whole = |node: &u64| views.get(node).is_some_and(|view| view.whole.contains(&group));
        let whole = replicas.iter().filter(|node| is_whole(node)).count();
        if whole > replicas.len() / 2 {
            continue;
        }
        let what = if group == META_GROUP.0 { "the meta group".to_owned() } else { format!("shard {group}") };
        let damaged: Vec<_> = replicas.iter().filter(|node| !empty.contains(node) && !is_whole(node)).collect();
        let why = format!(
            "nobody could repair {what} on {}: what it had acknowledged may exist nowhere else, since its whole replicas are no \
             majority",
            names(empty.iter())
        );
        // A member that has just started does not run it yet.
        return Err(match whole + damaged.len() > replicas.len() / 2 {
            true => AdminError::NotNow(format!(
                "{why}: {} are damaged or do not run it yet; nothing was changed; hint: repeat the command if they have just \
                 started; if they are damaged, nobody can repair them without {empty}: start {empty} on the directory it had",
                names(damaged.into_iter()),
                empty = names(empty.iter())
            )),
            false => AdminError::Refused(format!(
                "{why}; there are too few others; nothing was changed; hint: start {} on the directory it had",
                names(empty.iter())
            )),
        });
    }
    let begins = |shard: &&ShardPlacement| shard.replicas.first().is_some_and(|first| empty.contains(first));
    let unbegun = |shard: &&ShardPlacement| !placement.begun.contains(&shard.shard);
    if let Some(ShardPlacement { shard, replicas, .. }) = placement.shards.iter().filter(begins).find(unbegun) {
        let first = replicas[0];
        return Err(AdminError::NotNow(format!(
            "shard {shard} has not begun as far as the members know, and only node {first} may begin it, on the directory it \
             had: an empty one would wait for ever; nothing was changed; hint: repeat the command once `ledgerctl status` \
             shows a leader of shard {shard}; if it shows none, start node {first} on the directory it had"
        )));
    }
    Ok(())
}

/// Nodes, for people.
fn names<'a>(nodes: impl Iterator<Item = &'a u64>) -> String {
    nodes.map(|node| format!("node {node}")).collect::<Vec<_>>().join(", ")
}

/// Bytes of a member's disk: node 8, generation 8, id 16.
const DISK_BYTES: usize = 32;

pub(crate) fn put_disks(out: &mut BytesMut, disks: &Disks) {
    for (node, disk) in disks {
        out.put_u64(*node);
        out.put_u64(disk.generation);
        out.put_slice(&disk.id.0);
    }
}

/// All bytes that are left; none when they are no disks.
pub(crate) fn take_all_disks(mut bytes: Bytes) -> Option<Disks> {
    if !bytes.len().is_multiple_of(DISK_BYTES) || bytes.len() / DISK_BYTES > limits::MEMBERS_MAX {
        return None;
    }
    let mut disks = Disks::new();
    while bytes.has_remaining() {
        let (node, generation) = (bytes.get_u64(), bytes.get_u64());
        let mut id = DiskId::default();
        bytes.copy_to_slice(&mut id.0);
        if generation > limits::DISK_GENERATION_MAX {
            return None;
        }
        disks.insert(node, MemberDisk { generation, id });
    }
    Some(disks)
}

impl View {
    /// disks 1 (how many), each; heard 1, 8 each; whole groups, 4 each.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(self.disks.len() as u8);
        put_disks(&mut out, &self.disks);
        out.put_u8(self.heard.len() as u8);
        self.heard.iter().for_each(|node| out.put_u64(*node));
        self.whole.iter().for_each(|group| out.put_u32(*group));
        out.freeze()
    }

    /// # Errors
    /// It is none.
    pub(crate) fn decode(bytes: Bytes) -> io::Result<Self> {
        Self::take(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a peer's disks are malformed"))
    }

    fn take(mut bytes: Bytes) -> Option<Self> {
        let mut part = |size: usize| {
            let bytes_of = usize::from(bytes.try_get_u8().ok()?) * size;
            (bytes.len() >= bytes_of).then(|| bytes.split_to(bytes_of))
        };
        let disks = take_all_disks(part(DISK_BYTES)?)?;
        let mut heard = part(8)?;
        let heard = std::iter::from_fn(|| heard.try_get_u64().ok()).collect();
        if !bytes.len().is_multiple_of(4) || bytes.len() / 4 > limits::SHARDS_MAX as usize + 1 {
            return None;
        }
        let whole = std::iter::from_fn(|| bytes.try_get_u32().ok()).collect();
        Some(Self { disks, heard, whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(generation: u64, id: u8) -> MemberDisk {
        MemberDisk { generation, id: DiskId([id; 16]) }
    }

    fn view(node: u64, disk: MemberDisk) -> View {
        View { disks: [(node, disk)].into(), ..View::default() }
    }

    /// Node 1's, which knows these disks.
    fn stamp(disks: &[(u64, MemberDisk)]) -> Stamp {
        let mut stamp = Stamp {
            format: 2,
            cluster: [7; 16],
            incarnation: 1,
            node: 1,
            ports: crate::data_dir::Ports { client: 1, http: 2, peer: 3 },
            initiator: false,
            members: Vec::new(),
            disks: BTreeMap::new(),
            disk_generations: BTreeMap::new(),
            shards: 1,
            replicas: 3,
        };
        disks.iter().for_each(|(node, disk)| stamp.set_disk(*node, *disk));
        stamp
    }

    #[test]
    fn a_view_comes_back_as_it_went_and_garbage_does_not() {
        let view = View { heard: [3, 9].into(), whole: [0, 2, 7].into(), ..view(3, disk(1, 5)) };
        assert_eq!(View::decode(view.encode()).expect("whole"), view);
        assert_eq!(View::decode(View::default().encode()).expect("whole"), View::default());
        for garbage in [&[][..], &[1], &[1; 33], &[0, 1, 0], &[0, 0, 1, 2, 3], &[9; 400]] {
            assert!(View::decode(Bytes::copy_from_slice(garbage)).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn each_attempt_is_of_a_later_generation_than_any_that_a_member_has_recorded() {
        let views = BTreeMap::from([(1, view(2, disk(0, 9))), (3, view(2, disk(4, 7)))]);
        let new = wanted(2, &Found::Empty, &views).expect("wanted");
        assert_eq!(new.generation, 5);
        assert_eq!(wanted(2, &Found::Joined(disk(4, 7)), &views).expect("an earlier call"), disk(4, 7));
        let overtaken = wanted(2, &Found::Joined(disk(4, 6)), &views).expect_err("another one came later");
        assert!(overtaken.to_string().contains("empty its directory"), "{overtaken}");
        let most = limits::DISK_GENERATION_MAX;
        for (generation, is_taken) in [(most - 1, true), (most, false), (u64::MAX, false)] {
            let views = BTreeMap::from([(1, view(2, disk(generation, 9)))]);
            assert_eq!(wanted(2, &Found::Empty, &views).is_ok(), is_taken, "{generation}");
        }
    }

    #[test]
    fn the_node_that_is_to_begin_a_shard_is_not_brought_back_before_it_has() {
        let entry = |node| MemberEntry { node, client: "a:1".into(), peer: "a:2".into(), http: "a:3".into() };
        let members: Vec<_> = (1..=3).map(entry).collect();
        let stamp = Stamp { members: members.clone(), ..stamp(&[]) };
        let shard = |shard, replicas| ShardPlacement { shard, slots: Vec::new(), replicas };
        let mut placement = Placement {
            generation: 1,
            members,
            shards: vec![shard(1, vec![1, 2, 3]), shard(2, vec![2, 3, 1])],
            settings: None,
            begun: [1].into(),
        };
        let whole = View { whole: [0, 1, 2].into(), ..View::default() };
        let views: BTreeMap<_, _> = (1..=3).map(|node| (node, whole.clone())).collect();
        let back = |placement: &Placement, node| can_be_repaired(&stamp, placement, &[node].into(), &views);
        let Err(AdminError::NotNow(why)) = back(&placement, 2) else { panic!("nobody could repair shard 2 there") };
        assert!(why.contains("shard 2 has not begun") && why.contains("hint: "), "{why}");
        back(&placement, 3).expect("node 2 begins it");
        placement.begun.insert(2);
        back(&placement, 2).expect("it has begun");
    }

    /// Two attempts at once, in any order on each member: all members end on one disk, or an attempt
    /// is refused by some, and no member goes back.
    #[test]
    fn a_member_never_goes_back_to_a_disk_that_was_replaced() {
        let (old, low, high) = (disk(0, 9), disk(1, 1), disk(1, 2));
        for order in [[low, high], [high, low]] {
            let mut member = stamp(&[(1, disk(0, 8)), (2, old)]);
            let taken = order.map(|disk| take_disk(&mut member, 2, disk).is_ok());
            assert_eq!((member.disk(2), taken[0]), (Some(high), true));
            take_disk(&mut member, 2, high).expect("again");
            for back in [old, low] {
                let refused = take_disk(&mut member, 2, back).expect_err("replaced");
                assert!(refused.to_string().contains("came first"), "{refused}");
            }
            let later = MemberDisk { generation: 2, ..high };
            let refused = take_disk(&mut member, 2, later).expect_err("a disk has one generation");
            assert!(refused.to_string().contains("generation 1 for ever"), "{refused}");
            assert!(take_disk(&mut member, 1, high).is_err(), "its own");
            assert!(take_disk(&mut member, 3, high).is_err(), "no member");
        }
    }
}
