//! Confirm, release, fence and return.
//!
//! **Owns** the model of how reservations end. **Must never** end one twice. **Read next**: `stock`.

use std::collections::BTreeMap;

use ledger_core::command::{Command, Lines};
use ledger_core::outcome::{Fenced, Outcome, Refusal, Settled, Status};
use ledger_core::{OfferKey, Reference, ReservationId};

use super::{Known, Model, Recall, Seen, What, summed};

impl Model {
    pub(super) fn must_be_reservation(
        &mut self,
        id: ReservationId,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Result<(), Refusal> {
        match self.recall(id, answer, seen) {
            Recall::Reserved => Ok(()),
            Recall::Forgotten => Err(Refusal::Forgotten),
            Recall::Fenced => Err(Refusal::Fenced),
            Recall::Refused | Recall::New => Err(Refusal::UnknownReservation),
        }
    }

    pub(super) fn confirm(
        &mut self,
        id: ReservationId,
        lines: Option<&Lines>,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Result<Settled, Refusal> {
        self.must_be_reservation(id, answer, seen)?;
        if self.belongs_to(id).is_some() {
            return Err(Refusal::Ordered);
        }
        let reserved = self.reserved_lines(id);
        let asked = match lines {
            Some(lines) => summed(lines)?,
            None => reserved.clone(),
        };
        let r = self.reservation(id);
        if r.status == Status::Confirmed && r.confirmed_as.as_ref() == Some(&asked) {
            return Ok(Settled::Reservation(self.brief(id, true)));
        }
        if r.status != Status::Held {
            return Err(Refusal::NotHeld { status: r.status });
        }
        if let Some(offer) = asked.keys().find(|o| !reserved.contains_key(o)) {
            return Err(Refusal::NoSuchLine { offer: offer.clone() });
        }
        if let Some((offer, _)) = asked.iter().find(|&(o, &n)| n > reserved[o]) {
            return Err(Refusal::MoreThanLine { offer: offer.clone(), has: reserved[offer] as u32 });
        }
        let unsold = reserved
            .iter()
            .map(|(o, &n)| (o.clone(), n - asked.get(o).copied().unwrap_or(0)))
            .filter(|&(_, n)| n > 0)
            .collect();
        self.give_back(id, &unsold);
        for (offer, &n) in &asked {
            self.products.get_mut(&offer.sku).expect("known").ever_sold += n;
            self.reservation_mut(id).lines.get_mut(offer).expect("checked").sold = n;
        }
        let r = self.reservation_mut(id);
        r.status = Status::Confirmed;
        r.confirmed_as = Some(asked);
        self.ids.get_mut(&id).expect("known").settled_at = self.time;
        Ok(Settled::Reservation(self.brief(id, false)))
    }

    pub(super) fn release(&mut self, id: ReservationId, answer: &Outcome, seen: &Seen<'_>) -> Result<Settled, Refusal> {
        self.must_be_reservation(id, answer, seen)?;
        match self.reservation(id).status {
            Status::Released => return Ok(Settled::Reservation(self.brief(id, true))),
            Status::Held => {}
            status => return Err(Refusal::NotHeld { status }),
        }
        self.give_back(id, &self.reserved_lines(id));
        self.reservation_mut(id).status = Status::Released;
        self.ids.get_mut(&id).expect("known").settled_at = self.time;
        self.order_lost_hold(id, Status::Released);
        Ok(Settled::Reservation(self.brief(id, false)))
    }

    pub(super) fn fence(&mut self, id: ReservationId, answer: &Outcome, seen: &Seen<'_>) -> Outcome {
        let fenced = match self.recall(id, answer, seen) {
            Recall::Forgotten => return Outcome::Refused(Refusal::Forgotten),
            Recall::Reserved => Fenced::Reservation(self.brief(id, true)),
            Recall::Refused => {
                let What::Refused(_, why) = &self.ids[&id].what else { unreachable!("just recalled") };
                Fenced::WasRefused(why.clone())
            }
            Recall::Fenced => Fenced::Never,
            Recall::New => {
                if let Some(not_now) = self.too_far_ahead(id).or_else(|| self.memory_full(answer, seen)) {
                    return not_now;
                }
                self.ids.insert(id, Known { what: What::Fenced, forgotten: false, settled_at: self.time });
                Fenced::Never
            }
        };
        Outcome::Ok(Settled::Fenced(fenced))
    }

    pub(super) fn bring_back(
        &mut self,
        command: &Command,
        id: ReservationId,
        lines: Option<&Lines>,
        reference: &Reference,
        answer: &Outcome,
        seen: &Seen<'_>,
    ) -> Result<Settled, Refusal> {
        self.must_be_reservation(id, answer, seen)?;
        let asked = lines.map(summed).transpose()?;
        if let Some((before, units)) = self.reservation(id).returns.get(reference) {
            return match same_content(before, command) {
                true => Ok(Settled::Returned { units: *units, replayed: true }),
                false => Err(Refusal::ReferenceTaken),
            };
        }
        let r = self.reservation(id);
        if r.status != Status::Confirmed {
            return Err(Refusal::NotSold { status: r.status });
        }
        let still_sold: BTreeMap<OfferKey, u64> =
            r.lines.iter().map(|(o, l)| (o.clone(), l.sold - l.returned)).collect();
        let asked =
            asked.unwrap_or_else(|| still_sold.iter().filter(|&(_, &n)| n > 0).map(|(o, &n)| (o.clone(), n)).collect());
        if let Some(offer) = asked.keys().find(|o| !still_sold.contains_key(o)) {
            return Err(Refusal::NoSuchLine { offer: offer.clone() });
        }
        if let Some((offer, _)) = asked.iter().find(|&(o, &n)| n > still_sold[o]) {
            return Err(Refusal::MoreThanLine { offer: offer.clone(), has: still_sold[offer] as u32 });
        }
        if asked.is_empty() {
            return Err(Refusal::AlreadyReturned);
        }
        self.give_back(id, &asked);
        for (offer, &n) in &asked {
            self.products.get_mut(&offer.sku).expect("known").returned += n;
            self.reservation_mut(id).lines.get_mut(offer).expect("checked").returned += n;
        }
        let units = asked.values().sum();
        self.reservation_mut(id).returns.insert(reference.clone(), (command.clone(), units));
        Ok(Settled::Returned { units, replayed: false })
    }
}

/// Whether two uses of a reference ask for the same: lines are summed first, the version compared-and-set is not content.
pub(super) fn same_content(one: &Command, other: &Command) -> bool {
    match (one, other) {
        (Command::Return { id: a, lines: m, .. }, Command::Return { id: b, lines: n, .. }) => {
            a == b && m.as_ref().map(summed) == n.as_ref().map(summed)
        }
        (
            Command::Adjust { offer: a, delta: d, reason: r, .. },
            Command::Adjust { offer: b, delta: e, reason: s, .. },
        ) => a == b && d == e && r == s,
        _ => one == other,
    }
}
