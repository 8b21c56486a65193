//! The log is crashed at every write and every sync of a workload, and of the recovery behind it, and compared with a
//! slow model: what was acknowledged is there, the rest is there as a prefix or not at all.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::model::{GROUPS, Story, append, check, config, dir, entry, identity, runtime};
use bytes::Bytes;
use ledger_raft::DiskId;
use ledger_raft::disk::{CrashPoint, SimDisk};
use ledger_raft::identity::IdentityFile;
use ledger_raft::wal::{SegmentsBegun, Wal, WalError};

/// Opens the log beside its identity file, as a node does: no crash may look like a loss of what
/// that file says was begun.
pub(crate) async fn open(disk: &SimDisk) -> Result<Wal, WalError> {
    let io = |source| WalError::Io { what: "open the identity file".into(), source };
    let record = record(disk).map_err(io)?;
    Wal::open_recorded(Arc::new(disk.clone()), dir(), identity(), config(), Arc::new(record)).await
}

fn record(disk: &SimDisk) -> std::io::Result<IdentityFile> {
    let (disk, path) = (Arc::new(disk.clone()), Path::new("/node"));
    match IdentityFile::open(disk.clone(), path)? {
        Some(found) => Ok(found),
        None => IdentityFile::create(disk, path, DiskId([1; 16])),
    }
}

/// One scripted step for a group.
#[derive(Clone, Copy)]
enum Act {
    /// So many entries of so many bytes.
    Append(u64, usize),
    Vote,
    Truncate(u64),
    Purge(u64),
    PurgeBeyond(u64),
    Commit,
}

/// Runs one act on every group at once, so that rounds are shared; false once the power is off.
async fn act_all(wal: &Wal, stories: &mut [Story], acts: [Option<Act>; 3], tag: u64) -> bool {
    let mut told = Vec::new();
    let mut small = Vec::new();
    for (at, act) in acts.iter().enumerate() {
        let group = wal.group(GROUPS[at]);
        let story = &mut stories[at];
        let last = story.now().entries.last_key_value().map(|(i, _)| *i).or(story.now().purged);
        match *act {
            None => {}
            Some(Act::Append(count, bytes)) => {
                let first = last.map_or(1, |l| l + 1);
                let entries: Vec<_> = (first..first + count).map(|i| entry(i, tag, bytes)).collect();
                for e in &entries {
                    story.step(|m| {
                        m.entries.insert(e.index, e.clone());
                    });
                }
                told.push((at, append(&group, entries)));
            }
            Some(Act::Vote) => {
                let vote = Bytes::from(format!("vote {tag:06}"));
                story.step(|m| m.vote = Some(vote.clone()));
                small.push((at, tokio::spawn(async move { group.save_vote(vote).await })));
            }
            Some(Act::Truncate(keep)) => {
                let Some(last) = story.now().entries.last_key_value().map(|(i, _)| *i) else { continue };
                let after = last.saturating_sub(keep).max(story.now().purged.unwrap_or(0));
                story.step(|m| m.entries.retain(|i, _| *i <= after));
                small.push((at, tokio::spawn(async move { group.truncate_after(Some(after)).await })));
            }
            Some(Act::Purge(keep)) => {
                let Some(last) = last else { continue };
                let upto = last.saturating_sub(keep);
                if upto == 0 || story.now().purged.is_some_and(|p| p >= upto) {
                    continue;
                }
                story.step(|m| {
                    m.entries.retain(|i, _| *i > upto);
                    m.purged = Some(upto);
                });
                small.push((
                    at,
                    tokio::spawn(async move { group.purge(upto, Bytes::from(format!("id {upto}"))).await }),
                ));
            }
            Some(Act::PurgeBeyond(by)) => {
                let upto = last.unwrap_or(0) + by;
                story.step(|m| {
                    m.entries.clear();
                    m.purged = Some(upto);
                });
                small.push((
                    at,
                    tokio::spawn(async move { group.purge(upto, Bytes::from(format!("id {upto}"))).await }),
                ));
            }
            Some(Act::Commit) => {
                let committed = Bytes::from(format!("committed {tag}"));
                story.committed.push(committed.clone());
                group.save_committed(committed);
            }
        }
    }
    let mut alive = true;
    for (at, told) in told {
        match told.await {
            Ok(Ok(())) => stories[at].ack(),
            _ => alive = false,
        }
    }
    for (at, done) in small {
        match done.await.expect("task") {
            Ok(()) => stories[at].ack(),
            Err(_) => alive = false,
        }
    }
    alive
}

