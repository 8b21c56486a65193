//! The ledger, its twin, the model and the feed side by side: every entry is checked five ways.
//!
//! **Owns** the comparison. **Must never** be loose where the contract is exact: only *what is still remembered* is observed.
//! **Read next**: `scripts.rs` and `random.rs`, which drive it.

use std::collections::BTreeMap;

use ledger_core::change::{ChangeKind, Record};
use ledger_core::codec::{decode_entry, decode_record, encode_entry};
use ledger_core::order::Phase;
use ledger_core::outcome::Balance;
use ledger_core::view::IdView;
use ledger_core::{Applied, Command, Entry, Ledger, LedgerTime, OfferKey, Slot, limits};

use super::feed::Feed;
use super::{Model, Seen};

/// One shard under test.
pub(crate) struct Beside {
    pub(crate) ledger: Ledger,
    /// Applies the same bytes and is never thawed: replicas agree, and a thawed state is the state.
    twin: Ledger,
    pub(crate) model: Model,
    pub(crate) feed: Feed,
    index: u64,
    /// What each slot seen so far had forgotten.
    forgotten_to: BTreeMap<Slot, u64>,
    /// The most ids of the capped kind that may be remembered after the last entry.
    remembered_max: u64,
}

impl Beside {
    pub(crate) fn new() -> Self {
        Self {
            ledger: Ledger::new(1, 7, ledger_core::IndexSeed(7)),
            // Another seed: replicas have different ones, and must agree.
            twin: Ledger::new(1, 7, ledger_core::IndexSeed(u128::MAX / 3)),
            model: Model::new(),
            feed: Feed::default(),
            index: 0,
            forgotten_to: BTreeMap::new(),
            remembered_max: 0,
        }
    }

    /// Applies one entry everywhere and compares everything.
    pub(crate) fn apply(&mut self, stamp: u64, commands: Vec<Command>) -> (Applied, Option<Record>) {
        self.index += 1;
        for slot in commands.iter().filter_map(Command::slot) {
            self.forgotten_to.entry(slot).or_insert(0);
        }
        let bytes = encode_entry(&commands);
        let entry = decode_entry(LedgerTime(stamp), &bytes).expect("own entry decodes");
        assert_eq!(entry, Entry { stamp: LedgerTime(stamp), commands }, "entry round trip");
        let remembered_before = self.ledger.totals().remembered;
        let applied = self.ledger.apply(1, self.index, &entry);
        self.compare_twin(&entry, &applied);
        self.compare_model(&entry, &applied, remembered_before);
        let record = self.feed.take(applied.time.0, applied.record.as_deref());
        assert_eq!(self.feed.chain, self.ledger.chain(), "the chain of records");
        self.compare_views();
        (applied, record)
    }

    fn compare_twin(&mut self, entry: &Entry, applied: &Applied) {
        let other = self.twin.apply(1, self.index, entry);
        assert_eq!(applied.outcomes, other.outcomes, "replicas answer the same");
        assert_eq!(applied.record, other.record, "replicas write the same record");
        assert_eq!(applied.digest, other.digest, "replicas take the same digest");
        assert_eq!(self.ledger.digest(), self.twin.digest(), "replicas have the same state");
    }

