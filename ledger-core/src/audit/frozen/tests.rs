//! The audit of a frozen view agrees with the one in place, whatever its tables take, and finds what is put in on purpose.
//!
//! **Owns** the corruptions. **Must never** pass one over that no random state has room for. **Read next**: [`super`].

use std::collections::BTreeSet;

use super::*;
use crate::ledger::Ledger;
use crate::order::{PaymentState, Phase};
use crate::outcome::Status;
use crate::snapshot::tests::random_history;
use crate::view::Finding;

/// Tables of one entry, of a few, and of all.
const TABLES: [usize; 4] = [1, 100, 2_000, 1 << 20];
const SEEDS: u64 = 5;

fn frozen(state: &mut State, table_bytes: usize) -> Audit {
    state.freeze_for_audit().audit_within(table_bytes, &mut ())
}

#[test]
fn both_audits_agree_at_every_step_whatever_the_tables_take() {
    for seed in 1..=SEEDS {
        let mut step = 0;
        random_history(seed, |ledger| {
            step += 1;
            let in_place = ledger.audit();
            assert_eq!(in_place.findings, [], "seed {seed}, step {step}");
            let table = TABLES[step % TABLES.len()];
            assert_eq!(frozen(&mut ledger.state, table), in_place, "seed {seed}, step {step}, {table} bytes");
        });
    }
}

/// Collects what an audit reports.
#[derive(Default)]
struct Reported {
    progress: Vec<(u64, u64)>,
    offers: Vec<(OfferKey, Balance)>,
    products: Vec<(Sku, ProductSums)>,
}

impl AuditObserver for Reported {
    fn progress(&mut self, read: u64, of: u64) {
        self.progress.push((read, of));
    }
    fn offer(&mut self, offer: &OfferKey, balance: Balance) {
        self.offers.push((offer.clone(), balance));
    }
    fn product(&mut self, sku: &Sku, sums: ProductSums) {
        self.products.push((sku.clone(), sums));
    }
}

#[test]
fn observer_is_given_each_offer_with_its_exact_units_and_the_end_of_the_work() {
    for table in TABLES {
        let mut ledger = random_history(3, |_| {});
        let mut reported = Reported::default();
        ledger.state.freeze_for_audit().audit_within(table, &mut reported);
        assert_eq!(reported.offers.len(), ledger.state.offers.len());
        for (offer, balance) in &reported.offers {
            assert_eq!(ledger.offer(offer).expect("known").balance, *balance, "{offer:?}");
        }
        let views = ledger.products(None, usize::MAX);
        assert_eq!(reported.products.len(), views.len());
        for (sku, sums) in &reported.products {
            let view = views.iter().find(|view| view.sku == *sku).expect("known");
            assert_eq!((view.received, view.adjusted, view.returned), (sums.received, sums.adjusted, sums.returned));
        }
        let &(read, of) = reported.progress.last().expect("its end is reported");
        assert!(read == of && read > 0, "{read} of {of}");
    }
}

/// Whether the audit in place can look at the corruption.
#[derive(Clone, Copy, PartialEq)]
enum InPlace {
    Finds,
    /// It has no number that says so, or takes for granted what is broken.
    NotAsked,
}

/// A corruption: what breaks, the invariant that must be reported, and how. It answers whether the state had room for it.
type Corruption = (&'static str, &'static str, InPlace, fn(&mut State) -> Option<()>);

fn reservation(state: &State, is_it: impl Fn(&Reservation) -> bool) -> Option<u32> {
    state.reservations.iter().find(|(_, r)| is_it(r)).map(|(at, _)| at)
}

fn order(state: &State, is_it: impl Fn(&Order) -> bool) -> Option<u32> {
    state.orders.records.iter().find(|(_, order)| is_it(order)).map(|(at, _)| at)
}

/// A counter that counts.
fn counter(state: &State) -> Option<(u32, u32)> {
    let live = |&(_, offer, used, ..): &(u32, u32, u64, u64, u64)| used > 0 && !state.offers.get(offer).ended;
    state.keys.iter(state.time).find(live).map(|(key, offer, ..)| (key, offer))
}

/// A counter that holds nothing: its key, its offer and what was bought.
fn purchase(state: &State, is_it: impl Fn(u64, u64) -> bool) -> Option<(u32, u32, u64)> {
    let mut counters = state.keys.iter(state.time).filter(|&(_, offer, ..)| !state.offers.get(offer).ended);
    let found = counters.find(|&(_, _, used, sold, kept)| used == sold && is_it(sold, kept));
    found.map(|(key, offer, _, sold, _)| (key, offer, sold))
}

