//! A bit is flipped, or a block zeroed, in every block of a log in turn. What was acknowledged is then either all there, or
//! damage is reported that names the place and the groups that lost something.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger_raft::GroupId;
use ledger_raft::disk::SimDisk;
use ledger_raft::wal::Wal;

use crate::model::{GROUPS, Model, append, entry, observe, open, runtime};

pub(crate) const BLOCK: u64 = 512;

/// A log of several segments, written round by round with the groups taking turns.
async fn write_log(disk: &SimDisk, close: bool) {
    let wal = open(disk).await.expect("open");
    for turn in 1..=20u64 {
        for (at, id) in GROUPS.into_iter().enumerate() {
            let size = [60, 3000, 9000][(turn as usize + at) % 3];
            append(&wal.group(id), vec![entry(turn, turn, size)]).await.expect("answered").expect("durable");
        }
        if turn % 4 == 0 {
            let vote = Bytes::from(format!("vote {turn:04}"));
            wal.group(GROUPS[turn as usize % 3]).save_vote(vote).await.expect("durable");
        }
    }
    let gone = GROUPS[1];
    wal.group(gone).purge(4, Bytes::from_static(b"id 4")).await.expect("durable");
    if close {
        wal.close().await;
    }
}

/// Everything of a group, or nothing if it cannot be read.
fn intact(wal: &Wal, id: GroupId, truth: &Model) -> bool {
    let group = wal.group(id);
    let state = group.state();
    if state.damage.is_some() || state.last_index != truth.entries.last_key_value().map(|e| *e.0) {
        return false;
    }
    &observe(&group) == truth
}

/// Opens a rotten copy and judges it. Returns whether damage was reported.
pub(crate) async fn judge(disk: &SimDisk, truth: &[Model], file: &Path, offset: u64, what: &str) -> bool {
    let context = format!("{what} in {} at {offset}", file.display());
    let wal = open(disk).await.unwrap_or_else(|e| panic!("{context}: {e}"));
    let damage = wal.damage();
    for (at, id) in GROUPS.into_iter().enumerate() {
        let damaged = wal.group(id).state().damage.is_some();
        if !damaged {
            assert!(intact(&wal, id, &truth[at]), "{context}: group {} lost something silently", id.0);
        } else {
            assert!(damage.iter().any(|d| d.groups.contains(&id)), "{context}: damage {damage:?} does not name {id:?}");
        }
    }
    if let Some(d) = damage.first() {
        assert_eq!(d.file, file, "{context}");
        let sector = offset / 4096;
        assert_eq!(d.offset / 4096, sector, "{context}: said byte {}", d.offset);
    }
    !damage.is_empty()
}

/// What goes bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rot {
    /// One bit of a block.
    Bit,
    /// A block reads as zeroes.
    Zeroes,
    /// A bit in every block of a sector, so that nothing in it vouches for the rest.
    Sector,
}

pub(crate) fn rot(disk: &SimDisk, file: &Path, offset: u64, how: Rot) {
    let flip = |at: u64| disk.flip_bit(file, at + at * 7 % BLOCK, (at / BLOCK % 8) as u8).expect("flipped");
    match how {
        Rot::Bit => flip(offset),
        Rot::Zeroes => disk.zero(file, offset, BLOCK as usize).expect("zeroed"),
        Rot::Sector => (0..8).for_each(|block| flip(offset + block * BLOCK)),
    }
}

