//! The disks behind [`crate::seam::Disk`]: real files and the simulated disk.
