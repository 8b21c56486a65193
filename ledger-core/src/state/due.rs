//! What becomes due when: sums by deadline, and queues of records by deadline.
//!
//! **What it is.** [`ByDeadline`] maps a time to a value. Times arrive nearly sorted (one stamp an entry, few hold times), so a
//! few sorted runs take them at their ends; what fits no run goes to a tree. [`DueQueue`] keeps records in buckets of
//! equal time and gives them out in the order (time, id), however many share a time: a bucket is put in order when its time comes, but for
//! what is beyond a number of records, which is in order already. So a mass expiry costs its number, spread over the entries that sweep it.
//!
//! *Memory.* What ends before its time leaves an empty place behind. Places are freed together, as soon as they are more than half of
//! their segment: the memory is bounded by what is kept, not by what ever was, and freeing costs a step or two for each that ended.
//! **Owns** the order in which things become due. **Must never** depend on when it was asked: the order out is a function of
//! what is in. **Read next**: [`super::offers`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;

use smallvec::SmallVec;

use super::run::{PlaceInRun, Run};

/// Sorted runs before the tree is used: as many as there are hold times in steady use.
const RUNS: usize = 3;

/// Empty places that may be kept beside half as many as are in use.
pub(crate) const EMPTIED_MIN: usize = 32;

/// Whether empty places are so many that they are freed.
fn too_many_empty(empty: usize, all: usize) -> bool {
    empty > all / 2 + EMPTIED_MIN
}

/// Values by time.
#[derive(Clone)]
pub(crate) struct ByDeadline<T> {
    runs: [Run<T>; RUNS],
    strays: BTreeMap<u64, T>,
}

impl<T> ByDeadline<T> {
    pub(crate) fn new() -> Self {
        Self { runs: std::array::from_fn(|_| Run::new()), strays: BTreeMap::new() }
    }

    fn find(&self, at: u64) -> Option<(usize, PlaceInRun)> {
        self.runs.iter().enumerate().find_map(|(r, run)| Some((r, run.find(at)?)))
    }

    /// The value at a time.
    pub(crate) fn get_mut(&mut self, at: u64) -> Option<&mut T> {
        match self.find(at) {
            Some((r, place)) => Some(self.runs[r].at_mut(place)),
            None => self.strays.get_mut(&at),
        }
    }

    /// The value at a time, made when there is none.
    pub(crate) fn get_or_insert_with(&mut self, at: u64, make: impl FnOnce() -> T) -> &mut T {
        // Commands of one entry share a deadline: nearly always it is the last of its run.
        if let Some(r) = self.runs.iter().position(|run| run.last() == Some(at)) {
            return self.runs[r].last_mut().expect("just seen");
        }
        if let Some((r, place)) = self.find(at) {
            return self.runs[r].at_mut(place);
        }
        if !self.strays.is_empty() && self.strays.contains_key(&at) {
            return self.strays.get_mut(&at).expect("just seen");
        }
        let fits = (0..RUNS)
            .filter(|&r| self.runs[r].last().is_none_or(|last| last < at))
            .max_by_key(|&r| self.runs[r].last());
        match fits {
            Some(r) => self.runs[r].push(at, make()),
            None => self.strays.entry(at).or_insert_with(make),
        }
    }

    /// The value at a time has become empty: it is removed, at once or together with others. What is first is not empty afterwards.
    pub(crate) fn remove_empty(&mut self, at: u64, empty: impl Fn(&T) -> bool) {
        if self.strays.get(&at).is_some_and(&empty) {
            self.strays.remove(&at);
            return;
        }
        if let Some((r, _)) = self.find(at) {
            self.runs[r].emptied(at, &empty);
        }
        self.trim(empty);
    }

    /// Removes leading values that are empty, so that what is first is not.
    pub(crate) fn trim(&mut self, empty: impl Fn(&T) -> bool) {
        self.runs.iter_mut().for_each(|run| run.trim(&empty));
    }

    /// The first time.
    pub(crate) fn first(&self) -> Option<u64> {
        let runs = self.runs.iter().filter_map(Run::first).min();
        match (runs, self.strays.first_key_value()) {
            (Some(a), Some((&b, _))) => Some(a.min(b)),
            (a, b) => a.or(b.map(|(&t, _)| t)),
        }
    }

