//! How many watches there may be: of one connection, of one source, and in all.
//!
//! **Owns** the counts. **Must never** count a watch longer than its stream lives. **Read next**:
//! [`super::watch`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger_proto::{Cause, NotNow};
use service::gate::ConnectionId;
use service::{Place, Source};

use crate::limits::{RETRY_WATCHES_MS, WATCHES_MAX, WATCHES_PER_CONNECTION, WATCHES_PER_SOURCE};

/// The watches of one node.
#[derive(Default)]
pub struct WatchPlaces(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    connections: BTreeMap<ConnectionId, usize>,
    sources: BTreeMap<Source, usize>,
}

/// One watch; it counts until this is dropped.
pub struct WatchPlace {
    places: Arc<WatchPlaces>,
    connection: ConnectionId,
    source: Source,
}

impl WatchPlaces {
    /// A place for a watch on a connection.
    ///
    /// # Errors
    /// There are too many; says of whom.
    pub fn take(self: &Arc<Self>, place: &Place) -> Result<WatchPlace, NotNow> {
        let (connection, source) = (place.id(), place.source());
        let mut counts = self.lock();
        let of = |count: Option<&usize>| count.copied().unwrap_or_default();
        let bounds = [
            (of(counts.connections.get(&connection)), WATCHES_PER_CONNECTION, "of this connection"),
            (of(counts.sources.get(&source)), WATCHES_PER_SOURCE, "of this address"),
            (counts.all, WATCHES_MAX, "on this node"),
        ];
        if let Some((_, most, whose)) = bounds.into_iter().find(|(open, most, _)| open >= most) {
            let why =
                format!("{most} watches {whose} are open, which is the most; close one, or watch on another node");
            return Err(NotNow::new(Cause::RateLimited, why, RETRY_WATCHES_MS));
        }
        counts.all += 1;
        *counts.connections.entry(connection).or_default() += 1;
        *counts.sources.entry(source).or_default() += 1;
        Ok(WatchPlace { places: self.clone(), connection, source })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
                open.push(places.take(place).unwrap_or_else(|why| panic!("watch {n}: {why}")));
            }
            let why = places.take(place).err().expect("one too many");
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
}
