//! Stock recomputed from this node's history while its shard is audited.
//!
//! **Owns** the books of one shard: read a page at a time, at most [`AUDIT_BOOK_RECORDS_MAX`] reservations, orders and references in memory.
//! **Must never** take an unreadable history for a broken one. **Read next**: [`super`].

use auditor::{Books, Finding};
use ledger_core::ledger::AuditObserver;
use ledger_core::outcome::Balance;
use ledger_core::view::ProductSums;
use ledger_core::{LedgerTime, OfferKey, Position, Sku, codec};

use super::progress::{Doing, Reporter};
use crate::history::History;
use crate::limits::{AUDIT_BOOK_RECORDS_MAX, AUDIT_PAGE};

/// The books of a shard's history as far as it was read.
pub(super) struct HistoryBooks<'h> {
    history: &'h dyn History,
    shard: u32,
    /// None once it cannot be recomputed: it is gapped, or cut by retention meanwhile.
    books: Option<Books>,
    /// What was found before it could not be read any more.
    found: Vec<Finding>,
    next: u64,
}

impl<'h> HistoryBooks<'h> {
    pub(super) fn new(history: &'h dyn History, shard: u32) -> Self {
        Self { history, shard, books: Some(Books::bounded(AUDIT_BOOK_RECORDS_MAX)), found: Vec::new(), next: 0 }
    }

    /// Enters history up to an index.
    pub(super) fn read_to(&mut self, index: u64, reporter: &Reporter<'_>) {
        let Some(mut books) = self.books.take() else { return };
        match self.enter(&mut books, index, reporter) {
            Ok(()) => self.books = Some(books),
            Err(why) => {
                self.found = books.findings().to_vec();
                tracing::warn!(shard = self.shard, why, "the audit did not recompute stock from history");
            }
        }
    }

    fn enter(&mut self, books: &mut Books, index: u64, reporter: &Reporter<'_>) -> Result<(), String> {
        self.history.sync_through(self.shard, index).map_err(|error| error.to_string())?;
        let kept = self.history.coverage(self.shard);
        if let Some(gap) = kept.gaps.first() {
            return Err(format!("indexes {} to {} are missing", gap.after + 1, gap.through));
        }
        if self.next == 0 {
            if kept.oldest > 0 {
                books.history_is_cut();
            }
            self.next = kept.oldest.max(1);
        }
        while self.next <= index {
            let from = self.next;
            let page = self.history.read(self.shard, from, AUDIT_PAGE).map_err(|error| error.to_string())?;
            for (at, bytes) in page.records.iter().take_while(|(at, _)| *at <= index) {
                // One that is not its chain's is found by whoever reads history, and fetched anew.
                let record = codec::decode_record(bytes).ok().filter(|record| record.position.index == *at);
                let record = record.ok_or_else(|| format!("record {at} is malformed"))?;
                for change in &record.changes {
                    books.enter(Position { place: change.place, ..record.position }, record.time, change);
                }
            }
            if page.next <= from {
                return Err(format!("it ends at index {from}"));
            }
            self.next = page.next.min(index + 1);
            reporter.report(Doing::History, self.next - 1, index);
        }
        Ok(())
    }

    /// All up to that ledger time was entered.
    pub(super) fn close(&mut self, time: LedgerTime) {
        if let Some(books) = &mut self.books {
            books.advance(self.shard, time);
            books.close();
        }
    }

    /// Takes what the audit of the records recomputed, and compares it.
    pub(super) fn observer<'b>(&'b mut self, reporter: &'b Reporter<'b>) -> Comparing<'b> {
        Comparing { books: self.books.as_mut(), reporter }
    }

    /// Adds what was found; answers how many changes were entered, and after how many of them only balances were kept, if they were.
    pub(super) fn end(self, findings: &mut Vec<Finding>) -> (u64, u64) {
        findings.extend(self.found);
        let Some(mut books) = self.books else { return (0, 0) };
        books.nothing_is_lost();
        findings.extend_from_slice(books.findings());
        (books.changes(), books.reduced_after().unwrap_or(0))
    }
}

/// The books beside the audit of the records.
pub(super) struct Comparing<'b> {
    books: Option<&'b mut Books>,
    reporter: &'b Reporter<'b>,
}

impl AuditObserver for Comparing<'_> {
    fn progress(&mut self, read: u64, of: u64) {
        self.reporter.report(Doing::Records, read, of);
    }
    fn offer(&mut self, offer: &OfferKey, balance: Balance) {
        if let Some(books) = &mut self.books {
            books.compare_offer(offer, &balance);
        }
    }
    fn product(&mut self, sku: &Sku, sums: ProductSums) {
        if let Some(books) = &mut self.books {
            books.compare_product(sku, sums);
        }
    }
}
