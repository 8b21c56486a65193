//! Calls: wire ↔ command. Invalid input dies here.
//!
//! **Owns** what a valid call is. **Must never** panic on any input, nor let an unchecked value into a command.
//! **Read next**: [`crate::fast`], the same for the hot verbs without intermediate structs.

use ledger_core::{Command, LedgerTime, Reason, Reference, Units, limits};

use crate::names;
use crate::orders;
use crate::reply::Invalid;
use crate::v1::{self, call::Verb};

/// One call as read from the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedCall {
    /// Chosen by the caller; repeated in the answer.
    pub tag: u64,
    /// Milliseconds the caller will wait; 0: the node's default.
    pub within_ms: u32,
    /// The command, or what is wrong with it (answer that, and go on with the next).
    pub command: Result<Command, Invalid>,
}

/// Reads a call.
pub fn decode(call: v1::Call) -> DecodedCall {
    DecodedCall { tag: call.tag, within_ms: call.within_ms, command: command(call.verb) }
}

/// Checks a verb.
///
/// # Errors
/// [`Invalid`]: which field, and what is wrong with it.
pub fn command(verb: Option<Verb>) -> Result<Command, Invalid> {
    let verb = verb.ok_or_else(|| Invalid::new("verb", "missing, or newer than this node"))?;
    match verb {
        Verb::Reserve(v1::Reserve { id, keys, lines, hold_ms }) => Ok(Command::Reserve {
            id: names::id("id", &id)?,
            keys: names::keys(keys.iter().map(String::as_str))?,
            lines: names::lines_of(&lines)?,
            hold_ms: some(hold_ms),
        }),
        Verb::Extend(v1::Extend { id, replaces_ms, hold_ms }) => Ok(Command::Extend {
            id: names::id("id", &id)?,
            replaces: LedgerTime(replaces_ms),
            hold_ms: some(hold_ms).ok_or_else(|| Invalid::new("hold_ms", "is 0, at least 1 is needed"))?,
        }),
        Verb::Confirm(v1::Confirm { id, lines }) => Ok(Command::Confirm {
            id: names::id("id", &id)?,
            lines: lines.map(|lines| names::lines_of(&lines.lines)).transpose()?,
        }),
        Verb::Release(v1::Release { id }) => Ok(Command::Release { id: names::id("id", &id)? }),
        Verb::Fence(v1::Fence { id }) => Ok(Command::Fence { id: names::id("id", &id)? }),
        Verb::ReturnUnits(v1::ReturnUnits { id, lines, reference: text }) => Ok(Command::Return {
            id: names::id("id", &id)?,
            lines: lines.map(|lines| names::lines_of(&lines.lines)).transpose()?,
            reference: reference(&text)?,
        }),
        other => stock_command(other),
    }
}

fn stock_command(verb: Verb) -> Result<Command, Invalid> {
    match verb {
        Verb::CreateProduct(v1::CreateProduct { sku, policy }) => Ok(Command::CreateProduct {
            sku: names::sku("sku", &sku)?,
            policy: policy.map(names::policy).transpose()?.unwrap_or_default(),
        }),
        Verb::DeleteProduct(v1::DeleteProduct { sku }) => Ok(Command::DeleteProduct { sku: names::sku("sku", &sku)? }),
        Verb::PutOffer(v1::PutOffer { offer, policy, expected_version }) => Ok(Command::PutOffer {
            offer: names::offer(offer)?,
            policy: names::policy(policy.ok_or_else(|| Invalid::new("policy", "missing"))?)?,
            expected_version,
        }),
        Verb::SetOpen(v1::SetOpen { offer, open }) => Ok(Command::SetOpen { offer: names::offer(offer)?, open }),
        Verb::EndSale(v1::EndSale { sku, sale }) => Ok(Command::EndSale {
            sku: names::sku("sku", &sku)?,
            sale: names::sale("sale", &sale)?.ok_or_else(|| Invalid::new("sale", "missing"))?,
        }),
        Verb::Receive(v1::Receive { offer, units: n, reference: text }) => {
            Ok(Command::Receive { offer: names::offer(offer)?, units: units(n)?, reference: reference(&text)? })
        }
        Verb::Adjust(v1::Adjust { offer, delta: n, reason, reference: text, expected_version }) => {
            Ok(Command::Adjust {
                offer: names::offer(offer)?,
                delta: delta(n)?,
                reason: Reason::new(reason).map_err(Invalid::of("reason"))?,
                reference: reference(&text)?,
                expected_version,
            })
        }
        Verb::Allot(v1::Allot { sku, from_sale, to_sale, units: n, reference: text }) => {
            if from_sale == to_sale {
                return Err(Invalid::new("to_sale", "is the offer that the units would come from"));
            }
            Ok(Command::Allot {
                sku: names::sku("sku", &sku)?,
                from: names::sale("from_sale", &from_sale)?,
                to: names::sale("to_sale", &to_sale)?,
                units: units(n)?,
                reference: reference(&text)?,
            })
        }
        other => orders::command(other).unwrap_or_else(|| Err(Invalid::new("verb", "is not about stock"))),
    }
}

fn some(n: u64) -> Option<u64> {
    (n != 0).then_some(n)
}
fn reference(text: &str) -> Result<Reference, Invalid> {
    Reference::new(text).map_err(Invalid::of("reference"))
}
fn units(n: i64) -> Result<Units, Invalid> {
    Units::new(n).map_err(Invalid::of("units"))
}
fn delta(n: i64) -> Result<i64, Invalid> {
    if n == 0 || n.unsigned_abs() > limits::UNITS_MAX {
        let max = limits::UNITS_MAX;
        return Err(Invalid::new("delta", format!("is {n}, allowed is -{max} to {max} and not 0")));
    }
    Ok(n)
}

