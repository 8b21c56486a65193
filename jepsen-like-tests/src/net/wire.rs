//! The wires between hosts: what was sent, when it arrives, and what the weather and the cuts make of it.
//!
//! **What it is.** TCP as its users see it, in simulated time: a connection is two *lanes* of bytes that arrive whole and in order. A lost
//! packet comes later, by as much as it takes to send it again, and everything behind it waits; a cut link keeps its packets and tries again, ever
//! more slowly; a host without power swallows them; a process that was killed has its connections reset by its kernel.
//!
//! **Owns** which packet arrives when. **Must never** reorder, double or invent bytes within a lane: TCP does not either, so what depends on
//! it would be no fault. **Read next**: [`super::stream`], the ends.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::sim::trace::{Trace, hash};

/// Bytes a lane takes before its reader has read them.
pub(super) const WINDOW_BYTES: usize = 256 << 10;
/// A lost packet, or one that met a cut link, is sent again after so long, then twice that, and so on.
const RESEND_MIN: Duration = Duration::from_millis(200);
const RESEND_MAX: Duration = Duration::from_millis(1_600);
/// Ports given to those who dial.
const DIAL_PORT_MIN: u16 = 40_000;

/// Latency and loss of the whole network, or of one link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// Smallest latency.
    pub min: Duration,
    /// Largest latency.
    pub max: Duration,
    /// Share of packets lost, each to be sent again.
    pub loss: f64,
}

impl Weather {
    /// A quiet local network.
    pub const FAIR: Self = Self { min: Duration::from_millis(1), max: Duration::from_millis(5), loss: 0.0 };

    /// The worse of both.
    pub fn with(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.max(other.max), loss: self.loss.max(other.loss) }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    cuts: u32,
    holds: u32,
}

pub(super) enum Cargo {
    Syn,
    SynAck,
    Bytes(Bytes),
    Fin,
    Reset,
}

struct Packet {
    due: Duration,
    tries: u32,
    cargo: Cargo,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Lane {
    queue: VecDeque<Packet>,
    /// Sent and not read yet.
    pub(super) unread: usize,
}

/// What a socket knows at one end of a connection.
pub(super) struct End {
    pub(super) host: usize,
    pub(super) addr: SocketAddr,
    /// There is a socket (or one that waits to be accepted).
    pub(super) open: bool,
    pub(super) established: bool,
    pub(super) arrived: VecDeque<Bytes>,
    pub(super) eof: bool,
    pub(super) broken: Option<ErrorKind>,
    pub(super) sent_fin: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl End {
    fn new(host: usize, addr: SocketAddr, established: bool) -> Self {
        Self {
            host,
            addr,
            open: true,
            established,
            arrived: VecDeque::new(),
            eof: false,
            broken: None,
            sent_fin: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn break_off(&mut self, why: ErrorKind) {
        if self.broken.is_none() {
            self.broken = Some(why);
            self.wake();
        }
    }
}

pub(super) struct Conn {
    pub(super) ends: [End; 2],
    /// `lanes[i]` leads from end `i` to the other.
    pub(super) lanes: [Lane; 2],
    /// The one who was dialled has heard of it.
    met: bool,
}

#[derive(Default)]
pub(super) struct Listening {
    pub(super) waiting: VecDeque<u64>,
    pub(super) waker: Option<Waker>,
}

#[derive(Default)]
struct HostPorts {
    up: bool,
    listeners: BTreeMap<u16, Listening>,
    next_port: u16,
}

/// Everything between the hosts.
pub(super) struct Wire {
    now: Duration,
    rng: SmallRng,
    names: Vec<String>,
    hosts: Vec<HostPorts>,
    links: BTreeMap<(usize, usize), Link>,
    weather: Weather,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    trace: Trace,
}

impl Wire {
    pub(super) fn new(seed: u64, names: Vec<String>, trace: Trace) -> Self {
        let hosts = names.iter().map(|_| HostPorts { up: true, ..HostPorts::default() }).collect();
        Self {
            now: Duration::ZERO,
            rng: SmallRng::seed_from_u64(seed ^ 0x0e7),
            names,
            hosts,
            links: BTreeMap::new(),
            weather: Weather::FAIR,
            conns: BTreeMap::new(),
            next_conn: 1,
            trace,
        }
    }

    pub(super) fn host_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }

    pub(super) fn address_of(host: usize, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 0, host as u8 + 1)), port)
    }

    pub(super) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// One more or one fewer reason why nothing passes from one host to another.
    pub(super) fn cut(&mut self, from: usize, to: usize, cut: bool) {
        let link = self.links.entry((from, to)).or_default();
        link.cuts = if cut { link.cuts + 1 } else { link.cuts.saturating_sub(1) };
    }