    fn compare_model(&mut self, entry: &Entry, applied: &Applied, remembered_before: u64) {
        let before = &self.forgotten_to;
        let record = applied.record.as_deref().map(|bytes| decode_record(bytes).expect("own record decodes"));
        let removed: Vec<OfferKey> = record
            .iter()
            .flat_map(|record| &record.changes)
            .filter_map(|change| match &change.kind {
                ChangeKind::OfferRemoved { offer, .. } => Some(offer.clone()),
                _ => None,
            })
            .collect();
        let swept = self.feed.due_at(applied.time.0) as u64;
        let seen = Seen {
            outcomes: &applied.outcomes,
            forgotten_before: &|slot| before.get(&slot).copied().unwrap_or(0),
            forgotten_after: &|slot| self.ledger.forgotten_to(slot),
            forgets: &|id| self.ledger.id(id) == IdView::Forgotten,
            linked: &|id| self.ledger.order(id).and_then(|o| o.linked),
            removed: &removed,
            remembered: remembered_before + swept + entry.commands.len() as u64,
        };
        let expected = self.model.apply(entry, &seen);
        assert_eq!(applied.time.0, self.model.time, "ledger time");
        assert_eq!(applied.outcomes.len(), entry.commands.len(), "one outcome a command");
        for (place, (got, want)) in applied.outcomes.iter().zip(&expected).enumerate() {
            assert_eq!(
                got, want,
                "answer (left: ledger, right: model) to {place} {:?} at {}",
                entry.commands[place], self.model.time
            );
        }
        let ended_by_it = swept + entry.commands.len() as u64;
        self.compare_memory(remembered_before + ended_by_it);
        // The end of an entry presses down to the cap in force, but for what is too young to be forgotten.
        let guard = self.model.time.saturating_sub(limits::FORGET_GUARD_MS);
        let young = self.model.ids.keys().filter(|id| id.time_ms() > guard).count() as u64;
        self.remembered_max = self.model.settings.remembered_max.max(young);
    }

    /// What is forgotten must have been forgettable, and stays so; the rest reads as the model has it.
    fn compare_memory(&mut self, remembered: u64) {
        let guard = self.model.time.saturating_sub(limits::FORGET_GUARD_MS);
        for (&slot, before) in &mut self.forgotten_to {
            let now = self.ledger.forgotten_to(slot);
            assert!(now >= *before, "slot {slot:?} forgot up to {before}, now only to {now}");
            assert!(now <= guard, "slot {slot:?} forgot up to {now}, above ledger time - guard {guard}");
            *before = now;
        }
        let ids: Vec<_> = self.model.ids.keys().copied().collect();
        for id in ids {
            let got = self.ledger.id(id);
            if got == IdView::Forgotten {
                let lawful = self.model.ids[&id].forgotten || self.model.may_be_forgotten(id, remembered);
                assert!(lawful, "{id} was forgotten too early: {:?}", self.model.id_view(id));
                assert!(id.time_ms() <= self.ledger.forgotten_to(id.slot()), "{id} forgotten above forgotten_to");
                self.model.ids.get_mut(&id).expect("known").forgotten = true;
                self.model.forget_order(id);
            }
            let mut got = got;
            if let IdView::Reservation(view) = &mut got {
                view.keys.clear();
            }
            assert_eq!(got, self.model.id_view(id), "what is known of {id} (left: ledger, right: model)");
        }
    }

    fn compare_views(&mut self) {
        let skus = self.model.skus();
        let expected: Vec<_> = skus.iter().map(|sku| self.model.product_view(sku).expect("listed")).collect();
        for view in &expected {
            assert_eq!(self.ledger.product(&view.sku).as_ref(), Some(view), "product (left: ledger, right: model)");
            let parts: u64 = view.offers.iter().map(|o| o.balance.available + o.balance.held + o.balance.sold).sum();
            let whole = i128::from(view.received) + i128::from(view.adjusted);
            let out = i128::from(view.ever_sold) - i128::from(view.returned);
            let inside: i128 =
                view.offers.iter().map(|o| i128::from(o.balance.available) + i128::from(o.balance.held)).sum();
            assert_eq!(whole, inside + out, "{}: conserved; {parts} units in its offers", view.sku);
        }
        assert_eq!(self.ledger.products(None, usize::MAX), expected, "products");
        for offer in self.model.offer_keys() {
            assert_eq!(self.ledger.offer(offer), self.model.offer_view(offer), "offer (left: ledger, right: model)");
            assert_eq!(
                self.feed.balance(offer),
                self.ledger.offer(offer).expect("known").balance,
                "the feed's {offer:?}"
            );
        }
        assert_eq!(self.feed.offers().count(), self.model.offer_keys().count(), "offers in the feed");
        self.compare_orders();
        self.compare_sums();
        let audit = self.ledger.audit();
        assert!(audit.findings.is_empty(), "audit: {:#?}", audit.findings);
        assert_eq!(audit.totals, self.ledger.totals(), "sums kept (right) and recomputed (left)");
        // Tables of a few entries, so that every count takes several passes.
        let frozen = self.ledger.freeze_for_audit().audit_within(500, &mut ());
        assert_eq!((&frozen.totals, frozen.findings), (&audit.totals, Vec::new()), "the audit of a frozen view");
    }

