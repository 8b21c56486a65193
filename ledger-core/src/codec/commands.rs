//! Commands as bytes. The numbers are frozen: a number is never given to another command, and a command's fields never change
//! but under a new number. Those of orders are in `orders`.
//!
//! **Owns** the numbers of commands. **Must never** follow a renaming or reordering of the enum. **Read next**: [`super::changes`].

use super::CodecError;
use super::bounds::{self, Checked};
use super::orders;
use super::primitives::{In, Out};
use crate::command::{Command, LimitKeys, Lines};
use crate::limits;

const TICK: u8 = 0;
const RESERVE: u8 = 1;
const EXTEND: u8 = 2;
const CONFIRM: u8 = 3;
const RELEASE: u8 = 4;
const FENCE: u8 = 5;
const RETURN: u8 = 6;
const CREATE_PRODUCT: u8 = 16;
const PUT_OFFER: u8 = 17;
const SET_OPEN: u8 = 18;
const END_SALE: u8 = 19;
const DELETE_PRODUCT: u8 = 21;
const RECEIVE: u8 = 24;
const ADJUST: u8 = 25;
const ALLOT: u8 = 26;
const CONFIGURE: u8 = 32;
const OWN_SLOTS: u8 = 33;
const SWITCH_BEHAVIOUR: u8 = 34;

/// Puts a command. What the decoder would refuse is an error; part of it may be written then.
#[inline]
pub(super) fn put(out: &mut Out<'_>, command: &Command) -> Checked {
    match command {
        Command::Tick => out.byte(TICK),
        Command::Reserve { id, keys, lines, hold_ms } => {
            bounds::key_count(keys.len() as u64)?;
            bounds::lines(lines)?;
            hold_ms.map(bounds::hold_ms).transpose()?;
            out.byte(RESERVE);
            out.id(*id);
            out.n(keys.len() as u64);
            keys.iter().for_each(|key| out.text(key.as_str()));
            out.lines(lines);
            out.opt(*hold_ms, Out::n);
        }
        Command::Extend { id, replaces, hold_ms } => {
            bounds::hold_ms(*hold_ms)?;
            out.byte(EXTEND);
            out.id(*id);
            out.time(*replaces);
            out.n(*hold_ms);
        }
        Command::Confirm { id, lines } => {
            lines.as_deref().map(bounds::lines).transpose()?;
            out.byte(CONFIRM);
            out.id(*id);
            out.opt(lines.as_ref(), |out, lines| out.lines(lines));
        }
        Command::Release { id } => {
            out.byte(RELEASE);
            out.id(*id);
        }
        Command::Fence { id } => {
            out.byte(FENCE);
            out.id(*id);
        }
        Command::Return { id, lines, reference } => {
            lines.as_deref().map(bounds::lines).transpose()?;
            out.byte(RETURN);
            out.id(*id);
            out.opt(lines.as_ref(), |out, lines| out.lines(lines));
            out.text(reference.as_str());
        }
        _ => put_stock(out, command)?,
    }
    Ok(())
}

fn put_stock(out: &mut Out<'_>, command: &Command) -> Checked {
    match command {
        Command::CreateProduct { sku, policy } => {
            bounds::policy(policy)?;
            out.byte(CREATE_PRODUCT);
            out.text(sku.as_str());
            out.policy(policy);
        }
        Command::PutOffer { offer, policy, expected_version } => {
            bounds::policy(policy)?;
            out.byte(PUT_OFFER);
            out.offer(offer);
            out.policy(policy);
            out.opt(*expected_version, Out::n);
        }
        Command::SetOpen { offer, open } => {
            out.byte(SET_OPEN);
            out.offer(offer);
            out.byte(u8::from(*open));
        }
        Command::EndSale { sku, sale } => {
            out.byte(END_SALE);
            out.text(sku.as_str());
            out.text(sale.as_str());
        }
        Command::DeleteProduct { sku } => {
            out.byte(DELETE_PRODUCT);
            out.text(sku.as_str());
        }
        Command::Receive { offer, units, reference } => {
            out.byte(RECEIVE);
            out.offer(offer);
            out.n(units.get());
            out.text(reference.as_str());
        }
        Command::Adjust { offer, delta, reason, reference, expected_version } => {
            bounds::delta(*delta)?;
            out.byte(ADJUST);
            out.offer(offer);
            out.signed(*delta);
            out.text(reason.as_str());
            out.text(reference.as_str());
            out.opt(*expected_version, Out::n);
        }
        Command::Allot { sku, from, to, units, reference } => {
            out.byte(ALLOT);
            out.text(sku.as_str());
            out.opt(from.as_ref(), |out, sale| out.text(sale.as_str()));
            out.opt(to.as_ref(), |out, sale| out.text(sale.as_str()));
            out.n(units.get());
            out.text(reference.as_str());
        }
        Command::Configure { settings } => {
            out.byte(CONFIGURE);
            out.settings(settings);
        }
        Command::OwnSlots { generation, ranges } => {
            bounds::ranges(ranges)?;
            out.byte(OWN_SLOTS);
            out.n(*generation);
            out.ranges(ranges);
        }
        Command::SwitchBehaviour { version } => {
            bounds::behaviour((*version).into())?;
            out.byte(SWITCH_BEHAVIOUR);
            out.n((*version).into());
        }
        _ => orders::put(out, command)?,
    }
    Ok(())
}