/// What the groups do, turn by turn.
type Script = Vec<[Option<Act>; 3]>;

/// Rolls over and recycles 64 KiB segments several times.
fn script() -> Script {
    use Act::{Append, Commit, Purge, PurgeBeyond, Truncate, Vote};
    let mut script = vec![
        [Some(Vote), Some(Vote), None],
        [Some(Append(3, 100)), Some(Append(1, 5000)), Some(Append(2, 0))],
        [Some(Commit), None, Some(Commit)],
        [Some(Append(1, 9000)), Some(Append(4, 700)), None],
        [Some(Truncate(2)), Some(Vote), Some(Append(1, 488))],
        [Some(Append(2, 300)), None, Some(Truncate(1))],
    ];
    for turn in 0..9 {
        script.push([Some(Append(2, 7000)), Some(Append(1, 3000)), Some(Append(3, 40))]);
        script.push([Some(Commit), Some(Commit), None]);
        script.push([Some(Append(1, 12_000)), None, Some(Vote)]);
        script.push([Some(Purge(2)), Some(Purge(1)), Some(Purge(turn % 3))]);
        if turn % 4 == 2 {
            script.push([Some(Truncate(1)), Some(Vote), None]);
            script.push([Some(Append(1, 20)), Some(PurgeBeyond(5)), Some(Append(1, 1000))]);
        }
    }
    script
}

/// One group is busy, two are quiet, so that their entries are carried forward again and again.
fn script_with_quiet_groups() -> Script {
    use Act::{Append, Commit, Purge, Truncate, Vote};
    let mut script = vec![
        [Some(Vote), Some(Vote), Some(Vote)],
        [Some(Append(2, 100)), Some(Append(1, 700)), Some(Append(6, 900))],
        [None, Some(Commit), Some(Truncate(2))],
        [None, None, Some(Append(1, 50))],
    ];
    for turn in 0..45 {
        script.push([Some(Append(2, 11_000)), None, None]);
        let (few, fewer) = match turn {
            // In one entry's round, and in the middle of what is being carried.
            9 => (None, Some(Append(1, 300))),
            17 => (Some(Append(2, 40)), Some(Truncate(1))),
            26 => (Some(Truncate(1)), Some(Purge(2))),
            31 => (Some(Vote), Some(Append(2, 10_000))),
            _ => (None, None),
        };
        script.push([Some(Purge(1)), few, fewer]);
    }
    script
}

/// Runs a script until the end or until the power goes; says how many bytes were carried if it came to the end.
async fn run(disk: &SimDisk, stories: &mut [Story], script: &[[Option<Act>; 3]]) -> Option<u64> {
    let wal = open(disk).await.ok()?;
    for (tag, acts) in script.iter().enumerate() {
        if !act_all(&wal, stories, *acts, tag as u64).await {
            return None;
        }
    }
    let carried = wal.usage().carried_bytes;
    wal.close().await;
    Some(carried)
}

/// Opens after a crash, compares, works on, opens again and compares once more.
async fn recover_and_go_on(disk: &SimDisk, stories: &mut [Story], context: &str) {
    let wal = open(disk).await.unwrap_or_else(|e| panic!("{context}: {e}"));
    assert_eq!(wal.damage(), [], "{context}: a crash is not damage");
    for (at, id) in GROUPS.into_iter().enumerate() {
        let seen = check(&wal.group(id), &stories[at], context);
        stories[at].restart_at(seen);
    }
    let more = [Some(Act::Append(2, 600)), Some(Act::Vote), Some(Act::Append(1, 4000))];
    assert!(act_all(&wal, stories, more, 900_000).await, "{context}: works on");
    let more = [Some(Act::Vote), Some(Act::Append(1, 10)), Some(Act::Purge(1))];
    assert!(act_all(&wal, stories, more, 900_001).await, "{context}: works on");
    drop(wal);
    disk.crash(1);
    let wal = open(disk).await.unwrap_or_else(|e| panic!("{context}, second start: {e}"));
    assert_eq!(wal.damage(), [], "{context}: second start");
    for (at, id) in GROUPS.into_iter().enumerate() {
        check(&wal.group(id), &stories[at], context);
    }
}