fn with_offer(state: &mut State, change: impl FnOnce(&mut crate::state::records::Offer)) -> Option<()> {
    let at = state.offers.iter().find(|(_, offer)| offer.held > 0 && offer.sold > 0).map(|(at, _)| at)?;
    change(state.offers.get_mut(at));
    Some(())
}

fn with_payment(state: &mut State, of: PaymentState, change: impl FnOnce(&mut crate::order::Payment)) -> Option<()> {
    let at = order(state, |o| o.cold().payments.iter().any(|p| p.state == of))?;
    let cold = state.orders.records.get_mut(at).cold_mut();
    change(cold.payments.iter_mut().find(|p| p.state == of)?);
    Some(())
}

const CORRUPTIONS: &[Corruption] = &[
    ("an offer holds a unit that nobody reserved", "stranded", InPlace::Finds, |s| with_offer(s, |o| o.held += 1)),
    ("an offer sold what it does not have", "oversold", InPlace::NotAsked, |s| {
        with_offer(s, |o| o.available -= 1_000_000)
    }),
    ("an offer lost a unit", "conserved", InPlace::Finds, |s| with_offer(s, |o| o.available += 1)),
    ("an offer says that nothing was sold", "conserved", InPlace::Finds, |s| with_offer(s, |o| o.sold = 0)),
    ("an offer sold one more", "conserved", InPlace::Finds, |s| with_offer(s, |o| o.sold += 1)),
    ("an offer is of another product", "index", InPlace::NotAsked, |s| with_offer(s, |o| o.product ^= 1)),
    ("a product received one more", "conserved", InPlace::Finds, |s| {
        s.products.get_mut(0).received += 1;
        Some(())
    }),
    ("a product returned one more", "conserved", InPlace::NotAsked, |s| {
        s.products.get_mut(0).returned += 1;
        Some(())
    }),
    ("an offer is named once more", "memory", InPlace::Finds, |s| {
        s.sums[0].named += 1;
        Some(())
    }),
    ("an offer has fewer units that are remembered as bought", "memory", InPlace::Finds, |s| {
        let at = reservation(s, |r| r.line.sold > r.line.returned)?;
        s.sums[s.reservations.get(at).line.offer as usize].bought -= 1;
        Some(())
    }),
    ("an ended sale has ended at another time", "digest", InPlace::NotAsked, |s| with_offer(s, |o| o.ended_at += 1)),
    ("a return brought other units", "digest", InPlace::NotAsked, |s| {
        let at = s.extras.iter().find(|(_, extra)| !extra.returns.is_empty())?.0;
        s.extras.get_mut(at).returns[0].units += 1;
        Some(())
    }),
    ("a product is there twice", "index", InPlace::NotAsked, |s| {
        let copy = s.products.get(0).clone();
        s.products.insert(copy);
        Some(())
    }),
    ("a reference is there twice", "memory", InPlace::NotAsked, |s| {
        s.references.repeat_first();
        Some(())
    }),
    ("a hold ended and has no end", "ends-once", InPlace::Finds, |s| {
        let at = reservation(s, |r| r.is_held())?;
        s.reservations.get_mut(at).status = Some(Status::Released);
        Some(())
    }),
    ("an ended reservation holds again", "stranded", InPlace::Finds, |s| {
        let at = reservation(s, |r| r.status == Some(Status::Released) && r.order == NONE)?;
        let r = s.reservations.get_mut(at);
        (r.status, r.ended_at) = (Some(Status::Held), 0);
        Some(())
    }),
    ("a live hold is due", "expiry", InPlace::Finds, |s| {
        let time = s.time;
        let at = reservation(s, |r| r.is_held() && r.deadline > time)?;
        s.reservations.get_mut(at).deadline = time;
        Some(())
    }),
    ("a hold has another quantity", "stranded", InPlace::Finds, |s| {
        let at = reservation(s, Reservation::is_held)?;
        s.reservations.get_mut(at).line.reserved_bits += 1;
        Some(())
    }),
    ("a line returned more than it sold", "conserved", InPlace::NotAsked, |s| {
        let at = reservation(s, |r| r.status == Some(Status::Confirmed))?;
        let line = &mut s.reservations.get_mut(at).line;
        line.returned = line.sold + 1;
        Some(())
    }),
    ("a line is in no offer", "stranded", InPlace::NotAsked, |s| {
        let at = reservation(s, Reservation::is_held)?;
        s.reservations.get_mut(at).line.offer = 1_000;
        Some(())
    }),
    ("an extra part is gone", "memory", InPlace::NotAsked, |s| {
        let at = reservation(s, |r| r.extra != NONE)?;
        let extra = s.reservations.get(at).extra;
        s.extras.remove(extra);
        Some(())
    }),
    ("an extra part is nobody's", "memory", InPlace::Finds, |s| {
        s.extras.insert(crate::state::records::Extra { present: true, ..Default::default() });
        Some(())
    }),
    ("two reservations have one id", "index", InPlace::Finds, |s| {
        let first = s.reservations.iter().next()?.1.id;
        let at = reservation(s, |r| r.id != first)?;
        s.reservations.get_mut(at).id = first;
        Some(())
    }),
    ("a refusal has a reservation's id", "index", InPlace::Finds, |s| {
        let id = s.reservations.iter().next()?.1.id;
        let at = s.refused.iter().next()?.0;
        s.refused.get_mut(at).id = id;
        Some(())
    }),
    ("a reservation has another content", "digest", InPlace::NotAsked, |s| {
        let at = reservation(s, |_| true)?;
        s.reservations.get_mut(at).fingerprint ^= 1 << 40;
        Some(())
    }),
    ("a refusal has another detail", "digest", InPlace::NotAsked, |s| {
        let at = s.refused.iter().next()?.0;
        let r = s.refused.get_mut(at);
        *r = r.with_detail(r.detail() + 1);
        Some(())
    }),
    ("a policy is another one", "digest", InPlace::NotAsked, |s| {
        s.offers.get_mut(0).policy.per_order_min += 1;
        Some(())
    }),
    ("a product's last change is another one", "digest", InPlace::NotAsked, |s| {
        s.products.get_mut(0).head.index += 1;
        Some(())
    }),
    ("a reference was used for something else", "digest", InPlace::NotAsked, |s| {
        s.references.change_first(|used| used.content += 1);
        Some(())
    }),
    ("an order's worker changed", "digest", InPlace::NotAsked, |s| {
        let at = order(s, |_| true)?;
        s.orders.records.get_mut(at).epoch += 1;
        Some(())
    }),
    ("the name of an unknown offer is gone", "memory", InPlace::NotAsked, |s| {
        let at = s.refused.iter().find(|(_, r)| r.why.names_unknown())?.1.offer;
        s.unknown_names.remove(at);
        Some(())
    }),
    ("a key bought one more", "limits", InPlace::Finds, |s| {
        let (key, offer) = counter(s)?;
        s.keys.buy(key, offer, 1);
        Some(())
    }),
    ("a key holds one more", "limits", InPlace::Finds, |s| {
        let (key, offer) = counter(s)?;
        s.keys.hold(key, offer, s.time + 1, 1);
        Some(())
    }),
    ("a key's purchase was forgotten twice", "limits", InPlace::Finds, |s| {
        let bought = s.keys.iter(s.time).find(|&(_, offer, _, sold, kept)| sold > kept && !s.offers.get(offer).ended);
        let (key, offer, ..) = bought?;
        s.keys.keep(key, offer, 1);
        Some(())
    }),
    ("a counter is lost", "limits", InPlace::Finds, |s| {
        let (key, offer, sold) = purchase(s, |sold, kept| sold > 0 && kept == 0)?;
        s.keys.bring_back(key, offer, sold as u32);
        Some(())
    }),
    ("a counter of forgotten reservations alone is lost", "digest", InPlace::NotAsked, |s| {
        let (key, offer, sold) = purchase(s, |sold, kept| sold > 0 && kept == sold)?;
        s.keys.bring_back(key, offer, sold as u32);
        Some(())
    }),
    ("a reservation lost its key", "limits", InPlace::Finds, |s| {
        let at = reservation(s, |r| r.is_held() && r.key != NONE && r.extra == NONE)?;
        s.reservations.get_mut(at).key = NONE;
        Some(())
    }),
    ("a key is carried once more", "limits", InPlace::Finds, |s| {
        let key = reservation(s, |r| r.key != NONE).map(|at| s.reservations.get(at).key)?;
        s.keys.carry_again(key);
        Some(())
    }),
    ("an order is in another phase", "orders", InPlace::NotAsked, |s| {
        let at = order(s, |o| o.phase().holds() && o.standing == Standing::Ready)?;
        s.orders.records.get_mut(at).phase = Some(Phase::Sold);
        Some(())
    }),
    ("an order lost its reservation", "orders", InPlace::NotAsked, |s| {
        let at = order(s, |o| !o.is_stray())?;
        s.orders.records.get_mut(at).reservation = NONE;
        Some(())
    }),
    ("an order has the reservation of another", "orders", InPlace::Finds, |s| {
        let at = order(s, |o| !o.is_stray() && o.standing == Standing::Idle)?;
        let (own, phase) = (s.orders.get(at).reservation, s.orders.get(at).phase);
        let other = order(s, |o| o.reservation != NONE && o.reservation != own && o.phase == phase)?;
        s.orders.records.get_mut(at).reservation = s.orders.get(other).reservation;
        Some(())
    }),
    ("an order that works stands nowhere", "orders", InPlace::NotAsked, |s| {
        let at = order(s, |o| o.standing == Standing::Ready)?;
        s.orders.records.get_mut(at).standing = Standing::Idle;
        Some(())
    }),
    ("two orders have one sequence", "queue", InPlace::NotAsked, |s| {
        let at = order(s, |o| o.standing == Standing::Ready)?;
        let seat_of = seat(s.orders.get(at));
        let same = |o: &Order| o.standing == Standing::Ready && seat(o).map(|s| s >> 64) == seat_of.map(|s| s >> 64);
        let due = s.orders.get(at).due;
        let other = order(s, |o| same(o) && o.due != due)?;
        s.orders.records.get_mut(other).due = due;
        Some(())
    }),
    ("an order is not in the queues", "queue", InPlace::Finds, |s| {
        let at = order(s, |_| true)?;
        let id = s.orders.get(at).id;
        s.orders.queues.by_id.remove(&id);
        Some(())
    }),
    ("money that was kept is owed, and nobody gives it back", "money", InPlace::Finds, |s| {
        with_payment(s, PaymentState::Kept, |p| p.state = PaymentState::RefundDue)
    }),
    ("money that was given back is kept", "money", InPlace::Finds, |s| {
        with_payment(s, PaymentState::Refunded, |p| p.state = PaymentState::Kept)
    }),
    ("another amount is kept", "money", InPlace::Finds, |s| with_payment(s, PaymentState::Kept, |p| p.amount = None)),
    ("the index lost an id", "memory", InPlace::Finds, |s| {
        let (at, r) = s.reservations.iter().next()?;
        let id = r.id;
        s.ids.remove(&id, crate::state::ids::Found::Reservation(at));
        Some(())
    }),
    ("a sum of due units is too large", "conserved", InPlace::NotAsked, |s| {
        let (at, time) = (s.offers.iter().find(|(_, o)| o.held > 0)?.0, s.time);
        s.hold_until(at, time, 1);
        Some(())
    }),
    ("younger ids are forgotten than may be", "memory", InPlace::Finds, |s| {
        s.forgotten_below[7] = s.time + 2;
        Some(())
    }),
];

