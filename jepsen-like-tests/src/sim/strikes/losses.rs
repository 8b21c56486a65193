//! Disks that come back with less than they had.
//!
//! **What it is.** One loss at a time, step by step ([`Step`]). Where the other nodes have a part in
//! it ([`Others`]) it waits until every other fault is over and the cluster has settled, and holds
//! back what else is planned until the node runs again.
//!
//! **Owns** these steps. **Must never** take from a cluster what nobody who is reached remembers:
//! see [`Losing::holds_others_back`]. **Read next**: [`super`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger_raft::disk::SimDisk;

use super::links::both_ways;
use super::undo::Undo;
use super::{CLIENT_PORT, SHARDS, Strikes};
use crate::faults::{Fault, LostBeyond, Others, Wiped};
use crate::readout;
use crate::workload::Site;
use crate::world::OlderDisk;

/// Without a fault, everything is acknowledged, replicated and on disk within this.
const SETTLED: Duration = Duration::from_millis(1_000);
/// Those that lag are cut off for so long: the others elect leaders and acknowledge.
const LAGS: Duration = Duration::from_millis(2_000);
/// What a node heard of another one is on its disk within this.
const HEARD: Duration = Duration::from_millis(100);
/// A node that has lost something has noticed within this.
const NOTICED: Duration = Duration::from_millis(3_000);
/// A node that loses power only for an election's sake is down for so long.
const RESTARTS: Duration = Duration::from_millis(50);
/// So long at least the node and those that lag are alone: time for an election, and for answers.
const ALONE_MIN: Duration = Duration::from_millis(2_000);
/// So long nothing strikes once all run again.
const CALM: Duration = Duration::from_millis(1_000);

/// An operator repeats `cluster init` so often.
const INITS: u64 = 3;
const INIT_EVERY_MS: u64 = 1_000;

/// ... and `node rejoin`, with such a pause; what is not done by then is done once all is healed.
const REJOINS: usize = 10;
const REJOIN_AGAIN: Duration = Duration::from_millis(500);

const WAL: &str = "/data/wal";
const SNAPSHOTS: &str = "/data/snapshots";

/// Where a loss is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A copy of the disk grows old.
    Ages,
    /// Waits for the end of all other faults.
    Quiet,
    /// All run and nothing strikes.
    Settles,
    /// Those that lag are cut off.
    Lags,
    /// The node is down, and about to lose something.
    Down,
    /// It has lost it, and runs beside those that do not lag.
    Notices,
    /// It has lost it, and runs beside those that lag.
    Alone,
    /// All others are started, and then the node.
    Returns,
    /// All run.
    Calm,
}

/// A loss under way.
pub(super) struct Losing {
    fault: Fault,
    node: usize,
    others: Others,
    back_after: Duration,
    /// The age of the copy when the node loses power.
    copy_age: Duration,
    step: Step,
    /// When the step is over.
    until: Duration,
    older: Option<OlderDisk>,
    /// Those that are cut off.
    lagging: Vec<usize>,
}

impl Losing {
    /// Whether what else is planned has to wait. Among others, this is so from the moment at which a
    /// node could start on an older disk until it has asked all others what they remember of it:
    /// what nobody who is reached remembers is lost, as `docs/semantics.md` says.
    pub(super) fn holds_others_back(&self) -> bool {
        self.step != Step::Ages
    }

    /// Whether this node waits until all others serve.
    pub(super) fn starts_last(&self, node: usize) -> bool {
        self.step == Step::Returns && self.node == node
    }

    /// Whether other nodes take part, so that no other fault may disturb them.
    fn is_staged(&self) -> bool {
        self.others != Others::RunOn || self.only_others_know()
    }

    /// Whether nothing on the node's own disk says that something is missing.
    fn only_others_know(&self) -> bool {
        matches!(self.fault, Fault::RolledBack { .. })
    }
}