    /// Takes the first value if its time is at or before `to`.
    pub(crate) fn pop_due(&mut self, to: u64) -> Option<(u64, T)> {
        let first = self.first().filter(|&t| t <= to)?;
        steps::count(1);
        for run in &mut self.runs {
            if run.first() == Some(first) {
                return run.pop();
            }
        }
        self.strays.pop_first()
    }

    /// All values at or before `to`, in no order.
    pub(crate) fn due(&self, to: u64) -> impl Iterator<Item = &T> {
        let runs = self.runs.iter().flat_map(move |run| run.iter().take_while(move |(t, _)| *t <= to));
        let runs = runs.map(|(_, value)| value);
        runs.chain(self.strays.range(..=to).map(|(_, v)| v)).inspect(|_| steps::count(1))
    }

    /// All values after `from`, at or before `to`, in no order.
    fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &T> {
        let runs = self.runs.iter().flat_map(move |run| run.after(from).take_while(move |(t, _)| *t <= to));
        let runs = runs.map(|(_, value)| value);
        let strays = self.strays.range((Bound::Excluded(from), Bound::Included(to))).map(|(_, v)| v);
        runs.chain(strays).inspect(|_| steps::count(1))
    }

    /// All times and values, in no order; for the audit.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.runs.iter().flat_map(Run::iter).chain(self.strays.iter().map(|(t, v)| (*t, v)))
    }

    /// Values in it, with empty ones.
    pub(crate) fn len(&self) -> usize {
        self.runs.iter().map(Run::len).sum::<usize>() + self.strays.len()
    }

    /// Bytes it takes, without what its values have elsewhere. Empty places of its runs are room for others.
    pub(crate) fn bytes(&self) -> u64 {
        (in_a_tree(self.len()) * size_of::<(u64, T)>()) as u64
    }

    /// Places that it takes memory for.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.runs.iter().map(Run::places).sum::<usize>() + self.strays.len()
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Places that a B-tree takes for so many: its nodes are two thirds full where keys come in no order.
pub(crate) fn in_a_tree(len: usize) -> usize {
    len * 3 / 2
}

/// Counts, in test builds only, the values that were looked at: what a mass expiry may cost is a number of steps, whatever the machine.
pub(crate) mod steps {
    #[cfg(test)]
    thread_local! {
        static COUNT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
        static MOVED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// So many values were looked at.
    #[inline(always)]
    pub(in crate::state) fn count(steps: usize) {
        #[cfg(test)]
        COUNT.set(COUNT.get() + steps);
        #[cfg(not(test))]
        let _ = steps;
    }

    /// So many values were moved, unseen: as memory is given back, or a table grows.
    #[inline(always)]
    pub(in crate::state) fn moved(values: usize) {
        #[cfg(test)]
        MOVED.set(MOVED.get() + values);
        #[cfg(not(test))]
        let _ = values;
    }

    /// Values moved by this thread since it was asked last.
    #[cfg(test)]
    pub(crate) fn taken_moves() -> usize {
        MOVED.replace(0)
    }

    /// Steps of this thread since it was asked last.
    #[cfg(test)]
    pub(crate) fn taken() -> usize {
        COUNT.replace(0)
    }
}

/// Adds units at a deadline.
pub(crate) fn add_units(sums: &mut ByDeadline<u64>, at: u64, units: u64) {
    *sums.get_or_insert_with(at, || 0) += units;
}

/// Takes units from a deadline.
pub(crate) fn take_units(sums: &mut ByDeadline<u64>, at: u64, units: u64) {
    let sum = sums.get_mut(at).expect("units held until a deadline are counted at it");
    assert!(*sum >= units, "{units} units end early of {sum} held until {at}");
    *sum -= units;
    if *sum == 0 {
        sums.remove_empty(at, |&units| units == 0);
    }
}

/// A record in a queue: its time, its id and where it is.
type Due = (u64, [u8; 16], u32);

#[derive(Default)]
struct Bucket {
    live: u32,
    /// In no order, and with some that left: few enough to be put in order when their time comes.
    items: SmallVec<[u32; 4]>,
    /// What is beyond [`BUCKET_ITEMS_MAX`]: in order, and without what left.
    #[expect(clippy::box_collection, reason = "nearly all buckets have none, and there is one for each deadline")]
    more: Option<Box<BTreeSet<Due>>>,
}

/// Records of one time that are put in order when it comes: as many as end, or are refused, in a second of a shard's highest load,
/// and twenty milliseconds or so. Callers choose the ids and deadlines of theirs, so that one time may have all of them; what is
/// beyond is kept in order from the beginning, which takes more memory.
const BUCKET_ITEMS_MAX: usize = if cfg!(test) { 64 } else { 1 << 18 };

impl Bucket {
    /// Items that count.
    fn live_items(&self) -> usize {
        self.live as usize - self.more.as_ref().map_or(0, |more| more.len())
    }

