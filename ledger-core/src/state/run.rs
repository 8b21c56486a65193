//! A sorted run of values by time, in segments of a bounded length.
//!
//! **What it is.** Values are added behind all others and leave mostly from the front. One array for all of them would be copied whole
//! when it grows, in the entry that fills it, and looked through whole to free empty places; a segment is short enough for either.
//! **Owns** the order of times. **Must never** look at more than a segment and the list of segments in one step. **Read next**:
//! [`super::due`].

use std::collections::VecDeque;

use super::due::{EMPTIED_MIN, steps};

/// Values of a segment.
const SEGMENT: usize = if cfg!(test) { 128 } else { 4_096 };

/// Values by rising time.
#[derive(Clone)]
pub(crate) struct Run<T> {
    /// None is without values.
    segments: VecDeque<Segment<T>>,
    len: usize,
}

#[derive(Clone)]
struct Segment<T> {
    values: VecDeque<(u64, T)>,
    /// At most so many of them are empty: each was the last of its time to end early.
    emptied: usize,
}

/// Where a value is: until the next change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceInRun(usize, usize);

impl<T> Segment<T> {
    fn first(&self) -> u64 {
        self.values.front().expect("no segment is without values").0
    }

    fn find(&self, at: u64) -> Option<usize> {
        // Times are distinct and sorted: the place is at most the distance from the first, and just that in a dense run.
        let distance = usize::try_from(at.checked_sub(self.first())?).unwrap_or(usize::MAX);
        let guess = distance.min(self.values.len() - 1);
        if self.values[guess].0 == at {
            return Some(guess);
        }
        let place = self.values.partition_point(|&(t, _)| t < at);
        self.values.get(place).is_some_and(|&(t, _)| t == at).then_some(place)
    }
}

impl<T> Run<T> {
    pub(crate) fn new() -> Self {
        Self { segments: VecDeque::new(), len: 0 }
    }

    /// Values in it, with empty ones.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first time.
    pub(crate) fn first(&self) -> Option<u64> {
        self.segments.front().map(Segment::first)
    }

    /// The last time.
    #[inline]
    pub(crate) fn last(&self) -> Option<u64> {
        self.segments.back()?.values.back().map(|&(at, _)| at)
    }

