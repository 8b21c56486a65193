//! Records of one shard decoded once for all its watchers.
//!
//! **What it is.** The last few records that a watcher needed. Watchers keep bytes, which they
//! share with the ring, and ask here for what they deliver at the moment; so a thousand of them
//! that wait for their callers hold no decoded record.
//!
//! **Owns** the bound on decoded records. **Must never** give a record for other bytes than it was
//! decoded from.
//! **Read next**: [`super::watch`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ledger_core::change::Record;
use ledger_core::codec::{self, CodecError};

use crate::limits::{FEED_DECODED_BYTES, FEED_DECODED_RECORDS};

/// A record, and the chain value behind it.
#[derive(Debug)]
pub struct Decoded {
    /// The record.
    pub record: Record,
    /// What the next record continues.
    pub chain: u128,
}

/// The records decoded last, the one used last at the end.
#[derive(Default)]
pub struct DecodedRecords {
    recent: Mutex<VecDeque<(Bytes, Arc<Decoded>)>>,
}

impl DecodedRecords {
    /// The record of some bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn get(&self, bytes: &Bytes) -> Result<Arc<Decoded>, CodecError> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.iter().rposition(|(of, _)| of == bytes).and_then(|at| recent.remove(at));
        let entry = match known {
            Some(entry) => entry,
            None => {
                let record = codec::decode_record(bytes)?;
                let chain = codec::chain_after(record.chain_before, bytes);
                (bytes.clone(), Arc::new(Decoded { record, chain }))
            }
        };
        let decoded = entry.1.clone();
        recent.push_back(entry);
        let mut held: usize = recent.iter().map(|(of, _)| of.len()).sum();
        while recent.len() > 1 && (recent.len() > FEED_DECODED_RECORDS || held > FEED_DECODED_BYTES) {
            held -= recent.pop_front().map_or(0, |(of, _)| of.len());
        }
        Ok(decoded)
    }

    /// How many are kept, and the bytes that they were decoded from.
    pub fn held(&self) -> (usize, usize) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        (recent.len(), recent.iter().map(|(of, _)| of.len()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::chain_of;

    #[test]
    fn watchers_share_one_decoded_record_and_few_are_kept() {
        let chain = chain_of(1, 100);
        let decoded = DecodedRecords::default();
        let record = |index| chain.record(index).expect("a record").clone();
        let first = decoded.get(&record(2)).expect("a record");
        assert_eq!((first.record.position.index, first.chain), (2, chain.chains[2]));
        // Also when the bytes lie elsewhere, as those of history do.
        let elsewhere = Bytes::copy_from_slice(&record(2));
        assert!(Arc::ptr_eq(&first, &decoded.get(&elsewhere).expect("the same record")));
        for index in 3..=100 {
            decoded.get(&record(index)).expect("a record");
        }
        assert_eq!(decoded.held().0, FEED_DECODED_RECORDS);
        assert!(!Arc::ptr_eq(&first, &decoded.get(&record(2)).expect("decoded again")));
        assert!(decoded.get(&Bytes::from_static(b"no record")).is_err());
    }
}