    /// Frees the places of items that left.
    #[cold]
    #[inline(never)]
    fn compact(&mut self, at: u64, id_of: impl Fn(u32, u64) -> Option<[u8; 16]>) {
        steps::count(self.items.len());
        self.items.sort_unstable();
        self.items.dedup();
        // One that left and came back may be behind them.
        let more = &self.more;
        let is_behind = |due: &Due| more.as_ref().is_some_and(|more| more.contains(due));
        self.items.retain(|&mut record| id_of(record, at).is_some_and(|id| !is_behind(&(at, id, record))));
        self.items.shrink_to_fit();
    }
}

/// Records by time, given out in the order (time, id).
///
/// Leaving is lazy where nothing is in order: a record that ended early stays among its bucket's items until they are compacted or come
/// up, and callers say which of them still count.
pub(crate) struct DueQueue {
    buckets: ByDeadline<Bucket>,
    /// What is due or was, with `in_order`: every record that counts with a time at or below `front_to`.
    front: BinaryHeap<Reverse<Due>>,
    /// At least as many of `front` no longer count: they left early.
    front_left: usize,
    /// Of what is due or was: what its bucket had in order, and what came when its time had come.
    in_order: BTreeSet<Due>,
    front_to: Option<u64>,
    len: usize,
    /// Records that buckets have in order.
    behind: usize,
    /// Records that count with a time at or before `counted_to`: due and not taken.
    due: usize,
    counted_to: u64,
}

impl DueQueue {
    pub(crate) fn new() -> Self {
        Self {
            buckets: ByDeadline::new(),
            front: BinaryHeap::new(),
            front_left: 0,
            in_order: BTreeSet::new(),
            front_to: None,
            len: 0,
            behind: 0,
            due: 0,
            counted_to: 0,
        }
    }

    /// Records that count.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Time has come to `to`: each record is counted once as due, one step for each distinct time.
    pub(crate) fn advance(&mut self, to: u64) {
        if to > self.counted_to {
            self.due += self.buckets.between(self.counted_to, to).map(|b| b.live as usize).sum::<usize>();
            self.counted_to = to;
        }
    }

    /// Records due by the time of the last [`Self::advance`] and not yet taken.
    pub(crate) fn due(&self) -> usize {
        self.due
    }

    pub(crate) fn insert(&mut self, at: u64, id: &[u8; 16], record: u32) {
        self.len += 1;
        self.due += usize::from(at <= self.counted_to);
        if self.front_to.is_some_and(|to| at <= to) {
            self.in_order.insert((at, *id, record));
            return;
        }
        let bucket = self.buckets.get_or_insert_with(at, Bucket::default);
        bucket.live += 1;
        if bucket.items.len() < BUCKET_ITEMS_MAX {
            bucket.items.push(record);
        } else {
            bucket.more.get_or_insert_default().insert((at, *id, record));
            self.behind += 1;
        }
    }

    /// A record left before its time. `id_of` is as in [`Self::first_due`].
    pub(crate) fn leave(&mut self, at: u64, id: &[u8; 16], record: u32, id_of: impl Fn(u32, u64) -> Option<[u8; 16]>) {
        self.len = self.len.checked_sub(1).expect("only what is in a queue leaves it");
        self.count_out(at);
        if self.front_to.is_some_and(|to| at <= to) {
            if !self.in_order.remove(&(at, *id, record)) {
                self.front_left += 1;
                if too_many_empty(self.front_left, self.front.len()) {
                    self.compact_front(id_of);
                }
            }
            return;
        }
        let bucket = self.buckets.get_mut(at).expect("a record not yet due is in the bucket of its time");
        bucket.live -= 1;
        if let Some(more) = &mut bucket.more {
            self.behind -= usize::from(more.remove(&(at, *id, record)));
        }
        if bucket.live == 0 {
            *bucket = Bucket::default();
            self.buckets.remove_empty(at, |b| b.live == 0);
        } else if bucket.items.len() > 2 * bucket.live_items() + 16 {
            bucket.compact(at, id_of);
        }
    }

