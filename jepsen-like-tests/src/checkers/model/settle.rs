//! Extend, confirm, release and return: what becomes of a reservation.
//!
//! **Owns** that it ends once. **Must never** touch a hold that is due. **Read next**: [`super::stock`].

use std::collections::BTreeMap;

use super::{Hold, Known, Model, Verdict, leave, summed};
use crate::history::{Line, No, Offer, Op, State, Told};

impl Model {
    fn hold(&self, id: &str) -> Result<&Hold, No> {
        match self.ids.get(id) {
            Some(Known::Reserved(hold)) => Ok(hold),
            Some(Known::Fenced) => Err(No::Fenced),
            Some(Known::Forgotten) => Err(No::Forgotten),
            Some(Known::Refused(..)) | None => Err(No::UnknownReservation),
        }
    }

    fn hold_mut(&mut self, id: &str) -> &mut Hold {
        match self.ids.get_mut(id) {
            Some(Known::Reserved(hold)) => hold,
            _ => panic!("{id} is no reservation"),
        }
    }

    pub(super) fn extend(&mut self, id: &str, replaces: u64, hold_ms: u64) -> Verdict {
        let hold = self.hold(id)?;
        if hold.state != State::Held {
            return Err(No::NotHeld { state: hold.state });
        }
        if hold.extended == Some((replaces, hold_ms)) {
            return Ok((self.brief(id), true));
        }
        let longest = hold.lines.keys().map(|o| self.offers[o].terms.hold_ms_max).min();
        if let Some(max_ms) = longest.filter(|&max| hold_ms > max) {
            return Err(No::HoldTooLong { max_ms });
        }
        if hold.deadline != replaces {
            return Err(No::DeadlineMoved { deadline_ms: hold.deadline });
        }
        let deadline = self.time + hold_ms;
        if deadline == replaces {
            // Nothing moves: no extension, so none that could be repeated.
            return Ok((self.brief(id), false));
        }
        let offers: Vec<Offer> = hold.lines.keys().cloned().collect();
        for offer in offers {
            let stock = self.offers.get_mut(&offer).expect("held lines have offers");
            leave(&mut stock.deadlines, replaces);
            *stock.deadlines.entry(deadline).or_default() += 1;
        }
        self.due.remove(&(replaces, id.to_owned()));
        self.due.insert((deadline, id.to_owned()));
        let hold = self.hold_mut(id);
        (hold.deadline, hold.extended) = (deadline, Some((replaces, hold_ms)));
        Ok((self.brief(id), false))
    }

    pub(super) fn confirm(&mut self, id: &str, lines: Option<&[Line]>) -> Verdict {
        let hold = self.hold(id)?;
        let asked = lines.filter(|l| !l.is_empty()).map(summed);
        let all = || hold.lines.iter().map(|(o, l)| (o.clone(), l.reserved)).collect::<BTreeMap<_, _>>();
        if hold.state != State::Held {
            let asked = asked.unwrap_or_else(all);
            let same = hold.state == State::Confirmed
                && hold.lines.iter().all(|(o, l)| l.sold == asked.get(o).copied().unwrap_or(0))
                && asked.keys().all(|o| hold.lines.contains_key(o));
            return if same { Ok((self.brief(id), true)) } else { Err(No::NotHeld { state: hold.state }) };
        }
        let asked = asked.unwrap_or_else(all);
        within(&asked, |offer| hold.lines.get(offer).map(|l| l.reserved))?;
        self.end(id, State::Confirmed, &asked);
        Ok((self.brief(id), false))
    }

    pub(super) fn release(&mut self, id: &str) -> Verdict {
        match self.hold(id)?.state {
            State::Released => Ok((self.brief(id), true)),
            State::Held => {
                self.end(id, State::Released, &BTreeMap::new());
                Ok((self.brief(id), false))
            }
            state => Err(No::NotHeld { state }),
        }
    }

    pub(super) fn bring_back(&mut self, op: &Op, id: &str, lines: Option<&[Line]>, reference: &str) -> Verdict {
        let hold = self.hold(id)?;
        let asked = lines.filter(|l| !l.is_empty()).map(summed);
        if let Some((before, units)) = hold.returns.get(reference) {
            return match same_return(before, op) {
                true => Ok((Told::Returned { units: *units }, true)),
                false => Err(No::ReferenceTaken),
            };
        }
        if hold.state != State::Confirmed {
            return Err(No::NotSold { state: hold.state });
        }
        let left = |offer: &Offer| hold.lines.get(offer).map(|l| l.sold - l.returned);
        let back = match asked {
            Some(asked) => asked,
            None => hold.lines.keys().map(|o| (o.clone(), left(o).unwrap_or(0))).collect(),
        };
        within(&back, left)?;
        if back.values().all(|&units| units == 0) {
            return Err(No::AlreadyReturned);
        }
        let keys = hold.content.keys.clone();
        for (offer, &units) in &back {
            let hold = self.hold_mut(id);
            let line = hold.lines.get_mut(offer).expect("just looked");
            line.returned += units;
            let counted = line.counted;
            let stock = self.offers.get_mut(offer).expect("sold lines have offers");
            stock.units.sold -= units;
            let ended = stock.ended;
            self.give(offer, units);
            for key in keys.iter().filter(|_| counted && !ended) {
                *self.uses.get_mut(&(offer.clone(), key.clone())).expect("counted") -= units;
            }
        }
        let units = back.values().sum();
        self.hold_mut(id).returns.insert(reference.to_owned(), (op.clone(), units));
        Ok((Told::Returned { units }, false))
    }
}

/// Every line asked for is there, and has as much.
fn within(asked: &BTreeMap<Offer, u64>, has: impl Fn(&Offer) -> Option<u64>) -> Result<(), No> {
    if let Some(offer) = asked.keys().find(|offer| has(offer).is_none()) {
        return Err(No::NoSuchLine { offer: offer.clone() });
    }
    for (offer, &n) in asked {
        if let Some(has) = has(offer).filter(|&has| n > has) {
            return Err(No::MoreThanLine { offer: offer.clone(), has: has as u32 });
        }
    }
    Ok(())
}

/// Whether two uses of a reference ask for the same return.
fn same_return(one: &Op, other: &Op) -> bool {
    match (one, other) {
        (Op::Return { id: a, lines: m, .. }, Op::Return { id: b, lines: n, .. }) => {
            a == b && m.as_deref().map(summed) == n.as_deref().map(summed)
        }
        _ => false,
    }
}
