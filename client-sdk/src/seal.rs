//! Sealed boxes: what only order workers can open.
//!
//! **What it is.** HPKE (RFC 9180) in its base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only (AEAD 0xffff), and with the
//! keys it exports ChaCha20-Poly1305. A blob is
//! `version, 2 (1 byte) · key id (4) · encapsulated key (32) · nonce (12) · ciphertext · tag (16)`. The HPKE context's info is
//! `holdfast order box 2`; the 32 exported bytes with the context `payment` are the key of payment tokens, those with `contact` of contacts;
//! what is authenticated beside the content is the reservation's id. So nobody who reads a ledger can put the token of one order
//! under another, or a contact for a token. Version 1 sealed every box in an HPKE context of its own; it is opened for ever.
//!
//! **Why one context for many boxes.** Two multiplications on the curve a box were a quarter of all the CPU an order cost, from the buyer to
//! the notification. A [`SealingKey`] now makes a context for [`TURN_BOXES`] boxes or [`TURN_TIME`], whichever is over first, and a worker
//! remembers the contexts it has seen. What that gives away: which boxes came from one process in one minute. (RFC 9180, section
//! 9.8, is where exported keys beside HPKE's own messages come from.)
//!
//! **Owns** the form of keys and blobs, and the two contents. **Must never** seal the same content to the same bytes twice: whoever
//! guesses an address could prove the guess. So seal once, store the blob beside the id, and place with the stored one: a
//! second sealing is other content. **Read next**: [`SealingKey`], [`OpeningKeys`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, Nonce};
use hpke::aead::{ChaCha20Poly1305, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use ledger_core::order::Sealed;
use ledger_core::{ReservationId, limits};
use rand::CryptoRng;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

type Kem = X25519HkdfSha256;

/// The version of blobs that is made.
const VERSION: u8 = 2;
/// A context for every box.
const VERSION_SINGLE: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const ENCAPSULATED_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What sealing adds to a content.
const OVERHEAD_BYTES: usize = 1 + KEY_ID_BYTES + ENCAPSULATED_BYTES + NONCE_BYTES + TAG_BYTES;
/// Boxes that one context seals at most. Far below what random nonces of 96 bits bear.
const TURN_BOXES: u32 = 4_096;
/// A context seals nothing after it.
const TURN_TIME: Duration = Duration::from_secs(60);
/// Contexts a worker remembers, at least; twice as many at most.
const CONTEXTS_KEPT: usize = 1_024;
const CONTEXT_INFO: &[u8] = b"holdfast order box 2";
/// Longest content that can be sealed.
pub const SEALABLE_BYTES_MAX: usize = limits::SEALED_BYTES_MAX - OVERHEAD_BYTES;

const PUBLIC_PREFIX: &str = "holdfast-seal-1:";
const PRIVATE_PREFIX: &str = "holdfast-open-1:";

/// For the payment provider: what stands for the buyer's means of payment. Never card data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentToken {
    /// The provider's token of a payment method, as `pm_…`.
    pub payment_method: String,
}

/// Whom to tell, and how.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contact {
    /// Mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Language of the text, as `en` or `de-AT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// How to address the buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A webhook of the shop that wants to hear of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

impl fmt::Debug for PaymentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentToken(…)")
    }
}
impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contact(…)")
    }
}

/// Names a key: the first bytes of the SHA-256 of its public half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl KeyId {
    fn of(public: &<Kem as hpke::Kem>::PublicKey) -> Self {
        let digest = Sha256::digest(public.to_bytes());
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The content is too long.
    #[error("the content has {got} bytes, at most {SEALABLE_BYTES_MAX} can be sealed")]
    TooLong {
        /// Bytes given.
        got: usize,
    },
    /// A key's text is not one.
    #[error("not a key: {want} is followed by 64 hexadecimal digits")]
    NotAKey {
        /// What it begins with.
        want: &'static str,
    },
    /// No private key of this id is here: it was never given, or was destroyed to forget what it sealed.
    #[error("sealed to key {0}, which is not here; what a destroyed key sealed is forgotten")]
    NoSuchKey(KeyId),
    /// There is nothing in it.
    #[error("nothing was sealed")]
    Empty,
    /// A newer build made it.
    #[error("sealed in version {0}, which this build does not know")]
    UnknownVersion(u8),
    /// Not what was sealed for this order and purpose.
    #[error("the sealed content is damaged, or belongs to another order")]
    NotAuthentic,
    /// It opens, and is not what it should be.
    #[error("the sealed content is not a {what}")]
    NotUnderstood {
        /// What was expected.
        what: &'static str,
    },
}

