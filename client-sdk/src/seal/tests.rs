//! Boxes, keys and contexts: what opens with what, golden bytes, and bounds.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;

fn id(n: u64) -> ReservationId {
    ReservationId::from_parts(ledger_core::Slot::new(7).expect("a slot"), 1_000, n)
}
fn key(seed: u64) -> OpeningKey {
    OpeningKey::from_chance(&mut StdRng::seed_from_u64(seed))
}
fn token() -> PaymentToken {
    PaymentToken::new("pm_card_visa")
}

#[test]
fn what_is_sealed_to_a_key_opens_with_it_alone() {
    let keys: OpeningKeys = [key(1), key(2)].into_iter().collect();
    let sealed = key(2).sealing_key().payment(id(1), &token()).expect("short");
    assert_eq!(keys.payment(id(1), &sealed), Ok(token()));
    let rotated: OpeningKeys = [key(1)].into_iter().collect();
    assert_eq!(rotated.payment(id(1), &sealed), Err(SealError::NoSuchKey(key(2).sealing_key().id())));
}

#[test]
fn a_token_of_one_order_is_of_no_use_under_another_or_as_a_contact() {
    let keys: OpeningKeys = [key(1)].into_iter().collect();
    let sealed = key(1).sealing_key().payment(id(1), &token()).expect("short");
    assert_eq!(keys.payment(id(2), &sealed), Err(SealError::NotAuthentic));
    assert_eq!(keys.contact(id(1), &sealed), Err(SealError::NotAuthentic));
}

#[test]
fn every_damaged_byte_and_every_cut_is_refused() {
    let keys: OpeningKeys = [key(1)].into_iter().collect();
    let sealed = key(1).sealing_key().payment(id(1), &token()).expect("short");
    let whole = sealed.as_bytes();
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        let damaged = Sealed::new(Bytes::from(bytes)).expect("same length");
        assert!(keys.payment(id(1), &damaged).is_err(), "byte {at}");
        let cut = Sealed::new(&whole[..at]).expect("shorter");
        assert!(keys.payment(id(1), &cut).is_err(), "cut at {at}");
    }
}

#[test]
fn keys_go_through_text_and_their_form_is_frozen() {
    let key = key(1);
    let again: OpeningKey = key.secret_text().parse().expect("its own text");
    assert_eq!(again.sealing_key(), key.sealing_key());
    let public: SealingKey = key.sealing_key().to_string().parse().expect("its own text");
    assert_eq!(public.id(), key.sealing_key().id());
    let file = format!("# of 2026\n\n{}\n", key.secret_text());
    assert_eq!(OpeningKeys::from_text(&file).expect("a key file").sealing_keys().count(), 1);
    assert_eq!("x".parse::<SealingKey>(), Err(SealError::NotAKey { want: PUBLIC_PREFIX }));
    assert!(!format!("{key:?}").contains(&hex::encode(key.private.to_bytes())));
}

#[test]
fn a_blob_of_version_one_opens_for_ever() {
    // Made by another implementation of RFC 9180, for the private key of 32 bytes of 7; ledgers and backups hold such bytes.
    let blob = hex::decode(GOLDEN).expect("hexadecimal digits");
    let sealed = Sealed::new(Bytes::from(blob)).expect("short");
    let key: OpeningKey = format!("{PRIVATE_PREFIX}{}", "07".repeat(32)).parse().expect("a key");
    let keys: OpeningKeys = [key].into_iter().collect();
    assert_eq!(keys.payment(id(1), &sealed), Ok(token()));
}
const GOLDEN: &str = "\
    010f6d255357db4b359f23ae5e146e4e2512056704722506348c150c14753d0c933d04d42130b758590aefd6f0d2c17ea4c1\
    79b43961fbd8663d2200c735e2cbf10c8930c9dd2f4a43df867553438fac4e56942c5d20";

#[test]
fn a_blob_of_version_two_opens_for_ever() {
    // Made from X25519, HMAC and ChaCha20-Poly1305 of another library, by the words of RFC 9180.
    let sealed = Sealed::new(Bytes::from(hex::decode(GOLDEN_TWO).expect("hexadecimal digits"))).expect("short");
    let key: OpeningKey = format!("{PRIVATE_PREFIX}{}", "07".repeat(32)).parse().expect("a key");
    let keys: OpeningKeys = [key].into_iter().collect();
    assert_eq!(keys.payment(id(1), &sealed), Ok(token()));
}
const GOLDEN_TWO: &str = "\
    020f6d255357db4b359f23ae5e146e4e2512056704722506348c150c14753d0c933d04d421000102030405060708090a0bc2\
    f96f67cc251203353b288a41e0f76bdba237b279eec01f31196be454cb961c3b8c7ab592b2db424a49ce3b48f23d8f74";

