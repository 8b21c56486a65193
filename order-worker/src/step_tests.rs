//! Every (step, event): the table as text in `step_table.txt`, and the invariants of the module's head over a wider space.
//! `UPDATE_TABLE=1 cargo test -p order-worker table` writes the table anew; read what changed.

use bytes::Bytes;
use ledger_core::order::{Money, Payment, Phase, Sealed};
use ledger_core::{LedgerTime, ReservationId, Slot};

use super::*;

fn provider_id(text: &str) -> ProviderId {
    ProviderId::new(text).expect("an id")
}
fn euros(minor: u64) -> Money {
    Money::new(minor, "EUR").expect("money")
}

fn order(step: Step, intent: Option<&str>, attempts: u32) -> Order {
    let (phase, ending) = match step {
        Step::Pay => (Phase::Paying, Ending::Open),
        Step::Settle => (Phase::Settling, Ending::Open),
        Step::Refund => (Phase::RefundDue, Ending::Open),
        Step::Notify => (Phase::Sold, Ending::Sold),
    };
    let payments = match step {
        Step::Refund => vec![
            Payment { id: provider_id("pi_1"), amount: Some(euros(500)), state: PaymentState::Refunded, refund: None },
            Payment { id: provider_id("pi_2"), amount: Some(euros(500)), state: PaymentState::RefundDue, refund: None },
        ],
        _ => vec![],
    };
    let sealed = Sealed::new(Bytes::from_static(b"sealed")).expect("short");
    let claimed = Claimed {
        id: ReservationId::from_parts(Slot::new(1).expect("a slot"), 1, 1),
        epoch: 1,
        lease_until: LedgerTime(30_000),
        step,
        phase,
        ending,
        attempts,
        deadline: LedgerTime(600_000),
        amount: euros(500),
        payment: sealed.clone(),
        contact: sealed,
        intent: intent.map(provider_id),
        generation: u32::from(intent.is_some()),
        payments,
        lines: vec![],
        linked: None,
    };
    Order::new(claimed, Numbers::default())
}

fn intent(status: IntentStatus, declined: bool, abandoned: bool) -> Intent {
    let received = (status == IntentStatus::Succeeded).then(|| euros(500));
    Intent {
        id: provider_id("pi_1"),
        status,
        received,
        declined: declined.then(|| "card_declined".into()),
        abandoned,
        secret: Some(ClearSecret("pi_1_secret".into())),
        order: None,
        generation: Some(1),
    }
}

fn failures() -> Vec<Failure> {
    vec![
        Failure::Declined { code: "card_declined".into() },
        Failure::No { why: "not possible".into() },
        Failure::Missing,
        Failure::KeyTaken,
        Failure::Unknown { why: "500".into() },
        Failure::Replayed { why: "500".into() },
        Failure::NotSent { why: "no connection".into() },
        Failure::RateLimited { after: Duration::from_secs(1) },
        Failure::RateLimited { after: Duration::from_secs(60) },
        Failure::Config { why: "401".into() },
        Failure::BreakerOpen { after: Duration::from_secs(30) },
    ]
}

fn refunds() -> Vec<Option<Refund>> {
    let refund = |status, minor| Some(Refund { id: provider_id("re_1"), status, minor });
    let whole = RefundStatus::ALL.map(|status| refund(status, 500));
    [vec![None, refund(RefundStatus::Succeeded, 499)], whole.into()].concat()
}

/// The calls that a step can make; others' answers are answers to another question.
fn calls_of(step: Step) -> &'static [Call] {
    match step {
        Step::Pay => &[Call::Create, Call::Find, Call::Look, Call::Confirm, Call::Cancel, Call::Capture],
        Step::Settle => &[Call::Create, Call::Find, Call::Look, Call::Cancel],
        Step::Refund => &[Call::FindRefund, Call::Refund],
        Step::Notify => &[Call::Send],
    }
}

fn events(calls: &[Call]) -> Vec<Event> {
    let mut all = vec![Event::Begin];
    for &call in calls {
        match call {
            Call::Create => all.push(Event::Intent { call, intent: intent(IntentStatus::Unconfirmed, false, false) }),
            Call::Look | Call::Confirm | Call::Cancel | Call::Capture => {
                for status in IntentStatus::ALL {
                    all.push(Event::Intent { call, intent: intent(status, false, false) });
                    if matches!(status, IntentStatus::Unconfirmed | IntentStatus::Canceled) {
                        all.push(Event::Intent { call, intent: intent(status, true, false) });
                    }
                }
                all.push(Event::Intent { call, intent: intent(IntentStatus::Canceled, false, true) });
            }
            Call::Find => {
                all.push(Event::Found(vec![]));
                all.extend(IntentStatus::ALL.map(|status| Event::Found(vec![intent(status, false, false)])));
            }
            Call::FindRefund | Call::Refund => {
                all.extend(refunds().into_iter().map(|found| Event::Refund { call, found }));
            }
            Call::Send => all.push(Event::Sent),
        }
        all.extend(failures().into_iter().map(|why| Event::Failed { call, why }));
    }
    all.push(Event::IntentTaken { intent: provider_id("pi_1"), generation: 1 });
    all.push(Event::FactTaken(Fact::Paid { payment: provider_id("pi_1"), amount: euros(500) }));
    all.push(Event::FactTaken(Fact::Paid { payment: provider_id("pi_1"), amount: euros(499) }));
    all.push(Event::FactTaken(Fact::Refunded { payment: provider_id("pi_2"), refund: provider_id("re_1") }));
    all.push(Event::Unopened { why: "sealed to key 01020304".into() });
    all.push(Event::Lost);
    all
}

