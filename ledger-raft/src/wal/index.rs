//! Where a group's written entries lie.
//!
//! **Owns** index → (segment generation, offset), four bytes an entry. **Must never** have a hole.
//!
//! **Read next**: [`super::group`].

use std::collections::VecDeque;

/// Entries of one group that lie in one segment.
#[derive(Debug)]
struct Run {
    generation: u32,
    first: u64,
    offsets: Vec<u32>,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }
}

/// All written entries of one group: consecutive, purged from the front, truncated from the back.
#[derive(Debug, Default)]
pub(crate) struct GroupIndex {
    runs: VecDeque<Run>,
    /// First live index; meaningful while there are runs.
    first: u64,
}

impl GroupIndex {
    pub(crate) fn first(&self) -> Option<u64> {
        self.runs.front().map(|_| self.first)
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.runs.back().map(|r| r.end() - 1)
    }

    /// The oldest segment that holds a live entry.
    pub(crate) fn oldest_generation(&self) -> Option<u32> {
        self.runs.iter().map(|r| r.generation).min()
    }

    /// Adds the next entry. One at or below the last replaces all from there on; one beyond leaves only itself.
    pub(crate) fn push(&mut self, generation: u32, index: u64, offset: u32) {
        match self.last() {
            Some(last) if index <= last => self.truncate_from(index),
            Some(last) if index > last + 1 => self.runs.clear(),
            _ => {}
        }
        match self.runs.back_mut() {
            Some(run) if run.generation == generation => run.offsets.push(offset),
            _ => {
                if self.runs.is_empty() {
                    self.first = index;
                }
                self.runs.push_back(Run { generation, first: index, offsets: vec![offset] });
            }
        }
    }

    /// Drops `from` and all behind it.
    pub(crate) fn truncate_from(&mut self, from: u64) {
        if self.first >= from {
            self.runs.clear();
            return;
        }
        while let Some(run) = self.runs.back_mut() {
            if run.first >= from {
                self.runs.pop_back();
                continue;
            }
            run.offsets.truncate(usize::try_from(from - run.first).unwrap_or(usize::MAX));
            break;
        }
    }

    /// Drops everything through `upto`.
    pub(crate) fn purge(&mut self, upto: u64) {
        while self.runs.front().is_some_and(|r| r.end() <= upto.saturating_add(1)) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front() {
            self.first = self.first.max(upto.saturating_add(1)).max(run.first);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Where an entry lies.
    pub(crate) fn find(&self, index: u64) -> Option<(u32, u32)> {
        if index < self.first()? {
            return None;
        }
        let at = self.runs.partition_point(|r| r.end() <= index);
        let run = self.runs.get(at)?;
        let offset = run.offsets.get(usize::try_from(index.checked_sub(run.first)?).ok()?)?;
        Some((run.generation, *offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_truncates_and_finds_over_runs() {
        let mut index = GroupIndex::default();
        for i in 5..15u64 {
            index.push(if i < 10 { 1 } else { 2 }, i, i as u32 * 10);
        }
        assert_eq!((index.first(), index.last()), (Some(5), Some(14)));
        assert_eq!(index.find(9), Some((1, 90)));
        assert_eq!(index.find(10), Some((2, 100)));
        index.purge(6);
        assert_eq!((index.find(6), index.find(7)), (None, Some((1, 70))));
        index.truncate_from(12);
        assert_eq!((index.last(), index.find(12)), (Some(11), None));
        index.push(3, 11, 7);
        assert_eq!((index.last(), index.find(11)), (Some(11), Some((3, 7))));
        index.purge(9);
        assert_eq!(index.oldest_generation(), Some(2));
        index.purge(100);
        assert_eq!((index.first(), index.last()), (None, None));
    }
}
