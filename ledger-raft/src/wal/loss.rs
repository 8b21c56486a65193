//! How a start records that the log is not all that was written.
//!
//! **Owns** that round. **Must never** be written before the header of its segment, or after the
//! record of begun segments. **Read next**: [`super::writer`].

use std::io;

use bytes::Bytes;

use super::frame::{Kind, RECORD_BYTES};
use super::writer::{Booked, Writer};

impl Writer {
    /// The marks of a loss in records that count, in a round of their own. A header that rots is taken
    /// for one that only repeated what is known, and these marks are new.
    pub(super) fn record_lost(&mut self) -> io::Result<()> {
        self.round.clear();
        // The mark of a log that was emptied is no loss: a record of it would begin its repair anew.
        let marked = |b: &Booked| b.state.damage.clone().filter(|mark| !mark.is_emptied());
        let marks: Vec<_> = self.book.values().filter_map(|b| Some((b.mem.clone(), marked(b)?))).collect();
        for (mem, mark) in marks {
            let body = Bytes::from(mark.file);
            if !self.fits(RECORD_BYTES + body.len()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the segment is too small for the damage of all groups: configure larger segments",
                ));
            }
            self.encode_small(&mem, Kind::Damaged, 0, body);
        }
        match self.round.is_empty() {
            true => Ok(()),
            false => self.write_round(),
        }
    }
}
