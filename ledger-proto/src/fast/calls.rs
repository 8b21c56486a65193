//! Frames of calls, by hand.
//!
//! **Must never** accept what [`crate::calls`] refuses, nor the other way round (except that a call
//! above [`CALL_BYTES_MAX`] is refused unread), nor allocate by the number of fields before a bound
//! is checked.

use bytes::BytesMut;
use ledger_core::{Command, Line};
use prost::Message as _;
use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field, uint32, uint64,
};
use smallvec::SmallVec;

use super::FrameError;
use super::wire::{Small, Wire};
use crate::calls::{self, DecodedCall};
use crate::limits::{CALL_BYTES_MAX, CALLS_PER_FRAME_MAX, FRAME_BYTES_MAX};
use crate::names;
use crate::reply::Invalid;
use crate::v1;

/// Field number and wire type in one byte, as on the wire.
const fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}
const VARINT: u8 = 0;
const LENGTH: u8 = 2;
const CALL: u8 = key(1, LENGTH);
const TAG: u8 = key(1, VARINT);
const WITHIN: u8 = key(2, VARINT);
const TAG_NUMBER: u32 = TAG as u32 >> 3;
const WITHIN_NUMBER: u32 = WITHIN as u32 >> 3;
const RESERVE: u8 = key(10, LENGTH);
const CONFIRM: u8 = key(12, LENGTH);
const RELEASE: u8 = key(13, LENGTH);
const FENCE: u8 = key(14, LENGTH);
// Fields of the verbs.
const ID: u8 = key(1, LENGTH);
const KEY: u8 = key(2, LENGTH);
const LINE: u8 = key(3, LENGTH);
const HOLD: u8 = key(4, VARINT);
// Fields of a line.
const SKU: u8 = key(1, LENGTH);
const SALE: u8 = key(2, LENGTH);
const QUANTITY: u8 = key(3, VARINT);

/// About the shortest reserve that is usual: room is made for so many at once, so that what is read is not moved as it grows.
const USUAL_CALL_BYTES: usize = 64;

/// Reads a frame of calls and appends them to `to`, which is left as it was on an error.
///
/// # Errors
/// [`FrameError`] when the bytes are no frame. An invalid call in a good frame is no error: its `command` says so.
pub fn decode_call_frame(frame: &[u8], to: &mut Vec<DecodedCall>) -> Result<(), FrameError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { got: frame.len(), max: FRAME_BYTES_MAX });
    }
    let before = to.len();
    let read = read_frame(frame, to);
    if read.is_err() {
        to.truncate(before);
    }
    read
}

fn read_frame(frame: &[u8], to: &mut Vec<DecodedCall>) -> Result<(), FrameError> {
    to.reserve((frame.len() / USUAL_CALL_BYTES).min(CALLS_PER_FRAME_MAX));
    let mut wire = Wire(frame);
    let mut got = 0;
    while !wire.is_empty() {
        let Some(call) = next_call(&mut wire)? else { continue };
        got += 1;
        // The others are counted, not read.
        if got <= CALLS_PER_FRAME_MAX {
            to.push(decode_call(call)?);
        }
    }
    match got > CALLS_PER_FRAME_MAX {
        true => Err(FrameError::TooManyCalls { got, max: CALLS_PER_FRAME_MAX }),
        false => Ok(()),
    }
}

/// The next field of a frame, if it is a call.
#[inline]
fn next_call<'a>(wire: &mut Wire<'a>) -> Result<Option<&'a [u8]>, FrameError> {
    let frame = wire.0;
    if wire.key() == Some(CALL)
        && let Some(call) = wire.bytes()
    {
        return Ok(Some(call));
    }
    wire.0 = frame;
    unusual_field(wire)
}

/// The same by prost's rules, for a field that is unusual.
#[cold]
fn unusual_field<'a>(wire: &mut Wire<'a>) -> Result<Option<&'a [u8]>, FrameError> {
    let (number, wire_type) = decode_key(&mut wire.0)?;
    let mut field = wire.0;
    skip_field(wire_type, number, &mut wire.0, DecodeContext::default())?;
    if number != u32::from(CALL >> 3) {
        return Ok(None);
    }
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    decode_varint(&mut field)?;
    Ok(Some(&field[..field.len() - wire.0.len()]))
}

