//! Which connections a port takes, and which one gives way when it is full.
//!
//! **What it is.** A state machine without I/O: events and the time come in, decisions go out. Each
//! rule is one function.
//!
//! Invariants: the connections of a kind never exceed its bound, nor those of one source the bound
//! of a source. A connection with a call under way never gives way. A connection that made a call
//! gives way only if no silent one can.
//!
//! **Owns** the rules. **Must never** read a clock, or let the order of a hash map decide. **Read
//! next**: [`crate::port`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::limits::{
    CALLS_MAX, CALLS_PER_SOURCE_MAX, CONNECTIONS_PER_SOURCE_PERCENT, HTTP_PROBE_PLACES, IDLE_REPLACED_AFTER,
    UNTRUSTED_CONNECTIONS_MAX, UNTRUSTED_PER_SOURCE_MAX,
};

/// Where connections come from, as far as bounds tell apart: an IPv4 address, or the network of an
/// IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            // One host has all addresses of its /64 at its disposal.
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into()),
        }
    }
}

/// A connection's number at its gate; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// What a connection was let in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// From a trusted network.
    Trusted,
    /// From any other: it is answered that it is refused.
    Untrusted,
    /// Beyond the bound: it may ask for health and metrics, once.
    Probe,
}

/// How many connections a port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// From trusted networks.
    pub all: usize,
    /// ... of one source.
    pub per_source: usize,
    /// From other networks.
    pub untrusted_all: usize,
    /// ... of one source.
    pub untrusted_per_source: usize,
    /// Beyond `all`, for health and metrics.
    pub probes: usize,
    /// Calls under way on all connections.
    pub calls_all: usize,
    /// ... of one source.
    pub calls_per_source: usize,
}

impl ConnectionBounds {
    /// So many connections, and the usual share of them for one source.
    pub fn of(all: usize) -> Self {
        Self {
            all,
            per_source: (all * CONNECTIONS_PER_SOURCE_PERCENT / 100).max(1),
            untrusted_all: UNTRUSTED_CONNECTIONS_MAX,
            untrusted_per_source: UNTRUSTED_PER_SOURCE_MAX,
            probes: 0,
            calls_all: CALLS_MAX,
            calls_per_source: CALLS_PER_SOURCE_MAX,
        }
    }

    /// With places for health and metrics beyond the bound.
    #[must_use]
    pub fn with_probes(self) -> Self {
        Self { probes: HTTP_PROBE_PLACES, ..self }
    }

    fn of_kind(&self, kind: Kind) -> usize {
        match kind {
            Kind::Trusted => self.all,
            Kind::Untrusted => self.untrusted_all,
            Kind::Probe => self.probes,
        }
    }
}

/// A connection that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Its number.
    pub id: ConnectionId,
    /// As what.
    pub kind: Kind,
    /// The connection that gives way to it.
    pub closes: Option<ConnectionId>,
}

/// Too many calls are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallsFull {
    /// As many as are allowed.
    pub most: usize,
    /// To the caller's address; otherwise to all together.
    pub of_source: bool,
}

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The few places of untrusted networks are taken.
    Untrusted,
    /// All places are taken, each by a connection that works.
    Full,
}

#[derive(Debug)]
struct Connection {
    source: Source,
    kind: Kind,
    called: bool,
    calls: u32,
    idle_since: Duration,
}

/// Connections of one source.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    open: usize,
    /// Those that have never made a call.
    silent: usize,
    /// Calls under way on them.
    calls: usize,
}

/// The connections of one port.
#[derive(Debug)]
pub struct ConnectionGate {
    bounds: ConnectionBounds,
    connections: BTreeMap<ConnectionId, Connection>,
    sources: BTreeMap<(Kind, Source), Count>,
    calls: usize,
    next: u64,
}

impl ConnectionGate {
    /// Without connections.
    pub fn new(bounds: ConnectionBounds) -> Self {
        Self { bounds, connections: BTreeMap::new(), sources: BTreeMap::new(), calls: 0, next: 0 }
    }