fn encapsulated(sealed: &Sealed) -> Vec<u8> {
    sealed.as_bytes()[1 + KEY_ID_BYTES..][..ENCAPSULATED_BYTES].to_vec()
}

#[test]
fn boxes_share_a_context_for_a_turn_and_never_their_bytes() {
    let opening = key(1);
    let sealing = opening.sealing_key().clone();
    let keys: OpeningKeys = [opening].into_iter().collect();
    let first = sealing.payment(id(1), &token()).expect("short");
    let again = sealing.clone().payment(id(1), &token()).expect("short");
    assert_ne!(first, again, "the same content must not be the same bytes");
    assert_eq!(encapsulated(&first), encapsulated(&again), "a clone shares the context");
    for _ in 2..TURN_BOXES {
        let more = sealing.payment(id(2), &token()).expect("short");
        assert_eq!(encapsulated(&more), encapsulated(&first));
    }
    let next = sealing.payment(id(3), &token()).expect("short");
    assert_ne!(encapsulated(&next), encapsulated(&first), "its turn was over");
    for (n, sealed) in [(1, &first), (1, &again), (3, &next)] {
        assert_eq!(keys.payment(id(n), sealed), Ok(token()));
        assert_eq!(keys.payment(id(n), sealed), Ok(token()), "and once more, from what is remembered");
    }
    assert_eq!(keys.seen().new.len(), 2);
    sealing.turn.lock().expect("no panic").as_mut().expect("a turn").began -= TURN_TIME + Duration::from_millis(1);
    let late = sealing.payment(id(4), &token()).expect("short");
    assert_ne!(encapsulated(&late), encapsulated(&next), "its time was over");
}

#[test]
fn contexts_remembered_are_bounded_and_what_does_not_open_is_not_remembered() {
    let keys: OpeningKeys = [key(1)].into_iter().collect();
    let sealed: Vec<Sealed> =
        (0..3 * CONTEXTS_KEPT as u64).map(|_| key(1).sealing_key().payment(id(1), &token()).expect("short")).collect();
    for sealed in &sealed {
        assert_eq!(keys.payment(id(2), sealed), Err(SealError::NotAuthentic));
    }
    assert_eq!(format!("{:?}", keys.seen()), "0 contexts");
    for one in &sealed {
        assert_eq!(keys.payment(id(1), one), Ok(token()));
        // The one in use all the while is never forgotten.
        assert_eq!(keys.payment(id(1), &sealed[0]), Ok(token()));
        let mut seen = keys.seen();
        assert!(seen.new.len() <= CONTEXTS_KEPT && seen.old.len() <= CONTEXTS_KEPT);
        let first = (key(1).sealing_key().id(), encapsulated(&sealed[0]).try_into().expect("32 bytes"));
        assert!(seen.get(&first).is_some());
    }
    assert_eq!(keys.payment(id(1), &sealed[1]), Ok(token()), "forgotten, and made again");
}

#[test]
fn the_longest_content_fits_and_one_more_byte_does_not() {
    let seal = |len: usize| {
        key(1).sealing_key().seal(id(1), Purpose::Contact, &vec![b'x'; len], &mut StdRng::seed_from_u64(1))
    };
    assert_eq!(seal(SEALABLE_BYTES_MAX).expect("fits").as_bytes().len(), limits::SEALED_BYTES_MAX);
    assert_eq!(
        seal(SEALABLE_BYTES_MAX + 1),
        Err(SealError::TooLong { got: SEALABLE_BYTES_MAX + 1, max: SEALABLE_BYTES_MAX })
    );
}

fn keys(key: OpeningKey) -> OpeningKeys {
    OpeningKeys::from(key)
}

