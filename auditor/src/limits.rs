//! Every bound of the auditor, with its reason.
//!
//! **Owns** them. **Must never** depend on what is audited. **Read next**: [`super`].

/// Findings kept by a recomputation; a broken history would otherwise fill memory.
pub const FINDINGS_MAX: usize = 1_000;