fn sweep(close: bool, how: Rot) {
    let step = if how == Rot::Sector { 8 * BLOCK } else { BLOCK };
    runtime().block_on(async {
        let base = SimDisk::new(0);
        write_log(&base, close).await;
        base.crash(3);
        let truth: Vec<Model> = {
            let copy = base.fork();
            let wal = open(&copy).await.expect("clean");
            assert_eq!(wal.damage(), []);
            GROUPS.iter().map(|id| observe(&wal.group(*id))).collect()
        };
        let (mut reported, mut blamed_one, mut blamed_none) = (0u64, 0u64, 0u64);
        for file in base.files() {
            let content = base.content(&file).expect("file");
            for offset in (0..content.len() as u64).step_by(step as usize) {
                let live = content[offset as usize..][..BLOCK as usize].iter().any(|b| *b != 0);
                if how == Rot::Zeroes && !live {
                    continue;
                }
                let disk = base.fork();
                rot(&disk, &file, offset, how);
                let context = format!("{how:?}");
                if !judge(&disk, &truth, &file, offset, &context).await {
                    continue;
                }
                reported += 1;
                let wal = open(&disk.fork()).await.expect("again");
                let blamed = GROUPS.iter().filter(|g| wal.group(**g).state().damage.is_some()).count();
                blamed_one += u64::from(blamed == 1);
                blamed_none += u64::from(blamed == 0);
            }
        }
        let least = 200 * BLOCK / step;
        assert!(reported > least, "only {reported} places were found rotten");
        assert!(blamed_one > least / 4, "a loss is pinned on the group that had it: {blamed_one} of {reported}");
        assert!(blamed_none > 3, "a loss of repeated state blames nobody: {blamed_none} of {reported}");
    });
}

#[test]
fn a_flipped_bit_anywhere_is_harmless_or_named() {
    sweep(true, Rot::Bit);
}

/// The process was killed: nothing but the last round itself stands behind the last round.
#[test]
fn a_flipped_bit_is_harmless_or_named_without_a_last_marker() {
    sweep(false, Rot::Bit);
}

/// The marker written at close proves the last round, so that even zeroes there are not taken for torn.
#[test]
fn a_zeroed_block_anywhere_is_harmless_or_named() {
    sweep(true, Rot::Zeroes);
}

/// The last acknowledged round rots whole: it must not be taken for the end of the log.
#[test]
fn a_rotten_sector_anywhere_is_harmless_or_named() {
    sweep(true, Rot::Sector);
    sweep(false, Rot::Sector);
}

#[test]
fn damage_stays_until_it_is_cleared_and_a_reset_keeps_the_vote() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        write_log(&disk, true).await;
        disk.crash(0);
        let file = disk.files().first().cloned().expect("file");
        let hurt = {
            let mut offset = 4096;
            loop {
                let copy = disk.fork();
                copy.flip_bit(&file, offset + 100, 1).expect("flip");
                let wal = open(&copy).await.expect("open");
                let hurt: Vec<GroupId> =
                    GROUPS.into_iter().filter(|g| wal.group(*g).state().damage.is_some()).collect();
                if let [one] = hurt[..] {
                    disk.flip_bit(&file, offset + 100, 1).expect("flip");
                    break one;
                }
                offset += 4096;
            }
        };
        let vote = open(&disk.fork()).await.expect("open").group(hurt).state().vote;
        for start in 0..3 {
            let wal = open(&disk).await.expect("open");
            assert!(wal.group(hurt).state().damage.is_some(), "start {start}");
            let emptied = |wal: &Wal| wal.group(hurt).state().damage.is_some_and(|damage| damage.emptied);
            assert_eq!(emptied(&wal), start == 2, "start {start}");
            if start == 1 {
                wal.group(hurt).reset().await.expect("reset");
                assert!(emptied(&wal));
            }
            wal.close().await;
        }
        let wal = open(&disk).await.expect("open");
        let group = wal.group(hurt);
        assert_eq!((group.state().last_index, group.state().vote), (None, vote.clone()));
        group.purge(50, Bytes::from_static(b"id 50")).await.expect("purge");
        group.clear_damage().await.expect("clear");
        append(&group, vec![entry(51, 1, 10)]).await.expect("answered").expect("durable");
        wal.close().await;
        let wal = open(&disk).await.expect("open");
        let state = wal.group(hurt).state();
        assert_eq!((state.damage, state.last_index, state.vote), (None, Some(51), vote));
        for other in GROUPS.into_iter().filter(|g| *g != hurt) {
            assert_eq!(wal.group(other).state().damage, None);
        }
    });
}

