//! The documents commands print: their JSON form is stable, their tables are made of the same fields.
//!
//! **Owns** field names of the JSON output. **Must never** ask the cluster anything. **Read next**: [`crate::output`].

use client_sdk::{Balance, IdView, OfferView, Outcome, ProductView, ReservationView, SoldOut, Status};
use serde::Serialize;

use crate::output::{instant, maybe, num, table, text};

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfferDoc {
    /// The product.
    pub sku: String,
    /// The sale; null for the plain offer.
    pub sale: Option<String>,
    /// Free to be reserved.
    pub available: u64,
    /// In live holds.
    pub held: u64,
    /// Sold and not returned.
    pub sold: u64,
    /// For compare-and-set.
    pub version: u64,
    /// Takes reservations now.
    pub taking: bool,
    /// open, closed, ended.
    pub state: &'static str,
    /// While nothing is available: when the first units may be back (ledger time, ms).
    pub first_back_at_ms: Option<u64>,
    /// Nothing available and nothing held.
    pub gone: bool,
    /// First instant of the window.
    pub opens_at_ms: Option<u64>,
    /// End of the window.
    pub closes_at_ms: Option<u64>,
    /// Units a limit key may have.
    pub per_key_max: Option<u32>,
    /// Fewest units an order takes.
    pub per_order_min: u32,
    /// Most units an order takes.
    pub per_order_max: u32,
    /// Hold time by default.
    pub hold_ms_default: u64,
    /// Longest hold time.
    pub hold_ms_max: u64,
    /// Low-stock threshold; 0: none.
    pub low_stock_at: u64,
    /// Price note.
    pub price: Option<String>,
}

impl From<&OfferView> for OfferDoc {
    fn from(view: &OfferView) -> Self {
        let Balance { available, held, sold } = view.balance;
        let policy = &view.policy;
        Self {
            sku: view.offer.sku.to_string(),
            sale: view.offer.sale.as_ref().map(ToString::to_string),
            available,
            held,
            sold,
            version: view.version,
            taking: view.taking,
            state: match (view.ended, policy.open) {
                (true, _) => "ended",
                (false, true) => "open",
                (false, false) => "closed",
            },
            first_back_at_ms: match view.sold_out {
                Some(SoldOut::FirstBackAt(t)) => Some(t.0),
                _ => None,
            },
            gone: matches!(view.sold_out, Some(SoldOut::Gone)),
            opens_at_ms: policy.opens_at.map(|t| t.0),
            closes_at_ms: policy.closes_at.map(|t| t.0),
            per_key_max: policy.per_key_max,
            per_order_min: policy.per_order_min,
            per_order_max: policy.per_order_max,
            hold_ms_default: policy.hold_ms_default,
            hold_ms_max: policy.hold_ms_max,
            low_stock_at: policy.low_stock_at,
            price: policy.price.as_ref().map(ToString::to_string),
        }
    }
}

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProductDoc {
    /// The product.
    pub sku: String,
    /// Ever received.
    pub received: u64,
    /// Sum of adjustments.
    pub adjusted: i64,
    /// Ever returned.
    pub returned: u64,
    /// Ever sold, returned ones counted.
    pub ever_sold: u64,
    /// The plain offer first.
    pub offers: Vec<OfferDoc>,
}

impl From<&ProductView> for ProductDoc {
    fn from(view: &ProductView) -> Self {
        Self {
            sku: view.sku.to_string(),
            received: view.received,
            adjusted: view.adjusted,
            returned: view.returned,
            ever_sold: view.ever_sold,
            offers: view.offers.iter().map(OfferDoc::from).collect(),
        }
    }
}

/// Offers as a table.
pub fn offers_table<'a>(offers: impl IntoIterator<Item = &'a OfferDoc>) -> String {
    table(
        ["SKU", "SALE", "AVAILABLE", "HELD", "SOLD", "STATE", "TAKING", "VERSION", "PRICE"],
        offers.into_iter().map(|o| {
            [
                text(&o.sku),
                maybe(o.sale.as_ref()),
                num(o.available),
                num(o.held),
                num(o.sold),
                text(o.state),
                text(if o.taking { "yes" } else { "no" }),
                num(o.version),
                maybe(o.price.as_ref()),
            ]
        }),
    )
}

