//! The disks behind [`crate::seam::Disk`].
//!
//! **What it is.** [`RealDisk`] is files of this machine; [`SimDisk`] is memory that forgets what was not synced.
//!
//! **Owns** how bytes reach a disk and what a crash does to them. **Must never** know what the bytes mean, or retry a
//! sync.
//!
//! **Read next**: [`real`], then [`sim`].

pub mod real;
pub mod sim;

pub use real::RealDisk;
pub use sim::{CrashPoint, SimDisk, SimDiskChange, SimDiskObserver};
