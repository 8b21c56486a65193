//! A client secret crosses the wire in its sealed form alone, in both directions.

use ledger_core::order::{ClientSecret, Ending, OrderBrief, OrderView, Phase, Report};
use ledger_core::{Command, LedgerTime, ReservationId, Slot};
use ledger_proto::v1::{self, call::Verb, report_order};
use ledger_proto::{calls, names, orders};

const IN_CLEAR: &str = "pi_1_secret_x";
const SEALED: &str = "holdfast-secret-1:Ag9t";

fn id() -> ReservationId {
    ReservationId::from_parts(Slot::new(7).expect("a slot"), 1_000, 1)
}

fn view(secret: &str) -> OrderView {
    let (phase, ending, deadline) = (Phase::AwaitingBuyer, Ending::Open, LedgerTime(9));
    OrderView {
        id: id(),
        brief: OrderBrief { phase, ending, epoch: 1, deadline, replayed: false },
        step: None,
        attempts: 0,
        not_before: None,
        lease: None,
        placed_at: LedgerTime(1),
        amount: None,
        intent: None,
        generation: 1,
        secret: Some(secret.into()),
        payments: vec![],
        lines: vec![],
        linked: None,
        parked: None,
        suspect: false,
    }
}

#[test]
fn view_of_a_secret_in_clear_has_none_on_the_wire() {
    // Of a log that a worker of an earlier build wrote.
    assert_eq!(orders::view_to_wire(&view(IN_CLEAR)).secret, "");
    assert_eq!(orders::view_to_wire(&view("")).secret, "");
    let sealed = orders::view_to_wire(&view(SEALED));
    assert_eq!(sealed.secret, SEALED);
    assert_eq!(orders::view_from_wire(sealed).expect("a view").secret, Some(ClientSecret::from(SEALED)));
    // ... nor of a node of an earlier build.
    let old = v1::OrderView { secret: IN_CLEAR.into(), ..orders::view_to_wire(&view(SEALED)) };
    assert_eq!(orders::view_from_wire(old).expect("a view").secret, None);
}

#[test]
fn report_of_a_secret_in_clear_is_taken_without_it() {
    for (secret, stored) in [
        (SEALED, SEALED),
        (IN_CLEAR, ""),
        ("", ""),
        ("holdfast-secret-1:", ""),
        ("holdfast-secret-1:pi 1", ""),
        ("x holdfast-secret-1:Ag9t", ""),
    ] {
        let report = report_order::Report::AwaitBuyer(report_order::AwaitBuyer { secret: secret.into() });
        let verb = Verb::ReportOrder(v1::ReportOrder { id: names::id_to_wire(id()), epoch: 1, report: Some(report) });
        let command = calls::command(Some(verb)).expect("a worker of any build may say so");
        let Command::ReportOrder { report: Report::AwaitBuyer { secret: got }, .. } = &command else {
            panic!("{command:?}")
        };
        assert_eq!(got.as_str(), stored, "{secret}");
        assert!(!format!("{command:?}").contains(SEALED), "not printed");
    }
}
