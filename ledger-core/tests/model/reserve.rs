//! Reserve: one rule after another, in the order of precedence, each over all lines.
//!
//! **Owns** the model of reserve. **Must never** reorder the rules for speed. **Read next**: `settle`.

use std::collections::BTreeMap;

use ledger_core::command::{LimitKeys, Lines};
use ledger_core::outcome::{Outcome, Refusal, Settled, Status};
use ledger_core::{LedgerTime, OfferKey, ReservationId, Slot, limits};

use super::{Content, Known, Model, ModelLine, Recall, Reservation, SWEEP_PENDING, Seen, What, content_of, summed};

/// What one line breaks, if it does.
type Rule<'a> = dyn Fn(&OfferKey, u64) -> Option<Refusal> + 'a;

impl Model {
    pub(super) fn reserve(
        &mut self,
        id: ReservationId,
        keys: &LimitKeys,
        lines: &Lines,
        hold_ms: Option<u64>,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Outcome {
        let lines = match misshapen(id, lines) {
            Ok(lines) => lines,
            Err(why) => return Outcome::Refused(why),
        };
        let content = content_of(keys, lines, hold_ms);
        let recall = self.recall(id, answer, seen);
        self.reserve_content(id, content, keys, recall, answer, seen)
    }

    pub(super) fn reserve_content(
        &mut self,
        id: ReservationId,
        content: Content,
        keys: &LimitKeys,
        recall: Recall,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Outcome {
        match recall {
            Recall::Reserved if self.reservation(id).content == content => {
                return Outcome::Ok(Settled::Reservation(self.brief(id, true)));
            }
            Recall::Refused => {
                let What::Refused(before, why) = &self.ids[&id].what else { unreachable!("just recalled") };
                return Outcome::Refused(if *before == content { why.clone() } else { Refusal::IdTaken });
            }
            Recall::Reserved => return Outcome::Refused(Refusal::IdTaken),
            Recall::Fenced => return Outcome::Refused(Refusal::Fenced),
            Recall::Forgotten => return Outcome::Refused(Refusal::Forgotten),
            Recall::New => {}
        }
        if let Some(not_now) = self.too_far_ahead(id) {
            return not_now;
        }
        let refused = self.refusal(&content, keys);
        // A verdict of no must be remembered, so there must be room; a live hold is no memory of the capped kind.
        if refused.is_some()
            && let Some(not_now) = self.memory_full(answer, seen)
        {
            return not_now;
        }
        if refused.is_none() && self.unswept.len() > limits::HOLDS_DUE_MAX {
            return SWEEP_PENDING;
        }
        let known = match &refused {
            Some(why) => What::Refused(content, why.clone()),
            None => What::Reserved(self.take(content)),
        };
        self.ids.insert(id, Known { what: known, forgotten: false, settled_at: self.time });
        match refused {
            Some(why) => Outcome::Refused(why),
            None => Outcome::Ok(Settled::Reservation(self.brief(id, false))),
        }
    }

    pub(super) fn take(&self, content: Content) -> Reservation {
        let policies = || content.lines.keys().map(|o| &self.offers[o].policy);
        let hold = content.hold_ms.unwrap_or_else(|| policies().map(|p| p.hold_ms_default).min().expect("a line"));
        let lines = content
            .lines
            .iter()
            .map(|(offer, &reserved)| {
                let counted = self.offers[offer].policy.per_key_max.is_some();
                (offer.clone(), ModelLine { reserved, sold: 0, returned: 0, counted })
            })
            .collect();
        Reservation {
            content,
            reserved_at: self.time,
            deadline: self.time + hold,
            extended: None,
            status: Status::Held,
            lines,
            confirmed_as: None,
            returns: BTreeMap::new(),
        }
    }

    /// The first rule that any line breaks.
    fn refusal(&self, content: &Content, keys: &LimitKeys) -> Option<Refusal> {
        let rules: [&Rule<'_>; 11] = [
            &|o, _| (!self.products.contains_key(&o.sku)).then(|| Refusal::UnknownProduct { offer: o.clone() }),
            &|o, _| (!self.offers.contains_key(o)).then(|| Refusal::UnknownOffer { offer: o.clone() }),
            &|o, _| self.offers[o].ended.then_some(Refusal::SaleHasEnded),
            &|o, _| (!self.offers[o].policy.open).then_some(Refusal::OfferClosed),
            &|o, _| {
                let opens_at = self.offers[o].policy.opens_at?;
                (self.time < opens_at.0).then_some(Refusal::SaleNotOpenYet { opens_at })
            },
            &|o, _| {
                let closed_at = self.offers[o].policy.closes_at?;
                (closed_at.0 <= self.time).then_some(Refusal::SaleOver { closed_at })
            },
            &|o, _| {
                let max_ms = self.offers[o].policy.hold_ms_max;
                content.hold_ms.is_some_and(|h| h > max_ms).then_some(Refusal::HoldTooLong { max_ms })
            },
            &|o, n| {
                let min = self.offers[o].policy.per_order_min;
                (n < u64::from(min)).then_some(Refusal::BelowOrderMin { min })
            },
            &|o, n| {
                let max = self.offers[o].policy.per_order_max;
                (n > u64::from(max)).then_some(Refusal::AboveOrderMax { max })
            },
            &|o, n| self.limit_reached(keys, o, n),
            &|o, n| {
                (self.balance(o).available < n).then(|| Refusal::SoldOut { offer: o.clone(), truth: self.sold_out(o) })
            },
        ];
        rules.iter().find_map(|rule| content.lines.iter().find_map(|(offer, &n)| rule(offer, n)))
    }

    /// The rules that count for a payment that comes after its units were given back: all but the window and whether the offer is open.
    pub(super) fn refusal_when_late(&self, content: &Content) -> Option<Refusal> {
        let keys: LimitKeys = content.keys.iter().cloned().collect();
        content.lines.iter().find_map(|(o, &n)| {
            let offer = &self.offers[o];
            let outside = (n < u64::from(offer.policy.per_order_min)) || (n > u64::from(offer.policy.per_order_max));
            if offer.ended || outside {
                return Some(Refusal::SaleHasEnded);
            }
            let few = self.balance(o).available < n;
            self.limit_reached(&keys, o, n).or(few.then_some(Refusal::OfferClosed))
        })
    }

    fn limit_reached(&self, keys: &LimitKeys, offer: &OfferKey, quantity: u64) -> Option<Refusal> {
        let max = self.offers[offer].policy.per_key_max?;
        keys.iter().enumerate().find_map(|(at, key)| {
            let used = self.used(offer, key);
            (used + quantity > u64::from(max)).then(|| Refusal::LimitReached {
                offer: offer.clone(),
                key_index: at as u8,
                used: used as u32,
                max,
            })
        })
    }

    pub(super) fn shortest_longest_hold(&self, id: ReservationId) -> u64 {
        self.reservation(id).lines.keys().map(|o| self.offers[o].policy.hold_ms_max).min().expect("a line")
    }

    pub(super) fn extend(
        &mut self,
        id: ReservationId,
        replaces: u64,
        hold_ms: u64,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Result<Settled, Refusal> {
        self.must_be_reservation(id, answer, seen)?;
        if self.belongs_to(id).is_some() {
            return Err(Refusal::Ordered);
        }
        let max_ms = self.shortest_longest_hold(id);
        let now = self.time;
        let r = self.reservation_mut(id);
        if r.status != Status::Held {
            return Err(Refusal::NotHeld { status: r.status });
        }
        if r.extended == Some((replaces, hold_ms)) {
            return Ok(Settled::Reservation(self.brief(id, true)));
        }
        if hold_ms > max_ms {
            return Err(Refusal::HoldTooLong { max_ms });
        }
        if r.deadline != replaces {
            return Err(Refusal::DeadlineMoved { deadline: LedgerTime(r.deadline) });
        }
        if now + hold_ms == replaces {
            // Nothing moves: no extension, so none that could be repeated.
            return Ok(Settled::Reservation(self.brief(id, false)));
        }
        r.deadline = now + hold_ms;
        r.extended = Some((replaces, hold_ms));
        Ok(Settled::Reservation(self.brief(id, false)))
    }
}

/// Refusals of the command's shape: nothing about them is remembered.
pub(super) fn misshapen(id: ReservationId, lines: &Lines) -> Result<BTreeMap<OfferKey, u64>, Refusal> {
    let mut slots = lines.iter().map(|l| Slot::of(&l.offer.sku));
    let first = slots.next().expect("at least one line");
    if slots.any(|s| s != first) {
        return Err(Refusal::LinesSpanSlots);
    }
    if first != id.slot() {
        return Err(Refusal::IdWrongSlot { id_slot: id.slot().get(), lines_slot: first.get() });
    }
    summed(lines)
}
