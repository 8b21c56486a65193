//! How the faults of a plan are done and undone.
//!
//! **What it is.** A list of what is planned, what is under way and until when; [`Strikes::tick`] goes through both each millisecond.
//! Faults of the same kind may overlap: cuts are counted, of several latencies the worst holds.
//!
//! **Owns** crashing, starting and the hands on network, disks and clocks. **Must never** judge. **Read next**: [`crate::faults`], then [`undo`].

mod links;
mod losses;
mod rot;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger_raft::NodeId;
use ledger_raft::disk::CrashPoint;

use super::host::{Ended, Host};
use super::trace::Trace;
use super::{CLIENT_PORT, SHARDS};
use crate::faults::{Clients, Disks, Fault, Planned, Who};
use crate::net::{Network, Weather};
use crate::world::NodeWorld;
use links::{both_ways, ring};
use losses::Losing;
use undo::Undo;

/// A process that ended by itself is started again after so long, as a supervisor would.
const RESTART_AFTER: Duration = Duration::from_millis(400);
/// Behind its second snapshot an overtaker purges its log within this.
const PURGED_WITHIN_MS: u64 = 1_200;
/// So long the rest of a snapshot waits on its way, while another node begins to lead.
const USURPED_MS: u64 = 1_200;
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// The machines, by number; the last one is the clients'.
pub(super) struct Strikes {
    pub(super) worlds: Vec<NodeWorld>,
    pub(super) hosts: Vec<Host>,
    pub(super) struck: BTreeMap<String, u32>,
    /// Nodes whose disk is gone for good.
    pub(super) lost: Vec<usize>,
    /// Nodes that run on an empty disk that no member knows.
    pub(super) emptied: Vec<usize>,
    /// Those of them that the operator brings back.
    pub(super) rejoining: Vec<usize>,
    /// When more nodes lost something than may fail, and which.
    pub(super) beyond: Option<(Duration, Vec<usize>)>,
    /// What the processes that ended by themselves said, newest last.
    pub(super) last_words: Vec<String>,
    /// Nodes whose clock or timers ever were wrong.
    pub(super) wrong_clocks: BTreeSet<usize>,
    net: Network,
    trace: Trace,
    seed: u64,
    plan: std::vec::IntoIter<Planned>,
    next: Option<Planned>,
    /// When the load began: faults are planned from then.
    pub(super) began: Option<Duration>,
    now: Duration,
    undo: Vec<(Duration, Undo)>,
    weather: Vec<(u64, Weather)>,
    slow: Vec<(u64, usize, Duration)>,
    /// Disks that stall, and until when.
    stalled: Vec<(usize, Duration)>,
    armed: BTreeMap<usize, Duration>,
    /// Nodes that others have overtaken: what happens when one begins to install a snapshot is still to come.
    overtaken: BTreeSet<usize>,
    /// A disk that is about to lose something, or did: one at a time.
    losing: Option<Losing>,
    /// So much later than planned the faults strike, since a loss held them back.
    held: Duration,
    crashes: u64,
    ids: u64,
}

impl Strikes {
    pub(super) fn new(
        seed: u64,
        plan: Vec<Planned>,
        worlds: Vec<NodeWorld>,
        hosts: Vec<Host>,
        net: Network,
        trace: Trace,
    ) -> Self {
        let mut plan = plan.into_iter();
        Self {
            worlds,
            hosts,
            struck: BTreeMap::new(),
            lost: Vec::new(),
            emptied: Vec::new(),
            rejoining: Vec::new(),
            beyond: None,
            last_words: Vec::new(),
            wrong_clocks: BTreeSet::new(),
            net,
            trace,
            seed,
            next: plan.next(),
            plan,
            began: None,
            now: Duration::ZERO,
            undo: Vec::new(),
            weather: Vec::new(),
            slow: Vec::new(),
            stalled: Vec::new(),
            armed: BTreeMap::new(),
            overtaken: BTreeSet::new(),
            losing: None,
            held: Duration::ZERO,
            crashes: 0,
            ids: 0,
        }
    }

