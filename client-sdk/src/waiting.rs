//! Waiting for orders: one watch for all who wait, and a look at the order when something happened to it.
//!
//! **Owns** the list of who waits. **Must never** tell an outcome out of the feed: the feed only says when to look.
//! **Read next**: [`crate::orders`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ledger_core::ReservationId;
use tokio::sync::Notify;

use crate::routes::Routes;
use crate::{limits, watch};

#[derive(Default)]
struct State {
    waiters: HashMap<ReservationId, Vec<Weak<Notify>>>,
    watching: bool,
}

/// Who waits for which order.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<State>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is notified when something happens to the order, until it is dropped. The watch begins with the first who waits.
    pub(crate) fn for_order(&self, routes: &Arc<Routes>, id: ReservationId) -> Arc<Notify> {
        let news = Arc::new(Notify::new());
        let mut state = self.lock();
        let waiters = state.waiters.entry(id).or_default();
        waiters.retain(|one| one.strong_count() > 0);
        waiters.push(Arc::downgrade(&news));
        if !std::mem::replace(&mut state.watching, true) {
            tokio::spawn(follow(self.clone(), Arc::downgrade(routes)));
        }
        news
    }

    fn tell(&self, id: ReservationId) {
        if let Some(waiters) = self.lock().waiters.get(&id) {
            waiters.iter().filter_map(Weak::upgrade).for_each(|news| news.notify_one());
        }
    }

    /// Forgets those who wait no more; false, and the watch may end, when nobody is left.
    fn anybody(&self) -> bool {
        let mut state = self.lock();
        state.waiters.retain(|_, waiters| waiters.iter().any(|one| one.strong_count() > 0));
        state.watching = !state.waiters.is_empty();
        state.watching
    }
}

/// Follows the feed as long as somebody waits.
async fn follow(waiting: Waiting, routes: Weak<Routes>) {
    while let Some(running) = routes.upgrade().filter(|routes| !routes.is_closed()) {
        let mut watch = watch::start(&running, None, Vec::new());
        drop(running);
        loop {
            match tokio::time::timeout(limits::WAIT_LOOK_EVERY, watch.next()).await {
                Ok(Some(Ok(told))) => {
                    told.changes.iter().filter_map(|one| one.change.kind.reservation()).for_each(|id| waiting.tell(id));
                }
                Ok(Some(Err(ended))) => {
                    tracing::warn!(%ended, "the feed ended for those who wait for orders; they look again by themselves");
                    break;
                }
                Ok(None) => break,
                Err(_) => {}
            }
            if !waiting.anybody() {
                return;
            }
        }
        if !waiting.anybody() {
            return;
        }
        tokio::time::sleep(limits::RECONNECT_MAX).await;
    }
}
