//! Every checker against runs made by hand: one in which all holds, and for each property runs that violate it.

#[path = "checkers/made.rs"]
mod made;
#[path = "checkers/replicas.rs"]
mod replicas_and_feed;

use jepsen_like_tests::checkers::{self, *};
use jepsen_like_tests::history::{Answer, BEHIND, FinalStatus, No, Op, Out, Run, State, Told, Units};
use made::{EPOCH_MS, Made, good, plain, reserve, terms};

/// A checker by its function, for messages.
type Check = fn(&Run) -> Vec<String>;

#[track_caller]
fn finds(check: Check, run: &Run, words: &str) {
    let found = check(run);
    assert!(found.iter().any(|what| what.contains(words)), "{words:?} is not in {found:#?}");
}

#[test]
fn a_good_run_has_no_violation() {
    assert_eq!(checkers::check_all(&good().run), vec![]);
}

#[test]
fn a_journal_is_read_as_it_was_written_and_a_bad_line_is_named() {
    let run = good().run;
    let mut text = Vec::new();
    run.write_events(&mut text).unwrap();
    assert_eq!(Run::read_events(&mut text.as_slice()).unwrap(), run);
    text.extend(b"{\"line\":\"op\"}\n");
    let lines = text.iter().filter(|b| **b == b'\n').count();
    let error = Run::read_events(&mut text.as_slice()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("line {lines}: ")), "{error}");
}

#[test]
fn an_answer_beyond_a_quorum_and_a_damaged_node_that_does_not_say_so_are_found() {
    let says = "shard-1-replica failed: its log is damaged: it waits for node 3";
    let status = |node, ready, says: &str| FinalStatus { node, ready, says: says.to_owned() };
    let beyond = |statuses: Vec<FinalStatus>| {
        let mut made = good();
        let last = made.run.events.iter().map(|e| e.asked_ms).max().unwrap();
        (made.run.about.beyond_ms, made.run.about.damaged) = (Some(last + 1), vec![1, 2]);
        made.run.statuses = statuses;
        made
    };
    let both = || vec![status(1, false, says), status(2, false, says)];
    assert_eq!(lost_disks::check(&beyond(both()).run), [""; 0]);
    let mut answered = beyond(both());
    answered.run.about.beyond_ms = Some(0);
    finds(lost_disks::check, &answered.run, "no quorum is left since 0 ms");
    finds(lost_disks::check, &beyond(vec![status(1, false, says)]).run, "node 2 lost something and does not say");
    let ready = beyond(vec![status(1, true, says), status(2, false, "not ready")]);
    finds(lost_disks::check, &ready.run, "node 1 lost something and calls itself ready");
    finds(lost_disks::check, &ready.run, "node 2 lost something and says only: not ready");
}

#[test]
fn a_node_that_takes_part_on_an_empty_disk_is_found() {
    let mut made = good();
    made.run.about.emptied = vec![3];
    finds(lost_disks::check, &made.run, "node 3 came back on an empty disk");
    let says = "[-]serving failed: the node is not part of a cluster yet".to_owned();
    made.run.statuses = vec![FinalStatus { node: 3, ready: false, says }];
    assert_eq!(lost_disks::check(&made.run), [""; 0]);
    made.run.statuses[0] = FinalStatus { node: 3, ready: true, says: "ready".to_owned() };
    finds(lost_disks::check, &made.run, "node 3 came back on an empty disk");
}

#[test]
fn a_node_that_was_brought_back_and_believed_is_found() {
    let mut made = good();
    made.run.about.rejoined = vec![3];
    made.run.sometimes.insert("replica-repaired".to_owned(), 1);
    finds(lost_disks::check, &made.run, "only 1 replicas were repaired");
    made.run.sometimes.insert("replica-repaired".to_owned(), 3);
    assert_eq!(lost_disks::check(&made.run), [""; 0]);
}

#[test]
fn a_lost_reserve_is_found() {
    let mut made = good();
    made.final_id("b").state = "unknown".into();
    finds(acknowledged::check, &made.run, "at the end it is unknown");
}

#[test]
fn a_refusal_that_was_forgotten_is_found() {
    let mut made = good();
    made.final_id("c").state = "forgotten".into();
    finds(acknowledged::check, &made.run, "refused reserve");
}

#[test]
fn a_confirm_that_went_back_is_found() {
    let mut made = good();
    made.final_id("a").state = "held".into();
    finds(acknowledged::check, &made.run, "confirm of");
    finds(ends_once::check, &made.run, "is held at the end");
}

