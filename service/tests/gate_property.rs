//! The gate under any sequence of events: no bound is ever exceeded, and no working connection
//! gives way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use service::gate::{ConnectionGate, ConnectionId};
use service::{ConnectionBounds, Kind, Source};

#[derive(Debug, Clone)]
enum Event {
    Came { source: u8, trusted: bool },
    Began(usize),
    Ended(usize),
    Closed(usize),
    Later(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (0..4u8, any::<bool>()).prop_map(|(source, trusted)| Event::Came { source, trusted: trusted || source < 2 }),
        3 => any::<usize>().prop_map(Event::Began),
        2 => any::<usize>().prop_map(Event::Ended),
        1 => any::<usize>().prop_map(Event::Closed),
        1 => (0..3_000u64).prop_map(Event::Later),
    ]
}

fn bounds() -> impl Strategy<Value = ConnectionBounds> {
    (1..8usize, 1..8usize, 0..4usize, 1..3usize, 0..3usize, 1..12usize, 1..8usize).prop_map(
        |(all, per_source, untrusted_all, untrusted_per_source, probes, calls_all, calls_per_source)| {
            ConnectionBounds {
                all,
                per_source,
                untrusted_all,
                untrusted_per_source,
                probes,
                calls_all,
                calls_per_source,
            }
        },
    )
}

/// What the test knows of one connection.
#[derive(Debug)]
struct Seen {
    source: u8,
    kind: Kind,
    calls: u32,
}

fn came(
    gate: &mut ConnectionGate,
    bounds: &ConnectionBounds,
    seen: &mut BTreeMap<ConnectionId, Seen>,
    (source, trusted): (u8, bool),
    now: Duration,
) {
    let count = |seen: &BTreeMap<ConnectionId, Seen>, kind| seen.values().filter(|one| one.kind == kind).count();
    let own = |seen: &BTreeMap<ConnectionId, Seen>, kind| {
        seen.values().filter(|one| one.kind == kind && one.source == source).count()
    };
    let room = own(seen, Kind::Trusted) < bounds.per_source && count(seen, Kind::Trusted) < bounds.all;
    let admitted = gate.admit(Source::from(IpAddr::from([10, 0, 0, source])), trusted, now);
    assert!(!(trusted && room) || matches!(&admitted, Ok(one) if one.kind == Kind::Trusted && one.closes.is_none()));
    let Ok(admitted) = admitted else { return };
    if let Some(closes) = admitted.closes {
        let gone = seen.remove(&closes).expect("a connection that is open gives way");
        assert_eq!(gone.kind, admitted.kind);
        assert!(gone.kind == Kind::Probe || gone.calls == 0, "{gone:?} works");
    }
    seen.insert(admitted.id, Seen { source, kind: admitted.kind, calls: 0 });
    // Beyond their pool untrusted ones may still probe.
    let kinds = if trusted { [Kind::Trusted, Kind::Probe] } else { [Kind::Untrusted, Kind::Probe] };
    assert!(kinds.contains(&admitted.kind), "{admitted:?} of a source that is trusted: {trusted}");
    assert!(count(seen, Kind::Trusted) <= bounds.all && own(seen, Kind::Trusted) <= bounds.per_source);
    assert!(own(seen, Kind::Untrusted) <= bounds.untrusted_per_source);
    assert!(count(seen, Kind::Untrusted) <= bounds.untrusted_all && count(seen, Kind::Probe) <= bounds.probes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, ..ProptestConfig::default() })]

    #[test]
    fn gate_any_sequence_never_above_a_bound(bounds in bounds(), events in prop::collection::vec(event(), 0..120)) {
        let mut gate = ConnectionGate::new(bounds);
        let mut seen: BTreeMap<ConnectionId, Seen> = BTreeMap::new();
        let mut now = Duration::ZERO;
        for event in events {
            let chosen = |n: usize, seen: &BTreeMap<ConnectionId, Seen>| seen.keys().nth(n % seen.len().max(1)).copied();
            match event {
                Event::Came { source, trusted } => came(&mut gate, &bounds, &mut seen, (source, trusted), now),
                Event::Began(n) => if let Some(id) = chosen(n, &seen) {
                    let source = seen[&id].source;
                    let all: u32 = seen.values().map(|one| one.calls).sum();
                    let own: u32 = seen.values().filter(|one| one.source == source).map(|one| one.calls).sum();
                    // As if no kind had its own count: the bound of a source may come later than that.
                    let room = (all as usize) < bounds.calls_all && (own as usize) < bounds.calls_per_source;
                    let began = gate.call_began(id);
                    prop_assert!(began.is_ok() || !room, "{:?}", began);
                    prop_assert!(began.is_err() || (all as usize) < bounds.calls_all);
                    seen.get_mut(&id).expect("chosen of them").calls += u32::from(began.is_ok());
                },
                Event::Ended(n) => if let Some(id) = chosen(n, &seen).filter(|id| seen[id].calls > 0) {
                    gate.call_ended(id, now);
                    seen.get_mut(&id).expect("chosen of them").calls -= 1;
                },
                Event::Closed(n) => if let Some(id) = chosen(n, &seen) {
                    gate.closed(id);
                    seen.remove(&id);
                },
                Event::Later(ms) => now += Duration::from_millis(ms),
            }
            for kind in [Kind::Trusted, Kind::Untrusted, Kind::Probe] {
                prop_assert_eq!(gate.open(kind), seen.values().filter(|one| one.kind == kind).count());
            }
        }
    }
}