    /// One more or one fewer reason why everything between two hosts waits.
    pub(super) fn hold(&mut self, a: usize, b: usize, hold: bool) {
        for pair in [(a, b), (b, a)] {
            let link = self.links.entry(pair).or_default();
            link.holds = if hold { link.holds + 1 } else { link.holds.saturating_sub(1) };
        }
    }

    /// Every connection between two hosts breaks; what is on its way is lost, up to a point drawn anew for each.
    pub(super) fn reset_between(&mut self, a: usize, b: usize) -> usize {
        let mut broke = 0;
        for conn in self.conns.values_mut() {
            let hosts = [conn.ends[0].host, conn.ends[1].host];
            if hosts != [a, b] && hosts != [b, a] {
                continue;
            }
            broke += 1;
            for lane in &mut conn.lanes {
                let keep = self.rng.random_range(0..=lane.queue.len());
                lane.queue.truncate(keep);
                let due = lane.queue.back().map_or(self.now, |last| last.due);
                lane.queue.push_back(Packet { due, tries: 0, cargo: Cargo::Reset });
            }
        }
        broke
    }

    /// The host's process is gone. Without power nobody tells its peers; else its kernel resets its connections.
    pub(super) fn down(&mut self, host: usize, silent: bool) {
        // A machine that lives refuses connections to the process that it lost.
        self.hosts[host] = HostPorts { up: !silent, next_port: self.hosts[host].next_port, ..HostPorts::default() };
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            for side in 0..2 {
                let Some(conn) = self.conns.get_mut(&id) else { continue };
                if conn.ends[side].host != host || !conn.ends[side].open {
                    continue;
                }
                let end = &mut conn.ends[side];
                (end.open, end.reader, end.writer) = (false, None, None);
                end.arrived.clear();
                if !silent {
                    self.send(id, side, Cargo::Reset);
                }
            }
        }
        self.forget_ended();
    }

    pub(super) fn up(&mut self, host: usize) {
        self.hosts[host].up = true;
    }

    pub(super) fn listen(&mut self, host: usize, port: u16) -> Result<u16, ErrorKind> {
        let port = if port == 0 { self.dial_port(host) } else { port };
        match self.hosts[host].listeners.entry(port) {
            std::collections::btree_map::Entry::Occupied(_) => Err(ErrorKind::AddrInUse),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Listening::default());
                Ok(port)
            }
        }
    }

    pub(super) fn listening(&mut self, host: usize, port: u16) -> Option<&mut Listening> {
        self.hosts[host].listeners.get_mut(&port)
    }

    pub(super) fn stop_listening(&mut self, host: usize, port: u16) {
        let Some(gone) = self.hosts[host].listeners.remove(&port) else { return };
        for id in gone.waiting {
            self.close(id, 1);
        }
    }

    fn dial_port(&mut self, host: usize) -> u16 {
        let next = &mut self.hosts[host].next_port;
        *next = if *next < DIAL_PORT_MIN || *next == u16::MAX { DIAL_PORT_MIN } else { *next + 1 };
        *next
    }

    /// Begins a connection.
    pub(super) fn dial(&mut self, from: usize, to: usize, port: u16) -> u64 {
        let mine = Self::address_of(from, self.dial_port(from));
        let id = self.next_conn;
        self.next_conn += 1;
        let ends = [End::new(from, mine, false), End::new(to, Self::address_of(to, port), true)];
        let mut conn = Conn { ends, lanes: Default::default(), met: false };
        conn.ends[1].open = false;
        self.conns.insert(id, conn);
        self.send(id, 0, Cargo::Syn);
        id
    }

    pub(super) fn conn(&mut self, id: u64) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    /// Puts something on the way from one end to the other.
    pub(super) fn send(&mut self, id: u64, side: usize, cargo: Cargo) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let loopback = conn.ends[0].host == conn.ends[1].host;
        let weather = if loopback { Weather { max: Weather::FAIR.min, ..Weather::FAIR } } else { self.weather };
        let spread = weather.max.saturating_sub(weather.min);
        // Most packets are quick, a few take long.
        let share = self.rng.random_range(0.0..1.0f64).powi(3);
        let mut due = self.now + weather.min + spread.mul_f64(share);
        if weather.loss > 0.0 && self.rng.random_bool(weather.loss) {
            due += RESEND_MIN;
        }
        let lane = &mut conn.lanes[side];
        // In order: nothing overtakes.
        let due = lane.queue.back().map_or(due, |last| due.max(last.due));
        if let Cargo::Bytes(bytes) = &cargo {
            lane.unread += bytes.len();
        }
        lane.queue.push_back(Packet { due, tries: 0, cargo });
    }

    /// The socket at one end is dropped.
    pub(super) fn close(&mut self, id: u64, side: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let end = &mut conn.ends[side];
        if !end.open {
            return;
        }
        (end.open, end.reader, end.writer) = (false, None, None);
        let unread = !end.arrived.is_empty();
        end.arrived.clear();
        let (broken, sent_fin) = (end.broken.is_some(), end.sent_fin);
        if !conn.met && side == 0 && conn.lanes[0].queue.iter().any(|p| matches!(p.cargo, Cargo::Syn)) {
            self.conns.remove(&id);
            return;
        }
        match (broken, unread, sent_fin) {
            (true, ..) | (false, false, true) => {}
            (false, true, _) => self.send(id, side, Cargo::Reset),
            (false, false, false) => self.send(id, side, Cargo::Fin),
        }
        self.forget_ended();
    }

    fn forget_ended(&mut self) {
        self.conns.retain(|_, conn| {
            let quiet = conn.lanes.iter().all(|lane| lane.queue.is_empty());
            conn.ends.iter().any(|end| end.open) || (!quiet && !conn.met)
        });
    }

    /// Time goes on: what is due arrives, or meets a cut and is sent again later.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
        loop {
            let mut due: Vec<(Duration, u64, usize)> = Vec::new();
            for (id, conn) in &self.conns {
                for (side, lane) in conn.lanes.iter().enumerate() {
                    if let Some(head) = lane.queue.front()
                        && head.due <= now
                        && !self.held(conn, side)
                    {
                        due.push((head.due, *id, side));
                    }
                }
            }
            if due.is_empty() {
                break;
            }
            due.sort_unstable();
            for (_, id, side) in due {
                self.arrive(id, side);
            }
        }
        self.forget_ended();
    }

    fn held(&self, conn: &Conn, side: usize) -> bool {
        let pair = (conn.ends[side].host, conn.ends[1 - side].host);
        self.links.get(&pair).is_some_and(|link| link.holds > 0)
    }

    fn arrive(&mut self, id: u64, side: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (from, to) = (conn.ends[side].host, conn.ends[1 - side].host);
        let cut = self.links.get(&(from, to)).is_some_and(|link| link.cuts > 0);
        if cut || !self.hosts[to].up {
            if let Some(head) = conn.lanes[side].queue.front_mut() {
                head.due = self.now + (RESEND_MIN * (1 << head.tries.min(8))).min(RESEND_MAX);
                head.tries += 1;
            }
            return;
        }
        let Some(packet) = conn.lanes[side].queue.pop_front() else { return };
        let (a, b) = (&self.names[from], &self.names[to]);
        match &packet.cargo {
            Cargo::Syn => self.trace.note(format_args!("net {a}>{b} #{id} syn")),
            Cargo::SynAck => self.trace.note(format_args!("net {a}>{b} #{id} syn-ack")),
            Cargo::Bytes(bytes) => {
                self.trace.note(format_args!("net {a}>{b} #{id} {} {:016x}", bytes.len(), hash(bytes)));
            }
            Cargo::Fin => self.trace.note(format_args!("net {a}>{b} #{id} fin")),
            Cargo::Reset => self.trace.note(format_args!("net {a}>{b} #{id} reset")),
        }
        let there = &mut conn.ends[1 - side];
        match packet.cargo {
            Cargo::Syn => {
                conn.met = true;
                let port = there.addr.port();
                match self.hosts[to].listeners.get_mut(&port) {
                    Some(listening) => {
                        there.open = true;
                        listening.waiting.push_back(id);
                        listening.waker.take().into_iter().for_each(Waker::wake);
                        self.send(id, 1 - side, Cargo::SynAck);
                    }
                    None => self.send(id, 1 - side, Cargo::Reset),
                }
            }
            Cargo::Reset => {
                let refused = !there.established;
                there.break_off(if refused { ErrorKind::ConnectionRefused } else { ErrorKind::ConnectionReset });
                conn.lanes[1 - side].queue.clear();
            }
            // The one at the other end died, or closed without reading: its kernel says so.
            Cargo::Bytes(_) | Cargo::SynAck | Cargo::Fin if !there.open => {
                if conn.ends[side].open {
                    self.send(id, 1 - side, Cargo::Reset);
                }
            }
            Cargo::SynAck => {
                there.established = true;
                there.wake();
            }
            Cargo::Bytes(bytes) => {
                there.arrived.push_back(bytes);
                there.reader.take().into_iter().for_each(Waker::wake);
            }
            Cargo::Fin => {
                there.eof = true;
                there.reader.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    /// How a write is cut into packets: mostly whole, now and then in two.
    pub(super) fn cut_at(&mut self, len: usize) -> usize {
        if len > 1 && self.rng.random_bool(0.1) { self.rng.random_range(1..len) } else { len }
    }
}
