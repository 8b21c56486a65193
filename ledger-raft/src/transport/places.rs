//! Places of accepted peer connections: how many there may be, and which gives way.
//!
//! **What it is.** A connection holds a place of its source until it has named a member, then one of that member's. At a bound the
//! newcomer takes the place of the oldest: a member says who it is at once, and a member that connects again has lost its
//! connection before.
//! **Owns** the count. **Must never** let connections that name no member take the place of one that does.
//! **Read next**: [`super::server`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::handshake::Lane;
use super::link::lock;
use crate::api::NodeId;
use crate::limits::{GREETINGS_MAX, GREETINGS_PER_SOURCE_MAX, PEER_CONNECTIONS_PER_LANE_MAX};

/// Who holds a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A connection that has not sent a hello, by its source.
    Greeting(IpAddr),
    /// A member's, for one lane.
    Member(NodeId, Lane),
}

/// Places by their numbers: who holds each, and what closes its connection.
type Held = BTreeMap<u64, (Holder, CancellationToken)>;

/// All places, in the order in which they were taken.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<(u64, Held)>);

/// A connection's place; it ends with this.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    places: Arc<Places>,
    /// Cancelled when the connection must close, before it named a member.
    pub(crate) stop: CancellationToken,
}

/// An IPv4 address, or the first 64 bits of an IPv6 one.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Places {
    /// A place for a connection from there; false beside it when another one had to give way.
    pub(crate) fn greet(self: &Arc<Self>, from: IpAddr, stop: CancellationToken) -> (Place, bool) {
        let source = source_of(from);
        let mut inner = lock(&self.0);
        let (next, held) = &mut *inner;
        let of_source = Holder::Greeting(source);
        let is_greeting = |holder: &Holder| matches!(holder, Holder::Greeting(_));
        let mut had_room = true;
        if count(held, |holder| *holder == of_source) >= GREETINGS_PER_SOURCE_MAX {
            had_room = !close_oldest(held, |holder| *holder == of_source);
        } else if count(held, is_greeting) >= GREETINGS_MAX {
            let most = most_greetings(held);
            had_room = !close_oldest(held, |holder| Some(*holder) == most);
        }
        let number = *next;
        *next += 1;
        held.insert(number, (of_source, stop.clone()));
        drop(inner);
        (Place { number, places: self.clone(), stop }, had_room)
    }

    /// Connections that have not sent a hello, and those of members.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = lock(&self.0);
        let greeting = count(&inner.1, |holder| matches!(holder, Holder::Greeting(_)));
        (greeting, inner.1.len() - greeting)
    }
}

impl Place {
    /// The connection named a member; from now on `stop` closes it. Whether it goes on: one that had to give way meanwhile does not.
    pub(crate) fn take_as(&self, member: NodeId, lane: Lane, stop: CancellationToken) -> bool {
        let mut inner = lock(&self.places.0);
        if inner.1.remove(&self.number).is_none() {
            return false;
        }
        let holder = Holder::Member(member, lane);
        if count(&inner.1, |other| *other == holder) >= PEER_CONNECTIONS_PER_LANE_MAX {
            close_oldest(&mut inner.1, |other| *other == holder);
        }
        inner.1.insert(self.number, (holder, stop));
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.0).1.remove(&self.number);
    }
}

fn count(held: &Held, is: impl Fn(&Holder) -> bool) -> usize {
    held.values().filter(|(holder, _)| is(holder)).count()
}

fn close_oldest(held: &mut Held, is: impl Fn(&Holder) -> bool) -> bool {
    let oldest = held.iter().find(|(_, (holder, _))| is(holder)).map(|(number, _)| *number);
    let closed = oldest.and_then(|number| held.remove(&number));
    closed.inspect(|(_, stop)| stop.cancel()).is_some()
}