impl Strikes {
    /// A loss begins, unless one is under way, or its node is down.
    pub(super) fn lose(&mut self, fault: &Fault) {
        let (node, after_ms, others, ms) = match *fault {
            Fault::Wiped { node, others, ms, .. } | Fault::CutShort { node, others, ms, .. } => (node, 0, others, ms),
            Fault::Copied { node, after_ms, others, ms } | Fault::RolledBack { node, after_ms, others, ms } => {
                (node, after_ms, others, ms)
            }
            _ => return,
        };
        let node = node.min(self.nodes() - 1);
        if self.losing.is_some() || !self.lost.is_empty() || !self.emptied.is_empty() || !self.hosts[node].is_running()
        {
            return;
        }
        self.losing = Some(Losing {
            fault: fault.clone(),
            node,
            others,
            back_after: Duration::from_millis(ms),
            copy_age: Duration::from_millis(after_ms),
            step: Step::Ages,
            until: self.now + Duration::from_millis(after_ms),
            older: Some(self.worlds[node].fork()),
            lagging: Vec::new(),
        });
    }

    /// More nodes than may fail lose something, at once, and nothing else strikes any more.
    pub(super) fn lose_beyond(&mut self, nodes: &[usize], of: LostBeyond, ms: u64) -> bool {
        let nodes: Vec<usize> = nodes.iter().copied().filter(|node| *node < self.nodes()).collect();
        if self.losing.is_some() || self.beyond.is_some() {
            return false;
        }
        for node in &nodes {
            self.power_off(*node);
            let world = &self.worlds[*node];
            let wiped = match of {
                LostBeyond::Log => Wiped::Log,
                LostBeyond::LogAndSnapshots => Wiped::LogAndSnapshots,
                LostBeyond::NewestSegment => Wiped::NewestSegment,
                LostBeyond::Original => {
                    world.restore(&world.fork(), true);
                    self.until(ms, Undo::Start(*node));
                    continue;
                }
            };
            wipe(&world.disk, wiped);
            self.until(ms, Undo::Start(*node));
        }
        self.beyond = Some((self.now, nodes));
        self.plan = Vec::new().into_iter();
        true
    }

    /// A node starts on an empty disk, and an operator repeats `cluster init`; later he may bring it
    /// back.
    pub(super) fn empty(&mut self, node: usize, ms: u64, rejoins: bool) -> bool {
        if !self.may_lose_a_node() || !self.lost.is_empty() || !self.hosts[node].is_running() {
            return false;
        }
        self.power_off(node);
        self.worlds[node].empty();
        self.emptied.push(node);
        self.until(ms, Undo::Start(node));
        for times in 1..=INITS {
            self.until(ms + times * INIT_EVERY_MS, Undo::Init);
        }
        if rejoins {
            self.rejoining.push(node);
            self.until(ms + (INITS + 1) * INIT_EVERY_MS, Undo::Rejoin(node));
        }
        true
    }

