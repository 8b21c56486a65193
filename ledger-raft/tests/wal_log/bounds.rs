//! Space, strangers, sizes, and what the callers may rely on.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ledger_raft::disk::SimDisk;
use ledger_raft::seam::Disk;
use ledger_raft::wal::{Wal, WalConfig, WalEntry, WalError, WalIdentity};
use ledger_raft::{GroupId, NodeId};
use tokio::sync::{oneshot, watch};

use crate::model::{GROUPS, append, config, dir, entry, identity, open, runtime};

#[test]
fn low_space_withholds_appends_lets_votes_pass_and_recovers() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        disk.set_capacity(64 << 20);
        let config = WalConfig { low_space_bytes: 1 << 20, ..config() };
        let wal = Wal::open(Arc::new(disk.clone()), dir(), identity(), config.clone()).await.expect("open");
        let group = wal.group(GROUPS[0]);
        append(&group, vec![entry(1, 0, 100)]).await.expect("answered").expect("durable");

        disk.set_capacity(disk.used_bytes() + 1000);
        let mut low = wal.low_space();
        group.save_vote(Bytes::from_static(b"first")).await.expect("a vote passes");
        tokio::time::sleep(Duration::from_secs(2)).await;
        group.save_vote(Bytes::from_static(b"wakes the writer")).await.expect("a vote passes");
        low.wait_for(|low| *low).await.expect("low");

        let mut withheld = append(&group, vec![entry(2, 0, 100), entry(3, 0, 100)]);
        let mut overtaken = append(&wal.group(GROUPS[1]), vec![entry(1, 0, 100)]);
        assert_eq!(group.read(3, 3, 0).expect("read").len(), 1, "readable although withheld");
        for vote in 0..40 {
            wal.group(GROUPS[2])
                .save_vote(Bytes::from(format!("vote {vote}")))
                .await
                .expect("votes pass, over segments");
        }
        assert!(withheld.try_recv().is_err(), "withheld");
        assert!(overtaken.try_recv().is_err(), "withheld");
        wal.group(GROUPS[1]).truncate_after(None).await.expect("truncations pass");
        overtaken.await.expect("answered").expect("what is truncated need not wait");

        disk.set_capacity(64 << 20);
        withheld.await.expect("answered").expect("durable once there is space");
        low.wait_for(|low| !*low).await.expect("not low");
        wal.close().await;

        let wal = Wal::open(Arc::new(disk.clone()), dir(), identity(), config).await.expect("open");
        assert_eq!(wal.group(GROUPS[0]).state().last_index, Some(3));
        assert_eq!(wal.group(GROUPS[1]).state().last_index, None);
        assert_eq!(wal.group(GROUPS[2]).state().vote, Some(Bytes::from_static(b"vote 39")));
    });
}

/// Consensus takes a durable vote for a word on every append before it: what such an append brought must survive.
#[test]
fn a_vote_takes_the_withheld_appends_of_its_group_along() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        disk.set_capacity(64 << 20);
        let config = WalConfig { low_space_bytes: 1 << 20, ..config() };
        let wal = Wal::open(Arc::new(disk.clone()), dir(), identity(), config.clone()).await.expect("open");
        let group = wal.group(GROUPS[0]);
        append(&group, vec![entry(1, 0, 100)]).await.expect("answered").expect("durable");

        // Low, with room for some segments yet.
        disk.set_capacity(disk.used_bytes() + (512 << 10));
        let mut low = wal.low_space();
        while !*low.borrow_and_update() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            group.save_vote(Bytes::from_static(b"wakes the writer")).await.expect("a vote passes");
        }
        // More than the rest of a segment and its successor hold.
        let withheld: Vec<_> = (2..20).map(|index| append(&group, vec![entry(index, 0, 8000)])).collect();
        let mut other = append(&wal.group(GROUPS[1]), vec![entry(1, 0, 100)]);
        group.save_vote(Bytes::from_static(b"a later term")).await.expect("a vote passes");
        for mut answer in withheld {
            answer.try_recv().expect("answered before the vote, or with it").expect("durable");
        }
        assert!(other.try_recv().is_err(), "the appends of other groups are withheld");
        let mut later = append(&group, vec![entry(20, 0, 100)]);
        wal.group(GROUPS[2]).save_vote(Bytes::from_static(b"passes")).await.expect("a vote passes");
        assert!(later.try_recv().is_err(), "and so is what came after the vote");
        drop(wal);
        disk.crash(1);

        let wal = Wal::open(Arc::new(disk.clone()), dir(), identity(), config).await.expect("open");
        let state = wal.group(GROUPS[0]).state();
        assert_eq!((state.last_index, state.vote), (Some(19), Some(Bytes::from_static(b"a later term"))));
        assert_eq!(wal.group(GROUPS[1]).state().last_index, None);
    });
}