/// What a content is for; authenticated, so that one cannot be taken for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Payment,
    Contact,
}

impl Purpose {
    /// HPKE's info, of boxes with a context of their own.
    fn info(self) -> &'static [u8] {
        match self {
            Self::Payment => b"holdfast order payment 1",
            Self::Contact => b"holdfast order contact 1",
        }
    }
}

/// The keys that a context exports, one a purpose.
#[derive(Clone)]
struct Context {
    payment: chacha20poly1305::ChaCha20Poly1305,
    contact: chacha20poly1305::ChaCha20Poly1305,
}

impl Context {
    fn of(export: impl Fn(&[u8], &mut [u8]) -> Result<(), hpke::HpkeError>) -> Result<Self, hpke::HpkeError> {
        let cipher = |what: &[u8]| {
            let mut key = [0; 32];
            export(what, &mut key)?;
            Ok(chacha20poly1305::ChaCha20Poly1305::new(&key.into()))
        };
        Ok(Self { payment: cipher(b"payment")?, contact: cipher(b"contact")? })
    }
    fn cipher(&self, purpose: Purpose) -> &chacha20poly1305::ChaCha20Poly1305 {
        match purpose {
            Purpose::Payment => &self.payment,
            Purpose::Contact => &self.contact,
        }
    }
}

/// A context while it seals.
struct Turn {
    encapsulated: [u8; ENCAPSULATED_BYTES],
    context: Context,
    left: u32,
    began: Instant,
}

fn key_bytes(text: &str, prefix: &'static str) -> Result<[u8; 32], SealError> {
    let wrong = SealError::NotAKey { want: prefix };
    let digits = text.trim().strip_prefix(prefix).ok_or(wrong.clone())?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong)?;
    Ok(bytes)
}

/// The workers' public key: whoever has it can seal, nobody can open with it. A clone shares its context: clone it rather than parse it again.
#[derive(Clone)]
pub struct SealingKey {
    id: KeyId,
    public: <Kem as hpke::Kem>::PublicKey,
    turn: Arc<Mutex<Option<Turn>>>,
}

impl PartialEq for SealingKey {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}
impl Eq for SealingKey {}

impl SealingKey {
    fn of(public: <Kem as hpke::Kem>::PublicKey) -> Self {
        Self { id: KeyId::of(&public), public, turn: Arc::default() }
    }
    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }
    /// Seals a payment token for the order `of`.
    ///
    /// # Errors
    /// [`SealError::TooLong`].
    pub fn payment(&self, of: ReservationId, token: &PaymentToken) -> Result<Sealed, SealError> {
        self.seal(of, Purpose::Payment, &json(token), &mut rand::rng())
    }
    /// Seals a contact for the order `of`.
    ///
    /// # Errors
    /// [`SealError::TooLong`].
    pub fn contact(&self, of: ReservationId, contact: &Contact) -> Result<Sealed, SealError> {
        self.seal(of, Purpose::Contact, &json(contact), &mut rand::rng())
    }

    fn seal(
        &self,
        of: ReservationId,
        purpose: Purpose,
        content: &[u8],
        chance: &mut impl CryptoRng,
    ) -> Result<Sealed, SealError> {
        let too_long = SealError::TooLong { got: content.len() };
        if content.len() > SEALABLE_BYTES_MAX {
            return Err(too_long);
        }
        let (encapsulated, cipher) = self.take_turn(purpose, chance)?;
        let mut nonce = [0; NONCE_BYTES];
        chance.fill_bytes(&mut nonce);
        let ciphertext = cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: content, aad: of.as_bytes() })
            .expect("far below the 256 GiB of one message");
        let mut blob = Vec::with_capacity(OVERHEAD_BYTES + content.len());
        blob.push(VERSION);
        blob.extend_from_slice(&self.id.0);
        blob.extend_from_slice(&encapsulated);
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&ciphertext);
        Sealed::new(Bytes::from(blob)).map_err(|_| too_long)
    }

    /// What seals one box more: the present context, or a new one if that has had its turn.
    fn take_turn(
        &self,
        purpose: Purpose,
        chance: &mut impl CryptoRng,
    ) -> Result<([u8; ENCAPSULATED_BYTES], chacha20poly1305::ChaCha20Poly1305), SealError> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.as_ref().is_none_or(|turn| turn.left == 0 || turn.began.elapsed() > TURN_TIME) {
            *turn = Some(self.new_turn(chance).map_err(|_| SealError::NotAKey { want: PUBLIC_PREFIX })?);
        }
        let turn = turn.as_mut().expect("there is one now");
        turn.left -= 1;
        Ok((turn.encapsulated, turn.context.cipher(purpose).clone()))
    }

    fn new_turn(&self, chance: &mut impl CryptoRng) -> Result<Turn, hpke::HpkeError> {
        let (encapsulated, sender) = hpke::setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, Kem>(
            &OpModeS::Base,
            &self.public,
            CONTEXT_INFO,
            chance,
        )?;
        let context = Context::of(|what, key| sender.export(what, key))?;
        Ok(Turn { encapsulated: encapsulated.to_bytes().into(), context, left: TURN_BOXES, began: Instant::now() })
    }
}