#[test]
fn a_return_that_was_lost_is_found() {
    let mut made = good();
    let a = made.id("a");
    let op = Op::Return { id: a, lines: None, reference: "back".into() };
    made.ok(op, Told::Returned { units: 1 }, None);
    finds(acknowledged::check, &made.run, "1 units of");
}

#[test]
fn a_vanished_unit_is_found() {
    let mut made = good();
    made.run.stock[1].offers[0].units.available -= 1;
    finds(conserved::check, &made.run, "3 put in, 2 inside");
    finds(replicas::check, &made.run, "node 2 says");
    finds(replay::check, &made.run, "on node 2 ends as");
}

#[test]
fn a_receive_taken_twice_is_found() {
    let mut made = good();
    for stock in &mut made.run.stock {
        stock.received += 3;
        stock.offers[0].units.available += 3;
    }
    finds(conserved::check, &made.run, "clients received 3 to 3, the ledger 6");
}

#[test]
fn more_sold_than_came_in_is_found() {
    let mut made = good();
    made.final_id("b").lines[0].sold = 3;
    finds(oversold::check, &made.run, "4 sold, 3 came in");
}

#[test]
fn clients_that_were_told_of_more_than_came_in_are_found() {
    let mut made = good();
    for name in ["x", "y", "z"] {
        let (op, id) = made.reserve_op(name, 1, 100);
        let told = made.held(100);
        made.ok(op, told.clone(), None);
        made.ok(Op::Confirm { id, lines: None }, told, None);
    }
    finds(oversold::check, &made.run, "4 are theirs, 3 came in");
}

#[test]
fn a_held_unit_without_a_hold_is_found() {
    let mut made = good();
    let units = &mut made.run.stock[2].offers[0].units;
    (units.held, units.available) = (1, units.available - 1);
    finds(stranded::check, &made.run, "1 held, but no hold is live");
}

#[test]
fn a_hold_that_outlives_its_deadline_is_found() {
    let mut made = good();
    made.final_id("b").state = "held".into();
    made.wait(1_000);
    let id = made.id("nobody");
    made.refused(Op::Release { id }, No::UnknownReservation);
    finds(stranded::check, &made.run, "though it was due");
}

#[test]
fn a_reservation_that_ends_twice_is_found() {
    let mut made = good();
    let mut again = made.changes().iter().find(|c| c.name == "ReservationConfirmed").unwrap().clone();
    again.name = "ReservationReleased".into();
    again.at.index = made.next_index();
    made.tell(again);
    finds(ends_once::check, &made.run, "and then ReservationReleased");
}

#[test]
fn an_end_that_was_told_twice_is_found() {
    let mut made = good();
    let id = made.id("a");
    let told = Told::Reservation { state: State::Released, deadline_ms: 0, reserved_at_ms: 0 };
    made.ok(Op::Release { id }, told, None);
    finds(ends_once::check, &made.run, "was told to be Confirmed");
}

#[test]
fn an_id_that_executes_twice_is_found() {
    let mut made = good();
    let mut again = made.changes().iter().find(|c| c.name == "InventoryReserved").unwrap().clone();
    again.at.index = made.next_index();
    made.tell(again);
    finds(answered_once::check, &made.run, "executed at each of");
}

#[test]
fn a_second_verdict_is_found() {
    let mut made = good();
    let op = reserve(&made.id("c"), 2, "carl", 100);
    let told = made.held(100);
    made.ok(op, told, None);
    finds(answered_once::check, &made.run, "was answered `refused");
}

#[test]
fn a_second_first_time_is_found() {
    let mut made = good();
    let first = made.run.events.iter().find(|e| matches!(e.op, Op::Reserve { .. })).unwrap().clone();
    let Answer::Ok { told, .. } = first.answer else { panic!("it was reserved") };
    made.ok(first.op, told, None);
    finds(answered_once::check, &made.run, "for the first time at each of");
}

#[test]
fn forgotten_is_a_lie_when_nothing_presses_or_the_id_is_young_or_sold() {
    let forget = |cap: Option<u64>, name: &str, wait_ms: u64| {
        let mut made = good();
        made.run.about.remembered_max = cap;
        made.wait(wait_ms);
        let id = made.id(name);
        made.refused(Op::Release { id }, No::Forgotten);
        made.run
    };
    finds(answered_once::check, &forget(None, "c", 20_000), "nothing presses");
    finds(answered_once::check, &forget(Some(1), "c", 10), "too young");
    finds(answered_once::check, &forget(Some(1), "a", 20_000), "it is sold");
    assert_eq!(answered_once::check(&forget(Some(1), "c", 20_000)), Vec::<String>::new());
}

