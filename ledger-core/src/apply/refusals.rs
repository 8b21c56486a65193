//! Refusals remembered in brief, and told again in full.
//!
//! **Owns** the two-way translation. **Must never** tell another reason the second time. **Read next**: `holds`.

use super::{Deciding, No};
use crate::limits;
use crate::outcome::{NotNow, Refusal, SoldOut};
use crate::state::State;
use crate::state::ids::Found;
use crate::state::memory::coarse_after;
use crate::state::records::{Refused, UnknownName, Why};
use crate::types::{LedgerTime, OfferKey, ReservationId};

impl Deciding<'_> {
    /// An id that nothing is remembered of may be used: it was not forgotten, and does not lie too far ahead.
    #[inline]
    pub(super) fn usable(&self, id: ReservationId) -> Result<(), No> {
        if self.state.is_forgotten(id) {
            return Err(Refusal::Forgotten.into());
        }
        let latest = self.state.time.saturating_add(limits::ID_AHEAD_MS_MAX);
        if id.time_ms() > latest {
            return Err(NotNow::IdTooFarAhead { retry_ms: id.time_ms() - latest }.into());
        }
        Ok(())
    }

    /// Remembers why the id was refused, so that it never executes; `offers` are where the refused lines' offers are.
    pub(super) fn refuse(
        &mut self,
        id: ReservationId,
        fingerprint: u64,
        why: Refusal,
        find: impl Fn(&State, &OfferKey) -> Option<u32>,
    ) -> No {
        if crate::bad!("refused-id-not-remembered") {
            return why.into();
        }
        if let Err(not_now) = self.state.room_to_remember() {
            return not_now.into();
        }
        // Making room may have forgotten up to this very id's time: then that is the answer.
        if self.state.is_forgotten(id) {
            return Refusal::Forgotten.into();
        }
        let mut refused = Refused::new(*id.as_bytes(), fingerprint, coarse_after(self.state.time), Why::Vacant);
        let mut about = |state: &mut State, offer: &OfferKey| {
            refused.offer = find(state, offer).expect("the refusal is about an offer that exists");
        };
        let (reason, detail) = match &why {
            Refusal::Fenced => (Why::Fenced, 0),
            Refusal::UnknownProduct { .. } => (Why::UnknownProduct, 0),
            Refusal::UnknownOffer { .. } => (Why::UnknownOffer, 0),
            Refusal::SaleHasEnded => (Why::SaleHasEnded, 0),
            Refusal::OfferClosed => (Why::OfferClosed, 0),
            Refusal::SaleNotOpenYet { opens_at } => (Why::SaleNotOpenYet, opens_at.0),
            Refusal::SaleOver { closed_at } => (Why::SaleOver, closed_at.0),
            Refusal::HoldTooLong { max_ms } => (Why::HoldTooLong, *max_ms),
            Refusal::BelowOrderMin { min } => (Why::BelowOrderMin, u64::from(*min)),
            Refusal::AboveOrderMax { max } => (Why::AboveOrderMax, u64::from(*max)),
            Refusal::LimitReached { offer, used, max, .. } => {
                about(self.state, offer);
                (Why::LimitReached, u64::from(*used) | u64::from(*max) << 32)
            }
            Refusal::SoldOut { offer, truth } => {
                about(self.state, offer);
                match truth {
                    SoldOut::Open { available } => (Why::SoldOutOpen, *available),
                    SoldOut::FirstBackAt(time) => (Why::SoldOutUntil, time.0),
                    SoldOut::Gone => (Why::SoldOutGone, 0),
                }
            }
            other => unreachable!("{other:?} is not remembered"),
        };
        if let Refusal::LimitReached { key_index, .. } = &why {
            refused.key_index = *key_index;
        }
        if let Refusal::UnknownProduct { offer } | Refusal::UnknownOffer { offer } = &why {
            refused.offer = self.state.unknown_names.insert(UnknownName(Some(offer.clone())));
        }
        refused.why = reason;
        let at = self.state.add_refused(refused.with_detail(detail));
        self.state.digest_refused(at, true);
        self.state.remember(Found::Refused(at));
        why.into()
    }
}

impl State {
    /// The refusal in full; `Fenced` for a fence.
    pub(crate) fn refusal(&self, refused: &Refused) -> Refusal {
        let detail = refused.detail();
        let time = LedgerTime(detail);
        let number = detail as u32;
        let offer = || self.offer_key(refused.offer);
        let name = || self.unknown_names.get(refused.offer).0.clone().expect("present");
        match refused.why {
            Why::Vacant => unreachable!("a vacant place is not found"),
            Why::Fenced => Refusal::Fenced,
            Why::UnknownProduct => Refusal::UnknownProduct { offer: name() },
            Why::UnknownOffer => Refusal::UnknownOffer { offer: name() },
            Why::SaleHasEnded => Refusal::SaleHasEnded,
            Why::OfferClosed => Refusal::OfferClosed,
            Why::SaleNotOpenYet => Refusal::SaleNotOpenYet { opens_at: time },
            Why::SaleOver => Refusal::SaleOver { closed_at: time },
            Why::HoldTooLong => Refusal::HoldTooLong { max_ms: detail },
            Why::BelowOrderMin => Refusal::BelowOrderMin { min: number },
            Why::AboveOrderMax => Refusal::AboveOrderMax { max: number },
            Why::LimitReached => Refusal::LimitReached {
                offer: offer(),
                key_index: refused.key_index,
                used: number,
                max: (detail >> 32) as u32,
            },
            Why::SoldOutOpen => Refusal::SoldOut { offer: offer(), truth: SoldOut::Open { available: detail } },
            Why::SoldOutUntil => Refusal::SoldOut { offer: offer(), truth: SoldOut::FirstBackAt(time) },
            Why::SoldOutGone => Refusal::SoldOut { offer: offer(), truth: SoldOut::Gone },
        }
    }
}
