//! How a group comes up.
//!
//! **Owns** openraft's configuration and the order of recovery: marks, snapshots, log, then openraft, then the group's tasks.
//! **Must never** start a replica whose log or snapshots are damaged as if it were whole. **Read next**: [`crate::repair`].

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};

use openraft::storage::RaftStateMachine;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::api::{GroupId, GroupStatus, RaftTuning, StateMachine, UnreadableKind};
use crate::group::{GroupCore, Raft, Stamper, publish_status};
use crate::leading::keep_clock;
use crate::limits::{APPEND_ENTRIES_MAX, ENTRY_HEAD_ROOM, READS_QUEUED_MAX, SNAPSHOT_TRANSFER_WITHIN, SNAPSHOTS_KEPT};
use crate::machine::{Machine, Origin, Progress};
use crate::reads::run_rounds;
use crate::remember::Memory;
use crate::repair::{Marks, Quarantine, finish_repair};
use crate::snapshot::{SnapshotStore, blocking, is_rot};
use crate::store::Store;
use crate::transport::network::{GroupNetwork, meta_of};
use crate::transport::pull::PullSlot;
use crate::transport::server::Registry;
use crate::types::{Membership, Runtime};
use crate::unreadable;
use crate::vote_gate::{self, VoteGate, is_alone, membership};
use crate::wal::{Damage, GroupLog, Wal};

/// What every group of a node shares.
pub(crate) struct Ground {
    pub(crate) registry: Arc<Registry>,
    pub(crate) wal: Wal,
    pub(crate) snapshots_dir: std::path::PathBuf,
    pub(crate) tuning: RaftTuning,
    pub(crate) builds: Arc<Semaphore>,
}

fn config(tuning: &RaftTuning, group: GroupId) -> io::Result<Arc<Config>> {
    let ms = |d: std::time::Duration| d.as_millis() as u64;
    let config = Config {
        cluster_name: format!("g{}", group.0),
        heartbeat_interval: ms(tuning.heartbeat),
        // What was acknowledged lately needs no heartbeat.
        heartbeat_min_interval: Some(ms(tuning.heartbeat_min())),
        election_timeout_min: ms(tuning.election_min),
        election_timeout_max: ms(tuning.election_max),
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(ms(tuning.election_max) * 5 / 2),
        enable_leader_restore: Some(false),
        // The transfer has its own, shorter failure detection: the connection's pings.
        install_snapshot_timeout: ms(SNAPSHOT_TRANSFER_WITHIN),
        max_payload_entries: APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))
}

/// Why a replica may not run as it is, before its state is restored.
fn unfit(log: &GroupLog, quarantine: Option<Quarantine>, snapshots: &SnapshotStore, repairing: bool) -> Option<String> {
    if let Some(Quarantine { why, .. }) = quarantine {
        return Some(format!("quarantined: {why}; reinstall it from a replica inside the majority"));
    }
    if let Some(damage) = log.state().damage.filter(|_| !repairing) {
        return Some(damaged_why(&damage));
    }
    snapshots.unsupported().map(|why| format!("{why}; run a build that knows it"))
}

/// For people, of a replica that is stopped for damage of its log.
pub(crate) fn damaged_why(damage: &Damage) -> String {
    format!("its log is damaged: {damage}; reinstall it from a peer")
}

/// Gives the machine the newest snapshot that can be read. One that is found rotten or malformed
/// only now was set aside by that, and the one before it serves.
async fn restore(machine: &mut Machine, snapshots: &SnapshotStore) -> io::Result<()> {
    for _ in 0..=SNAPSHOTS_KEPT {
        let Some(newest) = snapshots.newest() else { return Ok(()) };
        match machine.install_snapshot(&meta_of(&newest), newest).await {
            Err(e) if is_rot(e.kind()) => {
                tracing::error!(error = %e, "the newest snapshot cannot be installed; an older one or a peer must serve");
            }
            done => return done,
        }
    }
    Err(io::Error::other("there are more snapshots than are kept"))
}