/// The order after the events, and what follows from the last.
fn after(mut order: Order, events: &[Event]) -> (Order, Vec<Action>) {
    let mut actions = vec![];
    for event in events {
        order.note(event);
        actions = step(&order, event);
    }
    (order, actions)
}

fn short(event: &Event) -> String {
    let of = |intent: &Intent| {
        let declined = if intent.declined.is_some() { " declined" } else { "" };
        let abandoned = if intent.abandoned { " abandoned" } else { "" };
        format!("{:?}{declined}{abandoned}", intent.status)
    };
    match event {
        Event::Intent { call, intent } => format!("{} -> {}", call.word(), of(intent)),
        Event::Found(found) => format!("find -> {:?}", found.iter().map(of).collect::<Vec<_>>()),
        Event::Refund { call, found } => {
            let found = found.as_ref().map(|refund| format!("{:?} {}", refund.status, refund.minor));
            format!("{} -> {}", call.word(), found.unwrap_or_else(|| "none".into()))
        }
        Event::Failed { call, why } => format!("{} failed: {why}", call.word()),
        other => format!("{other:?}"),
    }
}

#[test]
fn table_of_every_step_and_event() {
    let mut table = String::new();
    let id = order(Step::Pay, None, 0).claimed.id.to_string();
    for step in [Step::Pay, Step::Settle, Step::Refund, Step::Notify] {
        let known: &[Option<&str>] = match step {
            Step::Pay | Step::Settle => &[None, Some("pi_1")],
            Step::Refund | Step::Notify => &[None],
        };
        for &known in known {
            table.push_str(&format!("\n{step:?}, intent {}\n", known.unwrap_or("not reported")));
            for event in events(calls_of(step)) {
                let (_, actions) = after(order(step, known, 0), std::slice::from_ref(&event));
                let actions: Vec<String> = actions.iter().map(|a| format!("{a:?}").replace(&id, "ID")).collect();
                let actions = if actions.is_empty() { "the run is over".to_owned() } else { actions.join(", ") };
                table.push_str(&format!("  {:<58} {actions}\n", short(&event)));
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/step_table.txt");
    if std::env::var_os("UPDATE_TABLE").is_some() {
        std::fs::write(path, &table).expect("written");
    }
    let known = std::fs::read_to_string(path).unwrap_or_default();
    for (new, old) in table.lines().zip(known.lines()) {
        assert_eq!(new, old, "the table changed; UPDATE_TABLE=1 writes it anew");
    }
    assert_eq!(table.lines().count(), known.lines().count(), "rows came or went");
}

/// Every order that two events can make of a claimed one, and what a third then leads to.
fn walk(check: impl Fn(&Order, &Event, &[Action])) -> usize {
    let mut visited = 0;
    for step_now in [Step::Pay, Step::Settle, Step::Refund, Step::Notify] {
        let all = events(&Call::ALL);
        for known in [None, Some("pi_1")] {
            for attempts in [0, 29] {
                for first in &all {
                    let (one, _) = after(order(step_now, known, attempts), std::slice::from_ref(first));
                    for second in &all {
                        let (two, actions) = after(one.clone(), std::slice::from_ref(second));
                        check(&two, second, &actions);
                        visited += 1;
                    }
                }
            }
        }
    }
    visited
}

#[test]
fn unpaid_is_said_only_when_nothing_can_charge_any_more() {
    let visited = walk(|order, event, actions| {
        let unpaid = actions.iter().any(|action| matches!(action, Action::Report(Report::Unpaid { .. })));
        let cancelled = match event {
            Event::Intent { intent, .. } => intent.status == IntentStatus::Canceled,
            Event::Found(found) => !found.is_empty() && found.iter().all(|i| i.status == IntentStatus::Canceled),
            _ => false,
        };
        let none_reported = order.claimed.intent.is_none();
        let goes_back = match event {
            Event::FactTaken(Fact::Paid { amount, .. }) => *amount != order.claimed.amount,
            _ => false,
        };
        let next_refused = matches!(event, Event::Failed { call: Call::Create, .. }) && order.run.cancelled;
        assert!(
            !unpaid || cancelled || none_reported || next_refused || goes_back,
            "{order:?}\n{event:?}\n{actions:?}"
        );
    });
    assert!(visited > 50_000, "{visited} visited");
}

#[test]
fn only_pay_confirms_and_captures_and_only_what_the_ledger_knows() {
    walk(|order, event, actions| {
        for action in actions {
            if let Action::Confirm { intent, .. } | Action::Capture { intent, .. } = action {
                assert_eq!(order.claimed.step, Step::Pay, "{order:?}\n{event:?}");
                assert_eq!(order.claimed.intent.as_ref(), Some(intent), "{order:?}\n{event:?}");
            }
        }
    });
}

#[test]
fn a_new_generation_follows_only_a_cancelled_intent() {
    walk(|order, event, actions| {
        for action in actions {
            if let Action::Create { generation, key } = action {
                let next = *generation > order.claimed.generation.max(1);
                assert!(!next || order.run.cancelled, "{order:?}\n{event:?}\n{action:?}");
                assert_eq!(*key, format!("{}-{generation}-create", order.claimed.id));
            }
        }
    });
}

#[test]
fn a_refund_is_asked_for_only_after_it_was_looked_for_or_certainly_not_sent() {
    walk(|order, event, actions| {
        let refunds = actions.iter().any(|action| matches!(action, Action::Refund { .. }));
        let looked = matches!(event, Event::Refund { found: None, .. });
        let not_sent = matches!(
            event,
            Event::Failed { call: Call::Refund, why: Failure::NotSent { .. } | Failure::RateLimited { .. } }
        );
        assert!(!refunds || looked || not_sent, "{order:?}\n{event:?}\n{actions:?}");
    });
}

#[test]
fn after_an_unknown_outcome_nothing_is_done_but_to_look_or_repeat_what_moves_nothing() {
    walk(|order, event, actions| {
        let Event::Failed { call, why: Failure::Unknown { .. } | Failure::Replayed { .. } } = event else { return };
        for action in actions {
            let moves = matches!(action, Action::Confirm { .. } | Action::Capture { .. } | Action::Refund { .. });
            assert!(!moves, "{order:?}\n{call:?}\n{actions:?}");
        }
    });
}

#[test]
fn every_run_ends() {
    // Whatever is answered again and again, the run is over after a bounded number of events.
    for step_now in [Step::Pay, Step::Settle, Step::Refund, Step::Notify] {
        for known in [None, Some("pi_1")] {
            for event in events(&Call::ALL) {
                let mut order = order(step_now, known, 0);
                let mut rounds = 0;
                loop {
                    order.note(&event);
                    let actions = step(&order, &event);
                    let over = match actions.last() {
                        None => true,
                        Some(Action::Report(report)) => !matches!(report, Report::Intent { .. }),
                        Some(_) => false,
                    };
                    rounds += 1;
                    assert!(rounds <= ACTIONS_PER_RUN_MAX + 1, "{step_now:?} {event:?}");
                    if over {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn the_last_attempt_of_paying_releases_only_when_no_intent_was_ever_reported() {
    let down = Event::Failed { call: Call::Create, why: Failure::Unknown { why: "500".into() } };
    let times = vec![down; 5];
    let (_, actions) = after(order(Step::Pay, None, 29), &times);
    assert!(matches!(actions[..], [Action::Report(Report::Unpaid { .. })]), "{actions:?}");
    let down = Event::Failed { call: Call::Look, why: Failure::Unknown { why: "500".into() } };
    let (_, actions) = after(order(Step::Pay, Some("pi_1"), 29), &vec![down.clone(); 5]);
    assert!(matches!(actions[..], [Action::Report(Report::Retry { .. })]), "{actions:?}");
    let (_, actions) = after(order(Step::Settle, Some("pi_1"), 29), &vec![down; 5]);
    assert!(matches!(actions[..], [Action::Report(Report::Park { .. })]), "{actions:?}");
}

#[test]
fn money_that_goes_back_pays_for_nothing() {
    for state in [PaymentState::RefundDue, PaymentState::Refunded] {
        let mut order = order(Step::Settle, Some("pi_1"), 0);
        order.claimed.payments =
            vec![Payment { id: provider_id("pi_1"), amount: Some(euros(499)), state, refund: None }];
        let paid = Event::Intent { call: Call::Look, intent: intent(IntentStatus::Succeeded, false, false) };
        let (_, actions) = after(order, &[paid]);
        assert!(matches!(actions[..], [Action::Report(Report::Unpaid { .. })]), "{actions:?}");
    }
}

#[test]
fn reasons_fit_the_ledger_whatever_the_text() {
    for text in ["", " ", "a\nb\tc", &"ä".repeat(300), "x\u{2028}y"] {
        assert!(reason(text).as_str().len() <= REASON_BYTES_MAX, "{text:?}");
    }
}
