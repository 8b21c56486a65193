//! Reserve and fence: what an id may become.
//!
//! **Owns** the order of the rules. **Must never** take units before the last rule has passed. **Read next**: [`super::settle`].

use std::collections::BTreeMap;

use client_sdk::ReservationId;

use super::{Content, HeldLine, Hold, Known, Model, Stock, Verdict, slot_of, summed};
use crate::history::{Line, No, Offer, State, Told};

/// Units that one line may ask for.
const QUANTITY_MAX: u64 = 1_000_000;

impl Model {
    pub(super) fn reserve(&mut self, id: &str, lines: &[Line], keys: &[String], hold_ms: Option<u64>) -> Verdict {
        let content = Content { keys: keys.iter().cloned().collect(), lines: summed(lines), hold_ms };
        shape(id, &content)?;
        match self.ids.get(id) {
            Some(Known::Reserved(hold)) if hold.content == content => return Ok((self.brief(id), true)),
            Some(Known::Refused(asked, no)) if asked.as_ref().is_none_or(|asked| *asked == content) => {
                return Err(no.clone());
            }
            Some(Known::Reserved(_) | Known::Refused(..)) => return Err(No::IdTaken),
            Some(Known::Fenced) => return Err(No::Fenced),
            Some(Known::Forgotten) => return Err(No::Forgotten),
            None => {}
        }
        if let Some(no) = self.rules(&content, keys) {
            self.learn(id, Known::Refused(Some(content), no.clone()));
            return Err(no);
        }
        self.take(id, content);
        Ok((self.brief(id), false))
    }

    /// The first rule that the content breaks now; none if it may be held.
    pub(crate) fn rules(&self, content: &Content, keys: &[String]) -> Option<No> {
        let missing = |offer: &&Offer| !self.products.contains_key(&offer.sku);
        if let Some(offer) = content.lines.keys().find(missing) {
            return Some(No::UnknownProduct { offer: offer.clone() });
        }
        if let Some(offer) = content.lines.keys().find(|offer| !self.offers.contains_key(*offer)) {
            return Some(No::UnknownOffer { offer: offer.clone() });
        }
        let lines: Vec<(&Offer, &Stock, u64)> = content.lines.iter().map(|(o, &n)| (o, &self.offers[o], n)).collect();
        let time = self.time;
        let rule = |of: &dyn Fn(&Stock, u64) -> Option<No>| lines.iter().find_map(|(_, stock, n)| of(stock, *n));
        rule(&|s, _| s.ended.then_some(No::SaleHasEnded))
            .or_else(|| rule(&|s, _| (!s.terms.open).then_some(No::OfferClosed)))
            .or_else(|| {
                rule(&|s, _| {
                    s.terms.opens_at_ms.filter(|&t| time < t).map(|opens_at_ms| No::SaleNotOpenYet { opens_at_ms })
                })
            })
            .or_else(|| {
                rule(&|s, _| {
                    s.terms.closes_at_ms.filter(|&t| t <= time).map(|closed_at_ms| No::SaleOver { closed_at_ms })
                })
            })
            .or_else(|| {
                rule(&|s, _| {
                    let max_ms = s.terms.hold_ms_max;
                    content.hold_ms.filter(|&ms| ms > max_ms).map(|_| No::HoldTooLong { max_ms })
                })
            })
            .or_else(|| {
                let min = |s: &Stock| s.terms.per_order_min;
                rule(&|s, n| (n < u64::from(min(s))).then(|| No::BelowOrderMin { min: min(s) }))
            })
            .or_else(|| {
                let max = |s: &Stock| s.terms.per_order_max;
                rule(&|s, n| (n > u64::from(max(s))).then(|| No::AboveOrderMax { max: max(s) }))
            })
            .or_else(|| lines.iter().find_map(|(offer, stock, n)| self.over_limit(offer, stock, *n, keys)))
            .or_else(|| {
                let short = lines.iter().find(|(_, stock, n)| stock.units.available < *n);
                short.map(|(offer, ..)| No::SoldOut { offer: (*offer).clone(), out: self.out(offer) })
            })
    }

    fn over_limit(&self, offer: &Offer, stock: &Stock, quantity: u64, keys: &[String]) -> Option<No> {
        let max = stock.terms.per_key_max?;
        keys.iter().enumerate().find_map(|(n, key)| {
            let used = self.uses.get(&(offer.clone(), key.clone())).copied().unwrap_or(0);
            (used + quantity > u64::from(max)).then(|| No::LimitReached {
                offer: offer.clone(),
                key_index: n as u8,
                used: used as u32,
                max,
            })
        })
    }

    fn take(&mut self, id: &str, content: Content) {
        let shortest = || content.lines.keys().map(|o| self.offers[o].terms.hold_ms_default).min();
        let hold_ms = content.hold_ms.or_else(shortest).expect("it has a line");
        let deadline = self.time + hold_ms;
        let mut lines = BTreeMap::new();
        for (offer, &reserved) in &content.lines {
            let stock = self.offers.get_mut(offer).expect("a rule asked for it");
            stock.units.available -= reserved;
            stock.units.held += reserved;
            *stock.deadlines.entry(deadline).or_default() += 1;
            let counted = stock.terms.per_key_max.is_some();
            for key in content.keys.iter().filter(|_| counted) {
                *self.uses.entry((offer.clone(), key.clone())).or_default() += reserved;
            }
            lines.insert(offer.clone(), HeldLine { reserved, sold: 0, returned: 0, counted });
        }
        self.due.insert((deadline, id.to_owned()));
        let returns = BTreeMap::new();
        let (reserved_at, state) = (self.time, State::Held);
        let hold = Hold { content, reserved_at, deadline, extended: None, state, lines, returns };
        self.ids.insert(id.to_owned(), Known::Reserved(hold));
    }

    pub(super) fn fence(&mut self, id: &str) -> Verdict {
        match self.ids.get(id) {
            Some(Known::Reserved(_)) => Ok((self.brief(id), false)),
            Some(Known::Refused(_, no)) => Ok((Told::WasRefused { no: no.clone() }, false)),
            Some(Known::Fenced) => Ok((Told::Never, false)),
            Some(Known::Forgotten) => Err(No::Forgotten),
            None => {
                self.learn(id, Known::Fenced);
                Ok((Told::Never, false))
            }
        }
    }
}

/// What depends on the command alone, and is not remembered.
fn shape(id: &str, content: &Content) -> Result<(), No> {
    let mut slots = content.lines.keys().map(|offer| slot_of(&offer.sku));
    let first = slots.next().flatten().ok_or(No::LinesSpanSlots)?;
    if slots.any(|slot| slot != Some(first)) {
        return Err(No::LinesSpanSlots);
    }
    if id.parse::<ReservationId>().map(ReservationId::slot) != Ok(first) {
        return Err(No::IdWrongSlot);
    }
    match content.lines.values().any(|&n| n > QUANTITY_MAX) {
        true => Err(No::QuantityTooLarge),
        false => Ok(()),
    }
}