/// Why a replica may not run with the snapshot it has.
fn uncovered(store: &Store, snapshots: &SnapshotStore) -> io::Result<Option<String>> {
    let (purged, _) = store.ends()?;
    let purged = purged.map_or(0, |id| id.index);
    let covered = snapshots.newest().map_or(0, |f| f.head.last.index);
    Ok((purged > covered).then(|| {
        format!(
            "its log begins after {purged} but its newest good snapshot ends at {covered}; reinstall it from a peer"
        )
    }))
}

/// What openraft starts on.
struct Restored {
    machine: Machine,
    network: GroupNetwork,
    store: Store,
    snapshots: Arc<SnapshotStore>,
    config: Arc<Config>,
    seed: u64,
}

/// Restores the state, and starts openraft on it; or says why the replica may not run.
///
/// # Errors
/// The disk's, which may pass: nothing is wrong with what is on it.
async fn begin(ground: &Ground, id: GroupId, restored: Restored) -> io::Result<Result<Raft, String>> {
    let Restored { mut machine, network, store, snapshots, config, seed } = restored;
    let progress = store.progress().clone();
    let began = async {
        store.check()?;
        restore(&mut machine, &snapshots).await?;
        if let Some(why) = uncovered(&store, &snapshots)? {
            return Ok(Err(why));
        }
        drop_contradicted(&store, &snapshots, id).await?;
        store.load_stamp()?;
        let new = Raft::new(ground.registry.me.node.0, config, network, store.clone(), machine);
        Ok(Runtime::scope(seed, new).await.map_err(|e| format!("it cannot start: {e}; reinstall it from a peer")))
    };
    let began: io::Result<Result<Raft, String>> = began.await;
    if let Some(why) = progress.awaits_build() {
        return Ok(Err(why));
    }
    match (&began, store.log().damage()) {
        // What cannot be read was found only now.
        (Err(_) | Ok(Err(_)), Some(damage)) => Ok(Err(damaged_why(&damage))),
        _ => began,
    }
}

/// Drops the log where the newest snapshot contradicts it, or reaches beyond it.
///
/// A snapshot is put in place before the log is cut or purged for it, and a crash may come between. openraft starts on no log that holds
/// another entry where the snapshot ends. No entry of such a log is needed: through the snapshot's end it holds what they did, and what
/// follows an entry that was never committed was never committed either.
async fn drop_contradicted(store: &Store, snapshots: &SnapshotStore, group: GroupId) -> io::Result<()> {
    let Some(snapshot) = snapshots.newest().map(|file| file.head.last) else { return Ok(()) };
    let (purged, last) = store.ends()?;
    let purged = purged.map(|id| id.index);
    let Some(last) = last.filter(|last| purged.is_none_or(|purged| purged < last.index)) else { return Ok(()) };
    if purged.is_some_and(|purged| purged >= snapshot.index) || store.id_at(snapshot.index)? == Some(snapshot) {
        return Ok(());
    }
    tracing::warn!(
        group = group.0,
        last = %last,
        snapshot = %snapshot,
        "the log does not lead to the newest snapshot: its entries are dropped, the snapshot stands for them"
    );
    store.log().truncate_after(purged).await?;
    store.drop_through(&snapshot).await
}

