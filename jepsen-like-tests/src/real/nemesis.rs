//! What is done to real nodes while they are pressed on, and how it is undone.
//!
//! **Owns** each fault's doing and undoing. **Must never** leave one behind, nor harm anything but the processes it started.
//! **Read next**: [`super::field`].

use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;

use super::RealError;
use super::field::{Field, LostDisk};
use super::knobs::Knobs;
use super::losses::Loss;
use super::proxy::Links;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nemesis {
    /// Nothing: what the numbers of the others are compared with.
    Calm,
    /// SIGKILL of one node; what it had not synced is gone. It comes back.
    Kill,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGSTOP of one node, the leader of something if there is one; it goes on later, believing what it believed.
    Pause,
    /// One node cut off from its peers.
    PartitionOne,
    /// The smaller part of the nodes cut off from the rest.
    PartitionMinority,
    /// The larger part cut off from a leader's.
    PartitionMajority,
    /// Everybody sees some others, nobody all of them.
    PartitionRing,
    /// Bytes pass from one node to another but not back.
    OneWay,
    /// A leader that reaches nobody.
    LeaderAlone,
    /// All links slow, and unevenly so.
    SlowLinks,
    /// Connections are reset again and again.
    ResetLinks,
    /// Syncs of one node take long.
    SlowDisk,
    /// One node has no space left.
    FullDisk,
    /// The log of one node loses files, or the directory its place, while the node is down.
    DamagedDisk,
    /// The whole directory of one node goes back to what it was some time ago.
    OlderDisk,
    /// The wall clock of one node jumps.
    ClockJump,
    /// Every node is stopped and started again, one after the other.
    RollingRestart,
    /// The tester's own program.
    Program,
    /// No fault, but clients that send raw bytes at and beyond every limit.
    Hostile,
    /// All of these at random, up to two at a time. Lost disks are not among them: a second loss before the first is repaired may be
    /// more than a quorum survives.
    Mixed,
}

