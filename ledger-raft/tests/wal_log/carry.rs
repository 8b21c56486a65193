//! The log's size is bounded by what is kept: live entries of quiet groups are carried forward.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger_raft::disk::SimDisk;
use ledger_raft::wal::{GroupLog, Wal, WalConfig, WalUsage};

use crate::model::{GROUPS, Model, append, config, dir, entry, identity, observe, open, runtime};
use crate::rot::{BLOCK, Rot, judge, rot};

/// Appends and purges as a busy group does, so that no more than `keep` and ten entries of it stay.
async fn churn(group: &GroupLog, indexes: Range<u64>, keep: u64) {
    for index in indexes {
        append(group, vec![entry(index, 0, 5000)]).await.expect("answered").expect("durable");
        if index % 10 == 0 && index > keep {
            group.purge(index - keep, Bytes::from(format!("id {}", index - keep))).await.expect("purge");
        }
    }
}

async fn fill(group: &GroupLog, count: u64, bytes: usize) {
    for index in 1..=count {
        append(group, vec![entry(index, 0, bytes)]).await.expect("answered").expect("durable");
    }
}

/// Lets the writer carry what it still wants to.
async fn rest(wal: &Wal) -> WalUsage {
    tokio::time::sleep(Duration::from_secs(1)).await;
    wal.usage()
}

fn observe_all(wal: &Wal) -> Vec<Model> {
    GROUPS.iter().map(|id| observe(&wal.group(*id))).collect()
}

async fn is_the_same_after_a_restart(disk: &SimDisk, wal: Wal) {
    let before = observe_all(&wal);
    wal.close().await;
    let wal = open(disk).await.expect("open again");
    assert_eq!(wal.damage(), []);
    assert_eq!(before, observe_all(&wal));
}

#[test]
fn an_idle_group_does_not_keep_the_segments_of_a_busy_one() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        let (idle, busy) = (wal.group(GROUPS[0]), wal.group(GROUPS[1]));
        fill(&idle, 5, 300).await;
        churn(&busy, 1..1500, 5).await;
        let usage = rest(&wal).await;
        assert_eq!(usage.bytes, disk.used_bytes());
        assert!((5 * 300..5 * 400 + 15 * 5100).contains(&usage.live_bytes), "{usage:?}");
        assert!(usage.bytes <= usage.bytes_max(), "{usage:?} in {:?}", disk.files());
        assert_eq!(observe(&idle).entries.len(), 5);
        is_the_same_after_a_restart(&disk, wal).await;
    });
}

/// However full the segment is in which a purge is written, what the purge left goes.
#[test]
fn dead_segments_go_though_the_one_that_is_written_is_full() {
    runtime().block_on(async {
        for small in 0..64 {
            let disk = SimDisk::new(0);
            let wal = open(&disk).await.expect("open");
            let busy = wal.group(GROUPS[1]);
            fill(&busy, 150, 5000).await;
            for index in 151..151 + small {
                append(&busy, vec![entry(index, 0, 10)]).await.expect("answered").expect("durable");
            }
            busy.purge(149 + small, Bytes::from("id")).await.expect("purge");
            let usage = rest(&wal).await;
            assert!(usage.bytes <= usage.bytes_max(), "behind {small} small entries: {usage:?} in {:?}", disk.files());
        }
    });
}

/// A replica that is stopped for good keeps all it has: the bound and the cost hold for it, too.
#[test]
fn a_large_idle_log_is_carried_at_most_once_for_as_much_written() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        let (idle, busy) = (wal.group(GROUPS[0]), wal.group(GROUPS[1]));
        fill(&idle, 120, 5000).await;
        for turn in 0..20 {
            churn(&busy, turn * 100 + 1..turn * 100 + 101, 5).await;
            let usage = rest(&wal).await;
            assert!(usage.bytes <= usage.bytes_max(), "turn {turn}: {usage:?}");
        }
        // Two blocks of ten are stamps and padding: entries of 5,000 bytes take 8 KiB.
        let written = (120 + 2000) * 8192;
        let carried = wal.usage().carried_bytes;
        assert!(carried > 120 * 5000, "{carried} bytes were carried");
        assert!(carried <= written, "{carried} bytes were carried for {written}");
        is_the_same_after_a_restart(&disk, wal).await;
    });
}

/// A round is a sector at least; many small ones are packed once they are carried.
#[test]
fn small_rounds_are_packed() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        fill(&wal.group(GROUPS[0]), 600, 100).await;
        let usage = rest(&wal).await;
        assert!(usage.bytes <= usage.bytes_max(), "{usage:?}");
        assert!(usage.bytes < 600 * 4096 / 3, "{usage:?}");
        is_the_same_after_a_restart(&disk, wal).await;
    });
}

/// Every start begins a segment: starts alone must not make the log grow.
#[test]
fn many_starts_leave_a_bounded_log() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        for index in 1..60 {
            let wal = open(&disk).await.expect("open");
            append(&wal.group(GROUPS[0]), vec![entry(index, 0, 10)]).await.expect("answered").expect("durable");
            let usage = rest(&wal).await;
            assert!(usage.bytes <= usage.bytes_max(), "start {index}: {usage:?}");
            drop(wal);
            disk.crash(index);
        }
        let wal = open(&disk).await.expect("open");
        assert_eq!(observe(&wal.group(GROUPS[0])).entries.len(), 59);
    });
}

