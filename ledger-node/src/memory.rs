//! How much memory a node's records may take, and what is refused when they take more.
//!
//! **What it is.** Every replica says after each entry what its records take; their sum is compared with the node's bound. At the
//! bound a leader takes no new reservations, and no orders that reserve, which are what crowds make; whatever ends holds, moves orders on or
//! changes settings goes on. A replica may take half of the bound where there are several, so that one shard's crowd leaves room
//! for the others.
//! **Owns** the sums, and the bound of the machine or its container. **Must never** be asked by `apply`: replicas on machines of
//! different sizes must decide alike. **Read next**: [`crate::door`].

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use ledger_core::limits::REMEMBERED_MAX_DEFAULT;

use crate::limits::{
    MEMORY_ALARM_PERCENT, MEMORY_DEFAULT_PERCENT, MEMORY_SHARD_PERCENT, REMEMBERED_ID_BYTES, REMEMBERED_MIN,
};

/// What the records of one node may take.
#[derive(Debug)]
pub struct MemoryBudget {
    max: u64,
    used: AtomicU64,
    replicas: AtomicUsize,
}

/// How near records are to what they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Level {
    Enough,
    Alarm,
    Full,
}

/// `percent` of so many bytes.
fn share(bytes: u64, percent: u64) -> u64 {
    (u128::from(bytes) * u128::from(percent) / 100) as u64
}

impl MemoryBudget {
    /// As configured (0: not), or a share of what the machine has; without either there is no bound.
    pub(crate) fn new(configured: u64, machine: Option<u64>) -> Arc<Self> {
        let usual = machine.map_or(u64::MAX, |machine| share(machine, MEMORY_DEFAULT_PERCENT));
        let max = if configured > 0 { configured } else { usual };
        Arc::new(Self { max, used: AtomicU64::new(0), replicas: AtomicUsize::new(0) })
    }

    /// The bound; none when there is none.
    pub fn max(&self) -> Option<u64> {
        (self.max < u64::MAX).then_some(self.max)
    }

    /// What all replicas' records take.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How many ids a shard of a new cluster remembers, where a node has so many replicas: together they take half of what its records may.
    pub(crate) fn remembered_max(&self, replicas: usize) -> u64 {
        let of_replica = self.max / replicas.max(1) as u64;
        (of_replica / 2 / REMEMBERED_ID_BYTES).clamp(REMEMBERED_MIN, REMEMBERED_MAX_DEFAULT)
    }

    /// What those of one replica may take.
    fn max_of_replica(&self) -> u64 {
        match self.replicas.load(Ordering::Relaxed) {
            0 | 1 => self.max,
            _ => share(self.max, MEMORY_SHARD_PERCENT),
        }
    }
}

/// What one replica's records take; it counts until this is dropped.
#[derive(Debug)]
pub struct ReplicaMemory {
    budget: Arc<MemoryBudget>,
    shard: u32,
    used: AtomicU64,
    /// The [`Level`] that was logged last.
    logged: AtomicU8,
}

/// What helps.
const HINT: &str =
    "keep records for less time with `ledgerctl cluster settings set`, or raise memory_max_bytes of the shard's nodes";

impl ReplicaMemory {
    /// Of a new replica.
    pub(crate) fn new(budget: &Arc<MemoryBudget>, shard: u32) -> Self {
        budget.replicas.fetch_add(1, Ordering::Relaxed);
        let logged = AtomicU8::new(Level::Enough as u8);
        Self { budget: budget.clone(), shard, used: AtomicU64::new(0), logged }
    }