/// Reads one call.
///
/// # Errors
/// [`FrameError::Malformed`] when the bytes are no call.
pub fn decode_call(call: &[u8]) -> Result<DecodedCall, FrameError> {
    if call.len() > CALL_BYTES_MAX {
        return too_large(call);
    }
    match quick_call(call) {
        Some(call) => Ok(call),
        None => Ok(calls::decode(v1::Call::decode(call)?)),
    }
}

/// A call that is refused for its size alone. Its verb is not looked into.
#[cold]
fn too_large(call: &[u8]) -> Result<DecodedCall, FrameError> {
    let why = format!("has {} bytes, at most {CALL_BYTES_MAX} are allowed", call.len());
    let (mut tag, mut within_ms) = (0, 0);
    let mut wire = call;
    while !wire.is_empty() {
        let (number, wire_type) = decode_key(&mut wire)?;
        match number {
            TAG_NUMBER => uint64::merge(wire_type, &mut tag, &mut wire, DecodeContext::default())?,
            WITHIN_NUMBER => uint32::merge(wire_type, &mut within_ms, &mut wire, DecodeContext::default())?,
            _ => skip_field(wire_type, number, &mut wire, DecodeContext::default())?,
        }
    }
    Ok(DecodedCall { tag, within_ms, command: Err(Invalid::new("call", why)) })
}

#[inline]
fn quick_call(call: &[u8]) -> Option<DecodedCall> {
    let mut wire = Wire(call);
    let (mut tag, mut within_ms, mut command) = (0, 0, None);
    while let Some(key) = wire.key() {
        match key {
            TAG => tag = wire.varint()?,
            WITHIN => within_ms = wire.varint()? as u32,
            RESERVE | CONFIRM | RELEASE | FENCE if command.is_none() => {
                let body = wire.bytes()?;
                command = Some(if key == RESERVE { quick_reserve(body)? } else { quick_by_id(key, body)? });
            }
            _ => return None,
        }
    }
    Some(DecodedCall { tag, within_ms, command: command? })
}

#[inline]
fn quick_reserve(body: &[u8]) -> Option<Result<Command, Invalid>> {
    let mut wire = Wire(body);
    let mut id: &[u8] = &[];
    let mut keys: SmallVec<[&str; 4]> = SmallVec::new();
    let mut lines: SmallVec<[(&str, &str, i64); 2]> = SmallVec::new();
    let mut hold_ms = 0;
    while let Some(next) = wire.key() {
        match next {
            ID => id = wire.bytes()?,
            KEY => keys.push(wire.text()?),
            LINE => lines.push(quick_line(wire.bytes()?)?),
            HOLD => hold_ms = wire.varint()?,
            _ => return None,
        }
    }
    Some(reserve(id, &keys, &lines, hold_ms))
}

fn reserve(id: &[u8], keys: &[&str], lines: &[(&str, &str, i64)], hold_ms: u64) -> Result<Command, Invalid> {
    Ok(Command::Reserve {
        id: names::id("id", id)?,
        keys: names::keys(keys.iter().copied())?,
        lines: names::lines(lines.iter().copied())?,
        hold_ms: (hold_ms != 0).then_some(hold_ms),
    })
}

#[inline]
fn quick_line(body: &[u8]) -> Option<(&str, &str, i64)> {
    let mut wire = Wire(body);
    let (mut sku, mut sale, mut quantity) = ("", "", 0);
    while let Some(next) = wire.key() {
        match next {
            SKU => sku = wire.text()?,
            SALE => sale = wire.text()?,
            QUANTITY => quantity = wire.varint()? as i64,
            _ => return None,
        }
    }
    Some((sku, sale, quantity))
}

/// Verbs that carry nothing but the id; a confirm with lines is left to prost.
#[inline]
fn quick_by_id(verb: u8, body: &[u8]) -> Option<Result<Command, Invalid>> {
    let mut wire = Wire(body);
    let mut id: &[u8] = &[];
    while let Some(next) = wire.key() {
        match next {
            ID => id = wire.bytes()?,
            _ => return None,
        }
    }
    Some(names::id("id", id).map(|id| match verb {
        CONFIRM => Command::Confirm { id, lines: None },
        RELEASE => Command::Release { id },
        _ => Command::Fence { id },
    }))
}

