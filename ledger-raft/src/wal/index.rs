//! Where a group's written entries lie.
//!
//! **Owns** index → (segment generation, offset), eight bytes an entry, and how many bytes of each segment are live. **Must never**
//! have a hole while the log runs; only a replay has one, for entries that a later segment repeats.
//!
//! **Read next**: [`super::group`], [`super::carry`].

use std::collections::{BTreeMap, VecDeque};

/// A segment's generation, and the byte in its file where a record begins.
pub(crate) type Place = (u32, u32);

/// Entries of one group that lie in one segment.
#[derive(Debug)]
struct Run {
    generation: u32,
    first: u64,
    /// Offset and length of each record.
    records: VecDeque<(u32, u32)>,
    /// Sum of the lengths.
    bytes: u64,
}

impl Run {
    fn new(generation: u32, first: u64, offset: u32, bytes: u32) -> Self {
        Self { generation, first, records: VecDeque::from([(offset, bytes)]), bytes: u64::from(bytes) }
    }

    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn push(&mut self, offset: u32, bytes: u32) {
        self.records.push_back((offset, bytes));
        self.bytes += u64::from(bytes);
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.records.pop_front() {
            self.first += 1;
            self.bytes -= u64::from(bytes);
        }
    }

    fn pop_back(&mut self) {
        if let Some((_, bytes)) = self.records.pop_back() {
            self.bytes -= u64::from(bytes);
        }
    }

    /// Keeps what is before `index`; returns the rest.
    fn split_off(&mut self, index: u64) -> Self {
        let at = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.records.len());
        let records = self.records.split_off(at);
        let bytes = records.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        self.bytes -= bytes;
        Self { generation: self.generation, first: index, records, bytes }
    }
}

/// All written entries of one group: consecutive, purged from the front, truncated from the back. The runs are in order of index, not
/// of generation: what was carried forward lies in a newer segment than what follows it.
#[derive(Debug, Default)]
pub(crate) struct GroupIndex {
    runs: VecDeque<Run>,
}

impl GroupIndex {
    pub(crate) fn first(&self) -> Option<u64> {
        self.runs.front().map(|r| r.first)
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.runs.back().map(|r| r.end() - 1)
    }

    /// The oldest segment that holds a live entry.
    pub(crate) fn oldest_generation(&self) -> Option<u32> {
        self.runs.iter().map(|r| r.generation).min()
    }