#[test]
fn an_id_that_comes_back_from_being_forgotten_or_fenced_is_found() {
    let mut made = good();
    made.run.about.remembered_max = Some(1);
    made.wait(20_000);
    let id = made.id("c");
    made.refused(Op::Release { id: id.clone() }, No::Forgotten);
    made.refused(Op::Release { id }, No::UnknownReservation);
    finds(answered_once::check, &made.run, "was forgotten at");
    let mut made = good();
    let (op, id) = made.reserve_op("f", 1, 100);
    made.ok(Op::Fence { id }, Told::Never, None);
    let told = made.held(100);
    made.ok(op, told, None);
    finds(answered_once::check, &made.run, "was fenced at");
}

#[test]
fn a_position_from_the_past_is_found() {
    let mut made = good();
    let last = made.run.events.len() - 1;
    made.at_of(last).index = 1;
    finds(order::check, &made.run, "behind it was answered");
}

#[test]
fn a_sale_of_what_is_not_there_is_found_by_the_replay() {
    let mut made = good();
    for (name, quantity, after) in [("d", 2, (0, 2, 1)), ("e", 1, (0, 3, 1))] {
        let (available, held, sold) = after;
        let (op, id) = made.reserve_op(name, quantity, 100);
        let told = made.held(100);
        let change = made.change_of(&op, &id, Units { available, held, sold });
        made.ok(op, told, Some(change));
    }
    finds(replay::check, &made.run, "by the model it is Err(SoldOut");
    finds(general::check, &made.run, "no order of its");
}

#[test]
fn a_refusal_without_a_reason_is_found_by_the_replay() {
    let mut made = good();
    let (op, _) = made.reserve_op("d", 1, 100);
    made.refused(op, No::SoldOut { offer: plain(), out: Out::Gone });
    finds(replay::check, &made.run, "nothing refuses it so");
    finds(general::check, &made.run, "no order of its");
}

#[test]
fn of_several_contents_in_doubt_under_one_id_only_the_one_that_was_read_counts() {
    // Told: two units were reserved; in doubt: one unit under the same id.
    let mut made = good();
    let (op, id) = made.reserve_op("d", 2, 100);
    let told = made.held(100);
    made.ok(op, told, None);
    let reserved_at_ms = EPOCH_MS + made.time_ms;
    made.unknown(made.reserve_op("d", 1, 100).0);
    made.expired_at_the_end(&id, 2, reserved_at_ms, 100);
    assert_eq!(general::check(&made.run), Vec::<String>::new());

    // Nothing told: the deadline says which of two hold times it was.
    let mut made = good();
    made.unknown(made.reserve_op("d", 2, 100).0);
    let reserved_at_ms = EPOCH_MS + made.time_ms;
    made.unknown(made.reserve_op("d", 2, 101).0);
    made.expired_at_the_end(&id, 2, reserved_at_ms, 100);
    assert_eq!(general::check(&made.run), Vec::<String>::new());

    // It counts: nobody else can have had a unit meanwhile.
    let (op, _) = made.reserve_op("e", 1, 100);
    let told = made.held(100);
    made.ok(op, told, None);
    finds(general::check, &made.run, "no order of its");
}

/// The simulation's seed 741006: a call whose first attempt nobody heard was answered by its second, which repeated the verdict; then the id was
/// pressed out of memory, and who asked once more was told so.
#[test]
fn a_verdict_that_was_only_told_again_and_then_forgotten_needs_the_logs_help() {
    let mut made = good();
    made.run.about.remembered_max = Some(1);
    let (op, _) = made.reserve_op("d", 1, 100);
    let (reserved_at_ms, deadline_ms) = (EPOCH_MS + made.time_ms, EPOCH_MS + made.time_ms + 100);
    made.after_deadlines();
    made.ok(op.clone(), Told::Reservation { state: State::Expired, deadline_ms, reserved_at_ms }, None);
    let Some(Answer::Ok { replayed, .. }) = made.run.events.last_mut().map(|e| &mut e.answer) else {
        panic!("just told")
    };
    *replayed = true;
    assert_eq!(general::check(&made.run), Vec::<String>::new());
    made.refused(op, No::Forgotten);
    assert_eq!(general::check(&made.run), Vec::<String>::new());
}