impl FromStr for SealingKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&key_bytes(text, PUBLIC_PREFIX)?)
            .map_err(|_| SealError::NotAKey { want: PUBLIC_PREFIX })?;
        Ok(Self::of(public))
    }
}

impl fmt::Display for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", hex::encode(self.public.to_bytes()))
    }
}
impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

/// One private key.
#[derive(Clone)]
pub struct OpeningKey {
    sealing: SealingKey,
    private: <Kem as hpke::Kem>::PrivateKey,
}

impl OpeningKey {
    /// A new one, from the system's randomness.
    pub fn generate() -> Self {
        Self::from_chance(&mut rand::rng())
    }
    fn from_chance(chance: &mut impl CryptoRng) -> Self {
        let (private, public) = Kem::gen_keypair_with_rng(chance);
        Self { sealing: SealingKey::of(public), private }
    }
    /// Its public half.
    pub fn sealing_key(&self) -> &SealingKey {
        &self.sealing
    }
    /// The line that a key file holds. A secret: `Debug` and `Display` do not tell it.
    pub fn secret_text(&self) -> String {
        format!("{PRIVATE_PREFIX}{}", hex::encode(self.private.to_bytes()))
    }

    /// The context that a sender made for this key.
    fn context(&self, encapsulated: &[u8]) -> Result<Context, hpke::HpkeError> {
        let receiver = hpke::setup_receiver::<ExportOnlyAead, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.private,
            &<Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)?,
            CONTEXT_INFO,
        )?;
        Context::of(|what, key| receiver.export(what, key))
    }

    /// Opens a box of version 1.
    fn open_single(
        &self,
        of: ReservationId,
        purpose: Purpose,
        encapsulated: &[u8],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, hpke::HpkeError> {
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.private,
            &<Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)?,
            purpose.info(),
            ciphertext,
            of.as_bytes(),
        )
    }
}

impl FromStr for OpeningKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(&key_bytes(text, PRIVATE_PREFIX)?)
            .map_err(|_| SealError::NotAKey { want: PRIVATE_PREFIX })?;
        let public = Kem::sk_to_pk(&private);
        Ok(Self { sealing: SealingKey::of(public), private })
    }
}
impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKey({})", self.sealing.id)
    }
}

/// The private keys of the workers, by id. Rotate by adding the new one everywhere, then sealing to it, then destroying the old one.
#[derive(Debug, Clone, Default)]
pub struct OpeningKeys {
    keys: BTreeMap<KeyId, OpeningKey>,
    seen: Arc<Mutex<Seen>>,
}

/// The contexts seen last. When as many as are kept are new, the older ones are forgotten: what is in use comes back at the cost of
/// one multiplication.
#[derive(Default)]
struct Seen {
    new: HashMap<(KeyId, [u8; ENCAPSULATED_BYTES]), Context>,
    old: HashMap<(KeyId, [u8; ENCAPSULATED_BYTES]), Context>,
}

