//! The small language of the golden scripts: a line of text is one command or one read.
//!
//! ```text
//! # why this block is here
//! at 10s                                    the stamp of the entries that follow, from the script's start
//! create shirt limit=2 max=5 hold=60s       a product and the policy of its plain offer
//! put shirt@flash opens=60s closes=120s     an offer in a sale; `if=3` replaces version 3
//! receive shirt 10 ref=r1                   units into an offer
//! reserve a shirt 2 keys=ann,card hold=30s  lines are pairs of offer and quantity; ids are short names
//! [                                         one entry of several commands, up to `]`
//! confirm a
//! release b
//! ]
//! place b 1999EUR shirt 1 within=10m        an order with its units; without lines, of a live hold
//! claim w1 max=2 lease=30s attempt=5s       the money queue; `claim w1 mail` the other
//! heartbeat b 1 lease=30s                   the epoch, as in every report:
//! report b 1 intent pi1 1                   also await SECRET, unpaid, notified, retry after=1s, give-back, park
//! paid b p1 1999EUR                         facts: the provider's id of the payment; `refunded b p1 r1`
//! redrive b                                 by hand; also close-order, refund, resume
//! stock shirt                               a read; of orders: order b, orders [Phase], parked, queue
//! ---
//! what the ledger answered                  ids by name, times from the start, balances available/held/sold
//! ```
//!
//! **Owns** the text forms. **Must never** decide anything. **Read next**: `parse`, `print`.

pub(crate) mod orders;
pub(crate) mod parse;
pub(crate) mod print;

use std::collections::BTreeMap;

use ledger_core::{ReservationId, Sku, Slot};

/// Every script begins at this ledger time; texts show times relative to it.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// Short names of ids, both ways, and the clock that mints them.
#[derive(Default)]
pub(crate) struct Names {
    /// Milliseconds since the start: the stamp of the next entry, and the time of ids minted now.
    pub(crate) clock_ms: i64,
    /// The product spoken of last: ids first named without a line are minted for its slot.
    pub(crate) last_sku: Option<Sku>,
    by_name: BTreeMap<String, ReservationId>,
    by_id: BTreeMap<ReservationId, String>,
}

impl Names {
    /// The stamp of the next entry.
    pub(crate) fn now(&self) -> u64 {
        START_MS.checked_add_signed(self.clock_ms).expect("script times are small")
    }

    /// The id of that name; minted now, for that slot, when it is new. Ids of one time sort as their names do.
    pub(crate) fn id(&mut self, name: &str, slot: Slot, time_ms: u64) -> ReservationId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let mut random = [0u8; 8];
        for (to, from) in random[1..].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        let id = ReservationId::from_parts(slot, time_ms, u64::from_be_bytes(random));
        self.by_name.insert(name.to_string(), id);
        self.by_id.insert(id, name.to_string());
        id
    }

    /// The name of an id, or its text.
    pub(crate) fn name(&self, id: ReservationId) -> String {
        self.by_id.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}
