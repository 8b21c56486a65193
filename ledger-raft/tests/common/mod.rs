//! Three nodes in one process: real loopback TCP, and disks that outlive their node.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ledger_raft::disk::SimDisk;
use ledger_raft::identity::IdentityFile;
use ledger_raft::seam::{Disk, Seams, WallClock};
use ledger_raft::seam_real::SystemClock;
use ledger_raft::wal::WalIdentity;
use ledger_raft::{
    AddressPolicy, ApplyOutcome, DiskId, Group, GroupId, GroupStatus, LogPosition, NodeId, PeerEntry, PeerHandler,
    RaftNode, RaftNodeConfig, RaftTuning, Reply, Role, SnapshotChecker, SnapshotView, StateMachine, Unreadable,
    UnreadableKind,
};

pub(crate) const G: GroupId = GroupId(1);
/// Longer than anything takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An entry after which no snapshot of the tally can be read.
pub(crate) const UNREADABLE: &[u8] = b"pad: unreadable";

/// Sums and counts what it is given, and remembers the order by a running hash; shared with the test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) hash: u64,
    pub(crate) last: LogPosition,
    pub(crate) stamp_ms: u64,
    pub(crate) stamps_went_back: u64,
    pub(crate) refused: u64,
    /// Makes snapshots big.
    pub(crate) padding: Vec<u8>,
}

impl Tally {
    fn bytes(&self) -> Vec<u8> {
        let mut b = Vec::new();
        for n in
            [self.count, self.hash, self.last.term, self.last.index, self.stamp_ms, self.stamps_went_back, self.refused]
        {
            b.extend_from_slice(&n.to_le_bytes());
        }
        b.extend_from_slice(&self.padding);
        b
    }

    fn from_bytes(b: &[u8]) -> io::Result<Self> {
        if b.len() < 56 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let n = |i: usize| u64::from_le_bytes(b[i * 8..i * 8 + 8].try_into().unwrap());
        Ok(Self {
            count: n(0),
            hash: n(1),
            last: LogPosition { term: n(2), index: n(3) },
            stamp_ms: n(4),
            stamps_went_back: n(5),
            refused: n(6),
            padding: b[56..].to_vec(),
        })
    }
}

/// The tally, whether applying [`DEADLY`] ends the replica's core, whether the build knows
/// [`NEWER`], and the gate of [`GATED`].
#[derive(Clone, Default)]
pub(crate) struct Shared(
    pub(crate) Arc<Mutex<Tally>>,
    pub(crate) Arc<AtomicBool>,
    bool,
    pub(crate) Arc<tokio::sync::RwLock<()>>,
);

/// An entry that a machine applies once nobody holds its gate.
pub(crate) const GATED: &[u8] = b"wait at the gate";

/// An entry after which only builds that know [`NEWER`] can read a snapshot of the tally.
pub(crate) const NEWER_STATE: &[u8] = b"pad: of a newer format";
/// An entry that a mortal replica does not survive.
pub(crate) const DEADLY: &[u8] = b"the core ends here";
/// Entries that begin with this are malformed.
pub(crate) const MALFORMED: &[u8] = b"\xffmalformed";
/// Entries that begin with this are of a format that only nodes of [`Cluster::new_builds`] know.
pub(crate) const NEWER: &[u8] = b"\xffnewer";

impl Shared {
    pub(crate) fn get(&self) -> Tally {
        self.0.lock().unwrap().clone()
    }
}