fn invariants(findings: &[Finding]) -> BTreeSet<&'static str> {
    findings.iter().map(|finding| finding.invariant).collect()
}

/// States of random histories, in which much is there.
fn states() -> Vec<State> {
    let mut states = Vec::new();
    for seed in 1..=SEEDS {
        let mut step = 0;
        random_history(seed, |ledger| {
            step += 1;
            if step % 20 == 0 {
                states.push(copy(&mut ledger.state));
            }
        });
    }
    states
}

fn copy(state: &mut State) -> State {
    let mut bytes = Vec::new();
    state.freeze().write(&mut bytes).expect("memory takes bytes");
    Ledger::thaw(&mut bytes.as_slice(), crate::IndexSeed(9)).expect("read back").state
}

#[test]
fn each_corruption_is_found_with_the_invariant_it_breaks() {
    let mut states = states();
    for &(what, invariant, in_place, corrupt) in CORRUPTIONS {
        let mut times = 0;
        for state in &mut states {
            let mut state = copy(state);
            if corrupt(&mut state).is_none() {
                continue;
            }
            times += 1;
            let [large, tiny] = [1 << 20, 100].map(|bytes| state.freeze_for_audit().audit_within(bytes, &mut ()));
            let found = invariants(&large.findings);
            assert!(found.contains(invariant), "{what}: {:#?}", large.findings);
            assert_eq!((tiny.totals, invariants(&tiny.findings)), (large.totals, found), "{what}, with small tables");
            if in_place == InPlace::Finds {
                assert!(!state.audit().findings.is_empty(), "{what}: not found in place");
            }
        }
        println!("{what}: {times} times");
        assert!(times > 0, "no random state had room for: {what}");
    }
}

#[test]
fn view_stays_what_it_was_while_the_ledger_is_written() {
    let mut views = Vec::new();
    random_history(4, |ledger| {
        views.push((ledger.state.freeze_for_audit(), ledger.totals(), ledger.digest()));
    });
    for (view, totals, digest) in views {
        assert_eq!((view.totals(), view.digest()), (&totals, digest));
        let audit = view.audit_within(500, &mut ());
        assert_eq!((audit.findings, audit.totals), (Vec::new(), totals), "at {}", digest.index);
    }
}
