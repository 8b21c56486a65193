//! What one limit key counts in one offer: what it holds, by deadline, and what it bought.
//!
//! **Owns** the holds of a count, in the place that their number needs. **Must never** know which key it is of. **Read next**:
//! [`super::keys`].

use super::due::{ByDeadline, add_units, take_units};
use super::records::NONE;

/// Units held under a key, by deadline: nearly always one, seldom more than a few.
#[derive(Clone)]
enum Holds {
    None,
    One { units: u32, until: u64 },
    Few(Box<Few>),
    Many(Box<Many>),
}

/// Holds that fit one cache line, in no order. A place without units is free.
#[derive(Clone, Default)]
struct Few {
    until: [u64; FEW],
    units: [u32; FEW],
}

const FEW: usize = 4;

impl Few {
    fn places(&mut self) -> impl Iterator<Item = (u64, &mut u32)> {
        self.until.iter().copied().zip(&mut self.units)
    }

    /// Adds units; answers whether there was room for them.
    fn add(&mut self, until: u64, units: u32) -> bool {
        let same =
            self.places().find_map(|(u, n)| Some((n.checked_add(units)?, n)).filter(|(_, n)| u == until && **n > 0));
        if let Some((sum, place)) = same {
            *place = sum;
            return true;
        }
        let Some(free) = self.units.iter().position(|&n| n == 0) else { return false };
        (self.until[free], self.units[free]) = (until, units);
        true
    }

    fn is_empty(&self) -> bool {
        self.units == [0; FEW]
    }
}

/// More holds than that. How much they are in all is kept, so that asking costs what is due and not what is held.
#[derive(Clone)]
struct Many {
    held: u64,
    sums: ByDeadline<u64>,
}

impl Many {
    fn drop_due(&mut self, time: u64) {
        while let Some((_, units)) = self.sums.pop_due(time) {
            self.held -= units;
        }
        // A deadline emptied before its time must not keep a counter alive that counts nothing.
        self.sums.trim(|&units| units == 0);
    }
}

/// What one key counts in one offer.
#[derive(Clone)]
pub(crate) struct Count {
    pub(super) offer: u32,
    holds: Holds,
    /// Bought and not returned, by reservations still remembered or not.
    pub(super) sold: u64,
    /// Of those, by forgotten ones.
    pub(super) kept: u64,
}

impl Count {
    pub(super) fn empty() -> Self {
        Self { offer: NONE, holds: Holds::None, sold: 0, kept: 0 }
    }

    /// Nothing, in an offer.
    pub(super) fn of(offer: u32) -> Self {
        Self { offer, ..Self::empty() }
    }

    /// Bytes of holds that do not fit it.
    pub(super) fn heap_bytes(&self) -> usize {
        match &self.holds {
            Holds::None | Holds::One { .. } => 0,
            Holds::Few(_) => size_of::<Few>(),
            Holds::Many(many) => size_of::<Many>() + many.sums.bytes() as usize,
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.sold == 0 && matches!(self.holds, Holds::None)
    }

    /// Drops what is due.
    pub(super) fn settle(&mut self, time: u64) {
        match &mut self.holds {
            Holds::One { until, .. } if *until <= time => self.holds = Holds::None,
            Holds::Few(few) => {
                few.places().filter(|(until, _)| *until <= time).for_each(|(_, units)| *units = 0);
                if few.is_empty() {
                    self.holds = Holds::None;
                }
            }
            Holds::Many(many) => {
                many.drop_due(time);
                if many.sums.is_empty() {
                    self.holds = Holds::None;
                }
            }
            Holds::None | Holds::One { .. } => {}
        }
    }

    /// Units held beyond `time` and bought.
    #[inline]
    pub(super) fn used(&self, time: u64) -> u64 {
        let held = match &self.holds {
            Holds::None => 0,
            Holds::One { units, until } => u64::from(*units) * u64::from(*until > time),
            Holds::Few(few) => few.until.iter().zip(few.units).map(|(&u, n)| u64::from(n) * u64::from(u > time)).sum(),
            Holds::Many(many) => many.held - many.sums.due(time).sum::<u64>(),
        };
        held + self.sold
    }

    /// Reads what lies behind it, and makes nothing of it.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        match &self.holds {
            Holds::Few(few) => few.until[0] ^ u64::from(few.units[FEW - 1]),
            _ => 0,
        }
    }

    /// Drops those of many holds that are due; the count stays until they are swept.
    pub(super) fn drop_due_of_many(&mut self, time: u64) {
        if let Holds::Many(many) = &mut self.holds {
            many.drop_due(time);
        }
    }

    /// Whether some of many holds are due and still in the count.
    #[inline]
    pub(super) fn has_due_of_many(&self, time: u64) -> bool {
        matches!(&self.holds, Holds::Many(many) if many.sums.first().is_some_and(|first| first <= time))
    }

    pub(super) fn hold(&mut self, until: u64, units: u32) {
        match &mut self.holds {
            Holds::None => self.holds = Holds::One { units, until },
            Holds::One { units: before, until: same } if *same == until && before.checked_add(units).is_some() => {
                *before += units;
            }
            Holds::One { units: before, until: other } => {
                let mut few = Box::new(Few::default());
                let room = few.add(*other, *before) && few.add(until, units);
                assert!(room, "two holds are few");
                self.holds = Holds::Few(few);
            }
            Holds::Few(few) => {
                if !few.add(until, units) {
                    let mut many = Box::new(Many { held: 0, sums: ByDeadline::new() });
                    for (until, units) in few.places().map(|(until, units)| (until, *units)).chain([(until, units)]) {
                        many.held += u64::from(units);
                        add_units(&mut many.sums, until, u64::from(units));
                    }
                    self.holds = Holds::Many(many);
                }
            }
            Holds::Many(many) => {
                many.held += u64::from(units);
                add_units(&mut many.sums, until, u64::from(units));
            }
        }
    }

    pub(super) fn unhold(&mut self, until: u64, units: u32) {
        match &mut self.holds {
            Holds::None => panic!("{units} units end early that no key holds"),
            Holds::One { units: before, until: same } => {
                assert!(*same == until && *before >= units, "{units} end until {until}, of {before} until {same}");
                *before -= units;
                if *before == 0 {
                    self.holds = Holds::None;
                }
            }
            Holds::Few(few) => {
                let mut left = units;
                for (_, held) in few.places().filter(|(at, _)| *at == until) {
                    let taken = left.min(*held);
                    *held -= taken;
                    left -= taken;
                }
                assert!(left == 0, "{units} units end until {until}, {left} more than were held");
                if few.is_empty() {
                    self.holds = Holds::None;
                }
            }
            Holds::Many(many) => {
                take_units(&mut many.sums, until, u64::from(units));
                many.held -= u64::from(units);
                if many.sums.is_empty() {
                    self.holds = Holds::None;
                }
            }
        }
    }
}
