//! How a group comes up.
//!
//! **Owns** openraft's configuration and the order of recovery: marks, snapshots, log, then openraft, then the group's tasks.
//! **Must never** start a replica whose log or snapshots are damaged as if it were whole. **Read next**: [`crate::repair`].

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use openraft::{Config, SnapshotPolicy};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::api::{GroupId, GroupStatus, RaftTuning, StateMachine};
use crate::group::{GroupCore, Raft, Stamper, publish_status};
use crate::leading::keep_clock;
use crate::limits::{APPEND_ENTRIES_MAX, READS_QUEUED_MAX, SNAPSHOT_TRANSFER_WITHIN};
use crate::machine::{Machine, Origin, Progress};
use crate::reads::run_rounds;
use crate::repair::{Marks, finish_repair};
use crate::snapshot::{SnapshotStore, blocking};
use crate::store::Store;
use crate::transport::network::GroupNetwork;
use crate::transport::server::Registry;
use crate::types::Runtime;
use crate::wal::{GroupLog, Wal};

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
        heartbeat_min_interval: Some(ms(tuning.heartbeat) / 2),
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

/// Why a replica may not run as it is.
fn unfit(
    log: &GroupLog,
    store: &Store,
    snapshots: &SnapshotStore,
    marks: &Marks,
    repairing: bool,
) -> io::Result<Option<String>> {
    if let Some(why) = marks.quarantined()? {
        return Ok(Some(format!("quarantined: {why}; reinstall it from a replica inside the majority")));
    }
    if let Some(damage) = log.state().damage.filter(|_| !repairing) {
        return Ok(Some(format!("its log is damaged: {damage}; reinstall it from a peer")));
    }
    let (purged, _) = store.ends()?;
    let purged = purged.map_or(0, |id| id.index);
    let covered = snapshots.newest().map_or(0, |f| f.head.last.index);
    if purged > covered {
        return Ok(Some(format!(
            "its log begins after {purged} but its newest good snapshot ends at {covered}; reinstall it from a peer"
        )));
    }
    Ok(None)
}

/// Starts one group, or a stopped stand-in that says why.
pub(crate) async fn start(ground: &Ground, id: GroupId, machine: Box<dyn StateMachine>) -> io::Result<Arc<GroupCore>> {
    let registry = &ground.registry;
    let (seams, me) = (registry.seams.clone(), registry.me);
    let log = ground.wal.group(id);
    let progress = Arc::new(Progress::new());
    let store = Store::new(log.clone(), progress.clone());
    let (disk, dir) = (seams.disk.clone(), ground.snapshots_dir.clone());
    let snapshots = blocking(&seams.disk, move || SnapshotStore::open(disk, &dir, me.cluster, id)).await?;
    let snapshots = Arc::new(snapshots);
    let marks = Marks::new(seams.disk.clone(), &ground.snapshots_dir, id);
    let repairing = marks.repairing(log.state().damage.as_ref())?;
    let unfit = unfit(&log, &store, &snapshots, &marks, repairing.is_some())?;

    let seed = seams.random.next_u64();
    let raft = match &unfit {
        Some(why) => {
            tracing::error!(group = id.0, %why, "the replica stays stopped");
            None
        }
        None => {
            store.load_stamp()?;
            let origin = Origin { cluster: me.cluster, incarnation: me.incarnation, group: id.0 };
            let machine = Machine::new(machine, progress.clone(), snapshots.clone(), seams.disk.clone(), origin);
            let network = GroupNetwork {
                group: id.0,
                links: registry.links.clone(),
                snapshots: snapshots.clone(),
                seams: seams.clone(),
            };
            let config = config(&ground.tuning, id)?;
            let new = Raft::new(me.node.0, config, network, store.clone(), machine);
            Some(Runtime::scope(seed, new).await.map_err(io::Error::other)?)
        }
    };
    if let (Some(raft), Some(_)) = (&raft, repairing) {
        raft.runtime_config().elect(false);
    }

    let (reads, asked) = mpsc::channel(READS_QUEUED_MAX);
    let core = Arc::new(GroupCore {
        id,
        node: me.node,
        tuning: ground.tuning.clone(),
        seams,
        links: registry.links.clone(),
        raft,
        store,
        progress,
        snapshots,
        stamper: Mutex::new(Stamper::default()),
        currency: Mutex::default(),
        moments: Mutex::default(),
        run: seed,
        status: watch::Sender::new(GroupStatus { group: id, ..GroupStatus::default() }),
        stopped: Mutex::new(None),
        reads,
        hold_purge_above: AtomicU64::new(u64::MAX),
        bytes_at_snapshot: AtomicU64::new(0),
        builds: ground.builds.clone(),
        receiving: tokio::sync::Mutex::new(()),
        may_vote: AtomicBool::new(repairing.is_none()),
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
    if let Some(past_term) = repairing {
        tokio::spawn(finish_repair(core.clone(), marks, past_term));
    }
    Ok(core)
}
