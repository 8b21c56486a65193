//! What clients ask, as the journal writes it.
//!
//! **Owns** [`Op`] and its parts. **Must never** leave out anything that decides an answer: a checker replays from this alone.
//! **Read next**: [`super::answer`].

use std::fmt;

use client_sdk::{OfferKey, Policy};
use serde::{Deserialize, Serialize};

/// An offer: a product's plain one, or the one it has in a sale.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// The product.
    pub sku: String,
    /// The sale; absent: the plain offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sale: Option<String>,
}

impl Offer {
    /// A product's plain offer.
    pub fn plain(sku: impl Into<String>) -> Self {
        Self { sku: sku.into(), sale: None }
    }
    /// A product's offer in a sale.
    pub fn of_sale(sku: impl Into<String>, sale: impl Into<String>) -> Self {
        Self { sku: sku.into(), sale: Some(sale.into()) }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sale {
            None => f.write_str(&self.sku),
            Some(sale) => write!(f, "{} in sale {sale}", self.sku),
        }
    }
}

impl From<&OfferKey> for Offer {
    fn from(key: &OfferKey) -> Self {
        Self { sku: key.sku.to_string(), sale: key.sale.as_ref().map(ToString::to_string) }
    }
}

/// So many units of an offer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Line {
    /// Which offer.
    #[serde(flatten)]
    pub offer: Offer,
    /// How many units.
    pub quantity: u32,
}

impl From<&client_sdk::Line> for Line {
    fn from(line: &client_sdk::Line) -> Self {
        Self { offer: Offer::from(&line.offer), quantity: line.quantity.get() }
    }
}

/// What of an offer's policy decides answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Terms {
    /// Whether it takes reservations.
    pub open: bool,
    /// First instant of ledger time at which it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at_ms: Option<u64>,
    /// First instant at which it no longer does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at_ms: Option<u64>,
    /// Limit of one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_key_max: Option<u32>,
    /// Fewest units of one reservation.
    pub per_order_min: u32,
    /// Most units of one reservation.
    pub per_order_max: u32,
    /// Hold time when none is named.
    pub hold_ms_default: u64,
    /// Longest hold.
    pub hold_ms_max: u64,
}

impl From<&Policy> for Terms {
    fn from(policy: &Policy) -> Self {
        Self {
            open: policy.open,
            opens_at_ms: policy.opens_at.map(|t| t.0),
            closes_at_ms: policy.closes_at.map(|t| t.0),
            per_key_max: policy.per_key_max,
            per_order_min: policy.per_order_min,
            per_order_max: policy.per_order_max,
            hold_ms_default: policy.hold_ms_default,
            hold_ms_max: policy.hold_ms_max,
        }
    }
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the command's own")]
pub enum Op {
    CreateProduct { sku: String, terms: Terms },
    PutOffer { offer: Offer, terms: Terms, expected_version: Option<u64> },
    SetOpen { offer: Offer, open: bool },
    EndSale { offer: Offer },
    Receive { offer: Offer, units: u64, reference: String },
    Adjust { offer: Offer, delta: i64, reference: String, expected_version: Option<u64> },
    Allot { sku: String, from: Option<String>, to: Option<String>, units: u64, reference: String },
    Reserve { id: String, lines: Vec<Line>, keys: Vec<String>, hold_ms: Option<u64> },
    Extend { id: String, replaces_ms: u64, hold_ms: u64 },
    Confirm { id: String, lines: Option<Vec<Line>> },
    Release { id: String },
    Fence { id: String },
    Return { id: String, lines: Option<Vec<Line>>, reference: String },
    ReadOffer { offer: Offer, stale: bool },
    ReadId { id: String, stale: bool },
}

impl Op {
    /// The reservation it is about.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Reserve { id, .. }
            | Self::Extend { id, .. }
            | Self::Confirm { id, .. }
            | Self::Release { id }
            | Self::Fence { id }
            | Self::Return { id, .. }
            | Self::ReadId { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Whether it only looks.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::ReadOffer { .. } | Self::ReadId { .. })
    }

    /// Whether it is a read that may be old.
    pub fn is_stale_read(&self) -> bool {
        matches!(self, Self::ReadOffer { stale: true, .. } | Self::ReadId { stale: true, .. })
    }

    /// The products it names itself.
    pub fn skus(&self) -> Vec<&str> {
        match self {
            Self::CreateProduct { sku, .. } | Self::Allot { sku, .. } => vec![sku],
            Self::PutOffer { offer, .. }
            | Self::SetOpen { offer, .. }
            | Self::EndSale { offer }
            | Self::Receive { offer, .. }
            | Self::Adjust { offer, .. }
            | Self::ReadOffer { offer, .. } => vec![&offer.sku],
            Self::Reserve { lines, .. } => lines.iter().map(|l| l.offer.sku.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateProduct { .. } => "create-product",
            Self::PutOffer { .. } => "put-offer",
            Self::SetOpen { .. } => "set-open",
            Self::EndSale { .. } => "end-sale",
            Self::Receive { .. } => "receive",
            Self::Adjust { .. } => "adjust",
            Self::Allot { .. } => "allot",
            Self::Reserve { .. } => "reserve",
            Self::Extend { .. } => "extend",
            Self::Confirm { .. } => "confirm",
            Self::Release { .. } => "release",
            Self::Fence { .. } => "fence",
            Self::Return { .. } => "return",
            Self::ReadOffer { .. } => "read-offer",
            Self::ReadId { .. } => "read-id",
        }
    }
}