    /// The value of the last time.
    #[inline]
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.segments.back_mut()?.values.back_mut().map(|(_, value)| value)
    }

    /// The segment in which a time is, if it is in the run.
    fn segment_of(&self, at: u64) -> Option<usize> {
        if at > self.last()? {
            return None;
        }
        self.segments.partition_point(|segment| segment.first() <= at).checked_sub(1)
    }

    /// Where the value of a time is.
    pub(crate) fn find(&self, at: u64) -> Option<PlaceInRun> {
        let segment = self.segment_of(at)?;
        Some(PlaceInRun(segment, self.segments[segment].find(at)?))
    }

    /// The value at a place that was found.
    pub(crate) fn at_mut(&mut self, PlaceInRun(segment, place): PlaceInRun) -> &mut T {
        &mut self.segments[segment].values[place].1
    }

    /// Adds a value of a later time than all others.
    pub(crate) fn push(&mut self, at: u64, value: T) -> &mut T {
        if self.segments.back().is_none_or(|last| last.values.len() >= SEGMENT) {
            self.segments.push_back(Segment { values: VecDeque::new(), emptied: 0 });
        }
        self.len += 1;
        let last = &mut self.segments.back_mut().expect("just added").values;
        last.push_back((at, value));
        &mut last.back_mut().expect("just added").1
    }

    /// Takes the first value.
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let values = &mut self.segments.front_mut()?.values;
        let first = values.pop_front();
        if values.is_empty() {
            self.segments.pop_front();
        } else if values.capacity() > 4 * values.len() + EMPTIED_MIN {
            // The memory of a peak that one segment had room for.
            steps::moved(values.len());
            values.shrink_to(2 * values.len());
        }
        self.len -= 1;
        first
    }

    /// Removes leading values that are empty.
    pub(crate) fn trim(&mut self, empty: impl Fn(&T) -> bool) {
        while let Some(segment) = self.segments.front_mut()
            && segment.values.front().is_some_and(|(_, value)| empty(value))
        {
            segment.emptied = segment.emptied.saturating_sub(1);
            self.pop();
        }
    }

    /// The value of a time has become empty: its place is freed with others of its segment.
    pub(crate) fn emptied(&mut self, at: u64, empty: impl Fn(&T) -> bool) {
        let Some(place) = self.segment_of(at) else { return };
        let is_last = place + 1 == self.segments.len();
        let segment = &mut self.segments[place];
        segment.emptied += 1;
        // The last one fills and empties all the time.
        let spared = if is_last { EMPTIED_MIN } else { 0 };
        if segment.emptied > segment.values.len() / 2 + spared {
            let before = segment.values.len();
            steps::count(before);
            segment.values.retain(|(_, value)| !empty(value));
            segment.values.shrink_to_fit();
            segment.emptied = 0;
            self.len -= before - segment.values.len();
            if segment.values.is_empty() {
                self.segments.remove(place);
            }
        }
    }

    /// All times and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.segments.iter().flat_map(|segment| segment.values.iter().map(|(at, value)| (*at, value)))
    }

    /// Those after a time.
    pub(crate) fn after(&self, from: u64) -> impl Iterator<Item = (u64, &T)> {
        // The segment before the first that begins later may end later.
        let first = self.segments.partition_point(|segment| segment.first() <= from).saturating_sub(1);
        let segments = self.segments.range(first..);
        segments.flat_map(move |segment| {
            let first = segment.values.partition_point(|&(t, _)| t <= from);
            segment.values.range(first..).map(|(at, value)| (*at, value))
        })
    }

    /// Places that it takes memory for.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.segments.iter().map(|segment| segment.values.capacity()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::state::random;

    fn full(values: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
        values.filter(|(_, value)| *value != 0).collect()
    }

    #[test]
    fn it_is_a_sorted_map_whatever_is_emptied_and_no_step_looks_at_more_than_a_segment() {
        let (mut most, mut segments, mut fewer, mut whole) = (0, 0, 0, 0);
        for seed in 0..10 {
            let mut state = seed;
            let (mut run, mut model) = (Run::new(), BTreeMap::<u64, u64>::new());
            let mut time = 0;
            for step in 0..12_000_u64 {
                let r = random(&mut state);
                steps::taken();
                steps::taken_moves();
                // It grows, and then it shrinks.
                let grows = step < 5_000 || (step / 500).is_multiple_of(2);
                if r % 8 < if grows { 6 } else { 2 } {
                    time += 1 + (r >> 8) % 3;
                    *run.push(time, r) |= 1;
                    model.insert(time, r | 1);
                } else if r % 8 == 7 {
                    assert_eq!(run.pop(), model.pop_first());
                } else if let Some((&at, _)) = model.range((r >> 8) % (time + 1)..).next() {
                    // Empty until its place is freed.
                    let (place, before) = (run.find(at).expect("it is there"), run.segments.len());
                    *run.at_mut(place) = 0;
                    let length = run.len();
                    run.emptied(at, |&value| value == 0);
                    fewer += usize::from(run.len() + 1 < length);
                    whole += usize::from(run.segments.len() < before);
                    model.remove(&at);
                    if let Some(place) = run.find(at)
                        && r.is_multiple_of(5)
                    {
                        // Others come to that time meanwhile.
                        *run.at_mut(place) = 7;
                        model.insert(at, 7);
                    }
                }
                run.trim(|&value| value == 0);
                most = most.max(steps::taken() + steps::taken_moves());
                segments = segments.max(run.segments.len());
                assert_eq!(run.first(), model.first_key_value().map(|(&at, _)| at), "seed {seed}, step {step}");
                if step.is_multiple_of(100) {
                    let expected: Vec<_> = model.iter().map(|(&at, &value)| (at, value)).collect();
                    assert_eq!(full(run.iter().map(|(at, value)| (at, *value))), expected);
                    for from in [0, random(&mut state) % (time + 1), time] {
                        let later = expected.iter().copied().filter(|(at, _)| *at > from).collect::<Vec<_>>();
                        assert_eq!(full(run.after(from).map(|(at, value)| (at, *value))), later);
                    }
                    assert_eq!(run.len(), run.iter().count());
                    let (places, spared) = (run.places(), 4 * SEGMENT);
                    assert!(places <= 5 * model.len() + spared, "{places} places for {} values", model.len());
                }
            }
        }
        assert!(segments > 10 && fewer > 100 && whole > 3, "{segments} segments, {fewer} compacted, {whole} gone");
        // A segment, and what is left at the front of it.
        assert!(most <= 3 * SEGMENT, "{most} were looked at in one step");
    }

    #[test]
    fn memory_of_a_peak_comes_back_though_one_value_stays() {
        let mut run = Run::new();
        (0..SEGMENT as u64 - 1).for_each(|at| *run.push(at, 1) = 1);
        for at in SEGMENT as u64..10 * SEGMENT as u64 {
            run.push(at, 1);
            while run.len() > 2 {
                run.pop();
            }
        }
        assert!(run.places() <= 4 * run.len() + 2 * EMPTIED_MIN, "{} places for {}", run.places(), run.len());
        // The last segment frees what ended early.
        let mut run = Run::new();
        run.push(0, 1);
        for at in 1..SEGMENT as u64 - 1 {
            *run.push(at, 1) = 0;
            run.emptied(at, |&value| value == 0);
        }
        assert!(run.len() <= 2 * EMPTIED_MIN, "{} places for one value", run.len());
    }
}
