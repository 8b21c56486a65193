//! Return: sold units come back.
//!
//! **Owns** returns and their idempotency by reference. **Must never** bring back more than was sold, or nothing. **Read next**: `stock`.

use smallvec::SmallVec;

use super::holds::{asked_of, counted_keys, must_have_line};
use super::normal::normalise;
use super::{Deciding, Verdict, said_lines};
use crate::codec::changes::{Links, Said};
use crate::limits;
use crate::outcome::{Bound, Refusal, Settled, Status};
use crate::state::records::{LineRecord, Returned};
use crate::types::{Line, Reference, ReservationId};

impl Deciding<'_> {
    pub(super) fn bring_back(
        &mut self,
        id: ReservationId,
        lines: Option<&SmallVec<[Line; 1]>>,
        reference: &Reference,
    ) -> Verdict {
        let at = self.reservation(id)?;
        let r = self.state.reservations.get(at).clone();
        let mut sold = self.state.lines(&r);
        let asked =
            lines.filter(|l| !l.is_empty()).map(|l| normalise(l, |offer| self.state.find_offer(offer))).transpose()?;
        let content = asked.as_ref().map(|asked| asked.iter().map(|a| (a.offer, a.quantity)));
        let fingerprint = self.scratch.fingerprints.bring_back(id, content);
        let name = self.state.references.name_of_return(reference);
        if let Some(before) = self.state.returns(&r).iter().find(|before| before.name == name) {
            return match before.fingerprint == fingerprint {
                true => Ok(Settled::Returned { units: before.units.into(), replayed: true }),
                false => Err(Refusal::ReferenceTaken.into()),
            };
        }
        let status = r.status_at(self.state.time);
        if status != Status::Confirmed {
            return Err(Refusal::NotSold { status }.into());
        }
        for asked in asked.iter().flatten() {
            must_have_line(&sold, asked.offer, asked.at)?;
        }
        for asked in asked.iter().flatten() {
            let line = must_have_line(&sold, asked.offer, asked.at)?;
            let has = line.sold - line.returned;
            if asked.quantity > has {
                return Err(Refusal::MoreThanLine { offer: asked.offer.clone(), has }.into());
            }
        }
        if asked.is_none() && sold.iter().all(|line| line.sold == line.returned) {
            return Err(Refusal::AlreadyReturned.into());
        }
        let max = limits::RETURNS_PER_RESERVATION_MAX;
        if self.state.returns(&r).len() >= max {
            return Err(Refusal::TooMany { what: Bound::ReturnsPerReservation, max: max as u64 }.into());
        }
        self.state.digest_reservation(at, false);
        for line in &mut sold {
            line.returned += asked_of(asked.as_ref(), line).unwrap_or(line.sold - line.returned);
        }
        let back = self.give_back(at, &sold);
        let units = back.iter().map(|&(_, units)| units).sum();
        self.state.add_return(at, Returned { name, fingerprint, units });
        let on_products = self.link_products(back.iter().map(|&(offer, _)| offer));
        let links = Links { place: self.place, on_products, on_reservation: self.link_reservation(at) };
        self.state.digest_reservation(at, true);
        let lines = said_lines(self.state, back.iter().copied());
        self.recorder.say(links, Said::UnitsReturned { id, reference, lines: &lines });
        Ok(Settled::Returned { units: units.into(), replayed: false })
    }

    /// Takes what the new lines have returned beyond the old ones out of sold; tells the units by offer.
    fn give_back(&mut self, at: u32, sold: &[LineRecord]) -> SmallVec<[(u32, u32); 2]> {
        let r = self.state.reservations.get(at).clone();
        let (before, keys) = (self.state.lines(&r), self.state.key_list(&r));
        let mut back = SmallVec::new();
        for (line, before) in sold.iter().zip(before) {
            let units = line.returned - before.returned;
            if units == 0 {
                continue;
            }
            back.push((line.offer, units));
            let offer = self.state.offer_mut(line.offer);
            offer.sold = offer.sold.checked_sub(u64::from(units)).expect("only what is sold is brought back");
            self.state.no_longer_bought(line.offer, units);
            let offer = self.state.offers.get(line.offer);
            let product = offer.product;
            self.state.product_mut(product).returned += u64::from(units);
            let home = self.state.home_of(line.offer);
            self.state.give_available(home, u64::from(units));
            for &key in counted_keys(self.state, line, &keys) {
                self.state.keys.bring_back(key, line.offer, units);
            }
        }
        self.state.put_lines(at, sold);
        back
    }
}
