//! A shop's months over a node's storage: history and snapshots in real files, ledger time the only clock, and no curve that grows for ever.
//!
//! **What it is.** The core's shop lives its days; every hour's changes are written to history on disk, what is too old is dropped, a
//! snapshot is written every night, and every tenth one the node starts again from its files. `HOLDFAST_YEAR_DAYS=120 cargo test
//! --release -p ledger-node --lib a_shop_s_months -- --nocapture` is the long form, and prints every week: its history has several files, of which
//! those in front must go. The short form's fits in one, and shows how far back it reaches.
//! **Owns** that files are let go as fast as they come. **Must never** judge by the time that anything takes.

#[path = "../../../ledger-core/tests/shop/mod.rs"]
mod shop;

use std::fs;
use std::path::Path;
use std::time::Duration;

use ledger_core::{IndexSeed, Ledger};
use tokio::time::Instant;

use super::sled_store::open_store;
use super::*;
use shop::{DAY_MS, RETAIN_DAYS, Shop};

const DAYS_DEFAULT: u64 = 49;
const SHARD: u32 = 1;
const ALL: PageBounds = PageBounds { records: 100_000, bytes: usize::MAX };

fn opened(dir: &Path) -> KeptHistory {
    let keep = Retention { keep: Duration::from_millis(RETAIN_DAYS * DAY_MS), bytes_max: u64::MAX };
    KeptHistory::unwritten(open_store(dir).expect("the store opens"), keep)
}

/// Bytes of all files below a directory.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable"));
    let of = |entry: fs::DirEntry| match entry.metadata().expect("there").is_dir() {
        true => bytes_below(&entry.path()),
        false => entry.metadata().expect("there").len(),
    };
    entries.map(of).sum()
}

/// What a day left on disk.
#[derive(Debug, Clone, Copy)]
struct Day {
    history: u64,
    snapshot: u64,
    snapshot_ms: u128,
}

type Curve = fn(&Day) -> u64;

/// Writes the ledger as a node does: beside the snapshot that there is, in whose place it comes then.
fn snapshot(ledger: &mut Ledger, path: &Path) -> (u64, u128) {
    let (began, next) = (Instant::now(), path.with_extension("next"));
    let mut file = fs::File::create(&next).expect("created");
    ledger.freeze().write(&mut file).expect("written");
    file.sync_all().expect("synced");
    fs::rename(&next, path).expect("in place");
    (path.metadata().expect("there").len(), began.elapsed().as_millis())
}

#[test]
fn a_shop_s_months_leave_as_much_on_disk_week_after_week() {
    let days = std::env::var("HOLDFAST_YEAR_DAYS").ok().map_or(DAYS_DEFAULT, |days| days.parse().expect("days"));
    // Of the long form's history several files are kept, so that those in front must go.
    let buyers = if days > DAYS_DEFAULT { 100_000 } else { 1_200 };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("shard.snapshot");
    let mut history = opened(dir.path());
    let mut shop = Shop::new();
    history.begin(SHARD, 0, 0);
    let mut records = std::mem::take(&mut shop.records);
    let mut on_disk: Vec<Day> = Vec::new();
    for day in 0..days {
        shop.day(day, buyers);
        records.append(&mut shop.records);
        // As many at once as a node gathers in a busy hour.
        for hour in records.chunks(8) {
            hour.iter().for_each(|(index, record)| history.append(SHARD, *index, record.as_ref()));
            history.write_now();
        }
        records.clear();
        while history.retain().expect("what is old is dropped") {}
        let (bytes, took) = snapshot(&mut shop.ledger, &path);
        if day % 10 == 9 {
            drop(history);
            let mut file = fs::File::open(&path).expect("there");
            shop.ledger = Ledger::thaw(&mut file, IndexSeed(day.into())).expect("its own snapshot");
            history = opened(dir.path());
            history.begin(SHARD, shop.index, shop.ledger.chain());
            assert!(!history.coverage(SHARD).is_gapped(), "{:?}", history.coverage(SHARD));
        }
        let history = bytes_below(dir.path()) - bytes;
        on_disk.push(Day { history, snapshot: bytes, snapshot_ms: took });
        if day % 7 == 6 && days > DAYS_DEFAULT {
            let Day { history, snapshot, snapshot_ms } = on_disk[day as usize];
            println!("day {day}: {history} bytes of history, {snapshot} of the snapshot, written in {snapshot_ms} ms");
        }
    }
    // All that is kept is read back, and reaches as far back as it should.
    let kept = history.coverage(SHARD);
    let page = history.read(SHARD, kept.oldest, ALL).expect("readable");
    let first = ledger_core::codec::decode_record(&page.records[0].1).expect("a record");
    let age_days = (shop.ledger.time().0 - first.time.0) / DAY_MS;
    assert!((RETAIN_DAYS - 1..=RETAIN_DAYS + 2).contains(&age_days), "{age_days} days are kept");
    let weeks: Vec<&[Day]> = on_disk.chunks_exact(7).collect();
    // The retention, and a week in which it took effect.
    let steady = &weeks[(RETAIN_DAYS / 7 + 2) as usize..];
    assert!(steady.len() >= 3, "{days} days are too few");
    let most = |week: &[Day], of: Curve| week.iter().map(of).max().expect("a week has days");
    let curves: [(&str, Curve); 2] = [("history", |day| day.history), ("snapshot", |day| day.snapshot)];
    for (name, of) in curves {
        let (first, last) = (most(steady[0], of), most(steady[steady.len() - 1], of));
        // A file goes once nothing in it is needed: one more may be there, and the segment that sled writes.
        let slack = if name == "history" { crate::limits::HISTORY_FILE_BYTES as u64 } else { 0 };
        assert!(last <= first + first / 10 + slack, "{name}: {first} bytes in a week, {last} in the last one");
    }
}
