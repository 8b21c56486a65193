//! Bits that flip in data at rest.
//!
//! **Owns** where. **Must never** touch what a node was not yet promised to keep: what was not synced is gone before.
//! **Read next**: [`super`].

use std::path::PathBuf;

use super::Strikes;
use super::undo::Undo;
use crate::faults::Rotten;

impl Strikes {
    /// A bit flips where something is written, while the process is down; it reads it when it starts.
    pub(super) fn rot(&mut self, node: usize, of: Rotten, place: u64, ms: u64) -> bool {
        let node = node.min(self.nodes() - 1);
        let disk = self.worlds[node].disk.clone();
        let part = match of {
            Rotten::Log => "wal",
            Rotten::Snapshot => "snapshots",
        };
        if !self.hosts[node].is_running() {
            return false;
        }
        let written = |path: &PathBuf| {
            let content = disk.content(path).unwrap_or_default();
            let places: Vec<usize> = content.iter().enumerate().filter(|(_, b)| **b != 0).map(|(at, _)| at).collect();
            (!places.is_empty()).then(|| (path.clone(), places))
        };
        let files: Vec<_> = disk.files().iter().filter(|p| p.iter().any(|c| c == part)).filter_map(written).collect();
        if files.is_empty() {
            return false;
        }
        self.power_off(node);
        let (path, places) = &files[place as usize % files.len()];
        let at = places[(place >> 8) as usize % places.len()];
        // The power cut may have taken the file with it.
        let flipped = disk.flip_bit(path, at as u64, (place >> 3) as u8).is_ok();
        self.until(ms, Undo::Start(node));
        flipped
    }
}
