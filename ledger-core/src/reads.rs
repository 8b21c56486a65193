//! Reads: as of the applied position and its ledger time, due holds counted as ended.
//!
//! **Owns** the views. **Must never** change anything. **Read next**: [`crate::audit`].

use std::ops::Bound;

use crate::limits;
use crate::order::{Ending, OrderBrief, OrderPage, OrderView, Phase};
use crate::outcome::{Refusal, Status};
use crate::state::State;
use crate::state::ids::Found;
use crate::state::orders::{Order, Standing, step_in};
use crate::state::records::{NONE, Reservation};
use crate::types::{LedgerTime, Line, Quantity, ReservationId, SaleId, Sku};
use crate::view::{IdView, LineView, OfferView, ProductView, ReservationView, Totals};

impl State {
    pub(crate) fn next_due(&self) -> Option<LedgerTime> {
        let edge = self.edges.first().map(|&(edge, _)| edge);
        let wake = self.orders.queues.first_wake().map(|(at, _)| at);
        let due = [self.expiry.first_time(), edge, wake].into_iter().flatten().min()?;
        Some(LedgerTime(due.max(self.time)))
    }

    pub(crate) fn offer_view(&self, at: u32) -> OfferView {
        let offer = self.offers.get(at);
        let balance = self.balance(at);
        let in_window = offer.policy.opens_at.is_none_or(|t| t.0 <= self.time)
            && offer.policy.closes_at.is_none_or(|t| self.time < t.0);
        OfferView {
            offer: offer.key.clone(),
            policy: offer.policy.clone(),
            version: offer.version,
            balance,
            sold_out: (balance.available == 0).then(|| self.sold_out(at)),
            ended: offer.ended,
            taking: offer.policy.open && !offer.ended && in_window,
        }
    }

    pub(crate) fn product_view(&self, at: u32) -> ProductView {
        let product = self.products.get(at);
        let mut offers: Vec<_> = self.offers_of(at).map(|offer| self.offer_view(offer)).collect();
        offers.sort_unstable_by(|a, b| a.offer.sale.cmp(&b.offer.sale));
        ProductView {
            sku: product.sku.clone(),
            received: product.received,
            adjusted: product.adjusted,
            returned: product.returned,
            ever_sold: product.ever_sold,
            offers,
        }
    }