/// A log under repair that rots again lost something that the repair does not know of: that stays told from its being emptied.
#[test]
fn damage_after_a_reset_is_damage_again() {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let id = GROUPS[0];
        let emptied = |wal: &Wal| wal.group(id).state().damage.map(|damage| damage.emptied);
        {
            let wal = open(&disk).await.expect("open");
            append(&wal.group(id), vec![entry(1, 1, 60)]).await.expect("answered").expect("durable");
            wal.group(id).reset().await.expect("reset");
            for index in 31..=60 {
                append(&wal.group(id), vec![entry(index, 1, 3000)]).await.expect("answered").expect("durable");
            }
            assert_eq!(emptied(&wal), Some(true));
            wal.close().await;
        }
        assert_eq!(emptied(&open(&disk.fork()).await.expect("open")), Some(true));
        let place = |file: &std::path::PathBuf| disk.content(file)?.windows(5).position(|bytes| bytes == b"45/1/");
        let (file, at) = disk.files().into_iter().find_map(|file| place(&file).map(|at| (file, at))).expect("there");
        disk.flip_bit(&file, at as u64, 1).expect("flip");
        // The first start after it finds it and dies, the others know it from those before them.
        for start in 0..3 {
            let wal = open(&disk).await.expect("open");
            assert_eq!(emptied(&wal), Some(false), "start {start}");
            match start {
                0 => {
                    disk.kill();
                    drop(wal);
                    disk.crash(7);
                }
                _ => wal.close().await,
            }
        }
        let wal = open(&disk).await.expect("open");
        wal.group(id).reset().await.expect("reset");
        wal.close().await;
        let wal = open(&disk).await.expect("open");
        assert_eq!(emptied(&wal), Some(true));
        wal.group(id).clear_damage().await.expect("clear");
        wal.close().await;
        assert_eq!(emptied(&open(&disk).await.expect("open")), None);
    });
}

#[test]
fn a_missing_segment_is_damage() {
    runtime().block_on(async {
        let base = SimDisk::new(0);
        write_log(&base, true).await;
        base.crash(0);
        let truth: Vec<Model> = {
            let wal = open(&base.fork()).await.expect("clean");
            GROUPS.iter().map(|id| observe(&wal.group(*id))).collect()
        };
        let mut hurt = 0;
        for file in base.files() {
            let disk = base.fork();
            ledger_raft::seam::Disk::remove(&disk, &file).expect("removed");
            let used = base.content(&file).expect("file").iter().any(|b| *b != 0);
            let newest = file == newest_used(&base);
            let wal = open(&disk).await.expect("open");
            for (at, id) in GROUPS.into_iter().enumerate() {
                let whole = intact(&wal, id, &truth[at]);
                // The newest segment as a whole can only vanish together with all proof of it.
                assert!(whole || newest || wal.group(id).state().damage.is_some(), "{} {id:?}", file.display());
                hurt += usize::from(used && !whole);
            }
        }
        assert!(hurt > 0);
    });
}

fn newest_used(disk: &SimDisk) -> std::path::PathBuf {
    let generation = |f: &Path| {
        let content = disk.content(f).expect("file");
        u32::from_le_bytes([content[4], content[5], content[6], content[7]])
    };
    disk.files().into_iter().max_by_key(|f| generation(f)).expect("file")
}

