//! Snapshots: a frozen view written as checked frames, and read back into a state whose digest must agree.
//!
//! Layout: magic, then frames of (length, xxh3-64 of the payload, payload); a payload is a section number and records up to the end. Sections come in the
//! order of their numbers, each any number of times; the last is [`END`] with the digest. Only primary records are written; what is derived is rebuilt.
//! **Owns** this format (docs/storage-format.md). **Must never** trust a byte: checksums, bounds, constructors, references, then the digest.
//! **Read next**: [`crate::audit`].

mod reading;
#[cfg(test)]
pub(crate) mod tests;
mod writing;

use std::collections::VecDeque;
use std::io::{self, Read as _};

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::CodecError;
use crate::codec::changes::{get_position, put_position};
use crate::codec::orders;
use crate::codec::primitives::{In, Out};
use crate::ledger::{Digest, Position};
use crate::limits;
use crate::order::{Money, Payment, Phase as OrderPhase};
use crate::outcome::Status;
use crate::state::State;
use crate::state::ids::Found;
use crate::state::keys::FrozenKeys;
use crate::state::orders::{Cold, Order, Standing};
use crate::state::records::{
    Extra, Head, LineRecord, NONE, Offer, Phase, Product, Refused, Reservation, Returned, UnknownName, Why,
};
use crate::state::references::{FrozenReferences, UsedReference};
use crate::state::slab::{FrozenSlab, Placed};
use crate::types::{OfferKey, ShardSettings, Slot};

pub(crate) use reading::read;

/// First bytes of a snapshot: name and format version.
pub(crate) const MAGIC: [u8; 8] = *b"HFSNAP\x00\x05";
const WHAT: &str = "snapshot";
/// A frame is closed when it has grown to this.
const FRAME_BYTES: usize = 256 << 10;

const SHARD: u8 = 1;
const PRODUCTS: u8 = 2;
const OFFERS: u8 = 3;
const KEYS: u8 = 4;
const KEPT: u8 = 5;
const REFERENCES: u8 = 6;
const RESERVATIONS: u8 = 7;
const REFUSED: u8 = 8;
const ORDERS: u8 = 9;
const END: u8 = 255;

/// A frozen shard, its records aside.
pub(crate) struct FrozenShard {
    pub(crate) position: Position,
    pub(crate) time: u64,
    pub(crate) behaviour: u16,
    pub(crate) chain: u128,
    pub(crate) generation: u64,
    pub(crate) ranges: Vec<(Slot, Slot)>,
    pub(crate) settings: ShardSettings,
    pub(crate) forgotten_below: Vec<u64>,
    pub(crate) digests: VecDeque<Digest>,
    pub(crate) reference_seed: u64,
    /// Counters of orders: sequence, turns, given by class, turn of strays.
    pub(crate) orders: [u64; 5],
}

/// A frozen state.
pub(crate) struct FrozenState {
    pub(crate) shard: FrozenShard,
    pub(crate) products: FrozenSlab<Product>,
    pub(crate) offers: FrozenSlab<Offer>,
    pub(crate) keys: FrozenKeys,
    pub(crate) references: FrozenReferences,
    pub(crate) reservations: FrozenSlab<Reservation>,
    pub(crate) extras: FrozenSlab<Extra>,
    pub(crate) refused: FrozenSlab<Refused>,
    pub(crate) unknown_names: FrozenSlab<UnknownName>,
    pub(crate) orders: FrozenSlab<Order>,
    pub(crate) digest: Digest,
}

impl State {
    /// Shares all chunks; copies only what is a few kilobytes.
    pub(crate) fn freeze(&mut self) -> FrozenState {
        let digest = self.take_digest();
        FrozenState {
            shard: FrozenShard {
                position: self.position,
                time: self.time,
                behaviour: self.behaviour,
                chain: self.chain,
                generation: self.generation,
                ranges: self.ranges.clone(),
                settings: self.settings.clone(),
                forgotten_below: self.forgotten_below.clone(),
                digests: self.digests.clone(),
                reference_seed: self.references.seed,
                orders: self.orders.counters(),
            },
            products: self.products.freeze(),
            offers: self.offers.freeze(),
            keys: self.keys.freeze(),
            references: self.references.freeze(),
            reservations: self.reservations.freeze(),
            extras: self.extras.freeze(),
            refused: self.refused.freeze(),
            unknown_names: self.unknown_names.freeze(),
            orders: self.orders.records.freeze(),
            digest,
        }
    }
}