#[inline]
pub(super) fn lines(from: &mut In<'_>) -> Result<Lines, CodecError> {
    let count = from.n_checked(bounds::line_count)?;
    let mut lines = Lines::new();
    for _ in 0..count {
        lines.push(from.line()?);
    }
    Ok(lines)
}

#[inline]
pub(super) fn keys(from: &mut In<'_>) -> Result<LimitKeys, CodecError> {
    let count = from.n_checked(bounds::key_count)?;
    let mut keys = LimitKeys::new();
    for _ in 0..count {
        keys.push(from.key()?);
    }
    Ok(keys)
}

fn hold_ms(from: &mut In<'_>) -> Result<u64, CodecError> {
    from.n_checked(bounds::hold_ms)
}

fn delta(from: &mut In<'_>) -> Result<i64, CodecError> {
    let n = from.signed()?;
    from.checked(bounds::delta(n))
}

/// A version that this build cannot follow is no refusal: newer builds switch to it.
fn behaviour(from: &mut In<'_>) -> Result<u16, CodecError> {
    let known = limits::BEHAVIOUR_VERSION_MAX;
    match from.small()? {
        got if got > known => Err(CodecError::UnknownVersion { what: "behaviour", got, known }),
        version => Ok(version),
    }
}

#[inline]
pub(super) fn get(from: &mut In<'_>) -> Result<Command, CodecError> {
    Ok(match from.byte()? {
        TICK => Command::Tick,
        RESERVE => {
            Command::Reserve { id: from.id()?, keys: keys(from)?, lines: lines(from)?, hold_ms: from.opt(hold_ms)? }
        }
        EXTEND => Command::Extend { id: from.id()?, replaces: from.time()?, hold_ms: hold_ms(from)? },
        CONFIRM => Command::Confirm { id: from.id()?, lines: from.opt(lines)? },
        RELEASE => Command::Release { id: from.id()? },
        FENCE => Command::Fence { id: from.id()? },
        RETURN => Command::Return { id: from.id()?, lines: from.opt(lines)?, reference: from.reference()? },
        number => get_stock(from, number)?,
    })
}

fn get_stock(from: &mut In<'_>, number: u8) -> Result<Command, CodecError> {
    Ok(match number {
        CREATE_PRODUCT => Command::CreateProduct { sku: from.sku()?, policy: from.policy()? },
        PUT_OFFER => {
            Command::PutOffer { offer: from.offer()?, policy: from.policy()?, expected_version: from.opt(In::n)? }
        }
        SET_OPEN => Command::SetOpen { offer: from.offer()?, open: from.flag()? },
        END_SALE => Command::EndSale { sku: from.sku()?, sale: from.sale()? },
        DELETE_PRODUCT => Command::DeleteProduct { sku: from.sku()? },
        RECEIVE => Command::Receive { offer: from.offer()?, units: from.units()?, reference: from.reference()? },
        ADJUST => Command::Adjust {
            offer: from.offer()?,
            delta: delta(from)?,
            reason: from.reason()?,
            reference: from.reference()?,
            expected_version: from.opt(In::n)?,
        },
        ALLOT => Command::Allot {
            sku: from.sku()?,
            from: from.opt(In::sale)?,
            to: from.opt(In::sale)?,
            units: from.units()?,
            reference: from.reference()?,
        },
        CONFIGURE => Command::Configure { settings: from.settings()? },
        OWN_SLOTS => Command::OwnSlots { generation: from.n()?, ranges: from.ranges()? },
        SWITCH_BEHAVIOUR => Command::SwitchBehaviour { version: behaviour(from)? },
        number => orders::get(from, number)?,
    })
}
