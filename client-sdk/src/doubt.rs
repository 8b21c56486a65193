//! When a *no* settles a call of which an earlier attempt is in doubt.
//!
//! The earlier attempt may have taken effect, or may still be on its way to the log. A refusal of the later attempt is only a definite *no*
//! if it proves that the earlier one had no effect and never will have.

use ledger_core::outcome::Status;
use ledger_core::{Command, Refusal};
use ledger_proto::Why;

/// Whether this refusal proves that no attempt of the same call took effect, nor will.
pub(crate) fn rules_out_effect(command: &Command, why: &Why) -> bool {
    let refusal = match why {
        Why::Ledger(refusal) => refusal,
        // The same bytes are invalid whenever they come.
        Why::Invalid(_) => return true,
        Why::PermissionDenied(_) | Why::Other { .. } => return false,
    };
    match (command, refusal) {
        // What came before is no longer known there.
        (_, Refusal::Forgotten) => false,
        // A reserve's verdict is remembered under its id: an attempt that comes later is answered the same.
        (Command::Reserve { .. }, _) => true,
        // The same of an order that was to take its units; one placed on a hold is an order from then on, and answers as such.
        (Command::PlaceOrder { reserve: Some(_), .. }, _) => true,
        (Command::PlaceOrder { reserve: None, .. }, Refusal::NotHeld { status }) => *status != Status::Held,
        // A reservation ends once. Had this call ended it, the answer would have been its replay.
        (Command::Confirm { .. }, Refusal::NotHeld { status }) => *status != Status::Held,
        (Command::Release { .. }, Refusal::NotHeld { status }) => *status != Status::Held,
        // References stay taken for longer than a call lasts, and a call's own success would have been replayed.
        (
            Command::Receive { .. } | Command::Adjust { .. } | Command::Allot { .. } | Command::Return { .. },
            Refusal::ReferenceTaken,
        ) => true,
        // Had this call returned the units, its reference would have been replayed; and what is returned stays so.
        (Command::Return { .. }, Refusal::AlreadyReturned) => true,
        // All else may have been caused by the call's own success, or may change before an attempt under way arrives.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::{LedgerTime, OfferKey, Policy, ReservationId, Sku, Slot};

    use super::*;

    #[test]
    fn only_what_proves_it_is_a_no() {
        let id = ReservationId::from_parts(Slot::new(1).unwrap(), 1, 1);
        let offer = OfferKey { sku: Sku::new("a").unwrap(), sale: None };
        let reserve = Command::Reserve { id, keys: Default::default(), lines: Default::default(), hold_ms: None };
        let put = Command::PutOffer { offer: offer.clone(), policy: Policy::default(), expected_version: Some(3) };
        let extend = Command::Extend { id, replaces: LedgerTime(5), hold_ms: 7 };
        let confirm = Command::Confirm { id, lines: None };
        let no = |refusal: Refusal| Why::Ledger(refusal);
        let create = Command::CreateProduct { sku: offer.sku.clone(), policy: Policy::default() };
        let delete = Command::DeleteProduct { sku: offer.sku.clone() };
        // It may have been made, deleted and made by somebody else since.
        assert!(!rules_out_effect(&create, &no(Refusal::AlreadyExists)));
        assert!(!rules_out_effect(&delete, &no(Refusal::UnknownProduct { offer: offer.clone() })));
        assert!(rules_out_effect(&reserve, &no(Refusal::OfferClosed)));
        assert!(!rules_out_effect(&reserve, &no(Refusal::Forgotten)));
        assert!(!rules_out_effect(&reserve, &Why::PermissionDenied(String::new())));
        assert!(rules_out_effect(&confirm, &no(Refusal::NotHeld { status: Status::Expired })));
        assert!(!rules_out_effect(&confirm, &no(Refusal::UnknownReservation)));
        // Its own first success makes these refusals.
        assert!(!rules_out_effect(&put, &no(Refusal::VersionMismatch { actual: 4 })));
        assert!(!rules_out_effect(&extend, &no(Refusal::DeadlineMoved { deadline: LedgerTime(9) })));
    }
}