/// Operations of a whole run on the disk, and bytes it carried.
fn measure(script: &[[Option<Act>; 3]]) -> (u64, u64) {
    runtime().block_on(async {
        let disk = SimDisk::new(0);
        let carried = run(&disk, &mut vec![Story::default(); 3], script).await.expect("no crash");
        (disk.ops(), carried)
    })
}

fn sweep(script: &[[Option<Act>; 3]], points: impl Fn(u64) -> CrashPoint, seeds: u64) {
    let (total, _) = measure(script);
    assert!(total > 80, "the workload has only {total} operations");
    for n in 1..=total {
        for seed in 0..seeds {
            let context = format!("crash at operation {n} of {total}, seed {seed}");
            runtime().block_on(async {
                let disk = SimDisk::new(0);
                let mut stories = vec![Story::default(); 3];
                disk.stop_at(Some(points(n)));
                let ended = run(&disk, &mut stories, script).await;
                assert!(ended.is_none() || disk.stopped() || n + 2 > total, "{context}: did not stop");
                disk.crash(n * 1000 + seed);
                // Now and then the recovery is crashed too, once or twice.
                for again in 0..(n + seed) % 3 {
                    disk.stop_at(Some(points(disk.ops() + 1 + (n + again * 3) % 9)));
                    drop(open(&disk).await);
                    disk.crash(n + seed + again);
                }
                recover_and_go_on(&disk, &mut stories, &context).await;
            });
        }
    }
}

#[test]
fn crash_during_every_operation() {
    sweep(&script(), CrashPoint::During, 4);
}

#[test]
fn crash_after_every_operation() {
    sweep(&script(), CrashPoint::After, 2);
}

#[test]
fn crash_during_every_operation_while_entries_are_carried() {
    let script = script_with_quiet_groups();
    let (_, carried) = measure(&script);
    assert!(carried > 20_000, "only {carried} bytes were carried");
    sweep(&script, CrashPoint::During, 3);
}

#[test]
fn crash_after_every_operation_while_entries_are_carried() {
    sweep(&script_with_quiet_groups(), CrashPoint::After, 1);
}

/// Every single operation of an opening is a place to die, however often in a row.
#[test]
fn crash_during_every_operation_of_an_opening() {
    runtime().block_on(async {
        let base = SimDisk::new(0);
        let mut stories = vec![Story::default(); 3];
        assert!(run(&base, &mut stories, &script()).await.is_some());
        let disk = base.fork();
        let before = disk.files().len();
        for turn in 0..60u64 {
            disk.stop_at(Some(CrashPoint::During(disk.ops() + 1 + turn % 12)));
            drop(open(&disk).await);
            disk.crash(turn);
        }
        assert!(disk.files().len() <= before + 2, "starts that die do not eat the disk: {:?}", disk.files());
        recover_and_go_on(&disk, &mut stories, "sixty openings that died").await;
    });
}

/// Generations that segment files were begun with.
fn generations(disk: &SimDisk) -> BTreeSet<u32> {
    let begun = |file: &std::path::PathBuf| {
        let content = disk.content(file)?;
        let stamp = content.get(4..8)?;
        Some(u32::from_le_bytes([stamp[0], stamp[1], stamp[2], stamp[3]])).filter(|generation| *generation > 0)
    };
    disk.files().iter().filter(|file| file.extension().is_some_and(|ext| ext == "seg")).filter_map(begun).collect()
}