    /// A connection came.
    ///
    /// # Errors
    /// It is to be closed before a byte is read.
    pub fn admit(&mut self, source: Source, trusted: bool, now: Duration) -> Result<Admitted, Refused> {
        if !trusted {
            let room = self.open(Kind::Untrusted) < self.bounds.untrusted_all
                && self.open_of(Kind::Untrusted, source) < self.bounds.untrusted_per_source;
            // Probes come from anywhere: where there are places for them, a flood of others takes none away.
            return match room {
                true => Ok(self.place(source, Kind::Untrusted, None, now)),
                false => self.admit_probe(source, now).map_err(|_| Refused::Untrusted),
            };
        }
        let own_bound = self.open_of(Kind::Trusted, source) >= self.bounds.per_source;
        if !own_bound && self.open(Kind::Trusted) < self.bounds.all {
            return Ok(self.place(source, Kind::Trusted, None, now));
        }
        match self.gives_way(own_bound.then_some(source), now) {
            Some(closes) => Ok(self.place(source, Kind::Trusted, Some(closes), now)),
            None => self.admit_probe(source, now),
        }
    }

    /// Health and metrics can be asked for however full the port is. Beyond its bound the oldest goes, of the source that has most.
    fn admit_probe(&mut self, source: Source, now: Duration) -> Result<Admitted, Refused> {
        if self.bounds.probes == 0 {
            return Err(Refused::Full);
        }
        let full = self.open(Kind::Probe) >= self.bounds.probes;
        let probes = self.connections.iter().filter(|(_, one)| one.kind == Kind::Probe);
        let of_most = probes.max_by_key(|(id, one)| (self.open_of(Kind::Probe, one.source), std::cmp::Reverse(**id)));
        Ok(self.place(source, Kind::Probe, of_most.map(|(id, _)| *id).filter(|_| full), now))
    }

    /// The connection that gives way to a newcomer: one of `source`, or of any.
    fn gives_way(&self, source: Option<Source>, now: Duration) -> Option<ConnectionId> {
        let mut trusted = self
            .connections
            .iter()
            .filter(|(_, one)| one.kind == Kind::Trusted && source.is_none_or(|source| one.source == source));
        // The first of the source with most of them: that one has been silent longest.
        let silent_of = |source| self.sources.get(&(Kind::Trusted, source)).map_or(0, |count| count.silent);
        let silent = trusted.clone().filter(|(_, one)| !one.called);
        let silent = silent.min_by_key(|(_, one)| std::cmp::Reverse(silent_of(one.source)));
        let idle = |one: &Connection| now.saturating_sub(one.idle_since);
        let idlest = || {
            let candidates = trusted.by_ref().filter(|(_, one)| one.calls == 0 && idle(one) >= IDLE_REPLACED_AFTER);
            candidates
                .max_by_key(|(id, one)| (self.open_of(Kind::Trusted, one.source), idle(one), std::cmp::Reverse(**id)))
        };
        silent.or_else(idlest).map(|(id, _)| *id)
    }

    fn place(&mut self, source: Source, kind: Kind, closes: Option<ConnectionId>, now: Duration) -> Admitted {
        closes.into_iter().for_each(|closes| self.closed(closes));
        let id = ConnectionId(self.next);
        self.next += 1;
        let count = self.sources.entry((kind, source)).or_default();
        count.open += 1;
        count.silent += 1;
        let connection = Connection { source, kind, called: false, calls: 0, idle_since: now };
        self.connections.insert(id, connection);
        assert!(self.open(kind) <= self.bounds.of_kind(kind), "more {kind:?} connections than {:?}", self.bounds);
        Admitted { id, kind, closes }
    }

    /// A call began.
    ///
    /// # Errors
    /// It is one too many, and does not count.
    pub fn call_began(&mut self, id: ConnectionId) -> Result<(), CallsFull> {
        let Some(one) = self.connections.get_mut(&id) else { return Ok(()) };
        let Some(count) = self.sources.get_mut(&(one.kind, one.source)) else { return Ok(()) };
        if !one.called {
            one.called = true;
            count.silent -= 1;
        }
        if count.calls >= self.bounds.calls_per_source {
            return Err(CallsFull { most: self.bounds.calls_per_source, of_source: true });
        }
        if self.calls >= self.bounds.calls_all {
            return Err(CallsFull { most: self.bounds.calls_all, of_source: false });
        }
        one.calls += 1;
        count.calls += 1;
        self.calls += 1;
        Ok(())
    }

    /// A call ended, and its answer was handed to the connection.
    pub fn call_ended(&mut self, id: ConnectionId, now: Duration) {
        let Some(one) = self.connections.get_mut(&id) else { return };
        one.idle_since = now;
        if one.calls == 0 {
            return;
        }
        one.calls -= 1;
        self.calls -= 1;
        if let Some(count) = self.sources.get_mut(&(one.kind, one.source)) {
            count.calls -= 1;
        }
    }