    /// Its records take so much now.
    pub(crate) fn set(&self, bytes: u64) {
        let before = self.used.swap(bytes, Ordering::Relaxed);
        // Wraps round and back: the sum is of what each set last.
        self.budget.used.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        self.log_level();
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether the node's records or the replica's take so many percent of what they may.
    fn takes(&self, percent: u64) -> bool {
        let (node, replica) = (&self.budget, self.budget.max_of_replica());
        node.used() >= share(node.max, percent) || self.used() >= share(replica, percent)
    }

    fn level(&self) -> Level {
        match () {
            () if self.takes(100) => Level::Full,
            () if self.takes(MEMORY_ALARM_PERCENT) => Level::Alarm,
            () => Level::Enough,
        }
    }

    /// Logs a level once when it is reached, and again only after records took clearly less.
    fn log_level(&self) {
        let (level, logged) = (self.level(), self.logged.load(Ordering::Relaxed));
        let falls = (level as u8) < logged && !self.takes(MEMORY_ALARM_PERCENT - 5);
        if level as u8 > logged || falls {
            self.logged.store(level as u8, Ordering::Relaxed);
            let (shard, why) = (self.shard, self.warning().unwrap_or_default());
            match level {
                Level::Full => tracing::error!(shard, why, "records take all the memory that they may"),
                Level::Alarm => tracing::warn!(shard, why, "records take most of the memory that they may"),
                Level::Enough => tracing::info!(shard, "records take clearly less memory again"),
            }
        }
    }

    /// What operators should know: records take most of what they may, or all.
    pub(crate) fn warning(&self) -> Option<String> {
        match self.level() {
            Level::Enough => None,
            Level::Alarm => {
                let mib = |bytes: u64| bytes >> 20;
                let (used, most) = (mib(self.used()), mib(self.budget.max_of_replica()));
                let (node, node_most) = (mib(self.budget.used()), mib(self.budget.max));
                Some(format!("its records take {used} of {most} MiB, those of the node {node} of {node_most}: {HINT}"))
            }
            Level::Full => self.full().map(|why| format!("it takes no new reservations while it is led here: {why}")),
        }
    }

    /// Why new reservations and orders are refused, if they are.
    pub(crate) fn full(&self) -> Option<String> {
        let mib = |bytes: u64| bytes >> 20;
        let (node, max) = (self.budget.used(), self.budget.max);
        if node >= max {
            return Some(format!("records take {} of {} MiB on the leader's node: {HINT}", mib(node), mib(max)));
        }
        let (used, most) = (self.used(), self.budget.max_of_replica());
        let why = || format!("records of this shard take {} of the {} MiB that one may: {HINT}", mib(used), mib(most));
        (used >= most).then(why)
    }
}

impl Drop for ReplicaMemory {
    fn drop(&mut self) {
        let used = self.used.swap(0, Ordering::Relaxed);
        self.budget.used.fetch_sub(used, Ordering::Relaxed);
        self.budget.replicas.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Memory of this machine, or of the control group of this process if that may have less.
pub(crate) fn of_machine() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total_of);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = least_of_groups(&groups, Path::new("/sys/fs/cgroup"));
    machine.into_iter().chain(group).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The lowest bound of the groups that `/proc/self/cgroup` names, and of those above them: version 2 has one line, `0::/a/b`;
/// version 1 has one for each controller, `4:memory:/a/b`.
fn least_of_groups(groups: &str, root: &Path) -> Option<u64> {
    let bounds = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            shared if shared.split(',').any(|one| one == "memory") => (root.join(shared), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        // In a container the path is that of the host, and the root is the group itself.
        let group = root.join(path.trim_start_matches('/'));
        let up = group.ancestors().take_while(|above| above.starts_with(&root));
        up.filter_map(|above| fs::read_to_string(above.join(file)).ok()?.trim().parse().ok()).collect()
    });
    bounds.filter(|&bytes: &u64| bytes > 0).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_may_take_half_where_there_are_several_and_all_of_them_the_whole() {
        let budget = MemoryBudget::new(100 << 20, Some(1 << 40));
        assert_eq!(budget.max(), Some(100 << 20));
        let replica = |shard| ReplicaMemory::new(&budget, shard);
        let one = replica(1);
        one.set(60 << 20);
        assert_eq!((one.full(), one.level()), (None, Level::Enough), "it is alone");
        let (two, three) = (replica(2), replica(3));
        let why = one.full().expect("more than half");
        assert!(why.starts_with("records of this shard take 60 of the 50 MiB that one may"), "{why}");
        assert!(why.contains("memory_max_bytes"), "{why}");
        assert_eq!([&one, &two].map(|replica| replica.level()), [Level::Full, Level::Enough]);
        two.set(25 << 20);
        assert_eq!((two.full(), two.level()), (None, Level::Alarm), "the node's");
        let warning = two.warning().expect("it is near");
        assert!(warning.starts_with("its records take 25 of 50 MiB, those of the node 85 of 100: "), "{warning}");
        three.set(15 << 20);
        assert!(three.full().is_some_and(|why| why.starts_with("records take 100 of 100 MiB on the leader's node")));
        assert_eq!(three.level(), Level::Full);
        two.set(10 << 20);
        assert_eq!((three.full(), budget.used()), (None, 85 << 20));
        drop(one);
        assert_eq!((budget.used(), three.level()), (25 << 20, Level::Enough));
        three.set(40 << 20);
        assert_eq!(three.level(), Level::Alarm, "four fifths of its half");
        drop(two);
        three.set(99 << 20);
        assert_eq!(three.full(), None, "it is alone again");
    }