/// A header torn over the newest segment would leave less than was recorded as begun, and look like
/// a lost segment.
#[test]
fn a_start_that_dies_at_every_write_leaves_newest_segment_and_record_in_step() {
    runtime().block_on(async {
        let base = SimDisk::new(0);
        let mut stories = vec![Story::default(); 3];
        assert!(run(&base, &mut stories, &script()).await.is_some());
        // One start that comes to its end, and begins nothing: the next one begins a segment for
        // the one it began.
        drop(open(&base).await.expect("open"));
        base.crash(0);
        let before = base.files().len();
        for n in 1..=16 {
            for seed in 0..8 {
                let disk = base.fork();
                for again in 0..4 {
                    disk.stop_at(Some(CrashPoint::During(disk.ops() + n)));
                    let context = format!("start {again} dies at its operation {n}, seed {seed}");
                    drop(open(&disk).await);
                    disk.crash(seed * 7 + again);
                    let newest = generations(&disk).last().copied();
                    let begun = record(&disk).expect("readable").newest();
                    assert!(newest.is_some_and(|newest| newest >= begun), "{context}: {newest:?} of {begun}");
                    assert!(disk.files().len() <= before + 1, "{context}: {:?}", disk.files());
                }
                let wal = open(&disk).await.expect("opens");
                assert_eq!(wal.damage(), [], "operation {n}, seed {seed}: a crash is not a lost segment");
                wal.close().await;
                let begun = record(&disk).expect("readable").newest();
                assert_eq!(generations(&disk).last(), Some(&begun), "operation {n}, seed {seed}");
            }
        }
    });
}

/// A process that dies without the machine leaves unsynced bytes in the page cache: they may be used only once durable.
#[test]
fn what_a_killed_process_left_in_the_cache_is_synced_before_use() {
    let scripts = [script(), script_with_quiet_groups()];
    for (script, n) in scripts.iter().flat_map(|script| (1..120).map(move |n| (script, n))) {
        runtime().block_on(async {
            let disk = SimDisk::new(0);
            let mut stories = vec![Story::default(); 3];
            disk.stop_at(Some(CrashPoint::During(n)));
            run(&disk, &mut stories, script).await;
            disk.kill();
            let context = format!("killed at operation {n}");
            let wal = open(&disk).await.unwrap_or_else(|e| panic!("{context}: {e}"));
            for (at, id) in GROUPS.into_iter().enumerate() {
                let seen = check(&wal.group(id), &stories[at], &context);
                stories[at].restart_at(seen);
            }
            drop(wal);
            disk.crash(n);
            let wal = open(&disk).await.unwrap_or_else(|e| panic!("{context}, then power loss: {e}"));
            for (at, id) in GROUPS.into_iter().enumerate() {
                check(&wal.group(id), &stories[at], &context);
            }
        });
    }
}

#[test]
fn a_failed_write_or_sync_poisons_the_log_and_is_not_retried() {
    for n in 12..40 {
        runtime().block_on(async {
            let disk = SimDisk::new(0);
            let mut stories = vec![Story::default(); 3];
            let wal = open(&disk).await.expect("open");
            disk.fail_at(Some(n));
            let mut alive = true;
            for (tag, acts) in script().into_iter().enumerate() {
                alive &= act_all(&wal, &mut stories, acts, tag as u64).await;
                if !alive {
                    break;
                }
            }
            if let Some(why) = wal.poisoned().borrow().clone() {
                assert!(why.contains("I/O error"), "{why}");
                let group = wal.group(GROUPS[0]);
                assert!(group.save_vote(Bytes::from_static(b"later")).await.is_err());
                assert!(group.append(vec![], Box::new(|_| {})).is_err());
            } else {
                // It hit the allocation of a spare, which may be tried again.
                assert!(alive, "operation {n} failed without poisoning");
            }
            disk.crash(n);
            let wal = open(&disk).await.expect("open again");
            for (at, id) in GROUPS.into_iter().enumerate() {
                check(&wal.group(id), &stories[at], &format!("failed at {n}"));
            }
        });
    }
}
