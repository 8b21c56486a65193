//! Reads: as of the applied position and its ledger time, due holds counted as ended.
//!
//! **Owns** the views. **Must never** change anything. **Read next**: [`crate::audit`].

use std::ops::Bound;

use crate::order::{OrderPage, OrderView, Phase, QueueStats};
use crate::outcome::{Balance, Refusal, Status};
use crate::state::State;
use crate::state::ids::Found;
use crate::state::records::Reservation;
use crate::types::{LedgerTime, ReservationId, SaleId, Sku};
use crate::view::{IdView, LineView, OfferView, ProductView, ReservationView, Totals};

impl State {
    pub(crate) fn next_due(&self) -> Option<LedgerTime> {
        let edge = self.edges.first().map(|&(edge, _)| edge);
        let due = match (self.expiry.first_time(), edge) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
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

    pub(crate) fn sales_after(
        &self,
        sale: Option<&SaleId>,
        after: Option<(&SaleId, &Sku)>,
        max: usize,
    ) -> Vec<OfferView> {
        // Nothing sorts before the first SKU; the one before a sale's first offer is asked by comparing sales.
        let after = after.map(|(sale, sku)| (sale.clone(), sku.clone()));
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.by_sale.range::<(SaleId, Sku), _>((from, Bound::Unbounded));
        let wanted = rest.skip_while(|((s, _), _)| sale.is_some_and(|sale| s < sale));
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

    pub(crate) fn order_view(&self, _id: ReservationId) -> Option<OrderView> {
        None
    }

    pub(crate) fn orders_after(&self, _phase: Option<Phase>, _after: Option<ReservationId>, _max: usize) -> OrderPage {
        OrderPage::default()
    }

    pub(crate) fn parked_after(&self, _after: Option<ReservationId>, _max: usize) -> Vec<OrderView> {
        Vec::new()
    }

    pub(crate) fn queue_stats(&self) -> QueueStats {
        QueueStats::default()
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals {
            products: self.products.len() as u64,
            offers: self.offers.len() as u64,
            sold: self.memory.sold(),
            limit_counts: self.keys.counts(),
            ..Totals::default()
        };
        for (_, product) in self.products.iter() {
            totals.received += product.received;
            totals.adjusted += product.adjusted;
            totals.returned += product.returned;
        }
        let mut sum = Balance::default();
        for (at, _) in self.offers.iter() {
            let balance = self.balance(at);
            sum.available += balance.available;
            sum.held += balance.held;
            sum.sold += balance.sold;
        }
        totals.balance = sum;
        let due = self.expiry.count_due(self.time);
        totals.live = self.expiry.len() as u64 - due;
        totals.remembered = self.memory.remembered() + due;
        totals
    }
}