#[test]
fn of_several_confirms_in_doubt_only_the_one_that_was_read_counts() {
    let mut made = good();
    let a = made.id("a");
    made.unknown(Op::Confirm { id: a.clone(), lines: Some(vec![made::line(1)]) });
    assert_eq!(general::check(&made.run), Vec::<String>::new());
    // It was of one unit: one of two cannot have been what sold it.
    made.unknown(Op::Confirm { id: a, lines: Some(vec![made::line(2)]) });
    assert_eq!(general::check(&made.run), Vec::<String>::new());
}

#[test]
fn an_effect_that_a_client_was_told_did_not_happen_is_found() {
    let mut made = good();
    let (op, id) = made.reserve_op("d", 1, 100);
    made.not_now(op.clone());
    let change = made.change_of(&op, &id, Units { available: 1, held: 1, sold: 1 });
    made.tell(change);
    finds(replay::check, &made.run, "it was answered NotNow");
}

#[test]
fn an_effect_in_doubt_is_explained_by_the_feed() {
    let mut made = good();
    let (op, id) = made.reserve_op("d", 1, 100);
    made.unknown(op.clone());
    let change = made.change_of(&op, &id, Units { available: 1, held: 1, sold: 1 });
    made.tell(change);
    made.after_deadlines();
    assert_eq!(replay::check(&made.run), Vec::<String>::new());
}

#[test]
fn of_several_contents_in_doubt_the_later_answers_say_which_was_decided() {
    let after = Units { available: 1, held: 1, sold: 1 };
    let replayed = |made: &mut made::Made, op: Op, told: Told| {
        made.ok(op, told, None);
        let last = made.run.events.last_mut().expect("one");
        last.asked_ms = 0;
        let Answer::Ok { replayed, .. } = &mut last.answer else { panic!("it was ok") };
        *replayed = true;
    };
    // The first was asked under one key and never answered; the second under another, and its second attempt was told what its first had done.
    let decided = || {
        let mut made = good();
        let (first, id) = made.reserve_op("d", 1, 100);
        made.unknown(first.clone());
        let (told, change) = (made.held(100), made.change_of(&first, &id, after));
        made.tell(change);
        (made, first, made::reserve(&id, 1, "another", 100), told)
    };
    let (mut made, first, second, told) = decided();
    replayed(&mut made, second.clone(), told.clone());
    made.refused(first.clone(), No::IdTaken);
    made.after_deadlines();
    assert_eq!(replay::check(&made.run), Vec::<String>::new());

    // It cannot have been both.
    let (mut made, first, second, told) = decided();
    replayed(&mut made, second, told.clone());
    replayed(&mut made, first, told);
    finds(replay::check, &made.run, "IdTaken");

    // Nor neither.
    let (mut made, first, second, _) = decided();
    made.refused(first, No::IdTaken);
    made.refused(second, No::IdTaken);
    finds(replay::check, &made.run, "IdTaken");
}

#[test]
fn an_acknowledged_effect_that_the_feed_does_not_have_is_found() {
    let mut made = good();
    for watched in &mut made.run.watched {
        watched.changes.retain(|c| c.name != "ReservationConfirmed");
    }
    finds(replay::check, &made.run, "but the feed has nothing there");
}

#[test]
fn a_balance_that_the_feed_tells_wrongly_is_found() {
    let mut made = good();
    for watched in &mut made.run.watched {
        watched.changes.iter_mut().filter(|c| c.name == "ReservationConfirmed").for_each(|c| c.lines[0].after.sold = 7);
    }
    finds(replay::check, &made.run, "ReservationConfirmed tells that");
}

#[test]
fn a_read_of_what_never_was_is_found() {
    let mut made = good();
    let units = Units { available: 9, held: 0, sold: 1 };
    made.ok(
        Op::ReadOffer { offer: plain(), stale: true },
        Told::Seen { units, version: 1, out: None, ended: false },
        None,
    );
    let last = made.run.events.len() - 1;
    made.at_of(last).place = BEHIND;
    finds(replay::check, &made.run, "was answered with");
}

#[test]
fn a_key_above_its_limit_is_found() {
    let mut made = good();
    // Both a and b were reserved under one key whose limit is two; now b was of two units.
    made.final_id("b").lines[0].line.quantity = 2;
    finds(limits::check, &made.run, "has 3 of");
}

#[test]
fn a_limit_that_refuses_too_early_is_found_by_the_replay() {
    let mut made = good();
    let (op, _) = made.reserve_op("d", 1, 100);
    made.refused(op, No::LimitReached { offer: plain(), key_index: 0, used: 2, max: 2 });
    finds(replay::check, &made.run, "nothing refuses it so");
}

