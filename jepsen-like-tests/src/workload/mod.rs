//! The clients of a run: what they ask, drawn by the seed (swarm style: each run has its own mix), and the journal they keep.
//!
//! **What it is.** [`draw`] makes a [`Load`] of a seed; [`set_up`] puts the goods in; [`press`] lets every client do its [`Kind`] until it has
//! asked enough. One kind of client a file, all over [`Journalled::ask`].
//!
//! **Owns** what is asked. **Must never** resolve an unknown by a fence, which would change it, nor judge.
//! **Read next**: [`load`], [`journal`], then any kind.

mod brink;
mod buy;
mod churn;
mod forget;
mod import;
pub mod journal;
mod keep;
mod limits;
pub mod load;
mod read;
mod retry;
mod returns;
pub mod site;
mod stocked;
pub(crate) mod watching;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use client_sdk::Client;
use futures::future::join_all;

use crate::history::Run;

pub use journal::Journalled;
pub use load::{CLOCK_BOUND_MS, Kind, Load, about, draw, longest_hold_ms, tune};
pub use site::{Failure, Site};
pub use stocked::{offers, products, set_up};

/// The journal, shared by the clients of a run.
pub type Journal = Arc<Mutex<Run>>;

/// Between two tries of what must become definite.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Milliseconds of the run's one clock: simulated time inside a simulation, else since the process first asked.
pub fn now_ms() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    match crate::world::elapsed() {
        Duration::ZERO => BEGAN.get_or_init(Instant::now).elapsed().as_millis() as u64,
        elapsed => elapsed.as_millis() as u64,
    }
}

/// Every client of the load does what it is for, until all have asked enough.
pub async fn press(client: &Client, site: &Site, seed: u64, load: Load, journal: &Journal) {
    let kinds = load.kinds();
    let askers = (1..=load.clients).map(|n| {
        let asking = Journalled::new(client, site, journal, load, seed, n);
        one(asking, kinds[n as usize % kinds.len()])
    });
    let done = tokio::sync::watch::Sender::new(false);
    let watchers = (1..=load.watchers).map(|n| watching::follow(site, seed, load, n, journal, done.subscribe()));
    let asking = async {
        join_all(askers).await;
        done.send_replace(true);
    };
    tokio::join!(asking, join_all(watchers));
}

async fn one(mut asking: Journalled<'_>, kind: Kind) {
    let Load { tries, pause_ms_max, ends_ms, .. } = asking.load;
    let goes_on = |done| if ends_ms == 0 { done < tries } else { now_ms() < ends_ms };
    for _ in (0..).take_while(|&done| goes_on(done)) {
        match kind {
            Kind::Herd => buy::herd(&mut asking).await,
            Kind::Many => buy::many(&mut asking).await,
            Kind::Carts => buy::cart(&mut asking).await,
            Kind::Churn => churn::wave(&mut asking).await,
            Kind::Brink => brink::last_moment(&mut asking).await,
            Kind::Retries => retry::again(&mut asking).await,
            Kind::Forget => forget::old_ids(&mut asking).await,
            Kind::Limits => limits::several_keys(&mut asking).await,
            Kind::Returns => returns::sell_and_return(&mut asking).await,
            Kind::Keeping => keep::keep_stock(&mut asking).await,
            Kind::Imports => import::same_references(&mut asking).await,
            Kind::Reads => read::look(&mut asking).await,
        }
        asking.pause(pause_ms_max).await;
    }
}