/// A product in full.
pub fn product_text(product: &ProductDoc) -> String {
    let mut out = format!(
        "{}: received {}, adjusted {}, returned {}, ever sold {}\n\n{}",
        product.sku,
        product.received,
        product.adjusted,
        product.returned,
        product.ever_sold,
        offers_table(&product.offers)
    );
    for offer in &product.offers {
        let name = offer.sale.as_deref().unwrap_or("plain");
        out.push_str(&format!(
            "\n\n{name}: order {} to {} units, per key {}, hold {} (at most {}), low stock at {}, window {} to {}",
            offer.per_order_min,
            offer.per_order_max,
            offer.per_key_max.map_or("-".into(), |n| n.to_string()),
            span(offer.hold_ms_default),
            span(offer.hold_ms_max),
            offer.low_stock_at,
            instant(offer.opens_at_ms.unwrap_or(0)),
            instant(offer.closes_at_ms.unwrap_or(0)),
        ));
    }
    out
}

fn span(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

/// One line of a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineDoc {
    /// The product.
    pub sku: String,
    /// The sale.
    pub sale: Option<String>,
    /// Units reserved.
    pub reserved: u32,
    /// Units sold.
    pub sold: u32,
    /// Of those, returned.
    pub returned: u32,
}

/// What is known of an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReservationDoc {
    /// The id.
    pub id: String,
    /// held, confirmed, released, expired; refused, fenced, unknown, forgotten for ids without a reservation.
    pub status: &'static str,
    /// Why it was refused.
    pub refusal: Option<String>,
    /// When it was taken (ledger time, ms).
    pub reserved_at_ms: Option<u64>,
    /// The hold's (last) deadline.
    pub deadline_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Its limit keys.
    pub keys: Vec<String>,
    /// Its lines.
    pub lines: Vec<LineDoc>,
}

impl ReservationDoc {
    /// An id about which there is but a status.
    pub fn bare(id: impl ToString, status: &'static str) -> Self {
        Self {
            id: id.to_string(),
            status,
            refusal: None,
            reserved_at_ms: None,
            deadline_ms: None,
            ended_at_ms: None,
            keys: Vec::new(),
            lines: Vec::new(),
        }
    }
    /// What a read answered.
    pub fn of_view(id: impl ToString, view: &IdView) -> Self {
        match view {
            IdView::Reservation(view) => Self::from(view),
            IdView::Refused(why) => Self { refusal: Some(why.to_string()), ..Self::bare(id, "refused") },
            IdView::Fenced => Self::bare(id, "fenced"),
            IdView::Unknown => Self::bare(id, "unknown"),
            IdView::Forgotten | IdView::SlotElsewhere => Self::bare(id, "forgotten"),
        }
    }
    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = format!("{}  {}", self.id, self.status);
        if let Some(why) = &self.refusal {
            out.push_str(&format!(": {why}"));
        }
        let times = [("reserved", self.reserved_at_ms), ("deadline", self.deadline_ms), ("ended", self.ended_at_ms)];
        for (name, at) in times {
            if let Some(at) = at {
                out.push_str(&format!("\n{name:<9} {} ({at} ms)", instant(at)));
            }
        }
        if !self.keys.is_empty() {
            out.push_str(&format!("\nkeys      {}", self.keys.join(", ")));
        }
        if !self.lines.is_empty() {
            let rows = self
                .lines
                .iter()
                .map(|l| [text(&l.sku), maybe(l.sale.as_ref()), num(l.reserved), num(l.sold), num(l.returned)]);
            out.push_str(&format!("\n\n{}", table(["SKU", "SALE", "RESERVED", "SOLD", "RETURNED"], rows)));
        }
        out
    }
}

impl From<&ReservationView> for ReservationDoc {
    fn from(view: &ReservationView) -> Self {
        Self {
            reserved_at_ms: Some(view.reserved_at.0),
            deadline_ms: Some(view.deadline.0),
            ended_at_ms: view.ended_at.map(|t| t.0),
            keys: view.keys.iter().map(ToString::to_string).collect(),
            lines: view
                .lines
                .iter()
                .map(|l| LineDoc {
                    sku: l.offer.sku.to_string(),
                    sale: l.offer.sale.as_ref().map(ToString::to_string),
                    reserved: l.reserved,
                    sold: l.sold,
                    returned: l.returned,
                })
                .collect(),
            ..Self::bare(view.id, status_name(view.status))
        }
    }
}

impl From<&client_sdk::Reservation> for ReservationDoc {
    fn from(r: &client_sdk::Reservation) -> Self {
        Self {
            reserved_at_ms: Some(r.reserved_at.0),
            deadline_ms: Some(r.deadline.0),
            ..Self::bare(r.id, status_name(r.status))
        }
    }
}

/// A status in one word.
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Held => "held",
        Status::Confirmed => "confirmed",
        Status::Released => "released",
        Status::Expired => "expired",
    }
}

/// An offer's stock after a receive, adjust or allot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StockedDoc {
    /// The product.
    pub sku: String,
    /// The sale.
    pub sale: Option<String>,
    /// Available now.
    pub available: u64,
    /// Held now.
    pub held: u64,
    /// Sold.
    pub sold: u64,
    /// The offer's version now.
    pub version: u64,
    /// The reference had its effect before; nothing was added this time.
    pub replayed: bool,
}

