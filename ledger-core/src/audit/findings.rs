//! What an audit found.
//!
//! **Owns** the bound on findings. **Must never** make a text of what holds: an audit compares millions of records. **Read next**: [`super`].

use crate::types::ReservationId;
use crate::view::Finding;

/// Findings reported at most: a broken ledger has many, and the first ones show why.
const FINDINGS_MAX: usize = 100;

#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding if what is kept is not what was counted.
    #[inline]
    pub(super) fn expect<T: PartialEq + std::fmt::Debug>(
        &mut self,
        invariant: &'static str,
        what: impl FnOnce() -> String,
        kept: T,
        counted: T,
    ) {
        if kept != counted {
            self.add(invariant, || format!("{}: kept {kept:?}, counted {counted:?}", what()));
        }
    }

    /// Adds a finding.
    #[cold]
    pub(super) fn add(&mut self, invariant: &'static str, what: impl FnOnce() -> String) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(Finding { invariant, what: what() });
        }
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

/// An id as text, even one that no constructor would take.
pub(super) fn id_text(id: &[u8; 16]) -> String {
    ReservationId::from_bytes(*id).map_or_else(|_| format!("{id:02x?}"), |id| id.to_string())
}