impl Seen {
    fn get(&mut self, of: &(KeyId, [u8; ENCAPSULATED_BYTES])) -> Option<Context> {
        if let Some(context) = self.new.get(of) {
            return Some(context.clone());
        }
        let context = self.old.remove(of)?;
        self.put(*of, context.clone());
        Some(context)
    }
    fn put(&mut self, of: (KeyId, [u8; ENCAPSULATED_BYTES]), context: Context) {
        if self.new.len() >= CONTEXTS_KEPT {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(of, context);
    }
}
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} contexts", self.new.len() + self.old.len())
    }
}

impl OpeningKeys {
    /// Those of a key file: one a line; empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// [`SealError::NotAKey`] for the first line that is none.
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.parse::<OpeningKey>()).collect()
    }
    /// Their public halves, in the order of their ids.
    pub fn sealing_keys(&self) -> impl Iterator<Item = &SealingKey> {
        self.keys.values().map(OpeningKey::sealing_key)
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
    /// Opens the payment token of the order `of`.
    ///
    /// # Errors
    /// [`SealError`]; none goes away by trying again with the same keys.
    pub fn payment(&self, of: ReservationId, sealed: &Sealed) -> Result<PaymentToken, SealError> {
        parsed(&self.open(of, Purpose::Payment, sealed)?, "payment token")
    }
    /// Opens the contact of the order `of`.
    ///
    /// # Errors
    /// [`SealError`]; none goes away by trying again with the same keys.
    pub fn contact(&self, of: ReservationId, sealed: &Sealed) -> Result<Contact, SealError> {
        parsed(&self.open(of, Purpose::Contact, sealed)?, "contact")
    }

    fn open(&self, of: ReservationId, purpose: Purpose, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        let blob = sealed.as_bytes();
        let (&version, rest) = blob.split_first().ok_or(SealError::Empty)?;
        if version != VERSION && version != VERSION_SINGLE {
            return Err(SealError::UnknownVersion(version));
        }
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::NotAuthentic)?;
        let (encapsulated, rest) = rest.split_first_chunk::<ENCAPSULATED_BYTES>().ok_or(SealError::NotAuthentic)?;
        let key = self.keys.get(&KeyId(*id)).ok_or(SealError::NoSuchKey(KeyId(*id)))?;
        if version == VERSION_SINGLE {
            return key.open_single(of, purpose, encapsulated, rest).map_err(|_| SealError::NotAuthentic);
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::NotAuthentic)?;
        let name = (KeyId(*id), *encapsulated);
        let seen = self.seen().get(&name);
        let (context, is_new) = match seen {
            Some(context) => (context, false),
            None => (key.context(encapsulated).map_err(|_| SealError::NotAuthentic)?, true),
        };
        let content = context
            .cipher(purpose)
            .decrypt(&Nonce::from(*nonce), Payload { msg: ciphertext, aad: of.as_bytes() })
            .map_err(|_| SealError::NotAuthentic)?;
        // Only after it opened: what anybody makes up is not remembered.
        if is_new {
            self.seen().put(name, context);
        }
        Ok(content)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<OpeningKey> for OpeningKeys {
    fn from_iter<I: IntoIterator<Item = OpeningKey>>(keys: I) -> Self {
        Self { keys: keys.into_iter().map(|key| (key.sealing.id, key)).collect(), seen: Arc::default() }
    }
}

fn json(content: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(content).expect("structs of strings always have a JSON form")
}

fn parsed<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, SealError> {
    // The parser's own words could quote what was sealed.
    serde_json::from_slice(bytes).map_err(|_| SealError::NotUnderstood { what })
}

#[cfg(test)]
mod tests {
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
        PaymentToken { payment_method: "pm_card_visa".into() }
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
    fn every_damaged_byte_and_every_cut_is_told() {
        let keys: OpeningKeys = [key(1)].into_iter().collect();
        let sealed = key(1).sealing_key().payment(id(1), &token()).expect("short");
        let whole = sealed.as_bytes();
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1;
            let damaged = Sealed::new(Bytes::from(bytes)).expect("same length");
            assert!(keys.payment(id(1), &damaged).is_err(), "byte {at}");
            let cut = Sealed::new(whole.slice(..at)).expect("shorter");
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
        let sealed: Vec<Sealed> = (0..3 * CONTEXTS_KEPT as u64)
            .map(|_| key(1).sealing_key().payment(id(1), &token()).expect("short"))
            .collect();
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
        assert_eq!(seal(SEALABLE_BYTES_MAX + 1), Err(SealError::TooLong { got: SEALABLE_BYTES_MAX + 1 }));
    }
}