impl StockedDoc {
    /// For people.
    pub fn to_text(&self) -> String {
        let again = if self.replayed { " (this reference was there already: nothing changed)" } else { "" };
        let sale = self.sale.as_ref().map_or(String::new(), |s| format!(" in sale {s}"));
        format!(
            "{}{sale}: available {}, held {}, sold {}, version {}{again}",
            self.sku, self.available, self.held, self.sold, self.version
        )
    }
}

/// Refusal reasons in one stable word, for counts.
pub fn refusal_word<T>(outcome: &Outcome<T>) -> &'static str {
    use client_sdk::Refusal as R;
    let Outcome::Refused(refused) = outcome else {
        return match outcome {
            Outcome::Ok(_) => "ok",
            Outcome::NotNow(_) => "not now",
            _ => "unknown",
        };
    };
    match refused.refusal() {
        None => "invalid input",
        Some(R::SoldOut { truth: SoldOut::Open { .. }, .. }) => "sold out: fewer left than asked for",
        Some(R::SoldOut { truth: SoldOut::FirstBackAt(_), .. }) => "sold out: all held",
        Some(R::SoldOut { truth: SoldOut::Gone, .. }) => "sold out: gone for good",
        Some(R::LimitReached { .. }) => "limit reached",
        Some(R::AboveOrderMax { .. }) => "above the order maximum",
        Some(R::BelowOrderMin { .. }) => "below the order minimum",
        Some(R::OfferClosed) => "offer closed",
        Some(R::SaleNotOpenYet { .. }) => "sale not open yet",
        Some(R::SaleOver { .. } | R::SaleHasEnded) => "sale over",
        Some(R::NotHeld { .. }) => "hold had ended",
        Some(R::HoldTooLong { .. }) => "hold too long",
        Some(R::UnknownProduct { .. } | R::UnknownOffer { .. }) => "unknown product or offer",
        Some(R::IdTaken) => "id taken",
        Some(R::Forgotten) => "id forgotten",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use client_sdk::{LedgerTime, OfferKey, Policy, Sku};

    use super::*;

    fn mug() -> ProductView {
        let offer = OfferKey { sku: Sku::new("mug").expect("sku"), sale: None };
        ProductView {
            sku: offer.sku.clone(),
            received: 10,
            adjusted: -1,
            returned: 0,
            ever_sold: 4,
            offers: vec![OfferView {
                offer,
                policy: Policy { low_stock_at: 2, ..Policy::default() },
                version: 3,
                balance: Balance { available: 0, held: 5, sold: 4 },
                sold_out: Some(SoldOut::FirstBackAt(LedgerTime(1_700_000_000_123))),
                ended: false,
                taking: true,
            }],
        }
    }

    /// Machines read these names: a change here is a change of the published output.
    #[test]
    fn the_json_of_a_product_is_stable() {
        let json = serde_json::to_string(&ProductDoc::from(&mug())).expect("json");
        assert_eq!(
            json,
            concat!(
                r#"{"sku":"mug","received":10,"adjusted":-1,"returned":0,"ever_sold":4,"offers":[{"sku":"mug","sale":null,"#,
                r#""available":0,"held":5,"sold":4,"version":3,"taking":true,"state":"open","#,
                r#""first_back_at_ms":1700000000123,"gone":false,"opens_at_ms":null,"closes_at_ms":null,"per_key_max":null,"#,
                r#""per_order_min":1,"per_order_max":1000000,"hold_ms_default":600000,"hold_ms_max":604800000,"#,
                r#""low_stock_at":2,"price":null}]}"#
            )
        );
    }

    #[test]
    fn the_table_of_offers_is_stable() {
        assert_eq!(
            offers_table(&ProductDoc::from(&mug()).offers),
            "SKU  SALE  AVAILABLE  HELD  SOLD  STATE  TAKING  VERSION  PRICE\n\
             mug  -             0     5     4  open   yes           3  -"
        );
    }

    #[test]
    fn the_json_of_a_reservation_is_stable() {
        let id = client_sdk::ReservationId::from_parts(client_sdk::Slot::new(7).expect("slot"), 1_700_000_000_000, 9);
        let json = serde_json::to_string(&ReservationDoc::of_view(id, &IdView::Fenced)).expect("json");
        assert_eq!(
            json,
            r#"{"id":"018bcfe5-6800-7007-8000-000000000009","status":"fenced","refusal":null,"reserved_at_ms":null,"deadline_ms":null,"ended_at_ms":null,"keys":[],"lines":[]}"#
        );
    }
}
