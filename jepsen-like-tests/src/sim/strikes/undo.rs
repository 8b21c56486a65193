//! How each fault ends.
//!
//! **Owns** the list of what is under way. **Must never** bring back what was lost for good. **Read next**: [`super`].

use std::time::Duration;

use ledger_raft::disk::CrashPoint;

use super::Strikes;

/// The disk's usual size.
const ROOMY: u64 = 1 << 40;

/// What ends a fault.
#[derive(Debug, Clone)]
pub(super) enum Undo {
    Start(usize),
    /// Starts into the next power cut, at this many disk operations from then.
    StartInto(usize, u64),
    Resume(usize),
    Mend(Vec<(usize, usize)>),
    Release(usize, usize),
    Weather(u64),
    FastDisk(u64),
    Space(usize),
    Clock(usize),
    Timer(usize),
    /// An operator repeats `cluster init`.
    Init,
    /// An operator brings a node back that is on an empty disk.
    Rejoin(usize),
    /// A node is told to build a snapshot.
    Snapshot(usize),
    Strobe {
        node: usize,
        by_ms: i64,
        every_ms: u64,
        until: Duration,
    },
    /// The disks stall again.
    Stall {
        nodes: Vec<usize>,
        stall_ms: u64,
        every_ms: u64,
        until: Duration,
    },
}

impl Strikes {
    /// Everything is well again, but for what is lost.
    pub(in crate::sim) fn heal(&mut self) {
        self.next = None;
        for (_, undo) in std::mem::take(&mut self.undo) {
            if !matches!(undo, Undo::Start(_) | Undo::StartInto(..) | Undo::Strobe { .. } | Undo::Stall { .. }) {
                self.undo_one(undo);
            }
        }
        for node in 0..self.nodes() {
            self.worlds[node].disk.stop_at(None);
            self.worlds[node].disk.fail_at(None);
            self.worlds[node].clock.mend();
        }
        self.stalled.clear();
        self.slow_disks();
        self.power_cuts();
        self.undo.clear();
        self.armed.clear();
        self.overtaken.clear();
        self.stop_losing();
        for node in 0..self.nodes() {
            if !self.losing.as_ref().is_some_and(|losing| losing.starts_last(node)) {
                self.undo_one(Undo::Start(node));
            }
        }
    }

    pub(super) fn undo_one(&mut self, undo: Undo) {
        match undo {
            Undo::Start(node) if !self.lost.contains(&node) && !self.hosts[node].is_running() => {
                self.trace.note(format_args!("start n{}", node + 1));
                self.net.up(node);
                self.hosts[node].start();
            }
            Undo::StartInto(node, ops) => {
                let disk = &self.worlds[node].disk;
                disk.stop_at(Some(CrashPoint::During(disk.ops() + ops)));
                self.undo_one(Undo::Start(node));
            }
            Undo::Start(_) => {}
            Undo::Resume(node) => self.hosts[node].pause(false),
            Undo::Mend(cuts) => cuts.into_iter().for_each(|(from, to)| self.net.cut(from, to, false)),
            Undo::Release(a, b) => self.net.hold(a, b, false),
            Undo::Weather(id) => {
                self.weather.retain(|(of, _)| *of != id);
                self.set_weather();
            }
            Undo::FastDisk(id) => {
                self.slow.retain(|(of, ..)| *of != id);
                self.slow_disks();
            }
            Undo::Space(node) => self.worlds[node].disk.set_capacity(ROOMY),
            Undo::Clock(node) => self.worlds[node].clock.mend(),
            Undo::Init => self.init_again(),
            Undo::Rejoin(node) => self.bring_back(node),
            Undo::Snapshot(node) => drop(self.snapshot(node)),
            Undo::Timer(node) => self.hosts[node].drift(0),
            Undo::Stall { until, .. } if self.now >= until => {}
            Undo::Stall { nodes, stall_ms, every_ms, until } => {
                let stall_ends = self.now + Duration::from_millis(stall_ms);
                self.stalled.extend(nodes.iter().map(|node| (*node, stall_ends)));
                self.until(every_ms, Undo::Stall { nodes, stall_ms, every_ms, until });
            }
            Undo::Strobe { node, until, .. } if self.now >= until => self.worlds[node].clock.mend(),
            Undo::Strobe { node, by_ms, every_ms, until } => {
                self.worlds[node].clock.jump(by_ms);
                self.until(every_ms, Undo::Strobe { node, by_ms: -by_ms, every_ms, until });
            }
        }
    }
}