impl StateMachine for Shared {
    fn apply(&mut self, at: LogPosition, stamp_ms: u64, data: &Bytes, _here: bool) -> ApplyOutcome {
        assert!(data != DEADLY || !self.1.load(Ordering::Relaxed), "as the test has it");
        if data == GATED {
            tokio::task::block_in_place(|| drop(self.3.blocking_read()));
        }
        let unreadable = |kind, why: &str| ApplyOutcome::Unreadable(Unreadable { kind, why: why.to_owned() });
        if data.starts_with(MALFORMED) {
            return unreadable(UnreadableKind::Malformed, "it begins with the wrong bytes");
        }
        if data.starts_with(NEWER) && !self.2 {
            return unreadable(UnreadableKind::Unsupported, "format 2, this build knows 1");
        }
        let mut t = self.0.lock().unwrap();
        assert!(at.index > t.last.index, "{at:?} after {:?}", t.last);
        t.count += 1;
        for b in data.iter() {
            t.hash = t.hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*b);
        }
        if data.starts_with(b"pad") {
            t.padding.extend_from_slice(data);
        }
        t.last = at;
        if stamp_ms < t.stamp_ms {
            t.stamps_went_back += 1;
        }
        t.stamp_ms = stamp_ms;
        ApplyOutcome::applied(t.count)
    }

    fn refuse(&mut self, at: LogPosition, stamp_ms: u64, _: &Bytes, _here: bool) -> Reply {
        let mut t = self.0.lock().unwrap();
        assert!(at.index > t.last.index, "{at:?} after {:?}", t.last);
        (t.last, t.stamp_ms) = (at, stamp_ms);
        t.refused += 1;
        Box::new("refused")
    }

    fn snapshot(&mut self) -> Box<dyn SnapshotView> {
        Box::new(View(self.get()))
    }

    fn install(&mut self, at: LogPosition, bytes: &mut dyn Read) -> io::Result<()> {
        let mut b = Vec::new();
        bytes.read_to_end(&mut b)?;
        let t = Tally::from_bytes(&b)?;
        if t.padding.starts_with(NEWER_STATE) && !self.2 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "format 2, this build knows 1"));
        }
        assert!(t.last.index <= at.index);
        *self.0.lock().unwrap() = t;
        Ok(())
    }
}

struct View(Tally);
impl SnapshotView for View {
    fn write(self: Box<Self>, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.0.bytes())
    }
    fn checker(&self) -> SnapshotChecker {
        Box::new(|bytes| {
            let mut b = Vec::new();
            bytes.read_to_end(&mut b)?;
            let read = Tally::from_bytes(&b)?;
            if read.padding.starts_with(UNREADABLE) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the tally says so"));
            }
            Ok(())
        })
    }
}

pub(crate) fn tuning() -> RaftTuning {
    RaftTuning {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(600),
        election_max: Duration::from_millis(1000),
        snapshot_every_entries: 1_000_000,
        keep_entries: 100,
        segment_bytes: 4 << 20,
        low_space_bytes: 0,
        ..RaftTuning::default()
    }
}

pub(crate) fn echo() -> PeerHandler {
    Arc::new(|from, asked| {
        Box::pin(async move {
            let mut b = format!("{}:", from.0).into_bytes();
            b.extend_from_slice(&asked);
            Ok(Bytes::from(b))
        })
    })
}

/// The disk of a node of these tests.
pub(crate) fn disk_of(node: NodeId) -> DiskId {
    DiskId([node.0 as u8; 16])
}

/// The identity file of a data directory, made when there is none, and claimed.
pub(crate) fn identity(
    id: DiskId,
    disk: Arc<dyn Disk>,
    dir: &Path,
    owner: WalIdentity,
) -> io::Result<Arc<IdentityFile>> {
    disk.create_dir_all(dir)?;
    let file = match IdentityFile::open(disk.clone(), dir)? {
        Some(found) => found,
        None => IdentityFile::create(disk, dir, id)?,
    };
    file.claim(owner)?;
    Ok(Arc::new(file))
}

/// One running node with a runtime of its own, so that it can be killed without a word.
pub(crate) struct Running {
    pub(crate) node: RaftNode,
    pub(crate) group: Group,
    pub(crate) state: Shared,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // From another thread: a runtime may not be awaited inside one; waited for, so that the port is free again.
        if let Some(rt) = self.runtime.take() {
            std::thread::scope(|s| s.spawn(|| rt.shutdown_timeout(PATIENCE)).join().unwrap());
        }
    }
}

/// A port that nobody has, below those that systems give to outgoing connections: while its node is
/// down, no connection of another test can take it.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() % 200 * 100;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = u16::try_from(port).expect("below 30,000");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The system's clock, wrong by so many milliseconds.
#[derive(Clone, Default)]
pub(crate) struct WrongClock(pub(crate) Arc<AtomicI64>);

impl WallClock for WrongClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add_signed(self.0.load(Ordering::Relaxed))
    }
    fn since_boot_ms(&self) -> Option<u64> {
        SystemClock.since_boot_ms()
    }
}

