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
mod hostile;
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

use crate::history::{Offer, Op, Run};

pub use hostile::hostile_message;
pub(crate) use hostile::{after_faults, readiness, ready};
pub use journal::Journalled;
pub use load::{CLOCK_BOUND_MS, Kind, Load, about, draw, longest_hold_ms, tune};
pub use site::{Failure, Site};
pub use stocked::{offers, products, set_up};

/// The journal, shared by the clients of a run.
pub type Journal = Arc<Mutex<Run>>;

/// Between two tries of what must become definite.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// At this moment of a run's clock a load ends, though its clients have tries left: what keeps a cluster from answering (wrong clocks, above
/// all) may last until the load has ended.
const LASTS_MS_MAX: u64 = 100_000;

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
    let deliveries = deliver(Journalled::new(client, site, journal, load, seed, load.clients + 1));
    let asking = async {
        tokio::join!(join_all(askers), deliveries);
        done.send_replace(true);
    };
    tokio::join!(asking, join_all(watchers));
}

/// Products that [`try_some`] asks for: each call may wait for its deadline.
const TRIED: usize = 2;

/// One delivery of a few products and one look at each: what a cluster that serves would answer.
pub async fn try_some(client: &Client, site: &Site, load: Load, journal: &Journal) {
    let number = load.clients + 2 + journal.lock().expect("never poisoned").events.len() as u32;
    let mut asking = Journalled::new(client, site, journal, load, 0, number);
    for sku in products(load).into_iter().take(TRIED) {
        let offer = Offer::plain(&sku);
        let reference = asking.name("try");
        let _told = asking.receive(&offer, 1, &reference).await;
        let op = Op::ReadOffer { offer, stale: false };
        drop(asking.ask(op, client.stock(sku.as_str())).await);
    }
}

/// Goods that come from time to time, in a load that says so.
async fn deliver(mut asking: Journalled<'_>) {
    let Load { delivery_every_ms, ends_ms, units, .. } = asking.load;
    if delivery_every_ms == 0 {
        return;
    }
    while now_ms() + delivery_every_ms < ends_ms {
        tokio::time::sleep(Duration::from_millis(delivery_every_ms)).await;
        for sku in products(asking.load) {
            let reference = asking.name("delivery");
            let _told = asking.receive(&Offer::plain(sku), units.div_ceil(4), &reference).await;
        }
    }
}

/// Whether a client that did its kind so often does it again.
fn goes_on(load: Load, done: u32) -> bool {
    if load.ends_ms == 0 { done < load.tries && now_ms() < LASTS_MS_MAX } else { now_ms() < load.ends_ms }
}

async fn one(mut asking: Journalled<'_>, kind: Kind) {
    if kind == Kind::Hostile {
        return hostile::attack(asking).await;
    }
    let (load, pause_ms_max) = (asking.load, asking.load.pause_ms_max);
    for _ in (0..).take_while(|&done| goes_on(load, done)) {
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
            Kind::Hostile => unreachable!("hostile clients are another kind of client"),
        }
        asking.pause(pause_ms_max).await;
    }
}
