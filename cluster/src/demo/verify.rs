//! The check at the end: the crowd's journal against the ledger, read back from other nodes and recomputed from history.
//!
//! **Owns** the comparison. **Must never** take the ledger's word for its own sums. **Read next**: [`crate::books`].

use client_sdk::{Client, IdView, ReservationId, Status, v1};
use futures::StreamExt;

use super::journal::{Claim, Closed, Said};
use crate::books::{Books, Finding};
use crate::limits;
use crate::link::{NodeLink, timed};
use crate::output::Outcome;

/// What reading back showed.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    /// Ids read from a follower by name.
    pub(super) stale: u64,
    /// Ids read linearizably.
    pub(super) linearizable: u64,
    /// Acknowledged, and not there.
    pub(super) lost: u64,
    /// Answers that had stayed unknown and are known now.
    pub(super) resolved: u64,
    /// What disagrees.
    pub(super) findings: Vec<Finding>,
}

/// Reads every id back: each from a follower of its shard (by name, stale), and those with an effect linearizably as well.
pub(super) async fn read_back(
    client: &Client,
    followers: impl Fn(ReservationId) -> Option<NodeLink>,
    closed: &Closed,
    books: &Books,
) -> ReadBack {
    let mut result = ReadBack::default();
    let reads = closed.claims.iter().map(|(id, claim)| {
        let follower = followers(*id);
        async move {
            let near = match &follower {
                Some(node) => Some(read_stale(node, *id).await),
                None => None,
            };
            let effect = !matches!(claim.said, Said::Refused | Said::NotNow);
            let far = match effect || near.is_none() {
                true => Some(
                    client
                        .reservation(*id)
                        .deadline(limits::COMMAND_WITHIN)
                        .await
                        .into_result()
                        .map_err(|e| e.to_string()),
                ),
                false => None,
            };
            (*id, claim, near, far)
        }
    });
    let mut reads = futures::stream::iter(reads).buffer_unordered(limits::READ_BACK_IN_FLIGHT);
    while let Some((id, claim, near, far)) = reads.next().await {
        result.resolved +=
            u64::from(matches!(claim.said, Said::Unknown | Said::ConfirmUnknown(_) | Said::ReleaseUnknown(_)));
        let mut missing = false;
        if let Some(near) = near {
            result.stale += 1;
            missing |= !agrees(&mut result.findings, id, claim, near, "a follower");
        }
        if let Some(far) = far {
            result.linearizable += 1;
            missing |=
                !agrees(&mut result.findings, id, claim, far.map(|view| status_of(&view)), "a linearizable read");
        }
        missing |= !agrees(&mut result.findings, id, claim, Ok(of_books(books, id, claim)), "history");
        result.lost += u64::from(missing);
    }
    result
}

/// What is there about an id, as far as a claim can be compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Reservation(Status),
    Refused,
    Nothing,
}

fn status_of(view: &IdView) -> There {
    match view {
        IdView::Reservation(view) => There::Reservation(view.status),
        IdView::Refused(_) => There::Refused,
        IdView::Fenced | IdView::Unknown | IdView::Forgotten | IdView::SlotElsewhere => There::Nothing,
    }
}

fn of_books(books: &Books, id: ReservationId, claim: &Claim) -> There {
    match books.status(id) {
        Some(status) => There::Reservation(status),
        // History has changes, and a refusal changes nothing.
        None if claim.said == Said::Refused => There::Refused,
        None => There::Nothing,
    }
}

async fn read_stale(node: &NodeLink, id: ReservationId) -> Result<There, String> {
    use v1::get_reservation_response::What;
    let request =
        v1::GetReservationRequest { id: id.as_bytes().to_vec().into(), consistency: v1::Consistency::Stale as i32 };
    let answer = timed(limits::COMMAND_WITHIN, node.ledger().get_reservation(request)).await;
    let answer = answer.map_err(|s| format!("{}: {}", node.address, s.message()))?;
    Ok(match answer.what {
        Some(What::Reservation(view)) => match v1::Status::try_from(view.status) {
            Ok(v1::Status::Held) => There::Reservation(Status::Held),
            Ok(v1::Status::Confirmed) => There::Reservation(Status::Confirmed),
            Ok(v1::Status::Released) => There::Reservation(Status::Released),
            Ok(v1::Status::Expired) => There::Reservation(Status::Expired),
            _ => There::Nothing,
        },
        Some(What::Refused(_)) => There::Refused,
        Some(What::Fenced(_) | What::Unknown(_) | What::Forgotten(_)) | None => There::Nothing,
    })
}

