//! History over pages on disk: a damaged table costs its page alone, and no record is
//! passed over without a gap.

use super::tests::{KEEP, chain_of, position_of};
use super::*;

const ALL: PageBounds = PageBounds { records: 10_000, bytes: usize::MAX };
const RECORDS: &str = "sled/records/00000001.records";

/// A closed store with three pages of one shard: records 2 to 20, 21 to 40 and 41 to 60.
fn three_pages(dir: &Path, chain: &super::tests::Chain) {
    let history = SledHistory.open(dir, KEEP).expect("new");
    history.begin(1, 0, chain.chains[0]);
    for range in [1..=20, 21..=40, 41..=60] {
        let last = *range.end();
        chain.append(&*history, 1, range);
        history.sync_through(1, last).expect("durable");
    }
    history.close();
}

/// Spoils the table of the page that begins with a record: its last byte is just before that
/// record.
fn spoil_table(dir: &Path, first: &[u8]) {
    let path = dir.join(RECORDS);
    let mut bytes = std::fs::read(&path).expect("readable");
    let at = position_of(&bytes, first);
    bytes[at - 1] ^= 0xff;
    std::fs::write(&path, bytes).expect("written");
}

#[test]
fn page_whose_table_is_lost_is_one_gap_and_is_filled_from_a_peer() {
    let chain = chain_of(1, 60);
    let dir = tempfile::tempdir().expect("a directory");
    three_pages(dir.path(), &chain);
    let history = SledHistory.open(dir.path(), KEEP).expect("opens");
    history.begin(1, 60, chain.chains[60]);
    assert_eq!(history.read(1, 1, ALL).expect("all of it").records, chain.records);
    // Nobody knows of it before a reader does.
    spoil_table(dir.path(), chain.record(21).expect("a record"));
    for _ in 0..2 {
        let found = history.read(1, 25, ALL);
        assert!(matches!(found, Err(HistoryError::NotHere { after: 20, through: 40, .. })), "{found:?}");
        assert_eq!(history.read(1, 1, ALL).expect("before it").records, chain.from(1, 20));
        assert_eq!(history.read(1, 41, ALL).expect("behind it").records, chain.from(41, 60));
    }
    assert!(!dir.path().join("sled.damaged-1").exists());
    history.fill(1, &chain.from(21, 40), 40).expect("a peer has it");
    assert_eq!(history.read(1, 1, ALL).expect("all of it").records, chain.records);
    history.close();
}

/// Reads all there is, and fills each gap that is met with the log's records.
fn read_and_fill(history: &dyn History, chain: &super::tests::Chain) -> Vec<(u64, Bytes)> {
    let mut seen = Vec::new();
    let mut next = 1;
    while next <= history.coverage(1).applied {
        match history.read(1, next, PageBounds { records: 7, bytes: usize::MAX }) {
            Ok(page) => {
                seen.extend(page.records);
                next = page.next;
            }
            Err(HistoryError::NotHere { after, through, .. }) => {
                assert!(after + 1 >= next || after + 1 >= history.coverage(1).wanted);
                history.fill(1, &chain.from(after + 1, through), through).expect("a peer has it");
            }
            Err(other) => panic!("{other}"),
        }
    }
    seen
}

#[test]
fn page_whose_table_is_lost_is_written_anew_by_the_log_or_missing_and_never_passed_over() {
    let chain = chain_of(1, 70);
    for lost in [2, 21, 41] {
        for state in [0, 10, 20, 30, 45, 60] {
            let dir = tempfile::tempdir().expect("a directory");
            three_pages(dir.path(), &chain);
            spoil_table(dir.path(), chain.record(lost).expect("a record"));
            let history = SledHistory.open(dir.path(), KEEP).expect("opens");
            history.begin(1, state, chain.chains[state as usize]);
            chain.append(&*history, 1, state + 1..=70);
            let replayed = history.read(1, state + 1, ALL).expect("the log says it").records;
            assert_eq!(replayed, chain.from(state + 1, 70), "page of {lost} lost, restarted from {state}");
            let all = read_and_fill(&*history, &chain);
            assert_eq!(all, chain.records, "page of {lost} lost, restarted from {state}");
            history.close();
        }
    }
}

#[test]
fn newest_page_that_is_lost_while_it_is_read_keeps_no_older_one_from_retention() {
    let chain = chain_of(1, 60);
    let dir = tempfile::tempdir().expect("a directory");
    three_pages(dir.path(), &chain);
    let keep = Retention { keep: std::time::Duration::from_secs(25), bytes_max: u64::MAX };
    let store = super::sled_store::tests::store_in(dir.path());
    let history = KeptHistory::inline(store, keep).expect("opens");
    spoil_table(dir.path(), chain.record(41).expect("a record"));
    history.begin(1, 60, chain.chains[60]);
    let gap = |coverage: Coverage| coverage.gaps.iter().map(|gap| (gap.after, gap.through)).collect::<Vec<_>>();
    // The state says that what lies there does not end with its chain value.
    assert_eq!(gap(history.coverage(1)), [(40, 60)]);
    history.retain().expect("the others can be read");
    // Stamps are 1,000 ms apart, and the newest that is left is 40.
    assert_eq!((history.coverage(1).oldest, gap(history.coverage(1))), (15, vec![(40, 60)]));
    history.fill(1, &chain.from(41, 60), 60).expect("a peer has it");
    assert_eq!(history.read(1, 15, ALL).expect("here").records, chain.from(15, 60));
    history.close();
}
