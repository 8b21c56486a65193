//! Frames of answers, by hand.
//!
//! **Must never** read an answer otherwise than [`crate::answers`] does.

use bytes::BytesMut;
use ledger_core::outcome::{Brief, Outcome, SoldOut};
use ledger_core::{LedgerTime, OfferKey, Position, Refusal, Settled};
use prost::Message as _;

use super::FrameError;
use super::wire::{Small, Wire};
use crate::reply::{At, Reply, Why};
use crate::{answers, names, v1};

const ENTRY: u8 = 0x0a;
const POSITION: u8 = 0x0a;
const TIME: u8 = 0x10;
const ANSWER: u8 = 0x1a;
const TAG: u8 = 0x08;
const PLACE: u8 = 0x10;
const OK: u8 = 10 << 3 | 2;
const REFUSED: u8 = 11 << 3 | 2;
const RESERVATION: u8 = 0x0a;

/// One answer as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedAnswer {
    /// The call's tag.
    pub tag: u64,
    /// Where and when it was decided; none when it never reached the log.
    pub at: Option<At>,
    /// The answer.
    pub reply: Reply,
}

/// Bytes kept free for an entry's length, which is only known behind it: a varint of fixed width, below 2²⁸.
const LENGTH_BYTES: usize = 4;

/// Begins an entry; give what it returns to [`end_entry`].
pub(crate) fn begin_entry(frame: &mut BytesMut, at: Option<At>) -> usize {
    let mut head = Small::<96>::new();
    head.byte(ENTRY);
    head.raw(&[0; LENGTH_BYTES]);
    if let Some(At { position, time }) = at {
        let mut inner = Small::<48>::new();
        inner.number(0x08, position.incarnation);
        inner.number(0x10, position.shard.into());
        inner.number(0x18, position.term);
        inner.number(0x20, position.index);
        head.message(POSITION, inner.as_slice());
        head.number(TIME, time.0);
    }
    let start = frame.len() + 1 + LENGTH_BYTES;
    frame.extend_from_slice(head.as_slice());
    start
}

/// Writes the entry's length.
pub(crate) fn end_entry(frame: &mut BytesMut, start: usize) {
    let mut length = frame.len() - start;
    debug_assert!(length < 1 << (7 * LENGTH_BYTES));
    let bytes = &mut frame[start - LENGTH_BYTES..start];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let more = if i + 1 < LENGTH_BYTES { 0x80 } else { 0 };
        *byte = (length as u8 & 0x7f) | more;
        length >>= 7;
    }
}

/// Appends an answer of the ledger to the open entry.
#[inline]
pub(crate) fn put_outcome(frame: &mut BytesMut, tag: u64, place: u16, outcome: &Outcome) {
    match outcome {
        Outcome::Ok(Settled::Reservation(brief)) => put_brief(frame, tag, place, *brief),
        Outcome::Refused(Refusal::SoldOut { offer, truth }) => put_sold_out(frame, tag, place, offer, *truth),
        other => put_slowly(frame, tag, place, &other.clone().into()),
    }
}

/// Appends any reply to the open entry.
pub(crate) fn put_reply(frame: &mut BytesMut, tag: u64, place: u16, reply: &Reply) {
    match reply {
        Reply::Ok(Settled::Reservation(brief)) => put_brief(frame, tag, place, *brief),
        Reply::Refused(Why::Ledger(Refusal::SoldOut { offer, truth })) => {
            put_sold_out(frame, tag, place, offer, *truth);
        }
        other => put_slowly(frame, tag, place, other),
    }
}

fn put_slowly(frame: &mut BytesMut, tag: u64, place: u16, reply: &Reply) {
    let answer = answers::to_wire(tag, place, reply);
    let mut head = Small::<16>::new();
    head.byte(ANSWER);
    head.varint(answer.encoded_len() as u64);
    frame.extend_from_slice(head.as_slice());
    frame.extend_from_slice(&answer.encode_to_vec());
}

#[inline]
fn put_brief(frame: &mut BytesMut, tag: u64, place: u16, brief: Brief) {
    let mut inner = Small::<32>::new();
    inner.number(0x08, names::status_to_wire(brief.status) as u64);
    inner.number(0x10, brief.deadline.0);
    inner.number(0x18, brief.reserved_at.0);
    inner.number(0x20, brief.replayed.into());
    let inner = inner.as_slice();
    let mut head = Small::<16>::new();
    head.number(TAG, tag);
    head.number(PLACE, place.into());
    let head = head.as_slice();
    // All lengths here are below 128: at most 15 + 4 + 32 bytes.
    let mut all = Small::<64>::new();
    all.byte(ANSWER);
    all.byte((head.len() + 4 + inner.len()) as u8);
    all.raw(head);
    all.byte(OK);
    all.byte(inner.len() as u8 + 2);
    all.message(RESERVATION, inner);
    frame.extend_from_slice(all.as_slice());
}

fn put_sold_out(frame: &mut BytesMut, tag: u64, place: u16, offer: &OfferKey, truth: SoldOut) {
    let mut told = Small::<16>::new();
    let message = match truth {
        SoldOut::Open { available } => {
            told.byte(0x08);
            told.varint(available);
            "sold out: some units are available, fewer than asked for"
        }
        SoldOut::FirstBackAt(at) => {
            told.byte(0x10);
            told.varint(at.0);
            "sold out for now: all units are held"
        }
        SoldOut::Gone => {
            told.message(0x1a, &[]);
            "sold out for good"
        }
    };
    let mut key = Small::<128>::new();
    key.message(0x0a, offer.sku.as_str().as_bytes());
    key.field(0x12, offer.sale.as_ref().map_or(&[], |sale| sale.as_str().as_bytes()));
    let mut refusal = Small::<256>::new();
    refusal.number(0x08, v1::RefusalCode::SoldOut as u64);
    refusal.message(0x12, message.as_bytes());
    refusal.message(0x1a, key.as_slice());
    refusal.message(0x42, told.as_slice());
    let mut answer = Small::<320>::new();
    answer.number(TAG, tag);
    answer.number(PLACE, place.into());
    answer.message(REFUSED, refusal.as_slice());
    let mut all = Small::<352>::new();
    all.message(ANSWER, answer.as_slice());
    frame.extend_from_slice(all.as_slice());
}