/// The source with the most connections that have not sent a hello; of several, the one whose
/// connection is the oldest: no address is worse off than another.
fn most_greetings(held: &Held) -> Option<Holder> {
    let mut by_source = BTreeMap::<IpAddr, (usize, Reverse<u64>)>::new();
    for (number, (holder, _)) in held {
        if let Holder::Greeting(source) = holder {
            by_source.entry(*source).or_insert((0, Reverse(*number))).0 += 1;
        }
    }
    by_source.into_iter().max_by_key(|(_, rank)| *rank).map(|(source, _)| Holder::Greeting(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }
    fn greet(places: &Arc<Places>, from: &str) -> Place {
        places.greet(ip(from), CancellationToken::new()).0
    }

    #[test]
    fn greetings_of_a_source_are_bounded_and_the_oldest_gives_way() {
        let places = Arc::<Places>::default();
        let mut held: Vec<Place> = (0..GREETINGS_PER_SOURCE_MAX).map(|_| greet(&places, "10.0.0.1")).collect();
        let other = greet(&places, "10.0.0.2");
        let (newest, had_room) = places.greet(ip("10.0.0.1"), CancellationToken::new());
        assert!(!had_room && held[0].stop.is_cancelled() && !held[1].stop.is_cancelled());
        assert!(!other.stop.is_cancelled() && !newest.stop.is_cancelled());
        assert_eq!(places.counts(), (GREETINGS_PER_SOURCE_MAX + 1, 0));
        let stop = CancellationToken::new();
        assert!(!held[0].take_as(NodeId(2), Lane::Control, stop), "it gave way");
        held.clear();
        assert_eq!(places.counts(), (2, 0), "places end with their connections");
    }

    #[test]
    fn greetings_in_all_are_bounded_and_the_source_with_most_gives_way() {
        let places = Arc::<Places>::default();
        let flood: Vec<Place> = (0..GREETINGS_PER_SOURCE_MAX).map(|_| greet(&places, "fd00::1")).collect();
        let rest: Vec<Place> =
            (GREETINGS_PER_SOURCE_MAX..GREETINGS_MAX).map(|n| greet(&places, &format!("10.0.0.{n}"))).collect();
        let member = greet(&places, "10.1.0.1");
        assert!(flood[0].stop.is_cancelled() && rest.iter().all(|place| !place.stop.is_cancelled()));
        assert!(member.take_as(NodeId(2), Lane::Bulk, member.stop.clone()));
        let again = greet(&places, "fd00::2");
        assert!(again.take_as(NodeId(3), Lane::Bulk, again.stop.clone()), "of the same 64 bits");
    }

    #[test]
    fn of_sources_with_as_many_greetings_the_one_that_came_first_gives_way() {
        let places = Arc::<Places>::default();
        let ips: Vec<String> = (0..GREETINGS_MAX).map(|n| format!("10.0.{}.1", GREETINGS_MAX - n)).collect();
        let held: Vec<Place> = ips.iter().map(|ip| greet(&places, ip)).collect();
        let mut newer = Vec::new();
        for oldest in 0..3 {
            newer.push(greet(&places, &format!("10.9.{oldest}.1")));
            let closed = held.iter().filter(|place| place.stop.is_cancelled()).count();
            assert!(closed == oldest + 1 && held[oldest].stop.is_cancelled(), "{oldest}: {closed} closed");
        }
    }

    #[test]
    fn members_keep_their_places_in_a_flood_and_connect_again_in_place_of_their_oldest() {
        let places = Arc::<Places>::default();
        let member = |lane| {
            let place = greet(&places, "10.0.0.1");
            assert!(place.take_as(NodeId(2), lane, place.stop.clone()));
            place
        };
        let held: Vec<Place> = (0..PEER_CONNECTIONS_PER_LANE_MAX).map(|_| member(Lane::Control)).collect();
        let bulk = member(Lane::Bulk);
        let flood: Vec<Place> = (0..200).map(|n| greet(&places, &format!("10.0.{n}.1"))).collect();
        assert!(held.iter().chain([&bulk]).all(|place| !place.stop.is_cancelled()));
        assert_eq!(places.counts(), (GREETINGS_MAX, PEER_CONNECTIONS_PER_LANE_MAX + 1));
        let again = member(Lane::Control);
        assert!(held[0].stop.is_cancelled() && !held[1].stop.is_cancelled() && !bulk.stop.is_cancelled());
        assert!(!again.stop.is_cancelled());
        drop(flood);
    }
}