#[test]
fn a_client_secret_opens_with_its_reply_key_for_its_order() {
    let sealed = key(1).sealing_key().client_secret(id(1), "pi_1_secret_x").expect("short");
    assert!(sealed.is_sealed() && !format!("{sealed:?}").contains("pi_1"));
    assert_eq!(keys(key(1)).client_secret(id(1), &sealed), Ok("pi_1_secret_x".to_owned()));
    assert_eq!(keys(key(1)).client_secret(id(2), &sealed), Err(SealError::NotAuthentic), "of another order");
    let other = SealError::NoSuchKey(key(1).sealing_key().id());
    assert_eq!(keys(key(2)).client_secret(id(1), &sealed), Err(other));
    assert_eq!(keys(key(1)).client_secret(id(1), &"pi_1_secret_x".into()), Err(SealError::Empty), "in clear");
}

#[test]
fn a_client_secret_and_a_payment_token_are_not_taken_for_each_other() {
    let payment = key(1).sealing_key().payment(id(1), &token()).expect("short");
    let text = ClientSecret::SEALED.to_owned() + &BASE64_URL_SAFE_NO_PAD.encode(payment.as_bytes());
    assert_eq!(keys(key(1)).client_secret(id(1), &text.into()), Err(SealError::NotAuthentic));
    let secret = key(1).sealing_key().client_secret(id(1), "x").expect("short");
    let digits = secret.as_str().strip_prefix(ClientSecret::SEALED).expect("the form");
    let blob = Sealed::new(BASE64_URL_SAFE_NO_PAD.decode(digits).expect("base64")).expect("short");
    assert_eq!(keys(key(1)).payment(id(1), &blob), Err(SealError::NotAuthentic));
    let mut single = blob.as_bytes().to_vec();
    single[0] = VERSION_SINGLE;
    let text = ClientSecret::SEALED.to_owned() + &BASE64_URL_SAFE_NO_PAD.encode(&single);
    assert_eq!(keys(key(1)).client_secret(id(1), &text.into()), Err(SealError::NotAuthentic));
}

#[test]
fn the_longest_client_secret_fits_the_log_and_one_more_byte_does_not() {
    let sealing = key(1).sealing_key().clone();
    let longest = sealing.client_secret(id(1), &"s".repeat(CLIENT_SECRET_BYTES_MAX)).expect("fits");
    assert!(longest.as_str().len() <= limits::SECRET_BYTES_MAX);
    let got = CLIENT_SECRET_BYTES_MAX + 1;
    let too_long = SealError::TooLong { got, max: CLIENT_SECRET_BYTES_MAX };
    assert_eq!(sealing.client_secret(id(1), &"s".repeat(got)), Err(too_long));
}

#[test]
fn a_token_carries_its_reply_key_and_one_that_is_none_costs_no_payment() {
    let reply = key(2).sealing_key().clone();
    let sealed = key(1).sealing_key().payment(id(1), &token().reply_to(&reply)).expect("short");
    assert_eq!(keys(key(1)).payment(id(1), &sealed).expect("opens").reply_to, Some(reply));
    for (json, want) in [
        (r#"{"payment_method":"pm_card_visa"}"#, "a token of an earlier SDK"),
        (r#"{"payment_method":"pm_card_visa","reply_to":"x"}"#, "not a key"),
        (r#"{"payment_method":"pm_card_visa","reply_to":null}"#, "none"),
        (r#"{"payment_method":"pm_card_visa","later":1}"#, "a token of a later SDK"),
    ] {
        assert_eq!(serde_json::from_str::<PaymentToken>(json).expect(want), token(), "{want}");
    }
    assert_eq!(serde_json::to_string(&token()).expect("JSON"), r#"{"payment_method":"pm_card_visa"}"#);
}

#[test]
fn a_sealed_client_secret_opens_for_ever() {
    // Made like the blob of version two.
    let keys: OpeningKeys = keys(format!("{PRIVATE_PREFIX}{}", "07".repeat(32)).parse().expect("a key"));
    let sealed = ClientSecret::from(GOLDEN_SECRET);
    assert!(sealed.is_sealed());
    assert_eq!(keys.client_secret(id(1), &sealed), Ok("pi_1_secret_x".to_owned()));
}
const GOLDEN_SECRET: &str = "holdfast-secret-1:Ag9tJVNX20s1nyOuXhRuTiUSBWcEciUGNIwVDBR1PQyTPQTUIQABAgMEBQYHCAkKC6taKs5591LFrQD1BifEOjM0-4KJ8-zRCcz6t1jF";
