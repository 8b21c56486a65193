//! Notices panics of a simulated process: the runtime would swallow them, a real server ends with them.
//!
//! **Owns** the panic hook of the process, which prints as before. **Must never** change what happens on threads that simulate nothing.
//! **Read next**: [`super`].

use std::cell::RefCell;
use std::sync::Once;

use super::interpose;

static HOOK: Once = Once::new();

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics on simulating threads are noted.
pub(super) fn watch() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if interpose::elapsed().is_some() {
                SEEN.with_borrow_mut(|seen| seen.push(info.to_string()));
            }
            before(info);
        }));
    });
}

/// Whether there was one on this thread.
pub(super) fn any() -> bool {
    SEEN.with_borrow(|seen| !seen.is_empty())
}

/// Those of this thread.
pub(super) fn take() -> Vec<String> {
    SEEN.take()
}