/// A log whose disk holds not one segment more, and appends of the first group that wait for one.
struct Starved {
    disk: SimDisk,
    wal: Wal,
    waiting: Vec<oneshot::Receiver<io::Result<()>>>,
    low: watch::Receiver<bool>,
}

async fn starved() -> Starved {
    let disk = SimDisk::new(0);
    let wal = open(&disk).await.expect("open");
    let group = wal.group(GROUPS[0]);
    append(&group, vec![entry(1, 0, 10)]).await.expect("answered").expect("durable");
    disk.set_capacity(disk.used_bytes());
    let mut low = wal.low_space();
    let waiting = (2..40).map(|index| append(&group, vec![entry(index, 0, 8000)])).collect();
    low.wait_for(|low| *low).await.expect("low");
    Starved { disk, wal, waiting, low }
}

#[test]
fn without_room_a_vote_waits_with_the_appends_of_its_group_and_others_pass() {
    runtime().block_on(async {
        let Starved { disk, wal, mut waiting, mut low } = starved().await;
        let group = wal.group(GROUPS[0]);
        let mut vote = tokio::spawn({
            let group = group.clone();
            async move { group.save_vote(Bytes::from_static(b"a later term")).await }
        });
        for vote in 0..5 {
            wal.group(GROUPS[1]).save_vote(Bytes::from(format!("vote {vote}"))).await.expect("other groups vote");
        }
        let last = waiting.last_mut().expect("appends wait");
        assert!(last.try_recv().is_err(), "there is no room for it");
        assert!(!vote.is_finished(), "a vote before its appends would vouch for what is not there");
        // What is dropped behind one that waits is not answered before it.
        group.truncate_after(Some(38)).await.expect("truncations pass");
        assert!(last.try_recv().is_err(), "with the last answered, consensus would believe all of them durable");
        assert!(wal.poisoned().borrow().is_none());

        disk.set_capacity(1 << 30);
        for answer in waiting {
            answer.await.expect("answered").expect("durable");
        }
        (&mut vote).await.expect("task").expect("durable");
        low.wait_for(|low| !*low).await.expect("not low");
        wal.close().await;
        let wal = open(&disk).await.expect("open");
        let state = wal.group(GROUPS[0]).state();
        assert_eq!((state.last_index, state.vote), (Some(38), Some(Bytes::from_static(b"a later term"))));
    });
}

#[test]
fn a_full_disk_while_allocating_is_a_state_and_not_a_failure() {
    runtime().block_on(async {
        let Starved { disk, wal, waiting, mut low } = starved().await;
        wal.group(GROUPS[1]).save_vote(Bytes::from_static(b"v")).await.expect("the reserve is for votes");
        assert!(wal.poisoned().borrow().is_none());
        disk.set_capacity(1 << 30);
        for answer in waiting {
            answer.await.expect("answered").expect("durable");
        }
        assert!(!*low.borrow_and_update());
    });
}

