//! The rules at random: whatever is asked in whatever order, the book adds up.

use proptest::prelude::*;

use super::*;
use crate::book::Place;
use crate::book::records::{Entry, Opened};

const METHODS: &[&str] = &[
    "pm_card_visa",
    "pm_card_chargeDeclined",
    "pm_card_authenticationRequired",
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds",
    "pm_sim_processing",
];

/// One thing that may be asked of one of a few intents.
fn act(book: &Book, verb: u8, which: u32, amount: u64) -> Result<Decided, Refusal> {
    let salt = book.salt();
    let id: Box<str> = IntentId::new(salt, which).to_string().into();
    let method = METHODS.get(amount as usize % (METHODS.len() + 1)).and_then(|name| Method::named(name));
    let ending = if amount.is_multiple_of(2) { Ending::Ok } else { Ending::Fail };
    let how = Confirm { method, ..Confirm::default() };
    let amount_of = Some(Minor::new(amount)).filter(|_| !amount.is_multiple_of(3));
    let ask = match verb {
        0 => Ask::Create(Create {
            amount: Minor::new(100),
            currency: "eur".parse().expect("a currency"),
            capture: if amount.is_multiple_of(2) { CaptureMethod::Manual } else { CaptureMethod::Automatic },
            method,
            description: None,
            metadata: Metadata::default(),
            confirm: (amount.is_multiple_of(4) && method.is_some()).then(Confirm::default),
        }),
        1 | 2 => Ask::Confirm(id, how),
        3 => Ask::Capture(id, amount_of),
        4 => Ask::Cancel(id, None),
        5 | 6 => {
            let of = RefundOf::Intent(id);
            Ask::Refund(AskRefund { of, amount: amount_of, why: None, metadata: Metadata::default() })
        }
        7 => return authenticate(book, &id, ending, 1),
        _ => return settle(book, &id, ending, 1),
    };
    decide(book, &ask, 1, amount.is_multiple_of(7))
}

fn add_up(book: &Book) {
    for row in book.intents() {
        let intent = &row.intent;
        let captured: Vec<_> = book.charges_of(row).filter(|charge| charge.captured_ms.is_some()).collect();
        assert!(captured.len() <= 1, "{} took money {} times", intent.id, captured.len());
        assert_eq!(!captured.is_empty(), intent.status == Status::Succeeded, "{intent:?}");
        let taken = captured.first().map_or(Minor::ZERO, |charge| charge.captured);
        assert_eq!(taken, intent.received, "{intent:?}");
        assert_eq!(intent.capturable > Minor::ZERO, intent.status == Status::RequiresCapture, "{intent:?}");
        assert_eq!(intent.canceled_ms.is_some(), intent.status == Status::Canceled, "{intent:?}");
        let back = book.refunds_of(row).fold(Minor::ZERO, |sum, refund| sum.plus(refund.amount));
        let refunded = captured.first().map_or(Minor::ZERO, |charge| charge.refunded);
        assert_eq!(back, refunded, "{intent:?}");
        assert!(refunded <= taken, "{intent:?}: {refunded} of {taken} given back");
        for charge in book.charges_of(row) {
            let ends = [charge.failure.is_some(), charge.voided_ms.is_some(), charge.captured_ms.is_some()];
            assert!(ends.iter().filter(|end| **end).count() <= 1, "{charge:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_the_book_adds_up(acts in prop::collection::vec((0..9_u8, 0..4_u32, 1..150_u64), 1..80)) {
        let mut book = Book::default();
        let opened = Some(Opened { version: 1, salt: 3 });
        book.apply(Entry { opened, ..Entry::default() }, Place::default());
        for (verb, which, amount) in acts {
            let Ok(decided) = act(&book, verb, which, amount) else { continue };
            let Decided { intent, charge, refund, .. } = decided;
            let entry = Entry { intent, charge, refund, ..Entry::default() };
            prop_assert_eq!(book.check(&entry), Ok(()));
            book.apply(entry, Place::default());
            add_up(&book);
        }
    }
}