/// A file that was made longer lost its end, whatever is left of it: nobody knows what lay there.
#[test]
fn a_segment_of_another_length_than_its_header_says_is_damage() {
    runtime().block_on(async {
        let disk = SimDisk::new(1);
        write_log(&disk, false).await;
        disk.crash(1);
        let begun: Vec<_> = disk.files().into_iter().filter(|f| disk.content(f).expect("file")[4] != 0).collect();
        assert!(begun.len() > 2, "{begun:?}");
        for file in begun {
            for len in [4_096, 20_000, 61_440] {
                let copy = disk.fork();
                copy.truncate(&file, len).expect("cut");
                let wal = open(&copy).await.expect("opens");
                for id in GROUPS {
                    let damage = wal.group(id).state().damage;
                    let why = damage.unwrap_or_else(|| panic!("{} at {len}: not noticed", file.display())).why;
                    assert!(why.contains(&format!("has {len} bytes and was made with 65536")), "{why}");
                }
                assert!(wal.group(GroupId(77)).state().damage.is_some(), "a group without a word in the log");
                // Known at the next start, too.
                wal.close().await;
                let wal = open(&copy).await.expect("opens again");
                assert!(GROUPS.into_iter().all(|id| wal.group(id).state().damage.is_some()));
                assert!(wal.group(GroupId(77)).state().damage.is_some(), "after a restart");
            }
        }
    });
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter();
    files.filter(|file| file.extension().is_some_and(|end| end == "seg")).collect()
}

fn generation(disk: &SimDisk, file: &Path) -> u8 {
    disk.content(file).expect("file")[4]
}

fn newest(disk: &SimDisk) -> PathBuf {
    segments(disk).into_iter().max_by_key(|file| generation(disk, file)).expect("a segment")
}

/// As long as the cut segment lives, each start finds it by its length. It goes with the entries of
/// the group that is repaired first.
#[test]
fn damage_by_a_cut_segment_outlives_that_segment_and_any_rotten_block_of_the_next() {
    runtime().block_on(async {
        let disk = SimDisk::new(2);
        for group in [GROUPS[0], GROUPS[1]] {
            let wal = crate::crash::open(&disk).await.expect("opens");
            append(&wal.group(group), vec![entry(1, 1, 100)]).await.expect("answered").expect("durable");
            wal.close().await;
        }
        let begun = segments(&disk).into_iter().filter(|file| generation(&disk, file) > 0);
        let oldest = begun.min_by_key(|file| generation(&disk, file)).expect("a segment");
        disk.truncate(&oldest, 8 << 10).expect("cut");
        let wal = crate::crash::open(&disk).await.expect("opens");
        let file = newest(&disk);
        let repaired = wal.group(GROUPS[0]);
        repaired.reset().await.expect("emptied");
        repaired.clear_damage().await.expect("cleared");
        wal.close().await;
        ledger_raft::seam::Disk::remove(&disk, &oldest).expect("no live entry is in it");
        for block in 0..16 {
            let copy = disk.fork();
            copy.flip_bit(&file, block * BLOCK + 77, 1).expect("flipped");
            let wal = crate::crash::open(&copy).await.expect("opens");
            assert!(wal.group(GROUPS[1]).state().damage.is_some(), "block {block}: it forgot what it lost");
        }
    });
}

/// The header of a start's segment is taken for a repetition of what is known, and rot there is
/// harmless. What that start found lost is new, and the file of begun segments says it no more.
#[test]
fn a_loss_that_one_start_found_outlives_any_rotten_block_of_its_segment() {
    runtime().block_on(async {
        let disk = SimDisk::new(2);
        for tag in 1..=2 {
            let wal = crate::crash::open(&disk).await.expect("opens");
            append(&wal.group(GROUPS[0]), vec![entry(tag, tag, 100)]).await.expect("answered").expect("durable");
            wal.close().await;
        }
        ledger_raft::seam::Disk::remove(&disk, &newest(&disk)).expect("removed");
        drop(crate::crash::open(&disk).await.expect("opens"));
        disk.crash(2);
        let file = newest(&disk);
        for block in 0..16 {
            let copy = disk.fork();
            copy.flip_bit(&file, block * BLOCK + 77, 1).expect("flipped");
            let wal = crate::crash::open(&copy).await.expect("opens");
            for id in [GROUPS[0], GroupId(77)] {
                assert!(wal.group(id).state().damage.is_some(), "block {block}: {id:?} forgot what it lost");
            }
        }
    });
}