/// Beginning a segment for a vote may give dead ones back, and so find space between two appends of another group.
#[test]
fn space_found_in_the_middle_of_a_round_lets_no_append_overtake_another() {
    runtime().block_on(async {
        // The space is found where the last segment has no room for the mark of a purge: one of these is such.
        for votes in 0..40 {
            let disk = SimDisk::new(0);
            let wal = open(&disk).await.expect("open");
            let (group, other) = (wal.group(GROUPS[0]), wal.group(GROUPS[1]));
            for index in 1..40 {
                append(&group, vec![entry(index, 0, 3000)]).await.expect("answered").expect("durable");
            }
            disk.set_capacity(disk.used_bytes());
            let fills = async {
                for vote in 0..votes {
                    other.save_vote(Bytes::from(format!("vote {vote}"))).await.expect("vote");
                }
                group.purge(39, Bytes::from_static(b"id 39")).await.expect("purge");
            };
            if tokio::time::timeout(Duration::from_secs(10), fills).await.is_err() {
                assert!(votes > 16, "room for {votes} votes");
                return;
            }
            let first = append(&group, vec![entry(40, 0, 10)]);
            let mut second = None;
            let vote = tokio::time::timeout(Duration::from_secs(10), async {
                tokio::join!(biased; other.save_vote(Bytes::from_static(b"last")), async {
                    second = Some(append(&group, vec![entry(41, 0, 10)]));
                })
            });
            // With no room at all it waits; then it is for the space below.
            drop(vote.await);
            disk.set_capacity(1 << 30);
            for answer in [Some(first), second].into_iter().flatten() {
                answer.await.expect("answered").expect("durable");
            }
            wal.close().await;
            let wal = open(&disk).await.expect("open");
            assert_eq!(wal.damage(), [], "{votes}");
            let read = wal.group(GROUPS[0]).read(40, 41, usize::MAX).expect("read");
            assert_eq!(read, [entry(40, 0, 10), entry(41, 0, 10)], "{votes}");
        }
    });
}

#[test]
fn purging_recycles_segments_instead_of_growing() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        let group = wal.group(GROUPS[0]);
        wal.group(GROUPS[1]).save_vote(Bytes::from_static(b"once, long ago")).await.expect("vote");
        for index in 1..400u64 {
            append(&group, vec![entry(index, 0, 5000)]).await.expect("answered").expect("durable");
            if index % 10 == 0 {
                group.purge(index - 3, Bytes::from(format!("id {}", index - 3))).await.expect("purge");
            }
        }
        assert!(disk.used_bytes() <= 7 * (64 << 10), "{} bytes in {:?}", disk.used_bytes(), disk.files());
        wal.close().await;
        let wal = open(&disk).await.expect("open");
        let vote = wal.group(GROUPS[1]).state().vote;
        assert_eq!(vote, Some(Bytes::from_static(b"once, long ago")), "carried forward through every recycling");
        assert_eq!(wal.group(GROUPS[0]).read(388, 399, usize::MAX).expect("read").len(), 12);
    });
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        open(&disk).await.expect("open").close().await;
        let strangers = [
            WalIdentity { cluster: [8; 16], ..identity() },
            WalIdentity { incarnation: 4, ..identity() },
            WalIdentity { node: NodeId(10), ..identity() },
        ];
        for stranger in strangers {
            let refused = Wal::open(Arc::new(disk.clone()), dir(), stranger, config()).await;
            assert!(matches!(refused, Err(WalError::Foreign { node: NodeId(9), incarnation: 3, .. })), "{stranger:?}");
        }
        open(&disk).await.expect("its own is welcome");
    });
}

#[test]
fn another_format_version_is_refused() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        open(&disk).await.expect("open").close().await;
        let newest =
            disk.files().into_iter().find(|f| disk.content(f).expect("file")[4] != 0).expect("a begun segment");
        let mut block = disk.content(&newest).expect("file")[..512].to_vec();
        // Stamp 24, record 28, magic 6: the version. The sum is made right again, as a later program would have it.
        block[24 + 28 + 6] = 5;
        let sum = crc32c::crc32c_append(0, &block[4..]).to_le_bytes();
        block[..4].copy_from_slice(&sum);
        disk.open(&newest, false).expect("open").write_at(0, &block).expect("write");
        let refused = open(&disk).await.err();
        assert!(matches!(refused, Some(WalError::Version { found: 5, known: 4, .. })), "{refused:?}");
    });
}