    #[cold]
    #[inline(never)]
    fn compact_front(&mut self, id_of: impl Fn(u32, u64) -> Option<[u8; 16]>) {
        steps::count(self.front.len());
        self.front.retain(|&Reverse((at, id, record))| id_of(record, at) == Some(id));
        if self.front.capacity() > 4 * self.front.len() + EMPTIED_MIN {
            self.front.shrink_to(2 * self.front.len());
        }
        self.front_left = 0;
    }

    /// The first of what is due or was.
    fn first(&self) -> Option<Due> {
        let front = self.front.peek().map(|&Reverse(due)| due);
        front.into_iter().chain(self.in_order.first().copied()).min()
    }

    /// Takes it out. One that left and came back may be in both.
    fn pop_first(&mut self, due: Due) {
        if self.front.peek() == Some(&Reverse(due)) {
            self.front.pop();
            self.front_left = self.front_left.saturating_sub(1);
        }
        if self.in_order.first() == Some(&due) {
            self.in_order.pop_first();
        }
    }

    /// The first record due by `to`. `id_of` gives a record's id if it (still) counts at that time.
    pub(crate) fn first_due(
        &mut self,
        to: u64,
        id_of: impl Fn(u32, u64) -> Option<[u8; 16]>,
    ) -> Option<(u64, [u8; 16], u32)> {
        loop {
            while let Some(due) = self.first() {
                let (at, id, record) = due;
                if id_of(record, at) == Some(id) {
                    return (at <= to).then_some(due);
                }
                self.pop_first(due);
            }
            let (at, bucket) = self.buckets.pop_due(to)?;
            self.buckets.trim(|b| b.live == 0);
            steps::count(bucket.items.len());
            self.front_to = Some(self.front_to.map_or(at, |before| before.max(at)));
            let items = bucket.items.iter().filter_map(|&record| Some(Reverse((at, id_of(record, at)?, record))));
            self.front = items.collect::<Vec<_>>().into();
            self.front_left = 0;
            if let Some(more) = bucket.more {
                self.behind -= more.len();
                self.in_order = *more;
            }
        }
    }

    /// Takes what [`Self::first_due`] gave.
    pub(crate) fn take_first(&mut self) {
        let due = self.first().expect("something is due");
        self.pop_first(due);
        let at = due.0;
        self.len = self.len.checked_sub(1).expect("what is due was counted");
        self.count_out(at);
    }

    fn count_out(&mut self, at: u64) {
        if at <= self.counted_to {
            self.due = self.due.checked_sub(1).expect("what is due was counted when its time came");
        }
    }

