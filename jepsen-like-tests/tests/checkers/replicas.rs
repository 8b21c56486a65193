//! Feeds, replicas and stale reads that are not as they must be.
//!
//! **Owns** these runs. **Must never** decide anything: every answer is made by hand.

use jepsen_like_tests::checkers::{feed, replicas, stale};
use jepsen_like_tests::history::{Answer, BEHIND, FinalDigest, Op, Told, Units};

use super::finds;
use super::made::{EPOCH_MS, good, plain};

#[test]
fn a_gap_a_double_and_a_stranger_in_the_feed_are_found() {
    let mut made = good();
    made.run.watched[1].changes.remove(2);
    finds(feed::check, &made.run, "but the feed has");
    let mut made = good();
    let again = made.run.watched[1].changes[2].clone();
    made.run.watched[1].changes.insert(2, again);
    finds(feed::check, &made.run, "consumer 0 on node");
    let mut made = good();
    made.run.watched[1].changes.pop();
    finds(feed::check, &made.run, "ends before");
}

#[test]
fn a_consumer_that_goes_on_elsewhere_than_its_cursor_is_found() {
    let mut made = good();
    let changes = made.changes().to_vec();
    made.watch(3, "oldest", vec![], changes[..2].to_vec());
    made.watch(3, "cursor", vec![(1, 2)], changes[2..].to_vec());
    assert_eq!(feed::check(&made.run), Vec::<String>::new());
    made.watch(3, "cursor", vec![(1, 2)], changes[3..].to_vec());
    finds(feed::check, &made.run, "consumer 3 on node 1 from cursor");
}

#[test]
fn a_change_that_names_another_before_it_is_found() {
    let mut made = good();
    for watched in &mut made.run.watched {
        watched.changes.last_mut().unwrap().before_on_product = Some((1, 0));
    }
    finds(feed::check, &made.run, "as the change before on");
}

#[test]
fn a_differing_digest_is_found() {
    let mut made = good();
    let digest = |node, value: &str| FinalDigest { node, shard: 1, index: 1024, value: value.into() };
    made.run.digests = vec![digest(1, "aa"), digest(2, "aa"), digest(3, "bb")];
    finds(replicas::check, &made.run, "shard 1 at index 1024");
}

#[test]
fn a_replica_that_stays_behind_is_found() {
    let mut made = good();
    made.run.stock[2].index -= 1;
    finds(replicas::check, &made.run, "ends at index");
}

#[test]
fn a_stale_read_older_than_it_says_is_found() {
    let mut made = good();
    made.wait(1_000);
    let units = Units { available: 3, held: 0, sold: 0 };
    made.ok(
        Op::ReadOffer { offer: plain(), stale: true },
        Told::Seen { units, version: 1, out: None, ended: false },
        None,
    );
    let last = made.run.events.len() - 1;
    (made.at_of(last).index, made.at_of(last).place) = (2, BEHIND);
    let Answer::Ok { age_ms, time_ms, .. } = &mut made.run.events[last].answer else { panic!("just made") };
    (*age_ms, *time_ms) = (Some(10), EPOCH_MS + 15);
    finds(stale::check, &made.run, "says it is 10 ms old");
    let Answer::Ok { age_ms, .. } = &mut made.run.events[last].answer else { panic!("just made") };
    *age_ms = Some(2_050);
    assert_eq!(stale::check(&made.run), Vec::<String>::new());
}