    /// An operator runs `node rejoin` until it is done, while other faults strike.
    pub(super) fn bring_back(&self, node: usize) {
        let (site, nodes) = (Site::simulated(self.nodes(), CLIENT_PORT), self.nodes());
        self.hosts[nodes].inside(async move {
            for through in (0..nodes).filter(|other| *other != node).cycle().take(REJOINS) {
                match readout::rejoin_once(&site, through as u64 + 1, node as u64 + 1).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(node, %error, "the node is not brought back yet"),
                }
                tokio::time::sleep(REJOIN_AGAIN).await;
            }
        });
    }

    /// Every node is asked to begin the cluster once more.
    pub(super) fn init_again(&self) {
        let site = Site::simulated(self.nodes(), CLIENT_PORT);
        self.hosts[self.nodes()].inside(async move {
            for (node, _) in site.nodes() {
                if let Err(error) = readout::init_once(&site, SHARDS, *node).await {
                    tracing::debug!(node, %error, "the cluster is not begun again");
                }
            }
        });
    }

    /// The loss under way goes on.
    pub(super) fn lose_on(&mut self) {
        let Some(mut losing) = self.losing.take() else { return };
        let over = self.now >= losing.until;
        let next = match losing.step {
            Step::Ages if over => self.has_aged(&mut losing),
            Step::Quiet if self.is_quiet() => Some((Step::Settles, SETTLED)),
            Step::Settles if !self.is_quiet() => Some((Step::Quiet, Duration::ZERO)),
            Step::Settles if over && losing.others == Others::RunOn => {
                self.power_off(losing.node);
                Some((Step::Down, HEARD))
            }
            Step::Settles if over => {
                losing.lagging = self.laggards(losing.node);
                self.cut_off(&losing.lagging, true);
                if losing.copy_age < LAGS {
                    losing.older = None;
                }
                // Each start begins a segment: the newest one has what those that lag do not know.
                self.kill(losing.node);
                self.undo.push((self.now + RESTARTS, Undo::Start(losing.node)));
                Some((Step::Lags, LAGS))
            }
            // What it acknowledges from here on, those that lag never hear of. A copy younger than `HEARD` would
            // lack nothing that others have on disk.
            Step::Lags if !over && losing.older.is_none() && losing.until - self.now <= losing.copy_age.max(HEARD) => {
                losing.older = Some(self.worlds[losing.node].fork());
                Some((Step::Lags, losing.until - self.now))
            }
            Step::Lags if over => {
                self.power_off(losing.node);
                Some((Step::Down, HEARD))
            }
            Step::Down if over => self.is_down(&losing),
            Step::Notices if over || self.has_noticed(losing.node) => {
                self.power_off(losing.node);
                Some(self.leave_alone(&losing))
            }
            Step::Alone if over => {
                self.others(losing.node).for_each(|other| self.undo_one(Undo::Start(other)));
                Some((Step::Returns, Duration::ZERO))
            }
            Step::Returns if over && self.others(losing.node).all(|other| self.serves(other)) => {
                self.undo_one(Undo::Start(losing.node));
                Some((Step::Calm, CALM))
            }
            Step::Calm if over => None,
            step => Some((step, losing.until.saturating_sub(self.now))),
        };
        if let Some((step, lasts)) = next {
            (losing.step, losing.until) = (step, self.now + lasts);
            self.losing = Some(losing);
        }
    }

    /// All is to be healed: a loss that has not come yet is called off, and a node that has lost
    /// something starts once all others serve.
    pub(super) fn stop_losing(&mut self) {
        let Some(losing) = &mut self.losing else { return };
        let lagging = std::mem::take(&mut losing.lagging);
        match losing.step {
            Step::Ages | Step::Quiet | Step::Settles | Step::Lags | Step::Down | Step::Calm => self.losing = None,
            Step::Notices | Step::Alone | Step::Returns => (losing.step, losing.until) = (Step::Returns, self.now),
        }
        self.cut_off(&lagging, false);
    }

    fn has_aged(&mut self, losing: &mut Losing) -> Option<(Step, Duration)> {
        if losing.is_staged() {
            self.disarm();
            return Some((Step::Quiet, Duration::ZERO));
        }
        if self.hosts[losing.node].is_running() {
            self.power_off(losing.node);
            self.take_away(losing);
            self.until(losing.back_after.as_millis() as u64, Undo::Start(losing.node));
        }
        None
    }

    fn is_down(&mut self, losing: &Losing) -> Option<(Step, Duration)> {
        self.take_away(losing);
        Some(match losing.others {
            Others::RunOn => (Step::Returns, losing.back_after),
            Others::Lag if losing.only_others_know() => {
                self.restart_informed(losing);
                (Step::Returns, 2 * RESTARTS)
            }
            Others::Lag => self.leave_alone(losing),
            Others::LagLater => {
                self.undo_one(Undo::Start(losing.node));
                (Step::Notices, NOTICED)
            }
        })
    }

    /// Those that do not lag lose power, and are back at once: an election, in which the node takes
    /// part when they have just begun to serve.
    fn restart_informed(&mut self, losing: &Losing) {
        for other in self.others(losing.node).filter(|other| !losing.lagging.contains(other)) {
            self.power_off(other);
            self.undo.push((self.now + RESTARTS, Undo::Start(other)));
        }
        self.cut_off(&losing.lagging, false);
    }

    /// Those that do not lag lose power; the others are joined by the node.
    fn leave_alone(&mut self, losing: &Losing) -> (Step, Duration) {
        for other in self.others(losing.node).filter(|other| !losing.lagging.contains(other)) {
            self.power_off(other);
        }
        self.cut_off(&losing.lagging, false);
        self.undo_one(Undo::Start(losing.node));
        (Step::Alone, losing.back_after.max(ALONE_MIN))
    }

    /// What the disk has lost is gone.
    fn take_away(&mut self, losing: &Losing) {
        let world = &self.worlds[losing.node];
        let gone = match &losing.fault {
            Fault::Wiped { of, .. } => wipe(&world.disk, *of),
            Fault::CutShort { keep_percent, .. } => cut_short(&world.disk, *keep_percent),
            Fault::Copied { .. } => losing.older.as_ref().map(|older| world.restore(older, true)).is_some(),
            Fault::RolledBack { .. } => losing.older.as_ref().map(|older| world.restore(older, false)).is_some(),
            _ => false,
        };
        if gone {
            self.has_struck(&losing.fault);
        }
    }

    /// Power cuts and errors that were to come at some operation of a disk do not come any more.
    fn disarm(&mut self) {
        for world in &self.worlds {
            world.disk.stop_at(None);
            world.disk.fail_at(None);
        }
        self.armed.clear();
        self.overtaken.clear();
    }

    /// Whether every fault but wrong clocks is over, and all serve.
    fn is_quiet(&self) -> bool {
        let over = self.undo.iter().all(|(at, _)| *at == Duration::MAX) && self.stalled.is_empty();
        over && (0..self.nodes()).all(|node| self.serves(node))
    }

    /// Whether a node runs, with all its shards.
    fn serves(&self, node: usize) -> bool {
        let running = self.worlds[node].running().filter(|_| self.hosts[node].is_running());
        running.is_some_and(|node| node.shards().len() == SHARDS as usize)
    }

    /// Whether all shards of a node have found that something is missing.
    fn has_noticed(&self, node: usize) -> bool {
        let stopped = |node: std::sync::Arc<ledger_node::node::Node>| {
            node.shards().iter().all(|shard| shard.status().stopped.is_some())
        };
        self.serves(node) && self.worlds[node].running().is_some_and(stopped)
    }

    /// As many as may fail, no leader of the first shard among them.
    fn laggards(&self, node: usize) -> Vec<usize> {
        let leader = self.leader_of(0);
        self.others(node).filter(|other| Some(*other) != leader).take((self.nodes() - 1) / 2).collect()
    }

    fn cut_off(&self, nodes: &[usize], cut: bool) {
        for node in nodes {
            let cuts = self.others(*node).map(|other| (*node, other)).collect();
            both_ways(cuts).into_iter().for_each(|(from, to)| self.net.cut(from, to, cut));
        }
    }
}

fn wipe(disk: &SimDisk, of: Wiped) -> bool {
    match of {
        Wiped::Log => disk.remove_tree(Path::new(WAL)),
        Wiped::LogAndSnapshots => [WAL, SNAPSHOTS].iter().for_each(|dir| disk.remove_tree(Path::new(dir))),
        Wiped::NewestSegment => match newest_segment(disk) {
            Some(file) => disk.remove_tree(&file),
            None => return false,
        },
    }
    true
}

fn cut_short(disk: &SimDisk, keep_percent: u64) -> bool {
    let Some(file) = newest_segment(disk) else { return false };
    let len = disk.content(&file).map_or(0, |content| content.len());
    disk.truncate(&file, len * keep_percent.min(99) as usize / 100).is_ok()
}

/// The segment of the log that was begun last: its number lies behind the magic of its header.
fn newest_segment(disk: &SimDisk) -> Option<PathBuf> {
    let begun = |file: PathBuf| {
        let generation = u32::from_le_bytes(*disk.content(&file)?.get(4..)?.first_chunk()?);
        (generation > 0).then_some((generation, file))
    };
    let files = disk.files().into_iter().filter(|file| file.starts_with(WAL));
    files.filter_map(begun).max().map(|(_, file)| file)
}