pub(crate) struct Cluster {
    pub(crate) tuning: RaftTuning,
    /// Of nodes that differ from the rest.
    pub(crate) tunings: BTreeMap<u64, RaftTuning>,
    pub(crate) disks: BTreeMap<u64, SimDisk>,
    pub(crate) clocks: BTreeMap<u64, WrongClock>,
    pub(crate) addrs: BTreeMap<NodeId, String>,
    pub(crate) nodes: BTreeMap<u64, Running>,
    pub(crate) cluster: [u8; 16],
    /// Nodes whose build knows [`NEWER`].
    pub(crate) new_builds: BTreeSet<u64>,
    /// From where peers connect to a node; anywhere, unless it is here.
    pub(crate) policies: BTreeMap<u64, AddressPolicy>,
    /// Of nodes whose empty directory gets another disk id than [`disk_of`].
    pub(crate) disk_ids: BTreeMap<u64, DiskId>,
}

impl Cluster {
    /// `n` nodes, initialised.
    pub(crate) async fn start(n: u64, tuning: RaftTuning) -> Self {
        Self::start_with(n, tuning, BTreeMap::new()).await
    }

    pub(crate) async fn start_with(n: u64, tuning: RaftTuning, tunings: BTreeMap<u64, RaftTuning>) -> Self {
        let c = Self::founders(n, tuning, tunings).await;
        c.initialize(1).await.unwrap();
        c
    }

    /// `n` nodes that wait for their first members.
    pub(crate) async fn founders(n: u64, tuning: RaftTuning, tunings: BTreeMap<u64, RaftTuning>) -> Self {
        let mut c = Self {
            tuning,
            tunings,
            disks: (1..=n).map(|id| (id, SimDisk::new(id))).collect(),
            clocks: (1..=n).map(|id| (id, WrongClock::default())).collect(),
            addrs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            cluster: [7; 16],
            new_builds: BTreeSet::new(),
            policies: BTreeMap::new(),
            disk_ids: BTreeMap::new(),
        };
        for id in 1..=n {
            // A port of its own that stays the same over restarts.
            c.addrs.insert(NodeId(id), format!("127.0.0.1:{}", free_port()));
        }
        // A cluster of its own: a port that a killed node left may be taken by a node of another test.
        let number = c.addrs[&NodeId(1)].rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap();
        c.cluster[..2].copy_from_slice(&number.to_le_bytes());
        for id in 1..=n {
            c.up(id).await;
        }
        c
    }

    /// One of the nodes begins the group with all of them.
    pub(crate) async fn initialize(&self, id: u64) -> io::Result<()> {
        self.nodes[&id].group.initialize(self.addrs.clone()).await
    }

    pub(crate) async fn open(&self, id: u64, cluster: [u8; 16]) -> (tokio::runtime::Runtime, io::Result<RaftNode>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (dir, disk) = (self.dir(id), Arc::new(self.disks[&id].clone()));
        let owner = WalIdentity { cluster, incarnation: 1, node: NodeId(id) };
        let disk_id = self.disk_ids.get(&id).copied().unwrap_or(disk_of(owner.node));
        let identity = match identity(disk_id, disk, &dir, owner) {
            Ok(identity) => identity,
            Err(e) => return (runtime, Err(e)),
        };
        let config = RaftNodeConfig {
            node: NodeId(id),
            cluster,
            incarnation: 1,
            identity,
            peers: self.peers(),
            peers_from: self.policies.get(&id).cloned().unwrap_or_else(|| Arc::new(|_| Ok(()))),
            dir,
            peer_listen: self.addrs[&NodeId(id)].clone(),
            tuning: self.tunings.get(&id).unwrap_or(&self.tuning).clone(),
        };
        let clock = Arc::new(self.clocks[&id].clone());
        let seams = Seams { clock, ..Seams::with_disk(Arc::new(self.disks[&id].clone())) };
        let node = runtime.spawn(RaftNode::open(config, seams, echo())).await.unwrap();
        (runtime, node)
    }

    /// All members, as each of them knows the others.
    pub(crate) fn peers(&self) -> BTreeMap<NodeId, PeerEntry> {
        let entry = |(id, addr): (&NodeId, &String)| (*id, PeerEntry { addr: addr.clone(), disk: disk_of(*id) });
        self.addrs.iter().map(entry).collect()
    }