    #[test]
    fn remembered_ids_of_all_replicas_take_half_of_what_records_may() {
        let remembered = |mib: u64, replicas| MemoryBudget::new(mib << 20, None).remembered_max(replicas);
        assert_eq!((remembered(2_000, 1), remembered(2_000, 8)), (5_242_880, 655_360));
        assert_eq!((remembered(1, 1), remembered(1 << 20, 1)), (REMEMBERED_MIN, REMEMBERED_MAX_DEFAULT), "its bounds");
        assert_eq!(MemoryBudget::new(0, None).remembered_max(3), REMEMBERED_MAX_DEFAULT, "without a bound");
    }

    #[test]
    fn the_bound_is_a_share_of_the_machine_and_without_a_machine_there_is_none() {
        assert_eq!(MemoryBudget::new(0, Some(1_000)).max(), Some(10 * MEMORY_DEFAULT_PERCENT));
        let unbounded = MemoryBudget::new(0, None);
        let replica = ReplicaMemory::new(&unbounded, 1);
        replica.set(1 << 50);
        assert_eq!((unbounded.max(), replica.full()), (None, None));
    }

    #[test]
    fn a_level_is_logged_once_until_it_was_left_clearly() {
        let budget = MemoryBudget::new(1_000, None);
        let replica = ReplicaMemory::new(&budget, 1);
        let logged = |bytes| {
            replica.set(bytes);
            replica.logged.load(Ordering::Relaxed)
        };
        let steps = [(790, 0), (800, 1), (760, 1), (1_000, 2), (990, 2), (750, 2), (749, 0), (1_200, 2), (0, 0)];
        for (bytes, level) in steps {
            assert_eq!(logged(bytes), level, "at {bytes}");
        }
    }

    #[test]
    fn memory_of_machines_and_of_groups_is_read() {
        assert_eq!(total_of("MemTotal:       24685516 kB\nMemFree: 1 kB\n"), Some(24_685_516 << 10));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        let root = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        let least = |groups: &str| least_of_groups(groups, root.path());
        assert_eq!(least("0::/a/b\n"), None);
        put("a/b/memory.max", "max\n");
        assert_eq!(least("0::/a/b\n"), None);
        put("a/memory.max", "4096\n");
        assert_eq!(least("0::/a/b\n"), Some(4_096), "a group has no more than those above it");
        put("memory.max", "1024\n");
        assert_eq!(least("0::/of/the/host\n"), Some(1_024), "the root of a container");
        put("memory/c/memory.limit_in_bytes", "2048\n");
        put("cpu,memory/d/memory.limit_in_bytes", "3072\n");
        assert_eq!(least("12:cpu:/c\n4:memory:/c\n"), Some(2_048));
        assert_eq!(least("4:cpu,memory:/d\n"), Some(3_072));
        assert!(of_machine().is_some_and(|bytes| bytes > 1 << 28), "this machine");
    }
}