/// Appends one call to a frame under construction; the bytes are those that prost would write.
///
/// False, and nothing is written, for commands that only nodes propose.
pub fn put_call(frame: &mut BytesMut, tag: u64, within_ms: u32, command: &Command) -> bool {
    match command {
        Command::Reserve { id, keys, lines, hold_ms } => {
            put_reserve(frame, (tag, within_ms), id.as_bytes(), keys, lines, hold_ms.unwrap_or(0));
        }
        Command::Confirm { id, lines: None } => put_by_id(frame, (tag, within_ms), CONFIRM, id.as_bytes()),
        Command::Release { id } => put_by_id(frame, (tag, within_ms), RELEASE, id.as_bytes()),
        Command::Fence { id } => put_by_id(frame, (tag, within_ms), FENCE, id.as_bytes()),
        _ => {
            let Some(verb) = calls::verb(command) else { return false };
            let call = v1::Call { tag, within_ms, verb: Some(verb) };
            let mut head = Small::<16>::new();
            head.byte(CALL);
            head.varint(call.encoded_len() as u64);
            frame.extend_from_slice(head.as_slice());
            frame.extend_from_slice(&call.encode_to_vec());
        }
    }
    true
}

fn call_head((tag, within_ms): (u64, u32)) -> Small<24> {
    let mut head = Small::new();
    head.number(TAG, tag);
    head.number(WITHIN, within_ms.into());
    head
}

fn put_by_id(frame: &mut BytesMut, head: (u64, u32), verb: u8, id: &[u8; 16]) {
    let head = call_head(head);
    let mut all = Small::<64>::new();
    all.byte(CALL);
    all.varint((head.as_slice().len() + 20) as u64);
    all.raw(head.as_slice());
    all.byte(verb);
    all.byte(18);
    all.message(ID, id);
    frame.extend_from_slice(all.as_slice());
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn line_len(line: &Line) -> usize {
    let sale = line.offer.sale.as_ref().map_or(0, |sale| 2 + sale.as_str().len());
    2 + line.offer.sku.as_str().len() + sale + 1 + varint_len(line.quantity.get().into())
}

fn put_reserve(
    frame: &mut BytesMut,
    head: (u64, u32),
    id: &[u8; 16],
    keys: &[ledger_core::LimitKey],
    lines: &[Line],
    hold_ms: u64,
) {
    let head = call_head(head);
    let keys_len: usize = keys.iter().map(|key| 2 + key.as_str().len()).sum();
    let lines_len: usize = lines.iter().map(|line| 2 + line_len(line)).sum();
    let hold_len = if hold_ms == 0 { 0 } else { 1 + varint_len(hold_ms) };
    let body_len = 18 + keys_len + lines_len + hold_len;
    let call_len = head.as_slice().len() + 1 + varint_len(body_len as u64) + body_len;
    let mut first = Small::<64>::new();
    first.byte(CALL);
    first.varint(call_len as u64);
    first.raw(head.as_slice());
    first.byte(RESERVE);
    first.varint(body_len as u64);
    first.message(ID, id);
    frame.reserve(first.as_slice().len() + body_len);
    frame.extend_from_slice(first.as_slice());
    for text in keys {
        frame.extend_from_slice(&[KEY, text.as_str().len() as u8]);
        frame.extend_from_slice(text.as_str().as_bytes());
    }
    for line in lines {
        let mut all = Small::<160>::new();
        all.byte(LINE);
        all.byte(line_len(line) as u8);
        all.message(SKU, line.offer.sku.as_str().as_bytes());
        all.field(SALE, line.offer.sale.as_ref().map_or(&[], |sale| sale.as_str().as_bytes()));
        all.number(QUANTITY, line.quantity.get().into());
        frame.extend_from_slice(all.as_slice());
    }
    if hold_ms != 0 {
        let mut hold = Small::<16>::new();
        hold.number(HOLD, hold_ms);
        frame.extend_from_slice(hold.as_slice());
    }
}
