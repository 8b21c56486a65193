//! How many watches there may be: of one connection, of one source, and in all.
//!
//! **Owns** the counts. **Must never** count a watch longer than its stream lives. **Read next**:
//! [`super::watch`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger_proto::{Cause, NotNow};
use service::gate::ConnectionId;
use service::{Place, Source};

use crate::limits::{
    RETRY_WATCHES_MS, WATCHES_AWAY_PER_SOURCE, WATCHES_MAX, WATCHES_PASSED_ON, WATCHES_PER_CONNECTION,
    WATCHES_PER_SOURCE,
};

/// The watches of one node.
#[derive(Default)]
pub struct WatchPlaces(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    connections: BTreeMap<ConnectionId, usize>,
    sources: BTreeMap<Source, usize>,
    /// Of these, the ones that need other nodes.
    away: BTreeMap<Source, usize>,
}

/// Whose watch it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A caller's.
    Here,
    /// One that another node passes on: all of its callers share one connection.
    PassedOn,
}

/// One watch; it counts until this is dropped.
pub struct WatchPlace {
    places: Arc<WatchPlaces>,
    connection: ConnectionId,
    source: Source,
    away: bool,
}

impl WatchPlaces {
    /// A place for a watch on a connection.
    ///
    /// # Errors
    /// There are too many; says of whom.
    pub fn take(self: &Arc<Self>, place: &Place, asked: Asked) -> Result<WatchPlace, NotNow> {
        let (connection, source) = (place.id(), place.source());
        let per_connection = match asked {
            Asked::Here => WATCHES_PER_CONNECTION,
            Asked::PassedOn => WATCHES_PASSED_ON,
        };
        let mut counts = self.lock();
        let of = |count: Option<&usize>| count.copied().unwrap_or_default();
        let bounds = [
            (of(counts.connections.get(&connection)), per_connection, "of this connection"),
            (of(counts.sources.get(&source)), WATCHES_PER_SOURCE, "of this address"),
            (counts.all, WATCHES_MAX, "on this node"),
        ];
        if let Some((_, most, whose)) = bounds.into_iter().find(|(open, most, _)| open >= most) {
            return Err(too_many(most, whose));
        }
        counts.all += 1;
        *counts.connections.entry(connection).or_default() += 1;
        *counts.sources.entry(source).or_default() += 1;
        Ok(WatchPlace { places: self.clone(), connection, source, away: false })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(most: usize, whose: &str) -> NotNow {
    let why = format!("{most} watches {whose} are open, which is the most; close one, or watch on another node");
    NotNow::new(Cause::RateLimited, why, RETRY_WATCHES_MS)
}

impl WatchPlace {
    /// The watch needs other nodes, too.
    ///
    /// # Errors
    /// Its source has too many of those.
    pub fn needs_others(&mut self) -> Result<(), NotNow> {
        let mut counts = self.places.lock();
        let away = counts.away.entry(self.source).or_default();
        if *away >= WATCHES_AWAY_PER_SOURCE {
            return Err(too_many(WATCHES_AWAY_PER_SOURCE, "of this address on shards that other nodes have"));
        }
        *away += 1;
        drop(counts);
        self.away = true;
        Ok(())
    }
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        fn one_less<K: Ord>(counts: &mut BTreeMap<K, usize>, of: &K) {
            if let Some(count) = counts.get_mut(of) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(of);
                }
            }
        }
        let mut counts = self.places.lock();
        counts.all -= 1;
        one_less(&mut counts.connections, &self.connection);
        one_less(&mut counts.sources, &self.source);
        if self.away {
            one_less(&mut counts.away, &self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use service::{ConnectionBounds, PortGate};

    use super::*;

    #[test]
    fn watches_are_bounded_by_connection_by_source_and_in_all() {
        let gate = PortGate::new("test", ConnectionBounds::of(1_000), |_| true);
        let connect = |n: u8| gate.admit(IpAddr::from([10, 0, 0, n])).expect("there is room");
        let places = Arc::<WatchPlaces>::default();
        let mut open = Vec::new();
        let mut fill = |place: &Place, wanted: usize| {
            for n in 0..wanted {
                open.push(places.take(place, Asked::Here).unwrap_or_else(|why| panic!("watch {n}: {why}")));
            }
            let why = places.take(place, Asked::Here).err().expect("one too many");
            assert_eq!((why.cause, why.retry_ms), (Cause::RateLimited, RETRY_WATCHES_MS));
            why.message
        };
        let per_source = WATCHES_PER_SOURCE / WATCHES_PER_CONNECTION;
        for source in 0..WATCHES_MAX / WATCHES_PER_SOURCE {
            for _ in 0..per_source {
                let why = fill(&connect(source as u8), WATCHES_PER_CONNECTION);
                assert!(why.contains("of this connection"), "{why}");
            }
            let why = fill(&connect(source as u8), 0);
            assert!(why.contains("of this address"), "{why}");
        }
        let why = fill(&connect(200), 0);
        assert!(why.contains("on this node"), "{why}");
        drop(open);
        let counts = places.lock();
        assert_eq!((counts.all, counts.connections.len(), counts.sources.len()), (0, 0, 0));
    }

    #[test]
    fn watches_that_another_node_passes_on_share_its_connection_and_no_caller_takes_all_of_them() {
        let gate = PortGate::new("test", ConnectionBounds::of(1_000), |_| true);
        let connect = |n: u8| gate.admit(IpAddr::from([10, 0, 0, n])).expect("there is room");
        let places = Arc::<WatchPlaces>::default();
        // One connection of a node has more than one of a client.
        let node = connect(1);
        let passed_on = (0..WATCHES_PASSED_ON).map(|_| places.take(&node, Asked::PassedOn).expect("there is room"));
        let passed_on: Vec<_> = passed_on.collect();
        assert!(places.take(&node, Asked::PassedOn).is_err_and(|why| why.message.contains("of this connection")));
        drop(passed_on);
        // Several callers share what that node passes on.
        let mut open = Vec::new();
        for caller in 2..4 {
            let place = connect(caller);
            for _ in 0..WATCHES_AWAY_PER_SOURCE {
                let mut watch = places.take(&place, Asked::Here).expect("there is room");
                watch.needs_others().expect("there is room");
                open.push(watch);
            }
            let mut one_more = places.take(&place, Asked::Here).expect("here there is room");
            let why = one_more.needs_others().expect_err("one too many");
            assert!(why.message.contains("other nodes"), "{why}");
        }
        assert!(open.len() < WATCHES_PASSED_ON);
        drop(open);
        let counts = places.lock();
        assert_eq!((counts.all, counts.connections.len(), counts.sources.len(), counts.away.len()), (0, 0, 0, 0));
    }
}
