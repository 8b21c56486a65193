//! Draws the fate of calls and events.
//!
//! **Owns** the random numbers and the behaviour in effect. **Must never** be asked twice for one call. **Read next**:
//! [`super::Fate`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{BadBehaviour, Behaviour, Delivery, Fate, Kept, Operation};

/// The behaviour in effect and the chance behind it.
pub(crate) struct Dice {
    /// Spares well-behaved calls the lock.
    well_behaved: AtomicBool,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    behaviour: Behaviour,
    random: SmallRng,
}

impl Dice {
    /// Behaves as `behaviour` says; its seed goes before `seed`.
    pub(crate) fn new(behaviour: Behaviour, seed: u64) -> Result<Self, BadBehaviour> {
        let random = SmallRng::seed_from_u64(seed);
        let dice = Self {
            well_behaved: AtomicBool::new(false),
            drawn: Mutex::new(Drawn { behaviour: Behaviour::default(), random }),
        };
        dice.set(behaviour)?;
        Ok(dice)
    }

    /// Behaves as `behaviour` says from now on.
    pub(crate) fn set(&self, behaviour: Behaviour) -> Result<(), BadBehaviour> {
        behaviour.check()?;
        let mut drawn = self.drawn();
        if let Some(seed) = behaviour.seed {
            drawn.random = SmallRng::seed_from_u64(seed);
        }
        self.well_behaved.store(behaviour == Behaviour::default(), Ordering::Release);
        drawn.behaviour = behaviour;
        Ok(())
    }

    /// The behaviour in effect.
    pub(crate) fn behaviour(&self) -> Behaviour {
        self.drawn().behaviour.clone()
    }

    /// By how many milliseconds search lags.
    pub(crate) fn search_lag_ms(&self) -> u64 {
        if self.well_behaved.load(Ordering::Acquire) { 0 } else { self.drawn().behaviour.search_lag_ms }
    }

    /// How one call will go. Every chance is drawn whatever the others say, so that one rate does not shift another's draws.
    pub(crate) fn call(&self, operation: Operation) -> Fate {
        if self.well_behaved.load(Ordering::Acquire) {
            return Fate::default();
        }
        let mut drawn = self.drawn();
        let Drawn { behaviour, random } = &mut *drawn;
        let manners = behaviour.of(operation);
        let [too_many, error, then_error, then_hang, declined] = std::array::from_fn(|_| random.random::<f64>());
        let jitter = random.random_range(0..=manners.latency_jitter_ms);
        Fate {
            outage: manners.outage,
            too_many: (too_many < manners.too_many_rate).then_some(manners.retry_after_s),
            latency_ms: manners.latency_ms + jitter,
            answer_latency_ms: manners.answer_latency_ms,
            error: (error < manners.error_rate).then_some(if manners.error_kept { Kept::Yes } else { Kept::No }),
            then_error: then_error < manners.charge_then_error_rate,
            then_hang: (then_hang < manners.charge_then_hang_rate).then_some(manners.hang),
            declined: declined < manners.decline_rate,
        }
    }

    /// How one event will be delivered.
    pub(crate) fn event(&self) -> Delivery {
        const PROMPT: Delivery = Delivery::After { ms: 0, again_ms: None };
        if self.well_behaved.load(Ordering::Acquire) {
            return PROMPT;
        }
        let mut drawn = self.drawn();
        let Drawn { behaviour, random } = &mut *drawn;
        let manners = &behaviour.webhooks;
        let [dropped, doubled, held] = std::array::from_fn(|_| random.random::<f64>());
        let jitter = random.random_range(0..=manners.delay_jitter_ms);
        let [held_ms, again_ms] = std::array::from_fn(|_| random.random_range(0..=manners.reorder_ms));
        if manners.off || dropped < manners.drop_rate {
            return Delivery::Never;
        }
        let late = manners.delay_ms + jitter;
        Delivery::After {
            ms: if held < manners.reorder_rate { late + held_ms } else { late },
            again_ms: (doubled < manners.duplicate_rate).then_some(late + again_ms),
        }
    }

    fn drawn(&self) -> std::sync::MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Manners;
    use super::*;

    #[test]
    fn one_seed_draws_the_same_again() {
        let everywhere = Manners { error_rate: 0.5, latency_jitter_ms: 100, ..Manners::default() };
        let behaviour = Behaviour { everywhere, seed: Some(7), ..Behaviour::default() };
        let dice = Dice::new(behaviour.clone(), 1).expect("valid");
        let draw = || (0..100).map(|_| dice.call(Operation::Create)).collect::<Vec<_>>();
        let first = draw();
        let errors = first.iter().filter(|fate| fate.error.is_some()).count();
        assert!((30..70).contains(&errors), "{errors} of 100 at a rate of one half");
        assert_ne!(draw(), first, "draws go on");
        dice.set(behaviour).expect("valid");
        assert_eq!(draw(), first);
    }

    #[test]
    fn rates_of_none_and_all_are_certain() {
        let everywhere = Manners { decline_rate: 1.0, ..Manners::default() };
        let dice = Dice::new(Behaviour { everywhere, ..Behaviour::default() }, 1).expect("valid");
        for _ in 0..1_000 {
            let fate = dice.call(Operation::Confirm);
            assert!(fate.declined && fate.error.is_none() && !fate.then_error && fate.then_hang.is_none(), "{fate:?}");
        }
    }
}