    /// The first time at which something is due.
    pub(crate) fn first_time(&self) -> Option<u64> {
        let front = self.first().map(|(at, _, _)| at);
        match (front, self.buckets.first()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Records due by `to` and not yet taken. Exact as long as none of them left early.
    pub(crate) fn count_due(&self, to: u64) -> u64 {
        let front = if self.front_to.is_some_and(|f| f <= to) {
            self.front.len() + self.in_order.len()
        } else {
            let front = self.front.iter().filter(|Reverse((at, _, _))| *at <= to).count();
            front + self.in_order.iter().take_while(|(at, _, _)| *at <= to).count()
        };
        front as u64 + self.buckets.due(to).map(|b| u64::from(b.live)).sum::<u64>()
    }

    /// Bytes it takes, about: items are taken to be as full as their growth leaves them.
    pub(crate) fn bytes(&self) -> u64 {
        let in_order = self.in_order.len() + self.behind;
        let items = self.len.saturating_sub(in_order + self.front.len()) * size_of::<u32>() * 3 / 2;
        let due = (in_a_tree(in_order) + self.front.len()) * size_of::<Due>();
        self.buckets.bytes() + (due + items) as u64
    }

    /// Places that it takes memory for.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.buckets.places() + self.front.capacity() + self.in_order.len()
    }

    /// Every (time, record) that counts, for the audit: sorted, each once.
    pub(crate) fn entries(&self, counts: impl Fn(u32, u64) -> bool) -> Vec<(u64, u32)> {
        let in_order = |set: &BTreeSet<Due>| set.iter().map(|&(at, _, record)| (at, record)).collect::<Vec<_>>();
        let behind = self.buckets.iter().flat_map(|(at, b)| {
            let items = b.items.iter().map(move |&record| (at, record));
            items.chain(b.more.as_deref().map(in_order).unwrap_or_default())
        });
        let front = self.front.iter().map(|&Reverse((at, _, record))| (at, record)).chain(in_order(&self.in_order));
        let mut all: Vec<_> = front.chain(behind).filter(|&(at, record)| counts(record, at)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found_wherever_they_were_put() {
        let mut sums = ByDeadline::new();
        let times = [50u64, 60, 10, 70, 5, 3, 2, 1, 65, 50, 3];
        for &t in &times {
            add_units(&mut sums, t, t);
        }
        assert_eq!(sums.first(), Some(1));
        assert_eq!(sums.due(10).sum::<u64>(), 10 + 5 + 3 + 3 + 2 + 1);
        take_units(&mut sums, 1, 1);
        take_units(&mut sums, 3, 6);
        assert_eq!(sums.first(), Some(2));
        let mut order = Vec::new();
        while let Some((t, units)) = sums.pop_due(60) {
            order.push((t, units));
        }
        assert_eq!(
            order.iter().filter(|o| o.1 > 0).copied().collect::<Vec<_>>(),
            [(2, 2), (5, 5), (10, 10), (50, 100), (60, 60)]
        );
    }

    #[test]
    fn memory_of_many_deadlines_comes_back_as_they_pass() {
        let mut sums = ByDeadline::new();
        (0..100_000).for_each(|at| add_units(&mut sums, at, 1));
        assert!(sums.places() >= 100_000);
        steps::taken();
        for at in 0..99_990 {
            assert_eq!(sums.pop_due(at), Some((at, 1)));
        }
        assert!(sums.places() <= 256, "{} places for 10 sums", sums.places());
        assert!(steps::taken() <= 100_000, "a step for each that passed");
    }

    #[test]
    fn due_records_come_in_the_order_of_time_and_id_whenever_they_were_put() {
        let id = |n: u32| u128::from(n).to_be_bytes();
        let mut queue = DueQueue::new();
        for n in [9u32, 3, 7, 1] {
            queue.insert(100, &id(n), n);
        }
        queue.insert(90, &id(50), 50);
        let counts = |n: u32, _: u64| (n != 7).then(|| id(n));
        queue.leave(100, &id(7), 7, counts);
        assert_eq!(queue.first_due(89, counts), None);
        let mut order = Vec::new();
        while let Some((_, _, n)) = queue.first_due(100, counts) {
            queue.take_first();
            order.push(n);
            if n == 1 {
                queue.insert(100, &id(2), 2);
                queue.insert(80, &id(90), 90);
            }
        }
        assert_eq!(order, [50, 1, 90, 2, 3, 9]);
        assert_eq!(queue.len(), 0);
    }

    /// One record that stays in front of each sorted run, and behind them far more that come and go.
    #[test]
    fn records_that_left_early_behind_one_that_stays_take_no_memory() {
        let id = |n: u32| u128::from(n).to_be_bytes();
        let (mut queue, mut sums) = (DueQueue::new(), ByDeadline::new());
        let only_the_first = |n: u32, _: u64| (n < RUNS as u32).then(|| id(n));
        for n in 0..RUNS as u32 {
            // Each is earlier than the one before it, and so begins a run of its own.
            queue.insert(5 - u64::from(n), &id(n), n);
            add_units(&mut sums, 5 - u64::from(n), 1);
        }
        assert!(sums.runs.iter().all(|run| run.len() == 1) && sums.strays.is_empty());
        steps::taken();
        for n in RUNS as u32..100_000_u32 {
            // Rising, and then falling ones between them: the first of those ends its run.
            let at = if n > 50_000 && n % 3 == 0 { 1_000_000 - u64::from(n) } else { 10 + u64::from(n) };
            queue.insert(at, &id(n), n);
            add_units(&mut sums, at, 1);
            queue.leave(at, &id(n), n, only_the_first);
            take_units(&mut sums, at, 1);
        }
        assert!(queue.places() < 1_000, "{} buckets", queue.places());
        assert!(sums.places() < 1_000, "{} sums", sums.places());
        assert!(steps::taken() < 400_000, "a step or two for each that left");
        let first = 5 - (RUNS as u64 - 1);
        assert_eq!((queue.first_time(), sums.first(), queue.len()), (Some(first), Some(first), RUNS));
    }

    /// The same once the one that stays is due: what comes then is due at once, and leaves early all the same.
    #[test]
    fn records_that_left_the_front_early_take_no_memory() {
        let id = |n: u32| u128::from(n).to_be_bytes();
        let mut queue = DueQueue::new();
        let only_the_first = |n: u32, _: u64| (n == 0).then(|| id(n));
        queue.insert(5, &id(0), 0);
        queue.insert(5, &id(1), 1);
        queue.leave(5, &id(1), 1, only_the_first);
        assert_eq!(queue.first_due(10, only_the_first), Some((5, id(0), 0)));
        for n in 1..100_000_u32 {
            queue.insert(5, &id(n), n);
            queue.leave(5, &id(n), n, only_the_first);
        }
        assert!(queue.places() < 1_000, "{} kept", queue.places());
        assert_eq!(queue.first_due(10, only_the_first), Some((5, id(0), 0)));
        assert_eq!(queue.len(), 1);
    }

    /// However many records share a time, each step is bounded, and the order is the same as of few.
    #[test]
    fn records_of_one_time_come_in_order_and_no_step_looks_at_all_of_them() {
        let all = 40 * BUCKET_ITEMS_MAX as u32;
        let id = |n: u32| u128::from(n.wrapping_mul(2_654_435_761)).to_be_bytes();
        let mut queue = DueQueue::new();
        let mut counting: BTreeMap<[u8; 16], u32> = (0..all).map(|n| (id(n), n)).collect();
        let mut most = 0;
        let mut step = |counting: &BTreeMap<[u8; 16], u32>, queue: &mut DueQueue, what: &dyn Fn(&mut DueQueue)| {
            steps::taken();
            what(queue);
            most = most.max(steps::taken());
            assert_eq!(queue.len(), counting.len());
        };
        queue.insert(7, &id(0), 0);
        for n in 1..all {
            queue.insert(7, &id(n), n);
        }
        // Some leave before their time, some of them come back, others leave when their time has come.
        for n in (0..all).filter(|n| n % 3 == 0) {
            counting.remove(&id(n));
            step(&counting, &mut queue, &|queue| {
                queue.leave(7, &id(n), n, |n, _| counting.contains_key(&id(n)).then(|| id(n)));
            });
        }
        for n in (0..all).filter(|n| n % 9 == 0) {
            counting.insert(id(n), n);
            step(&counting, &mut queue, &|queue| queue.insert(7, &id(n), n));
        }
        let due = queue.entries(|n, _| counting.contains_key(&id(n)));
        assert_eq!(due.len(), counting.len());
        let first = |queue: &mut DueQueue, counting: &BTreeMap<[u8; 16], u32>| {
            queue.first_due(7, |n, _| counting.contains_key(&id(n)).then(|| id(n)))
        };
        assert!(first(&mut queue, &counting).is_some());
        for n in (0..all).filter(|n| n % 5 == 1 && n % 3 != 0) {
            counting.remove(&id(n));
            step(&counting, &mut queue, &|queue| {
                queue.leave(7, &id(n), n, |n, _| counting.contains_key(&id(n)).then(|| id(n)));
            });
        }
        while let Some((expected, n)) = counting.first_key_value().map(|(&id, &n)| (id, n)) {
            assert_eq!(first(&mut queue, &counting), Some((7, expected, n)));
            counting.pop_first();
            step(&counting, &mut queue, &DueQueue::take_first);
        }
        assert_eq!(first(&mut queue, &counting), None);
        assert!(most <= 4 * BUCKET_ITEMS_MAX, "{most} of {all} records were looked at in one step");
    }
}