    /// Bytes of all live records.
    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().map(|r| r.bytes).sum()
    }

    /// Bytes of live records at or below `index`.
    pub(crate) fn bytes_through(&self, index: u64) -> u64 {
        let whole = self.runs.iter().take_while(|r| r.end() <= index.saturating_add(1));
        let sum: u64 = whole.map(|r| r.bytes).sum();
        let part = self.runs.iter().find(|r| r.end() > index.saturating_add(1) && r.first <= index);
        let within = |r: &Run| usize::try_from(index + 1 - r.first).unwrap_or(usize::MAX);
        sum + part.map_or(0, |r| r.records.iter().take(within(r)).map(|(_, bytes)| u64::from(*bytes)).sum())
    }

    /// The first index from which on the records have at most `bytes_max` bytes.
    pub(crate) fn newest_within(&self, bytes_max: u64) -> u64 {
        let mut left = bytes_max;
        for run in self.runs.iter().rev() {
            match left.checked_sub(run.bytes) {
                Some(rest) => left = rest,
                None => {
                    let fit = |bytes: &&(u32, u32)| {
                        let rest = left.checked_sub(u64::from(bytes.1));
                        left = rest.unwrap_or(left);
                        rest.is_some()
                    };
                    return run.end() - run.records.iter().rev().take_while(fit).count() as u64;
                }
            }
        }
        self.first().unwrap_or(0)
    }

    /// Adds the bytes of live records to those of their segments.
    pub(crate) fn add_live(&self, live: &mut BTreeMap<u32, u64>) {
        for run in &self.runs {
            *live.entry(run.generation).or_default() += run.bytes;
        }
    }

    /// Places of live entries in segments below `generation`, from the oldest segment on: at most `count` of together `bytes_max`, but
    /// at least one if there is one; and the sum.
    pub(crate) fn below(&self, generation: u32, count: usize, bytes_max: u64) -> (Vec<(u64, Place)>, u64) {
        let mut runs: Vec<&Run> = self.runs.iter().filter(|r| r.generation < generation).collect();
        runs.sort_by_key(|r| (r.generation, r.first));
        let (mut out, mut sum) = (Vec::new(), 0);
        for run in runs {
            for (index, (offset, bytes)) in (run.first..).zip(&run.records) {
                let more = sum + u64::from(*bytes);
                if out.len() >= count || (more > bytes_max && !out.is_empty()) {
                    return (out, sum);
                }
                out.push((index, (run.generation, *offset)));
                sum = more;
            }
        }
        (out, sum)
    }

    /// Adds the next entry. One at or below the last replaces all from there on; one beyond leaves only itself.
    pub(crate) fn push(&mut self, place: Place, index: u64, bytes: u32) {
        match self.last() {
            Some(last) if index <= last => self.truncate_from(index),
            Some(last) if index > last + 1 => self.runs.clear(),
            _ => {}
        }
        self.place(place, index, bytes);
    }

    /// Says where one entry lies, whether it is known or not; the others stay.
    pub(crate) fn place(&mut self, (generation, offset): Place, index: u64, bytes: u32) {
        let mut at = self.runs.partition_point(|r| r.end() <= index);
        if let Some(run) = self.runs.get_mut(at).filter(|r| r.first <= index) {
            let left = (run.first < index).then(|| {
                let right = run.split_off(index);
                std::mem::replace(run, right)
            });
            run.pop_front();
            if run.records.is_empty() {
                self.runs.remove(at);
            }
            if let Some(left) = left {
                self.runs.insert(at, left);
                at += 1;
            }
        }
        match at.checked_sub(1).and_then(|before| self.runs.get_mut(before)) {
            Some(run) if run.generation == generation && run.end() == index => run.push(offset, bytes),
            _ => self.runs.insert(at, Run::new(generation, index, offset, bytes)),
        }
    }

    /// Drops `from` and all behind it.
    pub(crate) fn truncate_from(&mut self, from: u64) {
        while self.runs.back().is_some_and(|r| r.first >= from) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut() {
            while run.end() > from {
                run.pop_back();
            }
        }
    }

    /// Drops `upto` and all before it.
    pub(crate) fn purge(&mut self, upto: u64) {
        while self.runs.front().is_some_and(|r| r.end() <= upto.saturating_add(1)) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            while run.first <= upto {
                run.pop_front();
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Where an entry lies.
    pub(crate) fn find(&self, index: u64) -> Option<Place> {
        let run = self.runs.get(self.runs.partition_point(|r| r.end() <= index))?;
        let (offset, _) = run.records.get(usize::try_from(index.checked_sub(run.first)?).ok()?)?;
        Some((run.generation, *offset))
    }

    /// Whether every entry from `first` through `last` is here, and none behind.
    pub(crate) fn is_whole(&self, first: u64, last: u64) -> bool {
        let follow = self.runs.iter().zip(self.runs.iter().skip(1)).all(|(run, next)| run.end() == next.first);
        follow && self.first().is_some_and(|f| f <= first) && self.last() == Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_truncates_and_finds_over_runs() {
        let mut index = GroupIndex::default();
        for i in 5..15u64 {
            index.push((if i < 10 { 1 } else { 2 }, i as u32 * 10), i, 100);
        }
        assert_eq!((index.first(), index.last(), index.bytes()), (Some(5), Some(14), 1000));
        assert_eq!(index.find(9), Some((1, 90)));
        assert_eq!(index.find(10), Some((2, 100)));
        index.purge(6);
        assert_eq!((index.find(6), index.find(7), index.bytes()), (None, Some((1, 70)), 800));
        index.truncate_from(12);
        assert_eq!((index.last(), index.find(12), index.bytes()), (Some(11), None, 500));
        index.push((3, 7), 11, 1);
        assert_eq!((index.last(), index.find(11), index.bytes()), (Some(11), Some((3, 7)), 401));
        assert_eq!((index.bytes_through(6), index.bytes_through(8), index.bytes_through(99)), (0, 200, 401));
        assert_eq!([0, 1, 150, 399, 401].map(|bytes| index.newest_within(bytes)), [12, 11, 10, 8, 7]);
        index.purge(9);
        assert_eq!(index.oldest_generation(), Some(2));
        index.purge(100);
        assert_eq!((index.first(), index.last(), index.bytes()), (None, None, 0));
    }

    #[test]
    fn carried_entries_lie_elsewhere_and_keep_their_order() {
        let mut index = GroupIndex::default();
        for i in 1..=6u64 {
            index.push((i as u32 / 3, 10), i, 7);
        }
        assert_eq!(index.below(2, 3, u64::MAX), (vec![(1, (0, 10)), (2, (0, 10)), (3, (1, 10))], 21));
        assert_eq!(index.below(2, 9, 1).1, 7, "one at least");
        for i in 1..=4 {
            index.place((9, i as u32), i, 7);
        }
        assert_eq!((index.oldest_generation(), index.bytes()), (Some(1), 42));
        index.place((9, 5), 5, 7);
        assert_eq!((index.oldest_generation(), index.runs.len()), (Some(2), 2));
        assert_eq!((1..=6).map(|i| index.find(i).unwrap().0).collect::<Vec<_>>(), [9, 9, 9, 9, 9, 2]);
        index.place((10, 1), 3, 7);
        assert!(index.is_whole(1, 6) && !index.is_whole(0, 6) && !index.is_whole(1, 7));
        assert_eq!((index.runs.len(), index.bytes(), index.find(4)), (4, 42, Some((9, 4))));
        let mut live = BTreeMap::new();
        index.add_live(&mut live);
        assert_eq!(live, BTreeMap::from([(2, 7), (9, 28), (10, 7)]));
    }

    #[test]
    fn a_replay_may_learn_of_the_first_entries_last() {
        let mut index = GroupIndex::default();
        index.place((4, 0), 6, 1);
        index.place((5, 0), 2, 1);
        index.place((5, 1), 3, 1);
        assert!(!index.is_whole(2, 6));
        index.place((5, 2), 4, 1);
        index.place((5, 3), 5, 1);
        assert!(index.is_whole(2, 6));
    }
}