/// Reads a frame of answers and appends them to `to`, which is left as it was on an error.
///
/// # Errors
/// [`FrameError::Malformed`] when the bytes are no frame.
pub fn decode_answer_frame(frame: &[u8], to: &mut Vec<ReceivedAnswer>) -> Result<(), FrameError> {
    let before = to.len();
    if quick_frame(frame, to).is_some() {
        return Ok(());
    }
    to.truncate(before);
    let frame = v1::AnswerFrame::decode(frame)?;
    for entry in frame.entries {
        let at = entry.position.map(names::position);
        let time = LedgerTime(entry.time_ms);
        to.extend(entry.answers.into_iter().map(|answer| ReceivedAnswer {
            tag: answer.tag,
            at: at.map(|position| At { position: Position { place: place(answer.place), ..position }, time }),
            reply: answers::from_wire(answer.outcome),
        }));
    }
    Ok(())
}

fn place(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn quick_frame(frame: &[u8], to: &mut Vec<ReceivedAnswer>) -> Option<()> {
    let mut wire = Wire(frame);
    while let Some(key) = wire.key() {
        match key {
            ENTRY => quick_entry(wire.bytes()?, to)?,
            _ => return None,
        }
    }
    Some(())
}

fn quick_entry(entry: &[u8], to: &mut Vec<ReceivedAnswer>) -> Option<()> {
    let mut wire = Wire(entry);
    let (mut position, mut time, mut answered) = (None, LedgerTime(0), false);
    while let Some(key) = wire.key() {
        match key {
            POSITION if position.is_none() && !answered => position = Some(quick_position(wire.bytes()?)?),
            TIME if !answered => time = LedgerTime(wire.varint()?),
            ANSWER => {
                answered = true;
                let bytes = wire.bytes()?;
                let (tag, its_place, reply) = match quick_answer(bytes) {
                    Some(answer) => answer,
                    None => {
                        let answer = v1::Answer::decode(bytes).ok()?;
                        (answer.tag, answer.place, answers::from_wire(answer.outcome))
                    }
                };
                let at =
                    position.map(|position| At { position: Position { place: place(its_place), ..position }, time });
                to.push(ReceivedAnswer { tag, at, reply });
            }
            _ => return None,
        }
    }
    Some(())
}

fn quick_position(body: &[u8]) -> Option<Position> {
    let mut wire = Wire(body);
    let mut position = Position::default();
    while let Some(key) = wire.key() {
        match key {
            0x08 => position.incarnation = wire.varint()?,
            0x10 => position.shard = wire.varint()? as u32,
            0x18 => position.term = wire.varint()?,
            0x20 => position.index = wire.varint()?,
            _ => return None,
        }
    }
    Some(position)
}

#[inline]
fn quick_answer(body: &[u8]) -> Option<(u64, u32, Reply)> {
    let mut wire = Wire(body);
    let (mut tag, mut its_place, mut reply) = (0, 0, None);
    while let Some(key) = wire.key() {
        match key {
            TAG => tag = wire.varint()?,
            PLACE => its_place = wire.varint()? as u32,
            OK if reply.is_none() => reply = Some(quick_settled(wire.bytes()?)?),
            REFUSED if reply.is_none() => reply = Some(quick_sold_out(wire.bytes()?)?),
            _ => return None,
        }
    }
    Some((tag, its_place, reply?))
}

#[inline]
fn quick_settled(body: &[u8]) -> Option<Reply> {
    let mut wire = Wire(body);
    if wire.key()? != RESERVATION {
        return None;
    }
    let mut inner = Wire(wire.bytes()?);
    if !wire.is_empty() {
        return None;
    }
    let mut brief = v1::Brief::default();
    while let Some(key) = inner.key() {
        match key {
            0x08 => brief.status = inner.varint()? as i32,
            0x10 => brief.deadline_ms = inner.varint()?,
            0x18 => brief.reserved_at_ms = inner.varint()?,
            0x20 => brief.replayed = inner.varint()? != 0,
            _ => return None,
        }
    }
    Some(Reply::Ok(Settled::Reservation(answers::brief_from_wire(brief)?)))
}

fn quick_sold_out(body: &[u8]) -> Option<Reply> {
    let mut wire = Wire(body);
    let (mut code, mut key, mut told) = (0, None, None);
    while let Some(next) = wire.key() {
        match next {
            0x08 => code = wire.varint()?,
            0x12 => drop(wire.text()?),
            0x1a if key.is_none() => key = Some(wire.bytes()?),
            0x42 if told.is_none() => told = Some(wire.bytes()?),
            _ => return None,
        }
    }
    if code != v1::RefusalCode::SoldOut as u64 {
        return None;
    }
    let mut wire = Wire(key?);
    let (mut sku, mut sale) = ("", "");
    while let Some(next) = wire.key() {
        match next {
            0x0a => sku = wire.text()?,
            0x12 => sale = wire.text()?,
            _ => return None,
        }
    }
    let offer = OfferKey { sku: names::sku("sku", sku).ok()?, sale: names::sale("sale", sale).ok()? };
    let truth = names::sold_out(v1::SoldOut::decode(told?).ok())?;
    Some(Reply::Refused(Why::Ledger(Refusal::SoldOut { offer, truth })))
}
