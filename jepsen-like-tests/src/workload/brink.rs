//! The last moment of a hold: its owner confirms in it, and rivals want the unit in the next.
//!
//! **Owns** the aiming. **Must never** know better than the ledger when a hold ends. **Read next**: [`super::retry`].

use std::time::Duration;

use rand::RngExt;

use super::journal::Journalled;
use super::stocked::BRINK;
use crate::history::Offer;

/// One of two parts, by chance: holds a unit and confirms (or extends, or releases) at the last moment; or is a rival that asks again and again.
pub(super) async fn last_moment(asking: &mut Journalled<'_>) {
    let offer = Offer::plain(BRINK);
    let mut want = asking.want(&offer, 1);
    want.hold_ms = Some(asking.rng.random_range(30..250));
    let Some(held) = asking.get(&want).await else {
        // Gone for now: deliver one, so that the next has something to want.
        if asking.rng.random_bool(0.2) {
            let reference = asking.name("more");
            let _told = asking.receive(&offer, 1, &reference).await;
        }
        return;
    };
    let early = asking.rng.random_range(0..16);
    let left = held.deadline.0.saturating_sub(asking.client.ledger_time().0);
    tokio::time::sleep(Duration::from_millis(left.saturating_sub(early))).await;
    match asking.rng.random_range(0..6) {
        0 => drop(asking.release(want.id).await),
        1 => drop(asking.extend(want.id, held.deadline, 60).await),
        _ => drop(asking.confirm(want.id, None).await),
    }
    // What was sold comes back, so that there is something to want.
    if asking.rng.random_bool(0.7) {
        let reference = asking.name("back");
        let _told = asking.bring_back(want.id, None, &reference).await;
    }
}