    fn nodes(&self) -> usize {
        self.worlds.len()
    }

    /// What is over is undone, processes that ended are started again; and while `striking`, what is due strikes.
    pub(super) fn tick(&mut self, now: Duration, striking: bool) {
        let passed = now - std::mem::replace(&mut self.now, now);
        let (due, later): (Vec<_>, Vec<_>) = self.undo.drain(..).partition(|(at, _)| *at <= now);
        self.undo = later;
        due.into_iter().for_each(|(_, undo)| self.undo_one(undo));
        self.stalls();
        self.power_cuts();
        self.lose_on();
        if !striking {
            return;
        }
        let began = *self.began.get_or_insert(now) + self.held;
        if self.losing.as_ref().is_some_and(Losing::holds_others_back) {
            self.held += passed;
            return;
        }
        self.usurp();
        while let Some(planned) = self.next.take_if(|p| began + Duration::from_millis(p.at_ms) <= now) {
            if self.strike(&planned.fault) {
                self.has_struck(&planned.fault);
            }
            self.next = self.plan.next();
        }
    }

    fn has_struck(&mut self, fault: &Fault) {
        self.trace.note(format_args!("fault {fault:?}"));
        tracing::debug!(?fault, now = ?self.now, "fault");
        *self.struck.entry(fault.name().to_owned()).or_default() += 1;
    }

    /// A process ended by itself.
    pub(super) fn ended(&mut self, host: usize, how: Ended) {
        if host >= self.nodes() {
            return;
        }
        let why = how.err().unwrap_or_else(|| "it returned".to_owned());
        self.trace.note(format_args!("ended n{} {why}", host + 1));
        self.last_words.push(format!("n{} at {} ms: {why}", host + 1, self.now.as_millis()));
        self.worlds[host].set_running(None);
        self.net.down(host, false);
        if !self.worlds[host].disk.stopped() {
            self.worlds[host].disk.kill();
            self.undo.push((self.now + RESTART_AFTER, Undo::Start(host)));
        }
    }

    /// Disks whose power went at a write: their machines follow.
    fn power_cuts(&mut self) {
        for node in 0..self.nodes() {
            if self.worlds[node].disk.stopped() {
                let back = self.armed.remove(&node).unwrap_or(RESTART_AFTER);
                self.power_off(node);
                self.undo.push((self.now + back, Undo::Start(node)));
            }
        }
    }

    /// What was not synced is lost or torn, and nobody is told.
    fn power_off(&mut self, node: usize) {
        self.crashes += 1;
        self.worlds[node].disk.crash(self.seed.rotate_left(17) ^ self.crashes);
        self.net.down(node, true);
        self.worlds[node].set_running(None);
        self.hosts[node].stop();
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn until(&mut self, ms: u64, undo: Undo) {
        self.undo.push((self.now + Duration::from_millis(ms), undo));
    }

    fn who(&self, who: Who) -> usize {
        match who {
            Who::Node(node) => node.min(self.nodes() - 1),
            Who::Leader => self.leader_of(0).unwrap_or(0),
        }
    }

    /// Who leads the shard of this place among the shards.
    fn leader_of(&self, shard: usize) -> Option<usize> {
        (0..self.nodes()).find(|node| {
            let running = self.worlds[*node].running();
            running.is_some_and(|node| node.shards().get(shard).is_some_and(|shard| shard.leads()))
        })
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes()).filter(move |other| *other != node)
    }