/// A log of which the oldest segments went because their entries were carried.
async fn carried_log(disk: &SimDisk) {
    let wal = open(disk).await.expect("open");
    wal.group(GROUPS[0]).save_vote(Bytes::from_static(b"v")).await.expect("vote");
    fill(&wal.group(GROUPS[0]), 5, 400).await;
    fill(&wal.group(GROUPS[2]), 2, 3000).await;
    churn(&wal.group(GROUPS[1]), 1..75, 3).await;
    let usage = rest(&wal).await;
    assert!(usage.carried_bytes > 8000 && usage.bytes <= usage.bytes_max(), "{usage:?}");
    wal.close().await;
}

#[test]
fn rot_of_what_was_carried_is_harmless_or_named() {
    runtime().block_on(async {
        let base = SimDisk::new(0);
        carried_log(&base).await;
        base.crash(3);
        let truth = observe_all(&open(&base.fork()).await.expect("clean"));
        for how in [Rot::Bit, Rot::Sector, Rot::Zeroes] {
            let step = if how == Rot::Sector { 8 * BLOCK } else { BLOCK };
            let mut quiet_hurt = 0;
            for file in base.files() {
                let content = base.content(&file).expect("file");
                for offset in (0..content.len() as u64).step_by(step as usize) {
                    if content[offset as usize..][..BLOCK as usize].iter().all(|b| *b == 0) {
                        continue;
                    }
                    let disk = base.fork();
                    rot(&disk, &file, offset, how);
                    if judge(&disk, &truth, &file, offset, &format!("{how:?}")).await {
                        let wal = open(&disk.fork()).await.expect("again");
                        quiet_hurt += usize::from(wal.group(GROUPS[0]).state().damage.is_some());
                    }
                }
            }
            assert!(quiet_hurt > 0, "{how:?}: carried entries lie somewhere");
        }
    });
}

/// Its group has lost it, and the repair empties the group's log; the segments of all others go.
#[test]
fn an_entry_that_cannot_be_read_is_damage_of_its_group_and_the_others_are_carried() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        let (idle, busy, other) = (wal.group(GROUPS[0]), wal.group(GROUPS[1]), wal.group(GROUPS[2]));
        fill(&idle, 5, 300).await;
        fill(&other, 5, 300).await;
        let holds = |file: &std::path::PathBuf| {
            let content = disk.content(file)?;
            content.windows(5).position(|bytes| bytes == b"3/0/.").map(|at| (file.clone(), at as u64))
        };
        let (file, at) = disk.files().iter().find_map(holds).expect("there");
        disk.flip_bit(&file, at, 3).expect("flip");
        churn(&busy, 1..300, 5).await;
        let usage = rest(&wal).await;
        let damage = idle.state().damage.expect("it has lost an entry");
        assert!(!damage.emptied && damage.groups == [GROUPS[0]], "{damage}");
        assert_eq!((busy.state().damage, other.state().damage), (None, None));
        assert_eq!(usage.pinning, Some(GROUPS[0]), "its segment stays");
        assert!(disk.files().contains(&file) && usage.carried_bytes < 100_000, "nothing is carried in vain: {usage:?}");
        {
            let wal = open(&{
                let copy = disk.fork();
                copy.crash(1);
                copy
            })
            .await
            .expect("a restart");
            assert!(wal.group(GROUPS[0]).state().damage.is_some(), "the next start finds it");
            assert_eq!(wal.group(GROUPS[1]).state().damage, None);
            assert_eq!(observe(&wal.group(GROUPS[2])).entries.len(), 5);
        }
        idle.reset().await.expect("the first step of its repair");
        churn(&busy, 300..400, 5).await;
        let usage = rest(&wal).await;
        assert!(usage.bytes <= usage.bytes_max(), "{usage:?}");
        assert_eq!(observe(&other).entries.len(), 5, "they were carried");
        idle.clear_damage().await.expect("the last step");
        is_the_same_after_a_restart(&disk, wal).await;
    });
}

#[test]
fn a_reader_finds_an_entry_that_is_carried_meanwhile() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        let (idle, busy) = (wal.group(GROUPS[0]), wal.group(GROUPS[1]));
        // More than the cache holds.
        fill(&idle, 30, 500).await;
        for turn in 0..100 {
            churn(&busy, turn * 10 + 1..turn * 10 + 11, 5).await;
            assert_eq!(idle.read(1, 30, usize::MAX).expect("read").len(), 30, "turn {turn}");
        }
        assert!(wal.usage().carried_bytes > 0);
    });
}

#[test]
fn an_entry_too_large_for_smaller_segments_stays_where_it_is() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let wal = open(&disk).await.expect("open");
        fill(&wal.group(GROUPS[0]), 1, 9000).await;
        churn(&wal.group(GROUPS[1]), 1..11, 5).await;
        wal.close().await;
        let smaller = WalConfig { segment_bytes: 32 << 10, ..config() };
        let wal = Wal::open(Arc::new(disk.clone()), dir(), identity(), smaller).await.expect("open again");
        churn(&wal.group(GROUPS[1]), 11..50, 5).await;
        let usage = rest(&wal).await;
        assert_eq!((usage.pinning, usage.carried_bytes), (Some(GROUPS[0]), 0), "{usage:?}");
        assert_eq!(observe(&wal.group(GROUPS[0])).entries.len(), 1);
        is_the_same_after_a_restart(&disk, wal).await;
    });
}