    pub(crate) fn products_after(&self, after: Option<&Sku>, max: usize) -> Vec<ProductView> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let products = self.by_sku.range::<Sku, _>((from, Bound::Unbounded)).take(max);
        products.map(|(_, &at)| self.product_view(at)).collect()
    }

    pub(crate) fn products_page(&self, after: Option<&Sku>, max: usize, offers_max: usize) -> (Vec<ProductView>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, mut offers) = (Vec::new(), 0);
        for (_, &at) in self.by_sku.range::<Sku, _>((from, Bound::Unbounded)) {
            let more = 1 + self.products.get(at).sales.len();
            if page.len() >= max || (!page.is_empty() && offers + more > offers_max) {
                return (page, true);
            }
            offers += more;
            page.push(self.product_view(at));
        }
        (page, false)
    }

    pub(crate) fn sales_after(
        &self,
        sale: Option<&SaleId>,
        after: Option<(&SaleId, &Sku)>,
        max: usize,
    ) -> Vec<OfferView> {
        let after = after.map(|(sale, sku)| (sale.clone(), sku.clone()));
        let from = match (after, sale) {
            (Some(after), sale) if sale.is_none_or(|sale| *sale <= after.0) => Bound::Excluded(after),
            (_, Some(sale)) => Bound::Included((sale.clone(), Sku::first())),
            (_, None) => Bound::Unbounded,
        };
        let wanted = self.by_sale.range::<(SaleId, Sku), _>((from, Bound::Unbounded));
        wanted
            .take_while(|((s, _), _)| sale.is_none_or(|sale| s == sale))
            .take(max)
            .map(|(_, &at)| self.offer_view(at))
            .collect()
    }

    fn reservation_view(&self, r: &Reservation) -> ReservationView {
        let status = r.status_at(self.time);
        let lines = self.lines(r).into_iter().map(|l| LineView {
            offer: self.offer_key(l.offer),
            reserved: l.reserved(),
            sold: l.sold,
            returned: l.returned,
        });
        let counts = matches!(status, Status::Held | Status::Confirmed);
        let keys = self.key_list(r).into_iter().filter(|_| counts).map(|key| self.keys.text(key).clone());
        ReservationView {
            id: r.id(),
            status,
            reserved_at: LedgerTime(r.reserved_at),
            deadline: LedgerTime(r.deadline),
            ended_at: match status {
                Status::Held => None,
                Status::Expired => Some(LedgerTime(r.deadline)),
                Status::Confirmed | Status::Released => Some(LedgerTime(r.ended_at)),
            },
            keys: keys.collect(),
            lines: lines.collect(),
        }
    }

    pub(crate) fn id_view(&self, id: ReservationId) -> IdView {
        if !self.owns(id.slot()) {
            return IdView::SlotElsewhere;
        }
        match self.find(id) {
            Some(Found::Reservation(at)) => IdView::Reservation(self.reservation_view(self.reservations.get(at))),
            Some(Found::Refused(at)) => match self.refusal(self.refused.get(at)) {
                Refusal::Fenced => IdView::Fenced,
                why => IdView::Refused(why),
            },
            None if self.is_forgotten(id) => IdView::Forgotten,
            None => IdView::Unknown,
        }
    }

    /// An order in brief. A hold that is due counts as swept.
    pub(crate) fn order_brief(&self, order: &Order, replayed: bool) -> OrderBrief {
        let (phase, ending) = match order.phase() {
            phase if !self.is_unswept(order) => (phase, order.ending),
            Phase::Queued => (Phase::Expired, Ending::Expired),
            _ => (Phase::Settling, Ending::Open),
        };
        let deadline = LedgerTime(self.order_deadline(order));
        OrderBrief { phase, ending, epoch: order.epoch, deadline, replayed }
    }

    pub(crate) fn order_lines(&self, order: &Order) -> Vec<Line> {
        if order.reservation == NONE {
            return Vec::new();
        }
        let lines = self.lines(self.reservations.get(order.reservation)).into_iter().map(|l| Line {
            offer: self.offer_key(l.offer),
            quantity: Quantity::new(l.reserved().into()).expect("a line has a quantity"),
        });
        lines.collect()
    }

    fn view_of_order(&self, order: &Order) -> OrderView {
        let brief = self.order_brief(order, false);
        let cold = order.cold();
        let moved = brief.phase != order.phase();
        // The sweep will make it ready for another step, but for a refund that goes on.
        let step = step_in(brief.phase, || cold.owes());
        let anew = step != order.step();
        let in_time = |standing: Standing| (order.standing == standing && !anew).then_some(LedgerTime(order.due));
        OrderView {
            id: order.id(),
            step,
            attempts: if anew { 0 } else { order.attempts },
            not_before: in_time(Standing::Delayed),
            lease: in_time(Standing::Leased).and_then(|until| Some((cold.worker.clone()?, until))),
            placed_at: LedgerTime(order.placed_at),
            amount: cold.amount,
            intent: cold.intent.clone(),
            generation: cold.generation,
            secret: cold.secret.clone().filter(|_| !moved),
            payments: cold.payments.clone(),
            lines: self.order_lines(order),
            linked: cold.linked,
            parked: cold.parked.clone(),
            suspect: order.suspect,
            brief,
        }
    }

    pub(crate) fn order_view(&self, id: ReservationId) -> Option<OrderView> {
        self.order_of(id).map(|at| self.view_of_order(self.orders.get(at)))
    }

    pub(crate) fn orders_after(&self, phase: Option<Phase>, after: Option<ReservationId>, max: usize) -> OrderPage {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(*id.as_bytes()));
        let mut page = OrderPage::default();
        let mut rest = self.orders.queues.by_id.range((from, Bound::Unbounded));
        for (_, &at) in rest.by_ref().take(limits::ORDERS_LOOKED_AT_MAX) {
            let order = self.orders.get(at);
            if page.orders.len() == max {
                return page;
            }
            page.next = Some(order.id());
            if phase.is_none_or(|phase| self.order_brief(order, false).phase == phase) {
                page.orders.push(self.view_of_order(order));
            }
        }
        if rest.next().is_none() {
            page.next = None;
        }
        page
    }

    pub(crate) fn parked_after(&self, after: Option<ReservationId>, max: usize) -> Vec<OrderView> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(*id.as_bytes()));
        let parked = self.orders.queues.parked.range((from, Bound::Unbounded)).take(max);
        parked.map(|id| self.view_of_order(self.orders.get(self.orders.queues.by_id[id]))).collect()
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals {
            products: self.products.len() as u64,
            offers: self.offers.len() as u64,
            sold: self.memory.sold(),
            limit_counts: self.keys.counts(),
            orders: self.orders.records.len() as u64,
            orders_open: self.orders.queues.open,
            ..Totals::default()
        };
        for (_, product) in self.products.iter() {
            totals.received += u128::from(product.received);
            totals.adjusted += i128::from(product.adjusted);
            totals.returned += u128::from(product.returned);
        }
        for (at, _) in self.offers.iter() {
            // An audit and a status must be able to report a state that no answer may come from.
            let balance = self.balance_as_it_is(at);
            totals.units.available += u128::from(balance.available);
            totals.units.held += u128::from(balance.held);
            totals.units.sold += u128::from(balance.sold);
        }
        let due = self.expiry.count_due(self.time);
        totals.live = self.expiry.len() as u64 - due;
        totals.remembered = self.memory.remembered() + due;
        totals
    }
}