    /// Whether it struck: a process that is down cannot die, and nothing rots where nothing is.
    fn strike(&mut self, fault: &Fault) -> bool {
        match *fault {
            Fault::Crash { who, ms } => self.crash(who, ms, Undo::Start),
            Fault::CrashInRecovery { who, ops, ms } => self.crash(who, ms, |node| Undo::StartInto(node, ops)),
            Fault::CrashAll { ms } => {
                let up = (0..self.nodes()).filter(|node| self.crash(Who::Node(*node), ms, Undo::Start)).count();
                up > 0
            }
            Fault::Kill { who, ms } => {
                let node = self.who(who);
                let up = self.hosts[node].is_running();
                if up {
                    self.kill(node);
                    self.until(ms, Undo::Start(node));
                }
                up
            }
            Fault::CrashAtWrite { who, ops, ms } => {
                let node = self.who(who);
                let disk = &self.worlds[node].disk;
                let at = disk.ops() + ops;
                disk.stop_at(Some(if ops.is_multiple_of(2) { CrashPoint::During(at) } else { CrashPoint::After(at) }));
                self.armed.insert(node, Duration::from_millis(ms));
                self.hosts[node].is_running()
            }
            Fault::DiskError { who, ops, .. } => {
                let node = self.who(who);
                let disk = &self.worlds[node].disk;
                disk.fail_at(Some(disk.ops() + ops));
                self.hosts[node].is_running()
            }
            Fault::Pause { who, ms } => {
                let node = self.who(who);
                self.hosts[node].pause(true);
                self.until(ms, Undo::Resume(node));
                self.hosts[node].is_running()
            }
            Fault::Isolate { who, clients, ms } => self.part(&[self.who(who)], clients, ms),
            Fault::Minority { ref nodes, clients, ms } => self.part(nodes, clients, ms),
            Fault::Ring { from, ms } => {
                let cuts = ring(self.nodes(), from);
                self.cut(both_ways(cuts), ms)
            }
            Fault::OneWay { from, to, ms } => self.cut(vec![(from, to)], ms),
            Fault::Deaf { who, hears, ms } => {
                let node = self.who(who);
                let cuts = self.others(node).map(|o| if hears { (node, o) } else { (o, node) }).collect();
                self.cut(cuts, ms)
            }
            Fault::Hold { a, b, ms } => {
                self.net.hold(a, b, true);
                self.until(ms, Undo::Release(a, b));
                true
            }
            Fault::Reset { who, clients } => {
                let node = self.who(who);
                let clients = clients.then_some(self.nodes());
                let ends: Vec<usize> = self.others(node).chain(clients).collect();
                ends.into_iter().map(|end| self.net.reset_between(node, end)).sum::<usize>() > 0
            }
            Fault::SlowNet { latency_ms, ms } => {
                self.bad_weather(Weather { max: Duration::from_millis(latency_ms), ..Weather::FAIR }, ms)
            }
            Fault::Loss { percent, ms } => {
                self.bad_weather(Weather { loss: percent.min(90) as f64 / 100.0, ..Weather::FAIR }, ms)
            }
            Fault::SlowDisk { who, latency_ms, ms } => {
                let (node, id) = (self.who(who), self.id());
                self.slow.push((id, node, Duration::from_millis(latency_ms)));
                self.slow_disks();
                self.until(ms, Undo::FastDisk(id));
                true
            }
            Fault::DiskStall { of, stall_ms, every_ms, ms } => {
                let (nodes, until) = (self.disks(of), self.now + Duration::from_millis(ms));
                self.undo_one(Undo::Stall { nodes, stall_ms, every_ms: every_ms.max(1), until });
                true
            }
            Fault::FullDisk { who, left_bytes, ms } => {
                let node = self.who(who);
                let disk = &self.worlds[node].disk;
                disk.set_capacity(disk.used_bytes() + left_bytes);
                self.until(ms, Undo::Space(node));
                true
            }
            Fault::Rot { node, of, place, ms } => self.rot(node, of, place, ms),
            Fault::ClockJump { who, by_ms } => {
                let node = self.who(who);
                self.wrong_clocks.insert(node);
                self.worlds[node].clock.jump(by_ms);
                // Set right at the end of the run's faults.
                self.undo.push((Duration::MAX, Undo::Clock(node)));
                true
            }
            Fault::ClocksJump { ref nodes, by_ms, ms } => {
                let there = self.nodes();
                for node in nodes.iter().copied().filter(|node| *node < there) {
                    self.wrong_clocks.insert(node);
                    self.worlds[node].clock.jump(by_ms);
                    self.undo.push((self.now + Duration::from_millis(ms), Undo::Clock(node)));
                }
                true
            }
            Fault::ClockStrobe { who, by_ms, every_ms, ms } => {
                let (node, until) = (self.who(who), self.now + Duration::from_millis(ms));
                self.wrong_clocks.insert(node);
                self.undo_one(Undo::Strobe { node, by_ms, every_ms: every_ms.max(1), until });
                true
            }
            Fault::ClockDrift { who, ppm, ms } => {
                let node = self.who(who);
                self.wrong_clocks.insert(node);
                self.worlds[node].clock.drift(ppm);
                self.until(ms, Undo::Clock(node));
                true
            }
            Fault::TimerDrift { who, ppm, ms } => {
                let node = self.who(who);
                self.wrong_clocks.insert(node);
                self.hosts[node].drift(ppm);
                self.until(ms, Undo::Timer(node));
                true
            }
            Fault::Transfer { shard, to } => self.transfer(shard, to),
            Fault::Snapshot { who } => self.snapshot(self.who(who)),
            Fault::Overtaken { node, ms } => self.overtake(node.min(self.nodes() - 1), ms),
            // They strike when the disk loses something.
            Fault::Wiped { .. } | Fault::CutShort { .. } | Fault::Copied { .. } | Fault::RolledBack { .. } => {
                self.lose(fault);
                false
            }
            Fault::Beyond { ref nodes, of, ms } => self.lose_beyond(nodes, of, ms),
            Fault::Emptied { node, ms, rejoins } => self.empty(node.min(self.nodes() - 1), ms, rejoins),
            Fault::Lost { node } => {
                let node = node.min(self.nodes() - 1);
                if self.lost.contains(&node) || !self.may_lose_a_node() {
                    return false;
                }
                self.power_off(node);
                self.worlds[node].disk.wipe();
                self.lost.push(node);
                true
            }
        }
    }