    fn compare_orders(&self) {
        let ids = self.model.order_ids();
        for &id in &ids {
            assert_eq!(self.ledger.order(id), self.model.order_view(id), "order {id} (left: ledger, right: model)");
        }
        let page = self.ledger.orders(None, None, usize::MAX);
        assert_eq!(page.orders.iter().map(|o| o.id).collect::<Vec<_>>(), ids, "orders (left: ledger, right: model)");
        assert_eq!(page.next, None, "no more orders");
        let parked: Vec<_> = page.orders.iter().filter(|o| o.brief.phase == Phase::Parked).cloned().collect();
        assert_eq!(self.ledger.parked(None, usize::MAX), parked, "dead letters");
        assert_eq!(self.ledger.queue_stats(), self.model.queue_stats(), "queues (left: ledger, right: model)");
        let totals = self.ledger.totals();
        assert_eq!((totals.orders, totals.orders_open), (ids.len() as u64, self.model.queue_stats().open), "orders");
    }

    fn compare_sums(&self) {
        let due = self.ledger.next_due().map(|t| t.0);
        if self.feed.unswept() > 0 {
            assert!(due.is_some_and(|t| t <= self.model.time), "{due:?} though some are left to sweep");
        } else {
            // Holds that ended early may leave their instant behind until it comes: a needless tick, never a missed one.
            let edge = self.model.next_edge();
            assert!(
                due.unwrap_or(u64::MAX) <= edge.unwrap_or(u64::MAX),
                "next due at {}: {due:?} is after {edge:?}",
                self.model.time
            );
        }
        let totals = self.ledger.totals();
        assert_eq!(totals.live, self.model.live(), "live holds (left: ledger, right: model)");
        let balances = self.model.offer_keys().map(|o| self.feed.balance(o));
        let wide = |b: Balance| [b.available, b.held, b.sold].map(u128::from);
        let sum = balances.map(wide).fold((0, 0, 0), |s, [a, h, n]| (s.0 + a, s.1 + h, s.2 + n));
        let got = totals.units;
        assert_eq!((got.available, got.held, got.sold), sum, "totals (left: ledger, right: feed)");
        assert!(
            totals.remembered <= self.remembered_max,
            "{} ids are remembered, {} are the most that may be",
            totals.remembered,
            self.remembered_max
        );
    }

    /// Freezes, writes, thaws, and goes on with the thawed one.
    pub(crate) fn thaw(&mut self) {
        let before = self.ledger.digest();
        let mut bytes = Vec::new();
        self.ledger.freeze().write(&mut bytes).expect("memory takes bytes");
        let mut thawed = Ledger::thaw(&mut bytes.as_slice(), ledger_core::IndexSeed(8)).expect("own state thaws");
        assert_eq!(thawed.digest(), before, "digest after thaw");
        assert_eq!(thawed.position(), self.ledger.position(), "position after thaw");
        assert_eq!(thawed.chain(), self.ledger.chain(), "chain after thaw");
        assert_eq!(thawed.digests(), self.ledger.digests(), "kept digests after thaw");
        assert_eq!(thawed.totals(), self.ledger.totals(), "sums after thaw");
        self.ledger = thawed;
        self.compare_views();
        let remembered = self.ledger.totals().remembered;
        self.compare_memory(remembered);
    }
}
