//! Objects and pages of them.
//!
//! **Owns** Stripe's paging: newest first, a limit, and cursors that are ids. **Must never** change the book. **Read next**:
//! [`super::search`].

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::value::RawValue;

use super::call;
use crate::behaviour::Operation;
use crate::book::Place;
use crate::book::records::{Charge, Intent, Refund};
use crate::book::shelf::{Broken, Locked};
use crate::form::Form;
use crate::ids::{EventId, IntentId};
use crate::params::{self, Page};
use crate::refusal::Refusal;
use crate::sim::Sim;
use crate::wire::{self, ChargeView, EventView, IntentView, ListView, RefundView};

/// `GET /v1/payment_intents/{id}`
pub(super) async fn intent(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, request: Request) -> Response {
    let find = |locked: &Locked, form: Form| {
        let expand = params::retrieve(form, &["latest_charge"])?;
        let row = id.parse().ok().and_then(|id| locked.book.intent(id));
        let row = row.ok_or_else(|| Refusal::no_such("payment_intent", &id, "intent"))?;
        let charge = row.intent.charge.filter(|_| expand.latest_charge).and_then(|id| locked.book.charge(id));
        Ok(((row.intent.clone(), charge.cloned()), locked.ticket(row.changed)))
    };
    let tell = |_: &Sim, (intent, charge): (Intent, Option<Charge>)| {
        Ok(wire::json(&IntentView::new(&intent, charge.as_ref())))
    };
    call::look(sim, Operation::Retrieve, request, find, tell).await
}

/// `GET /v1/refunds/{id}`
pub(super) async fn refund(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, request: Request) -> Response {
    let find = |locked: &Locked, form: Form| {
        let expand = params::retrieve(form, &["payment_intent", "charge"])?;
        let book = &locked.book;
        let refund = id.parse().ok().and_then(|id| book.refund(id));
        let refund = refund.ok_or_else(|| Refusal::no_such("refund", &id, "id"))?;
        let intent = book.intent(refund.intent).map(|row| &row.intent).filter(|_| expand.payment_intent);
        let charge = book.charge(refund.charge).filter(|_| expand.charge);
        Ok(((refund.clone(), intent.cloned(), charge.cloned()), locked.ticket_for_all()))
    };
    let tell = |_: &Sim, (refund, intent, charge): (Refund, Option<Intent>, Option<Charge>)| {
        Ok(wire::json(&RefundView::new(&refund, intent.as_ref(), charge.as_ref())))
    };
    call::look(sim, Operation::Retrieve, request, find, tell).await
}

/// `GET /v1/charges/{id}`
pub(super) async fn charge(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, request: Request) -> Response {
    let find = |locked: &Locked, form: Form| {
        params::retrieve(form, &[])?;
        let charge = id.parse().ok().and_then(|id| locked.book.charge(id));
        let charge = charge.ok_or_else(|| Refusal::no_such("charge", &id, "id"))?;
        Ok((charge.clone(), locked.ticket_for_all()))
    };
    let tell = |_: &Sim, charge: Charge| Ok(wire::json(&ChargeView::new(&charge)));
    call::look(sim, Operation::Retrieve, request, find, tell).await
}

/// `GET /v1/payment_intents`
pub(super) async fn intents(State(sim): State<Arc<Sim>>, request: Request) -> Response {
    let find = |locked: &Locked, mut form: Form| {
        let page = params::page(&mut form)?;
        let expand = params::ending(form, &["data.latest_charge"])?;
        let rows = locked.book.intents();
        let position = |id: &str| {
            let found =
                id.parse::<IntentId>().ok().and_then(|id| locked.book.intent(id)).map(|row| row.intent.id.number());
            found.ok_or_else(|| Refusal::no_such_parameter("payment_intent", id, "starting_after"))
        };
        let (which, more) = pick(rows.len(), &page, position)?;
        let found: Vec<_> = which
            .into_iter()
            .map(|at| {
                let intent = rows[at].intent.clone();
                let charge = intent.charge.filter(|_| expand.latest_charge).and_then(|id| locked.book.charge(id));
                (intent, charge.cloned())
            })
            .collect();
        Ok(((found, more), locked.ticket_for_all()))
    };
    let tell = |_: &Sim, (found, more): (Vec<(Intent, Option<Charge>)>, bool)| {
        let views = found.iter().map(|(intent, charge)| IntentView::new(intent, charge.as_ref())).collect();
        Ok(wire::json(&ListView::new("/v1/payment_intents", views, more)))
    };
    call::look(sim, Operation::List, request, find, tell).await
}

