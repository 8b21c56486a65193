//! Faults put in on purpose, to prove that the tests find them.
//!
//! **What it is.** A build with `--cfg holdfast_known_bad` has one wrong thing at each place where `bad!("its name")` is asked; which one
//! is on is set for a thread, since a simulation runs in one. Without the cfg the question is the literal `false`, the names are not even
//! compiled, and this module is empty. **Owns** the switch. **Must never** be a cargo feature, which another crate could switch on.
//! **Read next**: `docs/testing.md`, known-bad builds.

/// Whether the named wrong thing is on in this thread.
#[cfg(not(holdfast_known_bad))]
#[macro_export]
#[doc(hidden)]
macro_rules! bad {
    ($name:literal) => {
        false
    };
}

/// Whether the named wrong thing is on in this thread.
#[cfg(holdfast_known_bad)]
#[macro_export]
#[doc(hidden)]
macro_rules! bad {
    ($name:literal) => {
        $crate::bad::is($name)
    };
}

#[cfg(holdfast_known_bad)]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<&'static str> = const { Cell::new("") };
    }

    /// Switches one wrong thing on in this thread, and any other off; none is `""`.
    pub fn set(name: &'static str) {
        ON.set(name);
    }

    /// Whether this one is on.
    pub fn is(name: &str) -> bool {
        ON.get() == name
    }
}

#[cfg(holdfast_known_bad)]
pub use switch::{is, set};
