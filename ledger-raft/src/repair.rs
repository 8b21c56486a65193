//! Replicas that cannot go on as they are: quarantined ones, and ones whose log lost something.
//!
//! A **quarantined** replica's state is wrong but its log and vote are whole: it gets a peer's snapshot and goes on.
//!
//! A **damaged** replica may have lost entries it acknowledged and a vote it gave. It is repaired so that neither matters:
//! 1. All other voters of all configurations are asked for their terms ([`mod@survey`]), also those
//!    that are damaged. A candidate saves its own vote before it asks for ours, so no vote of ours
//!    can have been given in a term above the highest of theirs, `t`.
//! 2. The log is emptied, and our vote becomes *(t + 1, ourselves)*: we gave none in t + 1, and can give none at or below it again.
//! 3. A snapshot is pulled, and the replica runs, but answers no votes and does not campaign. The
//!    vote makes the present leader step down at our first answer, so that the next leader, of term
//!    t + 1 (another candidate may have come to it meanwhile) or above, is elected by voters whose
//!    logs are whole: it has every committed entry, those that we had acknowledged included.
//! 4. When an entry of term t + 1 or above was applied here, everything committed before that
//!    leader's first entry is in our log too: no voter knew of t + 1 when it answered, so that
//!    leader was elected since, without our vote. The damage is cleared, once every voter of the
//!    configurations in force by then has answered, those that came meanwhile included.
//!
//! Step 4 counts on a log that has lost nothing since step 2: it may hold acknowledged entries of
//! terms above t. Damage found meanwhile makes the mark of the repair void, and all of it begins
//! anew.
//!
//! **Owns** the marks on disk and these steps. **Must never** shorten them. **Read next**: [`crate::start`].

mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::async_runtime::watch::WatchReceiver;

use crate::api::{GroupId, NodeId};
use crate::codec::{self, malformed};
use crate::group::GroupCore;
use crate::limits::{INDEX_MAX, SNAPSHOT_TRANSFER_WITHIN, SURVEY_AGAIN, TERM_MAX, TERM_STEP_MAX, TERM_WITHIN};
use crate::memory::{Acknowledged, AcknowledgedBy};
use crate::seam::Disk;
use crate::snapshot::{SnapshotStore, blocking};
use crate::start::Ground;
use crate::store::Store;
use crate::transport::frame::Kind;
use crate::transport::link::Links;
use crate::transport::network::Offer;
use crate::transport::pull::{Pull, pull};
use crate::types::{LeaderId, StoredMembership, Vote};
use crate::vote_gate;
use crate::wal::Damage;
use survey::{Survey, TermAnswer, survey};

/// A repair that has begun: the log was emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repairing {
    /// The term that must be passed.
    past: u64,
    /// Voters that have answered.
    asked: BTreeSet<u64>,
}

impl Repairing {
    /// term 8, then 8 for each voter that has answered.
    fn to_bytes(&self) -> Vec<u8> {
        let numbers = std::iter::once(self.past).chain(self.asked.iter().copied());
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    fn from_bytes(body: &[u8]) -> Option<Self> {
        let (numbers, rest) = body.as_chunks::<8>();
        let (past, asked) = numbers.split_first()?;
        let asked = asked.iter().map(|id| u64::from_le_bytes(*id)).collect();
        rest.is_empty().then(|| Self { past: u64::from_le_bytes(*past), asked })
    }
}

/// Why a replica is quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quarantine {
    /// Its state, and what its log holds, is not trusted through this index; 0: nothing in the log
    /// is known to be wrong. A repair takes a snapshot from there on: from an earlier one the
    /// replica would apply the same bytes again.
    pub(crate) through: u64,
    /// For people.
    pub(crate) why: String,
}

impl Quarantine {
    /// index 8, reason.
    fn to_bytes(&self) -> Vec<u8> {
        let why = &self.why.as_bytes()[..self.why.len().min(4096)];
        [&self.through.to_le_bytes(), why].concat()
    }

