//! What callers may pass for a name: text, or the checked type.
//!
//! **Owns** [`Given`] and [`Mint`]. **Must never** panic on a caller's text: a bad one becomes `Refused(Invalid)`.

use std::time::{SystemTime, UNIX_EPOCH};

use ledger_core::order::WorkerId;
use ledger_core::{InvalidValue, LimitKey, Price, Reason, Reference, ReservationId, SaleId, Sku, Slot};

/// A caller's value for a name: `&str`, `String`, or the checked type itself.
pub trait Given<T> {
    /// The checked value.
    ///
    /// # Errors
    /// [`InvalidValue`] when the text breaks a rule of that name.
    fn given(self) -> Result<T, InvalidValue>;
}

macro_rules! given {
    ($($name:ident),*) => {$(
        impl Given<$name> for $name {
            fn given(self) -> Result<$name, InvalidValue> {
                Ok(self)
            }
        }
        impl Given<$name> for &$name {
            fn given(self) -> Result<$name, InvalidValue> {
                Ok(self.clone())
            }
        }
        impl Given<$name> for &str {
            fn given(self) -> Result<$name, InvalidValue> {
                $name::new(self)
            }
        }
        impl Given<$name> for String {
            fn given(self) -> Result<$name, InvalidValue> {
                $name::new(self)
            }
        }
        impl Given<$name> for &String {
            fn given(self) -> Result<$name, InvalidValue> {
                $name::new(self)
            }
        }
    )*};
}
given!(Sku, SaleId, LimitKey, Reference, Reason, Price, WorkerId);

/// Makes reservation ids without a client, from the system's clock.
///
/// Prefer [`crate::Client::mint_for`], which mints from the ledger time it has seen, so that a wrong clock does no harm.
///
/// ```
/// use client_sdk::{Mint, ReservationId, Sku};
///
/// let sku = Sku::new("shoe-42")?;
/// let id = ReservationId::mint_for(&sku);
/// assert_eq!(id.slot(), client_sdk::Slot::of(&sku));
/// # Ok::<(), client_sdk::InvalidValue>(())
/// ```
pub trait Mint {
    /// A new id that routes to the product's slot. Store it before asking.
    fn mint_for(sku: &Sku) -> Self;
}

impl Mint for ReservationId {
    fn mint_for(sku: &Sku) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_parts(Slot::of(sku), now.as_millis() as u64, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_ids_route_and_differ() {
        let sku = Sku::new("a{tag}b").unwrap();
        let (one, other) = (ReservationId::mint_for(&sku), ReservationId::mint_for(&sku));
        assert_eq!(one.slot(), Slot::of(&Sku::new("tag").unwrap()));
        assert_ne!(one, other);
        assert!(one.time_ms() > 1_600_000_000_000);
    }
}