#[test]
fn somebody_served_before_an_earlier_one_is_found() {
    let mut made = good();
    let (op, _) = made.reserve_op("x", 50, 100);
    made.refused(op, No::SoldOut { offer: plain(), out: Out::Open { available: 2 } });
    let (op, _) = made.reserve_op("d", 2, 100);
    made.refused(op, No::SoldOut { offer: plain(), out: Out::Open { available: 1 } });
    let (op, id) = made.reserve_op("e", 2, 100);
    let told = made.held(100);
    let change = made.change_of(&op, &id, Units { available: 0, held: 2, sold: 1 });
    made.ok(op, told, Some(change));
    finds(arrival::check, &made.run, "were refused before");
}

#[test]
fn a_hold_that_ends_early_or_lives_on_is_found() {
    let mut made = good();
    let (op, id) = made.reserve_op("d", 1, 100);
    let told = made.held(100);
    let change = made.change_of(&op, &id, Units { available: 1, held: 1, sold: 1 });
    made.ok(op, told.clone(), Some(change));
    made.refused(Op::Confirm { id: id.clone(), lines: None }, No::NotHeld { state: State::Expired });
    finds(expiry::check, &made.run, "before its deadline");
    made.run.events.pop();
    made.wait(200);
    let Told::Reservation { deadline_ms, reserved_at_ms, .. } = told else { panic!("it was held") };
    let told = Told::Reservation { state: State::Confirmed, deadline_ms, reserved_at_ms };
    made.ok(Op::Confirm { id, lines: None }, told, None);
    finds(expiry::check, &made.run, "though due at");
}

#[test]
fn a_hold_of_another_time_than_was_asked_for_is_found() {
    let mut made = good();
    let (op, _) = made.reserve_op("d", 1, 100);
    let told = made.held(101);
    made.ok(op, told, None);
    finds(expiry::check, &made.run, "100 ms from");
}

#[test]
fn an_end_at_another_time_than_the_deadline_is_found() {
    let mut made = good();
    *made.final_id("b").ended_at_ms.as_mut().unwrap() += 1;
    finds(expiry::check, &made.run, "its deadline is");
}

#[test]
fn ledger_time_that_is_wrong_or_goes_back_is_found() {
    let mut made = good();
    let id = made.id("nobody");
    made.time_ms += 60_000;
    made.refused(Op::Release { id: id.clone() }, No::UnknownReservation);
    finds(clock::check, &made.run, "the bound is 500 ms");
    made.time_ms -= 30_000;
    made.refused(Op::Release { id }, No::UnknownReservation);
    finds(clock::check, &made.run, "goes back");
    finds(replay::check, &made.run, "ledger time goes back");
}

#[test]
fn ledger_time_that_a_new_leader_moves_further_than_it_may_is_found() {
    let mut made = good();
    (made.run.about.clock_bound_ms, made.run.about.clock_jump_max_ms) = (None, Some(60_000));
    let id = made.id("nobody");
    made.time_ms += 50_000;
    made.refused(Op::Release { id: id.clone() }, No::UnknownReservation);
    finds(clock::check, &made.run, "of 0 new leaders");
    let led_by = |run: &mut Run, term: u64| {
        let Some(Answer::Refused { at: Some(at), .. }) = run.events.last_mut().map(|e| &mut e.answer) else { panic!() };
        at.term = term;
    };
    let term = made.run.events[0].answer.at().expect("decided").term;
    led_by(&mut made.run, term + 1);
    assert_eq!(clock::check(&made.run), [""; 0], "one leader may take that");
    made.time_ms += 70_000;
    made.refused(Op::Release { id }, No::UnknownReservation);
    led_by(&mut made.run, term + 2);
    finds(clock::check, &made.run, "of 1 new leaders");
    made.run.about.clock_jump_max_ms = None;
    assert_eq!(clock::check(&made.run), [""; 0], "all stood still");
}

#[test]
fn a_refusal_of_since_it_was_first_asked_is_explained() {
    let mut made = Made::new();
    made.create(terms());
    made.receive(1, "r1");
    // Refused by an attempt whose answer was lost; asked again after there was enough.
    let (op, _) = made.reserve_op("late", 2, 100);
    made.unknown(op.clone());
    made.receive(5, "r2");
    made.refused(op, No::SoldOut { offer: plain(), out: Out::Open { available: 1 } });
    made.after_deadlines();
    assert_eq!(replay::check(&made.run), Vec::<String>::new());
}