    /// A connection ended. One that gave way has ended already.
    pub fn closed(&mut self, id: ConnectionId) {
        let Some(one) = self.connections.remove(&id) else { return };
        let calls = one.calls as usize;
        self.calls -= calls;
        if let Some(count) = self.sources.get_mut(&(one.kind, one.source)) {
            count.calls -= calls;
            count.open -= 1;
            count.silent -= usize::from(!one.called);
            if count.open == 0 {
                self.sources.remove(&(one.kind, one.source));
            }
        }
    }

    /// Whether it has made a call.
    pub fn has_called(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|one| one.called)
    }

    /// All connections.
    pub fn all(&self) -> usize {
        self.connections.len()
    }

    /// Connections of a kind.
    pub fn open(&self, kind: Kind) -> usize {
        let of_kind = self.sources.iter().filter(|((one, _), _)| *one == kind);
        of_kind.map(|(_, count)| count.open).sum()
    }

    fn open_of(&self, kind: Kind, source: Source) -> usize {
        self.sources.get(&(kind, source)).map_or(0, |count| count.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ConnectionBounds = ConnectionBounds {
        all: 4,
        per_source: 3,
        untrusted_all: 3,
        untrusted_per_source: 2,
        probes: 0,
        calls_all: 5,
        calls_per_source: 3,
    };

    fn source(n: u8) -> Source {
        IpAddr::from([10, 0, 0, n]).into()
    }
    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    fn let_in(gate: &mut ConnectionGate, n: u8, now: u64) -> ConnectionId {
        let admitted = gate.admit(source(n), true, s(now)).expect("there is room");
        assert_eq!((admitted.kind, admitted.closes), (Kind::Trusted, None));
        admitted.id
    }

    #[test]
    fn gate_full_of_silent_connections_newcomer_takes_the_oldest_of_who_has_most() {
        let mut gate = ConnectionGate::new(BOUNDS);
        let other = let_in(&mut gate, 2, 0);
        let ids: Vec<_> = (1..=3).map(|now| let_in(&mut gate, 1, now)).collect();
        assert!(other < ids[0], "the other source's is older");
        assert_eq!(gate.admit(source(3), true, s(4)).expect("one gives way").closes, Some(ids[0]));
        assert_eq!(gate.open(Kind::Trusted), 4);
    }

    #[test]
    fn gate_full_of_many_sources_the_connection_that_is_silent_longest_gives_way() {
        let mut gate = ConnectionGate::new(BOUNDS);
        let ids: Vec<_> = [7, 9, 8, 6].into_iter().map(|n| let_in(&mut gate, n, 0)).collect();
        gate.call_began(ids[0]).expect("there is room");
        for (newcomer, oldest) in [(10, ids[1]), (11, ids[2]), (1, ids[3])] {
            assert_eq!(gate.admit(source(newcomer), true, s(1)).expect("one gives way").closes, Some(oldest));
        }
    }

    #[test]
    fn gate_source_at_bound_takes_its_own_and_other_source_admitted() {
        let mut gate = ConnectionGate::new(BOUNDS);
        let ids: Vec<_> = (0..3).map(|now| let_in(&mut gate, 1, now)).collect();
        gate.call_began(ids[0]).expect("there is room");
        assert_eq!(gate.admit(source(1), true, s(3)).expect("its own gives way").closes, Some(ids[1]));
        let_in(&mut gate, 2, 4);
    }

    #[test]
    fn gate_connection_with_a_call_under_way_never_gives_way() {
        let mut gate = ConnectionGate::new(BOUNDS);
        for id in (0..4).map(|n| let_in(&mut gate, n, 0)).collect::<Vec<_>>() {
            gate.call_began(id).expect("there is room");
        }
        assert_eq!(gate.admit(source(9), true, s(100)), Err(Refused::Full));
    }

    #[test]
    fn gate_idle_connection_that_called_gives_way_after_a_second_and_silent_ones_first() {
        let mut gate = ConnectionGate::new(BOUNDS);
        let ids: Vec<_> = (0..4).map(|n| let_in(&mut gate, n, 0)).collect();
        for &id in &ids[..3] {
            gate.call_began(id).expect("there is room");
        }
        gate.call_ended(ids[1], s(10));
        let silent = gate.admit(source(9), true, s(20)).expect("the silent one gives way");
        assert_eq!(silent.closes, Some(ids[3]));
        gate.call_began(silent.id).expect("there is room");
        gate.call_ended(ids[0], Duration::from_millis(20_500));
        assert_eq!(gate.admit(source(9), true, s(21)).expect("idle longest").closes, Some(ids[1]));
        newest_calls(&mut gate);
        assert_eq!(gate.admit(source(8), true, s(21)), Err(Refused::Full), "half a second is not idle");
        assert_eq!(gate.admit(source(8), true, s(22)).expect("now it is").closes, Some(ids[0]));
    }

    /// The newest connection makes a call that does not end.
    fn newest_calls(gate: &mut ConnectionGate) {
        gate.call_began(ConnectionId(gate.next - 1)).expect("there is room");
    }

    #[test]
    fn gate_untrusted_pool_full_closed_at_accept() {
        let mut gate = ConnectionGate::new(BOUNDS);
        for (n, ok) in [(1, true), (1, true), (1, false), (2, true), (3, false)] {
            let admitted = gate.admit(source(n), false, s(0));
            assert_eq!(admitted.map(|one| one.kind).ok(), ok.then_some(Kind::Untrusted), "source {n}");
        }
        let_in(&mut gate, 1, 0);
    }

    #[test]
    fn gate_full_of_working_connections_probes_have_places_and_the_oldest_goes() {
        let mut gate = ConnectionGate::new(ConnectionBounds { probes: 2, ..BOUNDS });
        for n in 0..4 {
            let id = let_in(&mut gate, n, 0);
            gate.call_began(id).expect("there is room");
        }
        let first = gate.admit(source(1), true, s(1)).expect("a place for probes");
        assert_eq!((first.kind, first.closes), (Kind::Probe, None));
        gate.admit(source(1), true, s(1)).expect("another");
        let third = gate.admit(source(2), true, s(1)).expect("another");
        assert_eq!((third.kind, third.closes), (Kind::Probe, Some(first.id)));
    }

    #[test]
    fn gate_flood_of_untrusted_connections_probes_of_another_source_stay() {
        let mut gate = ConnectionGate::new(ConnectionBounds { probes: 3, ..BOUNDS });
        let admit = |gate: &mut ConnectionGate, n| gate.admit(source(n), false, s(0)).expect("a place");
        for n in [1, 1, 2] {
            assert_eq!(admit(&mut gate, n).kind, Kind::Untrusted);
        }
        let kept = admit(&mut gate, 9);
        assert_eq!((kept.kind, kept.closes), (Kind::Probe, None));
        let flood: Vec<_> = (0..6).map(|_| admit(&mut gate, 1)).collect();
        assert!(flood.iter().all(|one| one.kind == Kind::Probe && one.closes != Some(kept.id)));
        assert_eq!(flood[5].closes, Some(flood[3].id), "the oldest of the source with most");
    }

    #[test]
    fn gate_closed_connection_leaves_its_place() {
        let mut gate = ConnectionGate::new(BOUNDS);
        let ids: Vec<_> = (0..4).map(|n| let_in(&mut gate, n, 0)).collect();
        gate.closed(ids[2]);
        gate.closed(ids[2]);
        let_in(&mut gate, 9, 1);
        assert_eq!(gate.open(Kind::Trusted), 4);
    }

    #[test]
    fn source_of_ipv6_is_its_network_and_of_mapped_ipv4_its_address() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn calls_are_bounded_by_source_and_in_all() {
        let mut gate = ConnectionGate::new(BOUNDS);
        let (a, b, c) = (let_in(&mut gate, 1, 0), let_in(&mut gate, 1, 0), let_in(&mut gate, 2, 0));
        for id in [a, a, b] {
            gate.call_began(id).expect("there is room");
        }
        assert_eq!(gate.call_began(b), Err(CallsFull { most: 3, of_source: true }));
        gate.call_began(c).expect("there is room");
        gate.call_began(c).expect("there is room");
        assert_eq!(gate.call_began(c), Err(CallsFull { most: 5, of_source: false }));
        // A call that ends makes room, and so does a connection that ends with its calls; once.
        gate.call_ended(a, Duration::ZERO);
        gate.call_began(b).expect("there is room");
        gate.closed(c);
        gate.call_ended(c, Duration::ZERO);
        let d = let_in(&mut gate, 3, 0);
        gate.call_began(d).expect("there is room");
        gate.call_began(d).expect("there is room");
        assert_eq!(gate.call_began(d), Err(CallsFull { most: 5, of_source: false }));
        [a, b, d].into_iter().for_each(|id| gate.closed(id));
        assert_eq!((gate.calls, gate.sources.len()), (0, 0));
    }
}
