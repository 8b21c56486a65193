//! Cuts a failing run down until nothing smaller fails: fewer faults, shorter ones, fewer clients, fewer kinds of clients.
//!
//! **What it is.** Delta debugging over the plan of faults, then smaller loads, then shorter faults, again until a whole turn changes nothing. What
//! counts as failing is the caller's.
//!
//! **Owns** what *smaller* means. **Must never** change the seed: the draws of network and clients stay those of the run that failed.
//! **Read next**: [`crate::faults`].

use serde_json::Value;

use crate::faults::Planned;
use crate::workload::{Kind, Load};

/// What a run can have less of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its faults.
    pub plan: Vec<Planned>,
    /// Its load.
    pub load: Load,
}

/// A shrinking under way: how many runs it may still make, and what it asks of each.
pub struct Shrinking<F> {
    fails: F,
    /// Runs left.
    pub left: u32,
}

impl<F: FnMut(&Case) -> bool> Shrinking<F> {
    /// At most `runs` runs; `fails` says whether a case still fails.
    pub fn new(runs: u32, fails: F) -> Self {
        Self { fails, left: runs }
    }

    fn fails(&mut self, case: &Case) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        (self.fails)(case)
    }

    /// The smallest failing case found; `case` itself must fail.
    pub fn shrink(&mut self, mut case: Case) -> Case {
        loop {
            let before = case.clone();
            let load = case.load;
            case.plan = self.fewer(std::mem::take(&mut case.plan), |plan| Case { plan: plan.to_vec(), load });
            self.smaller_load(&mut case);
            self.shorter(&mut case);
            if case == before || self.left == 0 {
                return case;
            }
        }
    }

    /// Delta debugging: drops ever smaller parts of the list as long as the rest fails.
    fn fewer<T: Clone>(&mut self, mut items: Vec<T>, case: impl Fn(&[T]) -> Case) -> Vec<T> {
        if !items.is_empty() && self.fails(&case(&[])) {
            return Vec::new();
        }
        let mut parts = 2;
        while items.len() >= 2 {
            let size = items.len().div_ceil(parts);
            let without = |n: usize| {
                let (from, to) = (n * size, ((n + 1) * size).min(items.len()));
                [&items[..from.min(items.len())], &items[to..]].concat()
            };
            let smaller = (0..items.len().div_ceil(size)).map(without).find(|rest| self.fails(&case(rest)));
            match smaller {
                Some(rest) => {
                    items = rest;
                    parts = (parts - 1).max(2);
                }
                None if size == 1 => break,
                None => parts = (parts * 2).min(items.len()),
            }
        }
        items
    }

    fn smaller_load(&mut self, case: &mut Case) {
        while let Some(load) =
            smaller_loads(case.load).into_iter().find(|load| self.fails(&Case { load: *load, plan: case.plan.clone() }))
        {
            case.load = load;
        }
    }

    fn shorter(&mut self, case: &mut Case) {
        for at in 0..case.plan.len() {
            while let Some(shorter) = halved(&case.plan[at]) {
                let mut plan = case.plan.clone();
                plan[at] = shorter;
                if !self.fails(&Case { plan: plan.clone(), load: case.load }) {
                    break;
                }
                case.plan = plan;
            }
        }
    }
}

/// Loads with a little less of something, the greatest steps first.
fn smaller_loads(load: Load) -> Vec<Load> {
    let with = |change: &dyn Fn(&mut Load)| {
        let mut smaller = load;
        change(&mut smaller);
        smaller
    };
    let less = |n: u32| [n / 2, n.saturating_sub(1)];
    let mut all: Vec<Load> = Vec::new();
    all.extend(Kind::ALL.into_iter().filter(|k| load.does(*k) && load.kinds().len() > 1).map(|k| load.without(k)));
    all.extend(less(load.clients).map(|clients| with(&|l| l.clients = clients.max(1))));
    all.extend(less(load.tries).map(|tries| with(&|l| l.tries = tries.max(1))));
    all.extend(less(load.watchers).map(|watchers| with(&|l| l.watchers = watchers)));
    all.push(with(&|l| l.products = (l.products / 2).max(1)));
    all.push(with(&|l| l.remembered_max = 0));
    all.push(with(&|l| l.queue_calls = 0));
    all.push(with(&|l| l.history_bytes_max = 0));
    all.retain(|smaller| *smaller != load);
    all
}

/// The same fault for half the time, if it lasts.
fn halved(planned: &Planned) -> Option<Planned> {
    const SHORTEST_MS: u64 = 20;
    let mut value = serde_json::to_value(planned).ok()?;
    let ms = value.get("ms")?.as_u64().filter(|ms| *ms > SHORTEST_MS)?;
    *value.get_mut("ms")? = Value::from(ms / 2);
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Who};

    fn crash(at_ms: u64, node: usize) -> Planned {
        Planned { at_ms, fault: Fault::Crash { who: Who::Node(node), ms: 640 } }
    }

    #[test]
    fn what_is_not_needed_goes_and_what_is_needed_stays() {
        let plan: Vec<Planned> = (0..40).map(|n| crash(n * 100, n as usize)).collect();
        let needed = |case: &Case| {
            let has = |node| {
                case.plan
                    .iter()
                    .any(|p| matches!(&p.fault, Fault::Crash { who: Who::Node(n), ms } if *n == node && *ms >= 160))
            };
            has(7) && has(31) && case.load.clients >= 3 && case.load.does(Kind::Churn)
        };
        let mut runs = 0;
        let mut shrinking = Shrinking::new(2_000, |case: &Case| {
            runs += 1;
            needed(case)
        });
        let small = shrinking.shrink(Case { plan, load: Load::default() });
        assert!(needed(&small));
        assert_eq!(small.plan.len(), 2);
        assert!(small.plan.iter().all(|p| matches!(p.fault, Fault::Crash { ms: 160, .. })), "{:?}", small.plan);
        assert_eq!((small.load.clients, small.load.kinds()), (3, vec![Kind::Churn]));
        assert!(runs < 300, "{runs} runs");
    }

    #[test]
    fn the_number_of_runs_is_bounded() {
        let mut shrinking = Shrinking::new(5, |_: &Case| true);
        let case = Case { plan: (0..64).map(|n| crash(n, 0)).collect(), load: Load::default() };
        let small = shrinking.shrink(case);
        assert_eq!((small.plan.len(), shrinking.left), (0, 0));
    }
}