impl Nemesis {
    /// All of them but the tester's own program.
    pub const ALL: [Self; 20] = [
        Self::Calm,
        Self::Kill,
        Self::KillAll,
        Self::Pause,
        Self::PartitionOne,
        Self::PartitionMinority,
        Self::PartitionMajority,
        Self::PartitionRing,
        Self::OneWay,
        Self::LeaderAlone,
        Self::SlowLinks,
        Self::ResetLinks,
        Self::SlowDisk,
        Self::FullDisk,
        Self::DamagedDisk,
        Self::OlderDisk,
        Self::ClockJump,
        Self::RollingRestart,
        Self::Hostile,
        Self::Mixed,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Pause => "pause",
            Self::PartitionOne => "partition-one",
            Self::PartitionMinority => "partition-minority",
            Self::PartitionMajority => "partition-majority",
            Self::PartitionRing => "partition-ring",
            Self::OneWay => "one-way",
            Self::LeaderAlone => "leader-alone",
            Self::SlowLinks => "slow-links",
            Self::ResetLinks => "reset-links",
            Self::SlowDisk => "slow-disk",
            Self::FullDisk => "full-disk",
            Self::DamagedDisk => "damaged-disk",
            Self::OlderDisk => "older-disk",
            Self::ClockJump => "clock-jump",
            Self::RollingRestart => "rolling-restart",
            Self::Hostile => "hostile",
            Self::Program => "program",
            Self::Mixed => "mixed",
        }
    }

    /// What it does, in a line.
    pub fn what(self) -> &'static str {
        match self {
            Self::Calm => "nothing: what the others are compared with",
            Self::Kill => "SIGKILL of one node; what it had not synced is lost",
            Self::KillAll => "SIGKILL of all nodes at once",
            Self::Pause => "SIGSTOP of a leader, later SIGCONT",
            Self::PartitionOne => "one node cut off from its peers",
            Self::PartitionMinority => "the smaller part of the nodes cut off",
            Self::PartitionMajority => "a leader on the smaller side of a cut",
            Self::PartitionRing => "everybody sees some others, nobody all",
            Self::OneWay => "bytes pass from one node to another but not back",
            Self::LeaderAlone => "a leader that reaches nobody",
            Self::SlowLinks => "slow links, unevenly so",
            Self::ResetLinks => "connections reset again and again",
            Self::SlowDisk => "slow syncs of one node",
            Self::FullDisk => "one node without space",
            Self::DamagedDisk => "the log of one node loses files, or its directory is copied",
            Self::OlderDisk => "one node's directory goes back to an older state",
            Self::ClockJump => "the wall clock of one node jumps",
            Self::RollingRestart => "every node stopped and started, one after the other",
            Self::Hostile => "no fault, but clients that send raw bytes at and beyond every limit",
            Self::Program => "your own program, called with `inject` and `heal`",
            Self::Mixed => "all of these but lost disks at random, up to two at a time",
        }
    }

    /// By name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Program]).find(|n| n.name() == name)
    }

    /// Whether it can be done on a cluster that is not ours.
    pub fn is_for_anybody(self) -> bool {
        matches!(self, Self::Calm | Self::Program)
    }

    /// Whether no fault ever strikes.
    pub fn is_faultless(self) -> bool {
        matches!(self, Self::Calm | Self::Hostile)
    }

    /// Whether a mixture may have it.
    fn is_single(self) -> bool {
        !self.is_faultless() && !matches!(self, Self::Mixed | Self::Program | Self::DamagedDisk | Self::OlderDisk)
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How something is made good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Nothing is left of it.
    Nothing,
    /// These were killed.
    Start(Vec<u64>),
    /// This one was stopped.
    Continue(u64),
    /// Links.
    Links,
    /// The knobs of this one.
    Knobs(u64),
    /// The disk of this one lost something.
    Repair(LostDisk),
    /// The tester's own program.
    Program,
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struck {
    /// Its kind.
    pub nemesis: Nemesis,
    /// What exactly was done.
    pub what: String,
    /// How it is made good.
    pub undo: Undo,
}

/// Chooses victims and strikes; all chance is the seed's.
pub struct Striker {
    rng: SmallRng,
}

impl Striker {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed ^ 0x4e4e_5515) }
    }

    /// How long a fault lasts, or the calm between two.
    pub fn duration(&mut self, fault: bool) -> Duration {
        let ms = if fault { self.rng.random_range(1_500..6_000) } else { self.rng.random_range(1_000..3_000) };
        Duration::from_millis(ms)
    }

    /// What a mixture does next.
    pub fn draw(&mut self) -> Nemesis {
        let single: Vec<Nemesis> = Nemesis::ALL.into_iter().filter(|n| n.is_single()).collect();
        single[self.rng.random_range(0..single.len())]
    }

    async fn leader(&mut self, field: &Field) -> u64 {
        let shard = self.rng.random_range(1..=field.shards().max(1));
        match field.leader_of(shard).await {
            Some(leader) => leader,
            None => self.any(field),
        }
    }

    fn any(&mut self, field: &Field) -> u64 {
        let nodes = field.ids();
        nodes[self.rng.random_range(0..nodes.len())]
    }

    fn shuffled(&mut self, field: &Field) -> Vec<u64> {
        let mut nodes = field.ids();
        nodes.shuffle(&mut self.rng);
        nodes
    }

    /// Strikes.
    ///
    /// # Errors
    /// When a process cannot be signalled or started, or the tester's program fails.
    pub async fn strike(&mut self, nemesis: Nemesis, field: &mut Field) -> Result<Struck, RealError> {
        let (what, undo) = match nemesis {
            Nemesis::Calm | Nemesis::Hostile | Nemesis::Mixed => ("nothing".to_owned(), Undo::Nothing),
            Nemesis::Kill => {
                let node = if self.rng.random_bool(0.6) { self.leader(field).await } else { self.any(field) };
                field.kill(&[node])?;
                (format!("node {node} killed"), Undo::Start(vec![node]))
            }
            Nemesis::KillAll => {
                let nodes = field.ids();
                field.kill(&nodes)?;
                ("all nodes killed".to_owned(), Undo::Start(nodes))
            }
            Nemesis::Pause => {
                let node = self.leader(field).await;
                field.signal(node, Signal::STOP)?;
                (format!("node {node} stopped in its tracks"), Undo::Continue(node))
            }
            Nemesis::RollingRestart => {
                let nodes = self.shuffled(field);
                field.roll(&nodes).await?;
                (format!("nodes {nodes:?} restarted in turn"), Undo::Nothing)
            }
            Nemesis::SlowDisk => {
                let (node, sync_ms) = (self.leader(field).await, self.rng.random_range(20..600));
                field.turn(node, Knobs { sync_ms, ..Knobs::default() })?;
                (format!("each sync of node {node} takes {sync_ms} ms longer"), Undo::Knobs(node))
            }
            Nemesis::FullDisk => {
                let node = self.any(field);
                field.turn(node, Knobs { full: true, ..Knobs::default() })?;
                (format!("node {node} has no space left"), Undo::Knobs(node))
            }
            Nemesis::DamagedDisk => {
                let node = if self.rng.random_bool(0.5) { self.leader(field).await } else { self.any(field) };
                let loss = Loss::ALL[self.rng.random_range(0..Loss::ALL.len())];
                let lost = field.lose(node, loss)?;
                (format!("node {node} {}", lost.what), Undo::Repair(lost))
            }
            Nemesis::OlderDisk => {
                let node = self.any(field);
                let age = Duration::from_millis(self.rng.random_range(2_000..5_000));
                let lost = field.set_back(node, age).await?;
                (format!("node {node} {}", lost.what), Undo::Repair(lost))
            }
            Nemesis::ClockJump => {
                let node = self.leader(field).await;
                let clock_offset_ms = self.rng.random_range(-600_000..600_000);
                field.turn(node, Knobs { clock_offset_ms, ..Knobs::default() })?;
                (format!("the clock of node {node} is off by {clock_offset_ms} ms"), Undo::Knobs(node))
            }
            Nemesis::Program => {
                field.program("inject").await?;
                ("the tester's program injected".to_owned(), Undo::Program)
            }
            _ => {
                let links = field.links().ok_or(RealError::NotOurs)?;
                (self.strike_links(nemesis, field, links).await, Undo::Links)
            }
        };
        Ok(Struck { nemesis, what, undo })
    }

    async fn strike_links(&mut self, nemesis: Nemesis, field: &Field, links: &Links) -> String {
        let nodes = self.shuffled(field);
        let minority = (nodes.len() - 1) / 2;
        match nemesis {
            Nemesis::PartitionOne => {
                links.split(&nodes[..1], &nodes[1..]);
                format!("node {} cut off", nodes[0])
            }
            Nemesis::PartitionMinority => {
                links.split(&nodes[..minority], &nodes[minority..]);
                format!("{:?} cut off from {:?}", &nodes[..minority], &nodes[minority..])
            }
            Nemesis::PartitionMajority | Nemesis::LeaderAlone => {
                let leader = self.leader(field).await;
                let mut side = vec![leader];
                if nemesis == Nemesis::PartitionMajority {
                    side.extend(nodes.iter().filter(|n| **n != leader).take(minority.saturating_sub(1)));
                }
                let rest: Vec<u64> = nodes.into_iter().filter(|n| !side.contains(n)).collect();
                links.split(&side, &rest);
                format!("{side:?} with a leader cut off from {rest:?}")
            }
            Nemesis::PartitionRing => {
                for (a, b) in strangers(&nodes) {
                    links.split(&[a], &[b]);
                }
                format!("ring {nodes:?}: {:?} do not see each other", strangers(&nodes))
            }
            Nemesis::OneWay => {
                let from = self.leader(field).await;
                let to = nodes.into_iter().find(|n| *n != from).unwrap_or(from);
                let pair = if self.rng.random_bool(0.5) { (from, to) } else { (to, from) };
                links.cut(pair);
                format!("nothing passes from {} to {}", pair.0, pair.1)
            }
            Nemesis::SlowLinks => {
                let most = self.rng.random_range(20..400);
                for pair in links.pairs() {
                    let delay = Duration::from_millis(self.rng.random_range(0..most));
                    links.change(pair, |link| (link.delay, link.jitter) = (delay, delay / 2));
                }
                format!("links up to {most} ms slow")
            }
            _ => {
                for pair in links.pairs() {
                    links.change(pair, |link| link.epoch += 1);
                }
                "all connections reset".to_owned()
            }
        }
    }

    /// Makes it good.
    ///
    /// # Errors
    /// When a process cannot be started, or the tester's program fails.
    pub async fn heal(&mut self, struck: &Struck, field: &mut Field) -> Result<(), RealError> {
        match &struck.undo {
            Undo::Nothing => Ok(()),
            Undo::Start(nodes) => field.start(nodes).await,
            Undo::Continue(node) => field.signal(*node, Signal::CONT),
            Undo::Links => {
                if let Some(links) = field.links() {
                    links.heal();
                }
                Ok(())
            }
            Undo::Knobs(node) => field.turn(*node, Knobs::default()),
            Undo::Repair(lost) => field.start_repaired(lost).await,
            Undo::Program => field.program("heal").await,
        }
    }
}