    /// A node's data directory.
    pub(crate) fn dir(&self, id: u64) -> PathBuf {
        PathBuf::from(format!("/{}/node{id}", self.addrs[&NodeId(1)]))
    }

    pub(crate) async fn up(&mut self, id: u64) {
        self.try_up(id).await.unwrap();
    }

    pub(crate) async fn try_up(&mut self, id: u64) -> io::Result<()> {
        let (runtime, node) = self.open(id, self.cluster).await;
        let state = Shared(Arc::default(), Arc::default(), self.new_builds.contains(&id), Arc::default());
        let started = match node {
            Ok(node) => {
                let (n, s, founders) = (node.clone(), state.clone(), self.addrs.clone());
                let group = runtime.spawn(async move { n.start_group(G, &founders, s).await }).await.unwrap();
                group.map(|group| (node, group))
            }
            Err(e) => Err(e),
        };
        match started {
            Ok((node, group)) => {
                self.nodes.insert(id, Running { node, group, state, runtime: Some(runtime) });
                Ok(())
            }
            Err(e) => {
                std::thread::scope(|s| s.spawn(|| runtime.shutdown_timeout(PATIENCE)).join().unwrap());
                Err(e)
            }
        }
    }

    /// Repairs a stopped replica from the leader. As the node does, it asks again while a peer does
    /// not answer: one that was just started is not dialled before its link's pause is over.
    pub(crate) async fn reinstall(&mut self, bad: u64) {
        let from = self.leader().await;
        let repaired = async {
            while let Err(why) = self.try_reinstall(bad, from).await {
                assert_eq!(why.kind(), io::ErrorKind::NotConnected, "{why}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, repaired).await.expect("a peer does not answer");
    }

    /// Repairs a stopped replica from this node.
    pub(crate) async fn try_reinstall(&mut self, bad: u64, from: u64) -> io::Result<()> {
        let fresh = Shared::default();
        let group = self.nodes[&bad].node.reinstall(G, NodeId(from), fresh.clone()).await?;
        let running = self.nodes.get_mut(&bad).unwrap();
        (running.group, running.state) = (group, fresh);
        Ok(())
    }

    /// Stops a node in the middle of whatever it does; what its disk had not synced is lost.
    pub(crate) fn kill(&mut self, id: u64) {
        self.disks[&id].crash(id);
        drop(self.nodes.remove(&id));
    }

    pub(crate) fn any(&self) -> &Running {
        self.nodes.values().next().unwrap()
    }

    /// The node that leads and may stamp.
    pub(crate) async fn leader(&self) -> u64 {
        let all = self.nodes.iter().map(|(id, n)| {
            let mut rx = n.group.watch();
            let id = *id;
            Box::pin(async move {
                rx.wait_for(|s| s.role == Role::Leader && s.clock_sure).await.map(|_| ()).unwrap();
                id
            })
        });
        tokio::time::timeout(PATIENCE, futures::future::select_all(all)).await.expect("no leader").0
    }

    /// Proposes until it was applied; only definite refusals are repeated.
    pub(crate) async fn propose(&self, data: &[u8]) -> LogPosition {
        loop {
            let leader = self.leader().await;
            match self.nodes[&leader].group.propose(Bytes::copy_from_slice(data)).await {
                Ok(c) => return c.at,
                Err(ledger_raft::ProposeError::Unknown { why }) => panic!("unknown: {why}"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    pub(crate) async fn until(&self, id: u64, what: &str, ok: impl FnMut(&GroupStatus) -> bool) -> GroupStatus {
        let mut rx = self.nodes[&id].group.watch();
        let seen = tokio::time::timeout(PATIENCE, rx.wait_for(ok)).await;
        match seen {
            Ok(Ok(s)) => s.clone(),
            _ => panic!("node {id} never: {what}; status {:?}", self.nodes[&id].group.status()),
        }
    }

    /// All running nodes have applied the same.
    pub(crate) async fn agree(&self, index: u64) -> Tally {
        for id in self.nodes.keys() {
            self.until(*id, "applied", |s| s.applied_index >= index).await;
        }
        let first = self.any().state.get();
        for (id, n) in &self.nodes {
            assert_eq!(n.state.get(), first, "node {id} differs");
        }
        assert_eq!(first.stamps_went_back, 0);
        first
    }
}
