//! What callers do: ask any node over gRPC, take a typed *not now* as such, and come back.

use std::time::Duration;

use ledger_core::Command;
use ledger_core::outcome::Settled;
use ledger_core::view::OfferView;
use ledger_proto::{NotNow, OneCall, Reply, names, status, v1, views};
use tokio::time::Instant;

use crate::common::{Cluster, PATIENCE, offer};

impl Cluster {
    /// One call through a node, passed on to the leader if need be.
    pub(crate) async fn submit(&self, i: usize, command: &Command, within_ms: u32) -> Reply {
        let call = OneCall::of(1, within_ms, command).expect("a caller's command");
        let answered = self.grpc(i).await.submit(call).await.expect("the node answers").into_inner();
        answered.decode().expect("a frame").remove(0).reply
    }

    /// The same, again after each *not now* and each *unknown*, as the SDK does.
    pub(crate) async fn submit_until_settled(&self, i: usize, command: &Command) -> Reply {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.submit(i, command, 2_000).await {
                again @ (Reply::NotNow(_) | Reply::Unknown(_)) => {
                    assert!(Instant::now() < until, "node {} still answers {again:?}", i + 1);
                    tokio::time::sleep(pause(&again)).await;
                }
                settled => return settled,
            }
        }
    }

    /// A linearizable read of a product's plain offer through a node: the offer, or why not there.
    pub(crate) async fn read(&self, i: usize, sku: &str) -> Result<OfferView, NotNow> {
        let offers = vec![names::offer_to_wire(&offer(sku))];
        let request = v1::GetOffersRequest { offers, consistency: v1::Consistency::Linearizable.into() };
        match self.grpc(i).await.get_offers(request).await {
            Ok(answer) => {
                let one = answer.into_inner().offers.remove(0);
                Ok(views::offer_from_wire(one.offer.expect("the offer is known")).expect("a view"))
            }
            Err(told) => match status::reply(&told) {
                Some(Reply::NotNow(why)) => Err(why),
                other => panic!("node {} answers {told:?}, {other:?}", i + 1),
            },
        }
    }
}

/// As told, within reason.
fn pause(told: &Reply) -> Duration {
    let ms = if let Reply::NotNow(why) = told { why.retry_ms } else { 0 };
    Duration::from_millis(u64::from(ms).clamp(5, 100))
}

/// The reply to a reserve that went well.
pub(crate) fn is_held(reply: &Reply) -> bool {
    use ledger_core::outcome::Status;
    matches!(reply, Reply::Ok(Settled::Reservation(brief)) if brief.status == Status::Held)
}