    /// Whether a quorum goes on without one node more, and nobody waits for a repair.
    fn may_lose_a_node(&self) -> bool {
        self.lost.len() + self.emptied.len() < (self.nodes() - 1) / 2 && self.losing.is_none()
    }

    fn crash(&mut self, who: Who, ms: u64, then: impl FnOnce(usize) -> Undo) -> bool {
        let node = self.who(who);
        let up = self.hosts[node].is_running();
        if up {
            self.power_off(node);
            self.until(ms, then(node));
        }
        up
    }

    fn kill(&mut self, node: usize) {
        self.net.down(node, false);
        self.worlds[node].disk.kill();
        self.worlds[node].set_running(None);
        self.hosts[node].stop();
    }

    fn cut(&mut self, cuts: Vec<(usize, usize)>, ms: u64) -> bool {
        cuts.iter().for_each(|(from, to)| self.net.cut(*from, *to, true));
        self.until(ms, Undo::Mend(cuts));
        true
    }

    /// Two parts that do not hear each other.
    fn part(&mut self, inside: &[usize], clients: Clients, ms: u64) -> bool {
        let outside: Vec<usize> = (0..self.nodes()).filter(|node| !inside.contains(node)).collect();
        let apart = inside.iter().flat_map(|a| outside.iter().map(|b| (*a, *b)));
        let unreached = match clients {
            Clients::Both => &[][..],
            Clients::Inside => &outside[..],
            Clients::Outside => inside,
        };
        let cuts = apart.chain(unreached.iter().map(|node| (self.nodes(), *node))).collect();
        self.cut(both_ways(cuts), ms)
    }