#[test]
fn a_directory_in_use_is_refused_until_it_is_closed() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let first = open(&disk).await.expect("open");
        assert!(matches!(open(&disk).await.err(), Some(WalError::Locked { .. })));
        first.close().await;
        assert_eq!(first.group(GROUPS[0]).save_vote(Bytes::new()).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        open(&disk).await.expect("free again");
    });
}

#[test]
fn oversize_and_holes_are_refused_and_change_nothing() {
    runtime().block_on(async {
        let wal = open(&SimDisk::new(0)).await.expect("open");
        let group = wal.group(GROUPS[0]);
        let big = wal.entry_bytes_max();
        assert_eq!(big, 16 << 10, "a quarter of a segment");
        let of = |index, bytes| WalEntry { index, head: Bytes::new(), data: Bytes::from(vec![1; bytes]) };
        append(&group, vec![of(5, big)]).await.expect("answered").expect("the largest fits");
        for bad in [vec![of(6, big + 1)], vec![of(7, 1)], vec![of(6, 1), of(8, 1)], vec![of(5, 1)]] {
            let refused = group.append(bad, Box::new(|_| panic!("never called"))).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(group.state().last_index, Some(5));
        let segment = WalConfig { segment_bytes: 1000, ..config() };
        let refused = Wal::open(Arc::new(SimDisk::new(0)), dir(), identity(), segment).await.err();
        assert!(matches!(refused, Some(WalError::Config { .. })));
    });
}

#[test]
fn the_newest_callback_of_a_group_is_first_and_none_comes_before_the_sync() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        disk.set_latency(Duration::from_millis(10));
        let order = Arc::new(Mutex::new(Vec::new()));
        let begun = tokio::time::Instant::now();
        let before = wal.syncs();
        for index in 1..=3u64 {
            for id in [GroupId(0), GroupId(1)] {
                let order = order.clone();
                let note = Box::new(move |r: std::io::Result<()>| {
                    r.expect("durable");
                    order.lock().expect("lock").push((id.0, index));
                });
                wal.group(id).append(vec![entry(index, 0, 10)], note).expect("append");
            }
        }
        assert!(order.lock().expect("lock").is_empty());
        wal.group(GroupId(0)).save_vote(Bytes::from_static(b"v")).await.expect("vote");
        assert_eq!(*order.lock().expect("lock"), [(1, 3), (0, 3), (1, 2), (0, 2), (1, 1), (0, 1)]);
        assert!(begun.elapsed() >= Duration::from_millis(10));
        assert_eq!(wal.syncs() - before, 1, "one sync for all");
    });
}

#[test]
fn reads_reach_from_segments_into_memory_and_keep_the_byte_bound() {
    runtime().block_on(async {
        let wal = open(&SimDisk::new(0)).await.expect("open");
        let group = wal.group(GROUPS[0]);
        for index in 1..=50u64 {
            append(&group, vec![entry(index, 0, 1000)]).await.expect("answered").expect("durable");
        }
        let all = group.read(1, 50, usize::MAX).expect("read");
        assert_eq!(all.iter().map(|e| e.index).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
        assert_eq!(group.read(1, 50, 5_200).expect("read").len(), 5);
        assert_eq!(group.read(20, 90, 0).expect("read").len(), 1, "at least one");
        assert_eq!(group.read(51, 90, 10).expect("read").len(), 0);
        group.truncate_after(Some(10)).await.expect("truncate");
        let again = entry(11, 1, 10);
        append(&group, vec![again.clone()]).await.expect("answered").expect("durable");
        assert_eq!(group.read(10, 50, usize::MAX).expect("read")[1..], [again]);
        group.purge(4, Bytes::from_static(b"id 4")).await.expect("purge");
        assert_eq!(group.read(4, 9, 10).unwrap_err().kind(), ErrorKind::NotFound);
    });
}