/// Starts one group, or a stopped stand-in that says why.
pub(crate) async fn start(
    ground: &Ground,
    id: GroupId,
    founders: Membership,
    machine: Box<dyn StateMachine>,
) -> io::Result<Arc<GroupCore>> {
    let registry = &ground.registry;
    let (seams, me) = (registry.seams.clone(), registry.me);
    let log = ground.wal.group(id);
    let progress = Arc::new(Progress::new());
    let store = Store::new(log.clone(), progress.clone());
    let (disk, dir) = (seams.disk.clone(), ground.snapshots_dir.clone());
    let snapshots = blocking(&seams.disk, move || SnapshotStore::open(disk, &dir, me.cluster, id)).await?;
    let snapshots = Arc::new(snapshots.named_by(registry.temporary_names.clone()));
    let memory = Memory::new(me.node, &store, &snapshots);
    let store = store.noting_in(memory.clone());
    let marks = Marks::new(seams.disk.clone(), &ground.snapshots_dir, id);
    let repairing = marks.repairing(log.state().damage.as_ref())?;
    let quarantine = marks.quarantined()?;
    let quarantined = quarantine.is_some();

    let seed = seams.random.next_u64();
    let started = match unfit(&log, quarantine, &snapshots, repairing.is_some()) {
        Some(why) => Err(why),
        None => {
            let origin = Origin { cluster: me.cluster, incarnation: me.incarnation, group: id.0 };
            let machine = Machine::new(machine, progress.clone(), snapshots.clone(), seams.disk.clone(), origin);
            let (links, seams) = (registry.links.clone(), seams.clone());
            let (snapshots, memory) = (snapshots.clone(), memory.clone());
            let network = GroupNetwork { group: id.0, links, snapshots: snapshots.clone(), memory, seams };
            let config = config(&ground.tuning, id)?;
            let store = store.clone();
            begin(ground, id, Restored { machine, network, store, snapshots, config, seed }).await?
        }
    };
    let (raft, unfit) = match started {
        Ok(raft) => (Some(raft), None),
        Err(why) => {
            tracing::error!(group = id.0, %why, "the replica stays stopped");
            (None, Some(why))
        }
    };
    if let Some(why) = snapshots.unsupported().filter(|_| unfit.is_some() && !quarantined) {
        progress.await_build(why);
    }
    // What was committed before is applied again by now.
    let unsupported = progress.halted_by(UnreadableKind::Unsupported);
    let gate = match &raft {
        None => VoteGate::new(repairing.is_none(), false),
        Some(raft) => {
            raft.runtime_config().elect(false);
            let members = membership(raft, &founders).await.unwrap_or_default();
            VoteGate::new(repairing.is_none(), is_alone(me.node, &members))
        }
    };
    if let Some(raft) = raft.as_ref().filter(|_| gate.is_open() && !unsupported) {
        raft.runtime_config().elect(true);
    }

    let (reads, asked) = mpsc::channel(READS_QUEUED_MAX);
    let core = Arc::new(GroupCore {
        id,
        node: me.node,
        tuning: ground.tuning.clone(),
        seams,
        links: registry.links.clone(),
        raft,
        founders,
        store,
        memory,
        progress,
        snapshots,
        stamper: Mutex::new(Stamper::default()),
        currency: Mutex::default(),
        moments: Mutex::default(),
        run: seed,
        heard: AtomicU64::new(0),
        expected: AtomicI64::new(i64::MIN),
        status: watch::Sender::new(GroupStatus { group: id, ..GroupStatus::default() }),
        stopped: Mutex::new(None),
        repair_waits_for: Mutex::new(None),
        quarantined: AtomicBool::new(quarantined),
        reads,
        entry_bytes_max: ground.wal.entry_bytes_max().saturating_sub(ENTRY_HEAD_ROOM),
        hold_purge_above: AtomicU64::new(u64::MAX),
        builds: ground.builds.clone(),
        pulling: PullSlot::default(),
        gate,
        votes_declined: AtomicU64::new(0),
        low_space: ground.wal.low_space(),
        origin: Instant::now(),
        seed: AtomicU64::new(seed.wrapping_add(1)),
        stop: registry.stop.child_token(),
    });
    if let Some(why) = unfit {
        core.mark_stopped(&why);
    }
    core.status.send_replace(core.status_now());
    tokio::spawn(run_rounds(core.clone(), asked));
    tokio::spawn(publish_status(core.clone()));
    tokio::spawn(keep_clock(core.clone()));
    tokio::spawn(vote_gate::ask(core.clone()));
    let own = Marks::new(core.seams.disk.clone(), &ground.snapshots_dir, id);
    let workers = core.progress.workers.clone();
    workers.spawn(unreadable::watch(core.clone(), own));
    tokio::spawn(crate::upkeep::run(core.clone()));
    if let Some(repairing) = repairing {
        workers.spawn(finish_repair(core.clone(), marks, repairing));
    }
    Ok(core)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use openraft::{EntryPayload, StorageHelper};

    use super::*;
    use crate::api::NodeId;
    use crate::disk::SimDisk;
    use crate::seam::Disk;
    use crate::snapshot::SnapshotHead;
    use crate::store::to_wal;
    use crate::testing::Nothing;
    use crate::types::{Entry, LogId, Stamped, StoredMembership, Types, log_id};
    use crate::wal::{WalConfig, WalIdentity};

    const CLUSTER: [u8; 16] = [1; 16];
    const G: GroupId = GroupId(1);

    /// A log with these entries from 0 on, and a snapshot beside it.
    async fn at_rest(terms: &[u64], snapshot: LogId) -> (Arc<dyn Disk>, Store, SnapshotStore) {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let identity = WalIdentity { cluster: CLUSTER, incarnation: 1, node: NodeId(1) };
        let config = WalConfig { segment_bytes: 1 << 20, low_space_bytes: 0, ..WalConfig::default() };
        let wal = Wal::open(disk.clone(), "/wal".into(), identity, config).await.expect("opened");
        let entry = |(index, term): (usize, &u64)| {
            let payload = EntryPayload::Normal(Stamped { stamp_ms: 1, bytes: Bytes::from_static(b"x") });
            to_wal(&Entry { log_id: log_id(*term, index as u64), payload })
        };
        let log = wal.group(G);
        log.append(terms.iter().enumerate().map(entry).collect(), Box::new(|_| {})).expect("appended");
        disk.create_dir_all(Path::new("/s")).expect("created");
        let snapshots = SnapshotStore::open(disk.clone(), Path::new("/s"), CLUSTER, G).expect("opened");
        let membership = StoredMembership::default();
        let head =
            SnapshotHead { cluster: CLUSTER, incarnation: 1, group: G.0, last: snapshot, stamp_ms: 9, membership };
        snapshots.create(&head, |w| w.write_all(b"state"), |_| Ok(())).expect("written");
        (disk, Store::new(log, Arc::new(Progress::new())), snapshots)
    }

    /// Whether openraft starts on it.
    async fn starts(disk: Arc<dyn Disk>, store: &Store, snapshots: SnapshotStore) -> Result<(), String> {
        let origin = Origin { cluster: CLUSTER, incarnation: 1, group: G.0 };
        let progress = Arc::new(Progress::new());
        let mut machine = Machine::new(Box::new(Nothing), progress, Arc::new(snapshots), disk, origin);
        let mut store = store.clone();
        let mut helper = StorageHelper::<Types, _, _>::new(&mut store, &mut machine).with_id(1);
        helper.get_initial_state().await.map(drop).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn a_log_that_contradicts_the_newest_snapshot_is_dropped_and_one_that_leads_to_it_is_kept() {
        let (kept, dropped) = (true, false);
        for (what, terms, snapshot, expected) in [
            ("it leads to the snapshot and on", vec![1; 21], log_id(1, 10), kept),
            ("it ends with the snapshot", vec![1; 11], log_id(1, 10), kept),
            ("a tail of an earlier term", vec![1; 21], log_id(2, 10), dropped),
            ("a tail of a later term", [vec![1; 6], vec![5; 9]].concat(), log_id(4, 10), dropped),
            ("a later term that does not reach it", [vec![1; 6], vec![5; 3]].concat(), log_id(4, 10), dropped),
            ("it does not reach the snapshot", vec![1; 5], log_id(1, 10), dropped),
        ] {
            let (disk, store, snapshots) = at_rest(&terms, snapshot).await;
            drop_contradicted(&store, &snapshots, G).await.expect(what);
            let (purged, last) = store.ends().expect(what);
            let end = log_id(terms[terms.len() - 1], terms.len() as u64 - 1);
            let wanted = if expected == kept { (None, Some(end)) } else { (Some(snapshot), Some(snapshot)) };
            assert_eq!((purged, last), wanted, "{what}");
            crate::types::Runtime::scope(7, starts(disk, &store, snapshots)).await.expect(what);
        }
    }

    #[tokio::test]
    async fn openraft_does_not_start_on_a_log_that_contradicts_the_snapshot() {
        let (disk, store, snapshots) = at_rest(&[1; 21], log_id(2, 10)).await;
        let refused = crate::types::Runtime::scope(7, starts(disk, &store, snapshots)).await.expect_err("refused");
        assert!(refused.contains("inverted log order"), "{refused}");
    }
}