    fn bad_weather(&mut self, weather: Weather, ms: u64) -> bool {
        let id = self.id();
        self.weather.push((id, weather));
        self.set_weather();
        self.until(ms, Undo::Weather(id));
        true
    }

    fn set_weather(&self) {
        self.net.set_weather(self.weather.iter().fold(Weather::FAIR, |worst, (_, weather)| worst.with(*weather)));
    }

    fn slow_disks(&self) {
        for (node, world) in self.worlds.iter().enumerate() {
            let slow = self.slow.iter().filter(|(_, of, _)| *of == node).map(|(.., latency)| *latency);
            // A sync that begins while the disk stalls ends when the stall does.
            let stalled =
                self.stalled.iter().filter(|(of, _)| *of == node).map(|(_, ends)| ends.saturating_sub(self.now));
            world.disk.set_latency(slow.chain(stalled).max().unwrap_or_default());
        }
    }

    fn stalls(&mut self) {
        if !self.stalled.is_empty() {
            self.slow_disks();
            self.stalled.retain(|(_, ends)| *ends > self.now);
        }
    }

    fn disks(&self, of: Disks) -> Vec<usize> {
        let leader = self.who(Who::Leader);
        match of {
            Disks::Leader => vec![leader],
            Disks::Follower => self.others(leader).take(1).collect(),
            Disks::Followers => self.others(leader).collect(),
        }
    }

    fn transfer(&mut self, shard: usize, to: usize) -> bool {
        let Some(from) = self.leader_of(shard) else { return false };
        let Some(node) = self.worlds[from].running() else { return false };
        let shards = node.shards();
        let Some(group) = shards.get(shard).map(|shard| shard.group()) else { return false };
        let to = NodeId(to.min(self.nodes() - 1) as u64 + 1);
        self.hosts[from].inside(async move {
            if let Err(error) = group.transfer_leader(to, HAND_OVER_WITHIN).await {
                tracing::debug!(%error, "the leader was not handed over");
            }
        });
        true
    }

    /// Two snapshots of the others while it is away: the log is purged only up to the older one that is kept.
    fn overtake(&mut self, node: usize, ms: u64) -> bool {
        for other in self.others(node) {
            self.until(ms / 2, Undo::Snapshot(other));
            self.until(ms, Undo::Snapshot(other));
        }
        // What arrived before is over.
        self.worlds[node].take_receiving();
        self.overtaken.insert(node);
        let cuts = self.others(node).map(|other| (node, other)).collect();
        self.cut(both_ways(cuts), ms + PURGED_WITHIN_MS)
    }

    /// Where an overtaken node begins to install a snapshot, the leadership goes to a third one before it is through.
    fn usurp(&mut self) {
        for node in self.overtaken.clone() {
            let Some(group) = self.worlds[node].take_receiving() else { continue };
            let shards = self.worlds[node].running().map(|node| node.shards()).unwrap_or_default();
            let Some(shard) = shards.iter().position(|shard| shard.id() == group) else { continue };
            let Some(leader) = self.leader_of(shard).filter(|leader| *leader != node) else { continue };
            let Some(third) = self.others(node).find(|other| *other != leader) else { continue };
            self.net.hold(leader, node, true);
            self.until(USURPED_MS, Undo::Release(leader, node));
            if self.transfer(shard, third) {
                self.trace.note(format_args!("usurp n{} while n{} installs", third + 1, node + 1));
                self.overtaken.remove(&node);
            }
        }
    }

    fn snapshot(&mut self, node: usize) -> bool {
        let Some(running) = self.worlds[node].running() else { return false };
        self.hosts[node].inside(async move {
            for shard in running.shards() {
                if let Err(error) = shard.group().snapshot_now().await {
                    tracing::debug!(%error, "no snapshot was built");
                }
            }
        });
        true
    }
}