    fn from_bytes(body: Vec<u8>) -> Self {
        match body.split_at_checked(8) {
            Some((through, why)) => {
                let mut n = [0; 8];
                n.copy_from_slice(through);
                // A number that no log has is rot that the checksum missed, or worse: no peer could
                // serve it.
                let through = Some(u64::from_le_bytes(n)).filter(|n| *n <= INDEX_MAX).unwrap_or(0);
                Self { through, why: String::from_utf8_lossy(why).into_owned() }
            }
            None => Self { through: 0, why: "the reason cannot be read".into() },
        }
    }
}

/// Small files beside the snapshots that survive a restart.
#[derive(Clone)]
pub(crate) struct Marks {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    group: GroupId,
}

impl Marks {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, group: GroupId) -> Self {
        Self { disk, dir: dir.to_owned(), group }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("g{}.{name}", self.group.0))
    }

    /// length 4, crc32c 4, body.
    fn put(&self, name: &str, body: &[u8]) -> io::Result<()> {
        let tmp = self.path(&format!("{name}-new"));
        let file = self.disk.open(&tmp, true)?;
        file.set_len(0)?;
        let mut bytes = Vec::with_capacity(8 + body.len());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
        bytes.extend_from_slice(body);
        file.write_at(0, &bytes)?;
        file.sync()?;
        self.disk.rename(&tmp, &self.path(name))?;
        self.disk.sync_dir(&self.dir)
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        if !self.disk.exists(&path) {
            return Ok(None);
        }
        let file = self.disk.open(&path, false)?;
        let mut head = [0u8; 8];
        file.read_at(0, &mut head)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len > 1 << 16 {
            return Err(malformed("mark"));
        }
        let mut body = vec![0u8; len];
        file.read_at(8, &mut body)?;
        if crc32c::crc32c(&body).to_le_bytes() != head[4..8] {
            return Err(malformed("mark"));
        }
        Ok(Some(body))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.disk.exists(&self.path(name)) {
            self.disk.remove(&self.path(name))?;
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Whether the replica is quarantined, and why. A rotten mark still quarantines.
    pub(crate) fn quarantined(&self) -> io::Result<Option<Quarantine>> {
        match self.get("quarantined") {
            Ok(body) => Ok(body.map(Quarantine::from_bytes)),
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Ok(Some(Quarantine { through: 0, why: "the reason cannot be read".into() }))
            }
            Err(e) => Err(e),
        }
    }

    pub(crate) fn quarantine(&self, quarantine: &Quarantine) -> io::Result<()> {
        self.put("quarantined", &quarantine.to_bytes())
    }

    /// What must come before the replica may vote again. No mark counts beside a log that lost
    /// something since it was emptied, and a rotten one is none: the log says that it is damaged
    /// until the repair is done, so that the repair begins anew.
    pub(crate) fn repairing(&self, damage: Option<&Damage>) -> io::Result<Option<Repairing>> {
        match self.get("repairing") {
            Ok(Some(_)) if damage.is_some_and(|damage| !damage.emptied) => {
                tracing::warn!(
                    group = self.group.0,
                    "the log is damaged anew under its repair; the repair begins anew"
                );
                Ok(None)
            }
            Ok(body) => Ok(body.and_then(|body| Repairing::from_bytes(&body))),
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                tracing::warn!(group = self.group.0, error = %e, "the mark of a repair is rotten; the repair begins anew");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// This replica's part of a survey: what a peer that may have forgotten a term has to know.
pub(crate) fn answer(core: &GroupCore) -> Bytes {
    let own = own_answer(core);
    let mut b = BytesMut::new();
    b.put_u8(u8::from(own.whole));
    b.put_u64_le(own.term);
    codec::put_stored_membership(&mut b, &own.members);
    b.freeze()
}

/// Whether the replica remembers all that it promised.
pub(crate) fn is_whole(core: &GroupCore) -> bool {
    core.store.vote().is_ok() && core.store.log().damage().is_none() && core.gate.is_repaired()
}

/// Stopped and damaged replicas answer, too: a damaged one as such. Nothing it promised counts on
/// its memory alone.
fn own_answer(core: &GroupCore) -> TermAnswer {
    let (vote, whole) = (core.store.vote(), is_whole(core));
    let term = vote.ok().flatten().map_or(0, |vote| vote.leader_id.term);
    let members = core.snapshots.newest().map(|file| file.head.membership.clone()).unwrap_or_default();
    match &core.raft {
        Some(raft) => {
            let metrics = raft.metrics().borrow_watched().clone();
            let newer = *metrics.membership_config.log_id() >= *members.log_id();
            let members = if newer { (*metrics.membership_config).clone() } else { members };
            TermAnswer { whole, term: term.max(metrics.current_term), members }
        }
        None => TermAnswer { whole, term, members },
    }
}

/// A peer's part.
async fn ask_term(links: &Links, group: GroupId, peer: NodeId, addr: &str) -> io::Result<TermAnswer> {
    let link = links.to(peer, addr).control;
    let mut b = link.call(Kind::Term, group.0, Bytes::new(), TERM_WITHIN).await?;
    if b.len() < 9 || b[0] > 1 {
        return Err(malformed("term answer"));
    }
    let whole = b.get_u8() == 1;
    let term = codec::checked_term(b.get_u64_le())?;
    Ok(TermAnswer { whole, term, members: codec::take_stored_membership(&mut b)? })
}

/// Asks until all voters have answered, or some are known to be missing. `first` is asked in any
/// case.
async fn ask_all(
    links: &Links,
    group: GroupId,
    me: u64,
    first: Option<NodeId>,
    own: TermAnswer,
) -> io::Result<(BTreeMap<u64, TermAnswer>, BTreeSet<u64>)> {
    let (mut answers, mut silent) = (BTreeMap::from([(me, own)]), BTreeSet::new());
    let mut ask: BTreeSet<u64> = first.into_iter().map(|node| node.0).collect();
    loop {
        let asked = ask.iter().map(|id| {
            let addr =
                answers.values().find_map(|answer: &TermAnswer| answer.members.membership().get_node(id).cloned());
            async move { (*id, ask_term(links, group, NodeId(*id), &addr.unwrap_or_default().addr).await) }
        });
        for (id, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(answer) => drop(answers.insert(id, answer)),
                Err(error) => {
                    tracing::debug!(group = group.0, node = id, %error, "no answer to a survey");
                    silent.insert(id);
                }
            }
        }
        match survey(me, &answers, &silent) {
            Survey::Ask(more) => ask = more,
            Survey::Complete(voters) => return Ok((answers, voters)),
            Survey::Missing { silent, damaged } => {
                return Err(io::Error::new(io::ErrorKind::NotConnected, survey::waits_for(&silent, &damaged)));
            }
        }
    }
}

/// The term that a damaged replica has to pass: above its own and all that the other voters know. A term that lies further from the rest
/// than any election can take it is no term of this group, and would leave nobody able to outbid it.
fn term_past(own: u64, terms: &[(NodeId, u64)]) -> io::Result<u64> {
    let lowest = terms.iter().map(|(_, term)| *term).min().unwrap_or(0);
    for (node, term) in terms {
        if *term - lowest > TERM_STEP_MAX {
            return Err(malformed(&format!("term of node {}: {term}, while another voter is at {lowest}", node.0)));
        }
    }
    let highest = terms.iter().map(|(_, term)| *term).max().unwrap_or(0).max(own);
    match highest.checked_add(1) {
        Some(past) if past < TERM_MAX => Ok(past),
        _ => Err(malformed(&format!("term: {highest} leaves none above it"))),
    }
}

/// Steps 1 and 2 for a damaged log.
async fn forget_log(
    ground: &Ground,
    group: GroupId,
    from: NodeId,
    store: &Store,
    marks: &Arc<Marks>,
    members: StoredMembership,
) -> io::Result<Repairing> {
    let me = ground.registry.me.node;
    // A vote that cannot be read was given in no higher term than those of the others, or to
    // ourselves and heard by nobody.
    let own = store.vote().ok().flatten().map_or(0, |v| v.leader_id.term);
    let ours = TermAnswer { whole: false, term: own, members };
    let (answers, asked) = ask_all(&ground.registry.links, group, me.0, Some(from), ours).await?;
    let others = answers.iter().filter(|(id, _)| **id != me.0);
    let terms: Vec<_> = others.map(|(id, answer)| (NodeId(*id), answer.term)).collect();
    let past = term_past(own, &terms)?;
    // First, so that the mark of an earlier repair never stands beside the log as it is emptied now.
    let old = marks.clone();
    blocking(&ground.registry.seams.disk, move || old.remove("repairing")).await?;
    store.log().reset().await?;
    let vote = Vote { leader_id: LeaderId { term: past, voted_for: me.0 }, committed: false };
    store.put_vote(&vote).await?;
    Ok(Repairing { past, asked })
}

/// Prepares a stopped replica so that it may be started again: a peer's snapshot in place, marks set.
pub(crate) async fn prepare(ground: &Ground, group: GroupId, from: NodeId) -> io::Result<()> {
    let registry = &ground.registry;
    let disk = registry.seams.disk.clone();
    let progress = Arc::new(crate::machine::Progress::new());
    let store = Store::new(ground.wal.group(group), progress);
    let marks = Arc::new(Marks::new(disk.clone(), &ground.snapshots_dir, group));
    let damaged = store.log().state().damage.is_some();
    let (d, dir, cluster) = (disk.clone(), ground.snapshots_dir.clone(), registry.me.cluster);
    let snapshots = blocking(&disk, move || SnapshotStore::open(d, &dir, cluster, group)).await?;
    let snapshots = Arc::new(snapshots.named_by(registry.temporary_names.clone()));
    let members = snapshots.newest().map(|file| file.head.membership.clone()).unwrap_or_default();
    let repairing = match damaged {
        true => Some(forget_log(ground, group, from, &store, &marks, members).await?),
        false => None,
    };
    let (purged, _) = store.ends()?;
    let own = marks.clone();
    let quarantine = blocking(&disk, move || own.quarantined()).await?;
    let wrong_through = quarantine.map_or(0, |quarantine| quarantine.through);

    let links = registry.links.to(from, "");
    let at_least = purged.map_or(0, |id| id.index).max(wrong_through);
    let question = Bytes::copy_from_slice(&at_least.to_le_bytes());
    let mut found = links.control.call(Kind::SnapshotFind, group.0, question, SNAPSHOT_TRANSFER_WITHIN).await?;
    let offer = Offer::take(&mut found)?;
    if offer.last.index < at_least {
        let why = format!("node {} offers a snapshot at {}, one at {at_least} is needed", from.0, offer.last.index);
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    let file =
        pull(Pull { group: group.0, link: links.bulk, snapshots: snapshots.clone(), disk: disk.clone() }, &offer)
            .await?;
    // A crash between any two of these leaves the replica stopped, and its repair begins anew.
    let last = file.head.last;
    blocking(&disk, move || snapshots.place_only(&file)).await?;
    if wrong_through > 0 {
        // No follower may be given what is wrong in this log.
        store.drop_through(&last).await?;
    }
    blocking(&disk, move || {
        if let Some(repairing) = repairing {
            marks.put("repairing", &repairing.to_bytes())?;
        }
        marks.remove("quarantined")
    })
    .await
}

/// Stops a replica whose state or memory is wrong, and records it: it neither votes nor leads until it is reinstalled, not even after
/// a restart.
pub(crate) async fn quarantine(core: &GroupCore, marks: &Marks, quarantine: Quarantine) {
    tracing::error!(group = core.id.0, why = %quarantine.why, "the replica is quarantined");
    core.quarantined.store(true, Ordering::Release);
    core.mark_stopped(&quarantine.why);
    let (disk, marks) = (core.seams.disk.clone(), marks.clone());
    if let Err(e) = blocking(&disk, move || marks.quarantine(&quarantine)).await {
        tracing::error!(group = core.id.0, error = %e, "cannot record the quarantine; a restart would forget it");
    }
    if let Some(raft) = &core.raft {
        let _joined = core.seeded(raft.shutdown()).await;
    }
}

/// Takes over what a peer knows of the members. A replica that lacks what it is remembered to have
/// acknowledged does not get to answer: its disk went back, which is damage.
///
/// # Errors
/// This one; or a leader of `term` cannot know of acknowledgements to later ones.
pub(crate) fn remembers(core: &Arc<GroupCore>, by: &AcknowledgedBy, term: u64) -> io::Result<()> {
    if by.latest_term() > term {
        return Err(malformed("acknowledgements: to a leader of a later term"));
    }
    // Such a leader is over: openraft answers with the later vote, and the present leader knows more.
    if term < core.known().term {
        return Ok(());
    }
    core.memory.hear(by, |node| core.is_member(node)).map_err(|remembered| went_back(core, &remembered))
}

/// Marks the replica damaged, since it lacks what it acknowledged: at once it neither votes nor
/// answers, and soon it is stopped.
pub(crate) fn went_back(core: &Arc<GroupCore>, remembered: &Acknowledged) -> io::Error {
    let Acknowledged { leader_term, last } = remembered;
    let why =
        format!("the disk went back: others know that {last} was acknowledged to the leader of term {leader_term}");
    let error = io::Error::other(why.clone());
    if core.stopped_why().is_none() && core.store.log().lacks(&why) {
        tracing::error!(group = core.id.0, %why, "the replica lacks what it had promised: it stops, and is repaired from its peers");
        vote_gate::apply(core);
        tokio::spawn(stop_for_damage(core.clone(), why));
    }
    error
}

/// Records the damage, so that a restart knows it too, and stops the replica. Where the disk stalls,
/// [`mod@crate::upkeep`] stops it first.
async fn stop_for_damage(core: Arc<GroupCore>, why: String) {
    if !crate::bad!("damage-not-recorded")
        && let Err(e) = core.store.log().record_damage(&why).await
    {
        tracing::error!(group = core.id.0, error = %e, "cannot record the damage; a restart would forget it");
    }
    core.stop_if_damaged().await;
}

/// Waits until every voter in force has answered: the members may have changed since the survey
/// that the repair began with.
async fn ask_newcomers(core: &GroupCore, repairing: &Repairing) {
    loop {
        let own = own_answer(core);
        let voters = own.members.membership().get_joint_config().iter().flatten();
        if voters.filter(|id| **id != core.node.0).all(|id| repairing.asked.contains(id)) {
            return;
        }
        match ask_all(&core.links, core.id, core.node.0, None, own).await {
            Ok(_) => return,
            Err(why) => tracing::info!(group = core.id.0, %why, "a repaired replica waits before it votes again"),
        }
        tokio::time::sleep(SURVEY_AGAIN).await;
    }
}

/// Step 4: waits until everything that may have been acknowledged is here, then lets the replica vote again.
pub(crate) async fn finish_repair(core: Arc<GroupCore>, marks: Marks, repairing: Repairing) {
    let mut applied = core.progress.applied.subscribe();
    tokio::select! {
        biased;
        () = core.stop.cancelled() => return,
        r = applied.wait_for(|p| p.term >= repairing.past) => if r.is_err() { return },
    }
    if core.stop.run_until_cancelled(ask_newcomers(&core, &repairing)).await.is_none() {
        return;
    }
    // Damage that was found meanwhile is no part of this repair.
    if core.stop_if_damaged().await {
        return;
    }
    let cleared = match core.store.log().clear_emptied().await {
        Ok(()) => marks.remove("repairing"),
        Err(e) => Err(e),
    };
    if let Err(e) = cleared {
        tracing::error!(group = core.id.0, error = %e, "repaired, but cannot record it; the replica goes on without a vote");
        return;
    }
    vote_gate::repaired(&core);
    core.status.send_modify(|status| status.repairing = false);
    tracing::info!(group = core.id.0, "the damaged replica is repaired and votes again");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;
    use crate::disk::real::RealDisk;
    use crate::wal::{Wal, WalConfig, WalIdentity};

    #[test]
    fn a_term_that_is_none_of_this_group_ends_no_repair() {
        let of = |terms: &[u64]| terms.iter().map(|term| (NodeId(*term % 7), *term)).collect::<Vec<_>>();
        assert_eq!(term_past(3, &of(&[5, 9])).expect("plain terms"), 10);
        assert_eq!(term_past(12, &of(&[5, 9])).expect("our own is the highest"), 13);
        assert_eq!(term_past(0, &of(&[5, 5 + TERM_STEP_MAX])).expect("at the bound"), 6 + TERM_STEP_MAX);
        assert!(term_past(0, &of(&[5, 6 + TERM_STEP_MAX])).is_err(), "beyond it");
        assert!(term_past(0, &of(&[TERM_MAX])).is_err(), "none is left above");
        assert!(term_past(u64::MAX, &of(&[1])).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn damage_that_is_found_while_a_repair_ends_is_not_cleared() {
        let disk = SimDisk::new(1);
        let identity = WalIdentity { cluster: [1; 16], incarnation: 1, node: NodeId(1) };
        let config = WalConfig { segment_bytes: 1 << 20, low_space_bytes: 0, ..WalConfig::default() };
        let open = || Wal::open(Arc::new(disk.clone()), "/wal".into(), identity, config.clone());
        let wal = open().await.expect("opened");
        let log = wal.group(GroupId(3));
        log.reset().await.expect("emptied");
        disk.set_latency(std::time::Duration::from_secs(1));
        let (cleared, ()) = tokio::join!(log.clear_emptied(), async { assert!(log.lacks("it went back")) });
        assert!(cleared.is_err(), "the record of the end was on its way to the disk");
        assert!(log.clear_emptied().await.is_err(), "it is damaged");
        assert!(log.damage().is_some_and(|damage| !damage.emptied));
        log.record_damage("it went back").await.expect("recorded");
        drop(wal);
        disk.crash(1);
        let wal = open().await.expect("opened");
        assert!(wal.group(GroupId(3)).damage().is_some_and(|damage| !damage.emptied), "after a restart, too");
    }

    #[test]
    fn a_rotten_mark_of_a_repair_is_none_and_a_rotten_quarantine_still_is_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let marks = Marks::new(Arc::new(RealDisk::new()), dir.path(), GroupId(3));
        assert_eq!(marks.repairing(None).expect("readable"), None);
        let repairing = Repairing { past: 7, asked: BTreeSet::from([1, 2]) };
        assert_eq!(repairing.to_bytes(), [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        marks.put("repairing", &repairing.to_bytes()).expect("written");
        let quarantine = Quarantine { through: 7, why: "differs".into() };
        marks.quarantine(&quarantine).expect("written");
        assert_eq!(marks.quarantined().expect("readable"), Some(quarantine));
        assert_eq!(marks.repairing(None).expect("readable"), Some(repairing.clone()));
        let empty = Damage::emptied(dir.path(), vec![GroupId(3)]);
        assert_eq!(marks.repairing(Some(&empty)).expect("readable"), Some(repairing));
        let anew = Damage { emptied: false, ..empty };
        assert_eq!(
            marks.repairing(Some(&anew)).expect("readable"),
            None,
            "what was acknowledged meanwhile may be lost"
        );
        for name in ["repairing", "quarantined"] {
            let mut bytes = std::fs::read(marks.path(name)).expect("there");
            bytes[9] ^= 1;
            std::fs::write(marks.path(name), &bytes).expect("spoilt");
        }
        assert_eq!(marks.repairing(None).expect("readable"), None);
        assert!(marks.quarantined().expect("readable").is_some());
        for short in [&b""[..], b"short"] {
            marks.put("quarantined", short).expect("written");
            assert_eq!(marks.quarantined().expect("readable").map(|quarantine| quarantine.through), Some(0));
        }
        std::fs::write(marks.path("repairing"), [1]).expect("cut");
        assert_eq!(marks.repairing(None).expect("readable"), None);
    }
}