/// Whether what is there fits what the buyer was told. All holds are short and due by now.
fn agrees(
    findings: &mut Vec<Finding>,
    id: ReservationId,
    claim: &Claim,
    there: Result<There, String>,
    whence: &str,
) -> bool {
    use There::{Nothing, Refused, Reservation};
    let there = match there {
        Ok(there) => there,
        Err(why) => {
            findings.push(Finding::new("lost", format!("{id} could not be read back from {whence}: {why}")));
            return true;
        }
    };
    let fits = match claim.said {
        Said::Unknown => true,
        Said::NotNow => there == Nothing,
        Said::Refused => matches!(there, Refused | Nothing),
        Said::Held(_) => matches!(there, Reservation(Status::Held | Status::Expired)),
        Said::ConfirmUnknown(_) => matches!(there, Reservation(Status::Held | Status::Expired | Status::Confirmed)),
        Said::ReleaseUnknown(_) => matches!(there, Reservation(Status::Held | Status::Expired | Status::Released)),
        Said::Ended(status) => there == Reservation(status),
    };
    if !fits && findings.len() < limits::FINDINGS_MAX {
        let what = format!(
            "{id} ({} × {}): the buyer was told {:?}, {whence} says {there:?}",
            claim.units, claim.offer.sku, claim.said
        );
        findings.push(Finding::new("lost", what));
    }
    fits
}

/// Units acknowledged as sold of an offer's product, by the crowd's journal.
pub(super) fn acknowledged_sold(closed: &Closed, offer: &client_sdk::OfferKey) -> u64 {
    let sold = |c: &&Claim| c.offer == *offer && c.said == Said::Ended(Status::Confirmed);
    closed.claims.values().filter(sold).map(|c| u64::from(c.units)).sum()
}

/// Waits until nothing is held any more: every hold of the crowd was short.
///
/// # Errors
/// When the products cannot be listed.
pub(super) async fn wait_for_holds(client: &Client) -> Outcome<u64> {
    let until = std::time::Instant::now() + limits::CATCH_UP_WITHIN;
    loop {
        let products = crate::commands::all_products(client).await?;
        let held = products.iter().flat_map(|p| &p.offers).map(|o| o.balance.held).sum();
        if held == 0 || std::time::Instant::now() >= until {
            return Ok(held);
        }
        tokio::time::sleep(limits::POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use client_sdk::{LedgerTime, OfferKey, Sku, Slot};

    use super::*;

    fn fits(said: Said, there: There) -> bool {
        let offer = OfferKey { sku: Sku::new("a").expect("sku"), sale: None };
        let claim = Claim { offer, units: 1, said };
        let id = ReservationId::from_parts(Slot::new(1).expect("slot"), 1, 1);
        let mut findings = Vec::new();
        let fits = agrees(&mut findings, id, &claim, Ok(there), "a test");
        assert_eq!(fits, findings.is_empty(), "a disagreement is a finding");
        fits
    }

    #[test]
    fn an_acknowledged_answer_that_is_not_there_is_lost() {
        let held = Said::Held(LedgerTime(5));
        assert!(fits(held, There::Reservation(Status::Expired)));
        assert!(!fits(held, There::Nothing));
        assert!(!fits(held, There::Reservation(Status::Confirmed)));
        assert!(!fits(Said::Ended(Status::Confirmed), There::Reservation(Status::Expired)));
        assert!(!fits(Said::Ended(Status::Released), There::Nothing));
    }

    #[test]
    fn no_means_no() {
        assert!(fits(Said::NotNow, There::Nothing));
        assert!(!fits(Said::NotNow, There::Reservation(Status::Held)));
        assert!(!fits(Said::Refused, There::Reservation(Status::Held)));
    }

    #[test]
    fn unknown_may_be_either_way() {
        for there in [There::Nothing, There::Refused, There::Reservation(Status::Confirmed)] {
            assert!(fits(Said::Unknown, there));
        }
        assert!(!fits(Said::ConfirmUnknown(LedgerTime(5)), There::Reservation(Status::Released)));
    }
}
