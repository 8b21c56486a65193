//! Frames written and read by hand mean the same as prost's, for any bytes.

use crate::given::{any_call, any_command, any_reply};
use ledger_core::outcome::Outcome;
use ledger_core::{LedgerTime, Position};
use ledger_proto::fast::{self, FrameError};
use ledger_proto::reply::{At, Reply};
use ledger_proto::{Answers, Calls, DecodedCall, answers, calls, limits, names, v1};
use proptest::prelude::*;
use prost::Message as _;

/// The same as the fast decoder, out of prost's structs.
fn slowly(bytes: &[u8]) -> Option<Vec<DecodedCall>> {
    let frame = v1::CallFrame::decode(bytes).ok()?;
    Some(frame.calls.into_iter().map(calls::decode).collect())
}

fn quickly(bytes: &[u8]) -> Option<Vec<DecodedCall>> {
    let mut calls = Vec::new();
    fast::decode_call_frame(bytes, &mut calls).ok().map(|()| calls)
}

fn answers_slowly(bytes: &[u8]) -> Option<Vec<fast::ReceivedAnswer>> {
    let frame = v1::AnswerFrame::decode(bytes).ok()?;
    let mut all = Vec::new();
    for entry in frame.entries {
        for answer in entry.answers {
            let place = u16::try_from(answer.place).unwrap_or(u16::MAX);
            let at = entry.position.map(|position| At {
                position: Position { place, ..names::position(position) },
                time: LedgerTime(entry.time_ms),
            });
            all.push(fast::ReceivedAnswer { tag: answer.tag, at, reply: answers::from_wire(answer.outcome) });
        }
    }
    Some(all)
}

fn answers_quickly(bytes: &[u8]) -> Option<Vec<fast::ReceivedAnswer>> {
    let mut answers = Vec::new();
    fast::decode_answer_frame(bytes, &mut answers).ok().map(|()| answers)
}

/// Bytes near a frame: a good one with some bytes changed, cut or added.
fn near(good: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..4);
    (good, edits).prop_map(|(mut bytes, edits)| {
        for (at, byte, kind) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

fn frame_of_calls() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any_call(), 0..5).prop_map(|calls| v1::CallFrame { calls }.encode_to_vec())
}

fn frame_of_answers() -> impl Strategy<Value = Vec<u8>> {
    let answer =
        (any::<u64>(), any::<u16>(), any_reply()).prop_map(|(tag, place, reply)| answers::to_wire(tag, place, &reply));
    let position = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>())
        .prop_map(|(incarnation, shard, term, index)| v1::Position { incarnation, shard, term, index, place: 0 });
    let entry = (prop::option::of(position), any::<u64>(), prop::collection::vec(answer, 0..4))
        .prop_map(|(position, time_ms, answers)| v1::EntryAnswers { position, time_ms, answers });
    prop::collection::vec(entry, 0..3).prop_map(|entries| v1::AnswerFrame { entries }.encode_to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn calls_are_read_as_prost_reads_them(bytes in near(frame_of_calls())) {
        prop_assert_eq!(quickly(&bytes), slowly(&bytes));
    }

    #[test]
    fn any_bytes_are_read_as_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(quickly(&bytes), slowly(&bytes));
        prop_assert_eq!(answers_quickly(&bytes), answers_slowly(&bytes));
    }

    #[test]
    fn calls_are_written_as_prost_writes_them(tag: u64, within_ms: u32, command in any_command()) {
        let ours = bytes_of(&Calls::of(within_ms, [(tag, &command)]).unwrap());
        let call = v1::Call { tag, within_ms, verb: calls::verb(&command) };
        prop_assert_eq!(&ours, &v1::CallFrame { calls: vec![call] }.encode_to_vec());
        let read = quickly(&ours).unwrap();
        prop_assert_eq!(read, vec![DecodedCall { tag, within_ms, command: Ok(command.clone()) }]);
        prop_assert_eq!(calls::check(&command), Ok(()));
    }

    #[test]
    fn answers_are_read_as_prost_reads_them(bytes in near(frame_of_answers())) {
        prop_assert_eq!(answers_quickly(&bytes), answers_slowly(&bytes));
    }

    #[test]
    fn answers_are_read_as_they_were_written(
        tag: u64,
        place: u16,
        reply in any_reply(),
        position in prop::option::of((1_u64.., 1_u32.., any::<u64>(), any::<u64>())),
        time: u64,
    ) {
        let at = position.map(|(incarnation, shard, term, index)| At {
            position: Position { incarnation, shard, term, index, place: 0 },
            time: LedgerTime(time),
        });
        let mut frame = Answers::new();
        frame.entry(at).reply(tag, place, &reply);
        frame.push(tag, &reply);
        let at = at.map(|at| At { position: Position { place, ..at.position }, ..at });
        let expected = vec![
            fast::ReceivedAnswer { tag, at, reply: reply.clone() },
            fast::ReceivedAnswer { tag, at: None, reply },
        ];
        prop_assert_eq!(frame.decode().unwrap(), expected.clone());
        prop_assert_eq!(answers_slowly(frame.as_bytes()), Some(expected));
    }
}