/// Pairs of a ring that do not see each other: of up to four nodes those opposite, else all but the two neighbours.
fn strangers(ring: &[u64]) -> Vec<(u64, u64)> {
    let n = ring.len();
    let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
    let far = |a: usize, b: usize| if n == 3 { (a, b) == (0, 2) } else { (b - a).min(n - (b - a)) > 1 };
    pairs.filter(|&(a, b)| far(a, b)).map(|(a, b)| (ring[a], ring[b])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_ring_nobody_sees_everybody_and_somebody_is_seen_by_each() {
        assert_eq!(strangers(&[1, 2, 3]), [(1, 3)]);
        let of_five = strangers(&[1, 2, 3, 4, 5]);
        for node in 1..=5 {
            assert_eq!(of_five.iter().filter(|(a, b)| *a == node || *b == node).count(), 2, "{of_five:?}");
        }
    }

    #[test]
    fn names_are_read_back_and_differ() {
        for nemesis in Nemesis::ALL {
            assert_eq!(Nemesis::of_name(nemesis.name()), Some(nemesis));
            assert!(!nemesis.what().is_empty());
        }
        assert_eq!(Nemesis::of_name("program"), Some(Nemesis::Program));
        assert_eq!(Nemesis::of_name("none such"), None);
    }
}