/// `GET /v1/refunds`
pub(super) async fn refunds(State(sim): State<Arc<Sim>>, request: Request) -> Response {
    let find = |locked: &Locked, mut form: Form| {
        let (of, page) = (form.take("payment_intent")?, params::page(&mut form)?);
        params::ending(form, &[])?;
        let book = &locked.book;
        let all: Vec<&Refund> = match &of {
            None => book.refunds().iter().collect(),
            Some(id) => {
                let row = id.parse().ok().and_then(|id| book.intent(id));
                let row = row.ok_or_else(|| Refusal::no_such("payment_intent", id, "payment_intent"))?;
                book.refunds_of(row).collect()
            }
        };
        let position = |id: &str| {
            let found = id.parse().ok().and_then(|id| all.iter().position(|refund| refund.id == id));
            found.ok_or_else(|| Refusal::no_such_parameter("refund", id, "starting_after"))
        };
        let (which, more) = pick(all.len(), &page, position)?;
        let found: Vec<Refund> = which.into_iter().map(|at| all[at].clone()).collect();
        Ok(((found, more), locked.ticket_for_all()))
    };
    let tell = |_: &Sim, (found, more): (Vec<Refund>, bool)| {
        let views = found.iter().map(|refund| RefundView::new(refund, None, None)).collect();
        Ok(wire::json(&ListView::new("/v1/refunds", views, more)))
    };
    call::look(sim, Operation::List, request, find, tell).await
}

/// `GET /v1/events/{id}`
pub(super) async fn event(State(sim): State<Arc<Sim>>, Path(id): Path<Box<str>>, request: Request) -> Response {
    let find = |locked: &Locked, form: Form| {
        params::retrieve(form, &[])?;
        let found = id.parse().ok().and_then(|event| Some((event, locked.book.event(event)?.place)));
        let found = found.ok_or_else(|| Refusal::no_such("event", &id, "id"))?;
        Ok((found, locked.ticket(found.1)))
    };
    let tell = |sim: &Sim, found| Ok(rendered(sim, found)?.get().as_bytes().to_vec());
    call::look(sim, Operation::Retrieve, request, find, tell).await
}

/// `GET /v1/events`
pub(super) async fn events(State(sim): State<Arc<Sim>>, request: Request) -> Response {
    let find = |locked: &Locked, mut form: Form| {
        let (kind, page) = (form.take("type")?, params::page(&mut form)?);
        params::ending(form, &[])?;
        let (rows, salt) = (locked.book.events(), locked.book.salt());
        let matching: Vec<u32> = match &kind {
            None => Vec::new(),
            Some(kind) => (0..).zip(rows).filter(|(_, row)| *row.kind.name() == **kind).map(|(n, _)| n).collect(),
        };
        let number = |at: usize| if kind.is_some() { matching[at] } else { at as u32 };
        let count = if kind.is_some() { matching.len() } else { rows.len() };
        let position = |id: &str| {
            let found = id.parse::<EventId>().ok().filter(|id| locked.book.event(*id).is_some()).map(EventId::number);
            let found =
                found.map(|at| if kind.is_some() { matching.partition_point(|n| (*n as usize) < at) } else { at });
            found.ok_or_else(|| Refusal::no_such_parameter("event", id, "starting_after"))
        };
        let (which, more) = pick(count, &page, position)?;
        let found =
            which.into_iter().map(|at| (EventId::new(salt, number(at)), rows[number(at) as usize].place)).collect();
        Ok(((found, more), locked.ticket_for_all()))
    };
    let tell = |sim: &Sim, (found, more): (Vec<(EventId, Place)>, bool)| {
        let views = found.into_iter().map(|one| rendered(sim, one)).collect::<Result<Vec<_>, _>>()?;
        Ok(wire::json(&ListView::new("/v1/events", views, more)))
    };
    call::look(sim, Operation::List, request, find, tell).await
}

/// An event as it stands in its line.
fn rendered(sim: &Sim, (id, place): (EventId, Place)) -> Result<Box<RawValue>, Refusal> {
    let lost = || Refusal::from(Broken);
    let entry = sim.shelf.read(place).map_err(|_| lost())?;
    let event = entry.events.iter().find(|event| event.id == id).copied().ok_or_else(lost)?;
    let view = EventView::new(event, &entry).ok_or_else(lost)?;
    Ok(wire::raw(&wire::json(&view)))
}

/// Which of `count` objects, that stand oldest first, are on a page, newest first; and whether there are more behind it.
pub(super) fn pick(
    count: usize,
    page: &Page,
    position: impl Fn(&str) -> Result<usize, Refusal>,
) -> Result<(Vec<usize>, bool), Refusal> {
    if let Some(before) = &page.ending_before {
        let from = position(before)? + 1;
        let to = count.min(from + page.limit);
        return Ok(((from..to).rev().collect(), to < count));
    }
    let to = page.starting_after.as_deref().map_or(Ok(count), position)?;
    let from = to.saturating_sub(page.limit);
    Ok(((from..to).rev().collect(), from > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(count: usize, limit: usize, after: Option<&str>, before: Option<&str>) -> (Vec<usize>, bool) {
        let page = Page { limit, starting_after: after.map(Into::into), ending_before: before.map(Into::into) };
        pick(count, &page, |id| Ok(id.parse().expect("a number"))).expect("positions are known")
    }

    #[test]
    fn pages_go_from_the_newest_and_back() {
        assert_eq!(picked(0, 10, None, None), (vec![], false));
        assert_eq!(picked(5, 2, None, None), (vec![4, 3], true));
        assert_eq!(picked(5, 2, Some("3"), None), (vec![2, 1], true));
        assert_eq!(picked(5, 2, Some("1"), None), (vec![0], false));
        assert_eq!(picked(5, 2, None, Some("0")), (vec![2, 1], true));
        assert_eq!(picked(5, 9, None, Some("2")), (vec![4, 3], false));
    }
}