fn bytes_of(calls: &Calls) -> Vec<u8> {
    use ledger_proto::frames::Frame as _;
    calls.message().to_vec()
}

#[test]
fn many_outcomes_share_an_entry() {
    let at = At { position: Position { incarnation: 1, shard: 2, term: 3, index: 4, place: 0 }, time: LedgerTime(5) };
    let mut frame = Answers::with_room_for(300);
    {
        let mut entry = frame.entry(Some(at));
        for n in 0..300_u16 {
            entry.outcome(n.into(), n, &Outcome::Ok(ledger_core::Settled::Done));
        }
    }
    let read = frame.decode().unwrap();
    assert_eq!(read.len(), 300);
    assert_eq!(read[299].at.unwrap().position.place, 299);
    assert_eq!(v1::AnswerFrame::decode(frame.as_bytes()).unwrap().entries.len(), 1);
}

#[test]
fn a_frame_is_bounded_in_calls_and_bytes() {
    let id = crate::given::some_id();
    let command = ledger_core::Command::Release { id };
    let full = Calls::of(0, (0..limits::CALLS_PER_FRAME_MAX as u64).map(|tag| (tag, &command))).unwrap();
    assert_eq!(full.decode().unwrap().len(), limits::CALLS_PER_FRAME_MAX);
    let over = Calls::of(0, (0..=limits::CALLS_PER_FRAME_MAX as u64).map(|tag| (tag, &command))).unwrap();
    let mut kept = full.decode().unwrap();
    let error = over.decode_into(&mut kept).unwrap_err();
    assert!(matches!(error, FrameError::TooManyCalls { got, .. } if got == limits::CALLS_PER_FRAME_MAX + 1), "{error}");
    assert_eq!(kept.len(), limits::CALLS_PER_FRAME_MAX, "what was there before is left alone");
    let huge = vec![0; limits::FRAME_BYTES_MAX + 1];
    assert!(matches!(fast::decode_call_frame(&huge, &mut kept), Err(FrameError::TooLarge { .. })));
}

#[test]
fn fields_of_a_frame_that_no_build_knows_are_passed_over_as_prost_does() {
    let command = ledger_core::Command::Release { id: crate::given::some_id() };
    let good = bytes_of(&Calls::of(5, [(1, &command)]).unwrap());
    // A varint, eight bytes, a length, a group with a field in it, four bytes, and a key of two
    // bytes.
    let unknown: [&[u8]; 6] = [
        &[16, 200, 1],
        &[17, 1, 2, 3, 4, 5, 6, 7, 8],
        &[18, 2, 0, 0],
        &[19, 8, 1, 20],
        &[21, 1, 2, 3, 4],
        &[130, 1, 0],
    ];
    for field in unknown {
        let frame = [&good[..], field, &good[..]].concat();
        assert_eq!(quickly(&frame).map(|calls| calls.len()), Some(2), "{field:?}");
        assert_eq!(quickly(&frame), slowly(&frame), "{field:?}");
        let cut = [&good[..], &field[..field.len() - 1]].concat();
        assert_eq!((quickly(&cut), slowly(&cut)), (None, None), "{field:?} is cut");
    }
    // A call's key with another wire type, a group that does not end, and a length that takes more
    // bytes than it needs.
    for broken in [&[8, 1][..], &[11, 8, 1], &[12]] {
        assert_eq!((quickly(broken), slowly(broken)), (None, None), "{broken:?}");
    }
    let long = [&[10, good[1] | 0x80, 0], &good[2..]].concat();
    assert_eq!(quickly(&long), slowly(&good));
}

#[test]
fn an_unknown_reason_stays_a_no_and_an_unknown_answer_is_unknown() {
    let newer = v1::Refusal { code: 9_999, message: "newer".into(), ..Default::default() };
    let reply = answers::from_wire(Some(v1::answer::Outcome::Refused(newer)));
    assert!(matches!(reply, Reply::Refused(ledger_proto::Why::Other { code: 9_999, .. })), "{reply:?}");
    assert!(matches!(answers::from_wire(None), Reply::Unknown(_)));
    let settled = v1::answer::Outcome::Ok(v1::Settled { what: None });
    assert!(matches!(answers::from_wire(Some(settled)), Reply::Unknown(_)));
}