/// Checks what the types of a command made by hand do not: the same rules as for one from the wire.
///
/// # Errors
/// [`Invalid`].
pub fn check(command: &Command) -> Result<(), Invalid> {
    let lines = |lines: &[ledger_core::Line]| {
        if lines.is_empty() || lines.len() > limits::LINES_MAX {
            return names::lines_of(&lines.iter().map(names::line_to_wire).collect::<Vec<_>>()).map(drop);
        }
        Ok(())
    };
    match command {
        Command::Reserve { keys, lines: given, .. } => {
            if keys.len() > limits::LIMIT_KEYS_MAX {
                return names::keys(keys.iter().map(|key| key.as_str())).map(drop);
            }
            lines(given)
        }
        Command::Confirm { lines: Some(given), .. } | Command::Return { lines: Some(given), .. } => lines(given),
        Command::Confirm { lines: None, .. } | Command::Release { .. } | Command::Fence { .. } => Ok(()),
        Command::Return { lines: None, .. } | Command::Receive { .. } => Ok(()),
        Command::SetOpen { .. } | Command::EndSale { .. } | Command::DeleteProduct { .. } => Ok(()),
        Command::CreateProduct { policy, .. } | Command::PutOffer { policy, .. } => {
            policy.validate().map_err(Invalid::of("policy"))
        }
        Command::Extend { .. } | Command::Adjust { .. } | Command::Allot { .. } => {
            self::command(verb(command)).map(drop)
        }
        Command::PlaceOrder { reserve: Some((_, given)), .. } if given.is_empty() => lines(given),
        Command::PlaceOrder { .. }
        | Command::ClaimOrders { .. }
        | Command::Heartbeat { .. }
        | Command::ReportOrder { .. }
        | Command::RecordFact { .. }
        | Command::OrderByHand { .. } => self::command(verb(command)).map(drop),
        Command::Tick | Command::Configure { .. } | Command::OwnSlots { .. } | Command::SwitchBehaviour { .. } => {
            Err(Invalid::new("verb", "is not for callers"))
        }
    }
}

/// A command for the wire; none for those that only nodes propose.
pub fn verb(command: &Command) -> Option<Verb> {
    let wire_lines = |lines: &[ledger_core::Line]| lines.iter().map(names::line_to_wire).collect::<Vec<_>>();
    Some(match command {
        Command::Reserve { id, keys, lines, hold_ms } => Verb::Reserve(v1::Reserve {
            id: names::id_to_wire(*id),
            keys: keys.iter().map(|key| key.as_str().to_owned()).collect(),
            lines: wire_lines(lines),
            hold_ms: hold_ms.unwrap_or(0),
        }),
        Command::Extend { id, replaces, hold_ms } => {
            Verb::Extend(v1::Extend { id: names::id_to_wire(*id), replaces_ms: replaces.0, hold_ms: *hold_ms })
        }
        Command::Confirm { id, lines } => Verb::Confirm(v1::Confirm {
            id: names::id_to_wire(*id),
            lines: lines.as_ref().map(|lines| v1::Lines { lines: wire_lines(lines) }),
        }),
        Command::Release { id } => Verb::Release(v1::Release { id: names::id_to_wire(*id) }),
        Command::Fence { id } => Verb::Fence(v1::Fence { id: names::id_to_wire(*id) }),
        Command::Return { id, lines, reference } => Verb::ReturnUnits(v1::ReturnUnits {
            id: names::id_to_wire(*id),
            lines: lines.as_ref().map(|lines| v1::Lines { lines: wire_lines(lines) }),
            reference: reference.as_str().to_owned(),
        }),
        other => return stock_verb(other),
    })
}

fn stock_verb(command: &Command) -> Option<Verb> {
    Some(match command {
        Command::CreateProduct { sku, policy } => Verb::CreateProduct(v1::CreateProduct {
            sku: sku.as_str().to_owned(),
            policy: Some(names::policy_to_wire(policy)),
        }),
        Command::PutOffer { offer, policy, expected_version } => Verb::PutOffer(v1::PutOffer {
            offer: Some(names::offer_to_wire(offer)),
            policy: Some(names::policy_to_wire(policy)),
            expected_version: *expected_version,
        }),
        Command::SetOpen { offer, open } => {
            Verb::SetOpen(v1::SetOpen { offer: Some(names::offer_to_wire(offer)), open: *open })
        }
        Command::DeleteProduct { sku } => Verb::DeleteProduct(v1::DeleteProduct { sku: sku.as_str().to_owned() }),
        Command::EndSale { sku, sale } => {
            Verb::EndSale(v1::EndSale { sku: sku.as_str().to_owned(), sale: sale.as_str().to_owned() })
        }
        Command::Receive { offer, units, reference } => Verb::Receive(v1::Receive {
            offer: Some(names::offer_to_wire(offer)),
            units: units.get() as i64,
            reference: reference.as_str().to_owned(),
        }),
        Command::Adjust { offer, delta, reason, reference, expected_version } => Verb::Adjust(v1::Adjust {
            offer: Some(names::offer_to_wire(offer)),
            delta: *delta,
            reason: reason.as_str().to_owned(),
            reference: reference.as_str().to_owned(),
            expected_version: *expected_version,
        }),
        Command::Allot { sku, from, to, units, reference } => Verb::Allot(v1::Allot {
            sku: sku.as_str().to_owned(),
            from_sale: names::sale_to_wire(from.as_ref()),
            to_sale: names::sale_to_wire(to.as_ref()),
            units: units.get() as i64,
            reference: reference.as_str().to_owned(),
        }),
        other => return orders::verb(other),
    })
}
