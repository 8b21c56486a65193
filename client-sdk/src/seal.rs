//! Sealed boxes: what only order workers can open, and what only the caller that placed an order can.
//!
//! **What it is.** HPKE (RFC 9180) in its base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export only (AEAD 0xffff), and with the
//! keys it exports ChaCha20-Poly1305. A blob is
//! `version, 2 (1 byte) · key id (4) · encapsulated key (32) · nonce (12) · ciphertext · tag (16)`. The HPKE context's info is
//! `holdfast order box 2`; the 32 exported bytes with the context `payment` are the key of payment tokens, those with `contact` of contacts,
//! those with `client secret` of the provider's client secret; what is authenticated beside the content is the reservation's id. So nobody who reads a ledger can put the token of one order
//! under another, or a contact for a token. Version 1 sealed every box in an HPKE context of its own; it is opened for ever.
//!
//! **Why one context for many boxes.** Two multiplications on the curve a box were a quarter of all the CPU an order cost, from the buyer to
//! the notification. A [`SealingKey`] now makes a context for [`TURN_BOXES`] boxes or [`TURN_TIME`], whichever is over first, and a worker
//! remembers the contexts it has seen. What that gives away: which boxes came from one process in one minute. (RFC 9180, section
//! 9.8, is where exported keys beside HPKE's own messages come from.)
//!
//! **The way back.** A payment token may carry a reply key ([`PaymentToken::reply_to`]), which only workers see and nobody on the way
//! can exchange. To it a worker seals what the buyer's client needs to act at the provider; in the log that is text,
//! [`ClientSecret::SEALED`] and the blob in base64.
//!
//! **Owns** the form of keys and blobs, and the three contents. **Must never** seal the same content to the same bytes twice:
//! a guessed address could be proven. So seal once, store the blob beside the id, and place with the stored one: a
//! second sealing is other content. **Read next**: [`SealingKey`], [`OpeningKeys`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, Nonce};
use hpke::aead::{ChaCha20Poly1305, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use ledger_core::order::{ClientSecret, Sealed};
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

/// Longest client secret that the log takes once it is sealed.
pub const CLIENT_SECRET_BYTES_MAX: usize =
    (limits::SECRET_BYTES_MAX - ClientSecret::SEALED.len()) * 3 / 4 - OVERHEAD_BYTES;

const PUBLIC_PREFIX: &str = "holdfast-seal-1:";
const PRIVATE_PREFIX: &str = "holdfast-open-1:";

/// For the payment provider: what stands for the buyer's means of payment. Never card data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentToken {
    /// The provider's token of a payment method, as `pm_…`.
    pub payment_method: String,
    /// Whom the provider's client secret is sealed to, should the buyer have to act (3-D Secure and the like). Without it no
    /// secret is stored.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "key_text",
        deserialize_with = "key_if_it_is_one"
    )]
    pub reply_to: Option<SealingKey>,
}

impl PaymentToken {
    /// A token without a reply key.
    pub fn new(payment_method: impl Into<String>) -> Self {
        Self { payment_method: payment_method.into(), reply_to: None }
    }
    /// With a reply key: the public half of a key whose private half stays with the caller ([`OpeningKey::generate`], stored with
    /// [`OpeningKey::secret_text`]; one for each order, or one for all of a shop's).
    #[must_use]
    pub fn reply_to(mut self, key: &SealingKey) -> Self {
        self.reply_to = Some(key.clone());
        self
    }
}

fn key_text<S: serde::Serializer>(key: &Option<SealingKey>, to: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(ToString::to_string).serialize(to)
}

/// A text that is no key counts as none: the order is paid all the same.
fn key_if_it_is_one<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SealingKey>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.and_then(|text| text.parse().ok()))
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
    #[error("the content has {got} bytes, at most {max} can be sealed")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
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
    ClientSecret,
}

impl Purpose {
    /// HPKE's info, of boxes with a context of their own; none of what was never sealed in one.
    fn info(self) -> Option<&'static [u8]> {
        match self {
            Self::Payment => Some(b"holdfast order payment 1"),
            Self::Contact => Some(b"holdfast order contact 1"),
            Self::ClientSecret => None,
        }
    }
}

/// The keys that a context exports, one a purpose.
#[derive(Clone)]
struct Context {
    payment: chacha20poly1305::ChaCha20Poly1305,
    contact: chacha20poly1305::ChaCha20Poly1305,
    client_secret: chacha20poly1305::ChaCha20Poly1305,
}

impl Context {
    fn of(export: impl Fn(&[u8], &mut [u8]) -> Result<(), hpke::HpkeError>) -> Result<Self, hpke::HpkeError> {
        let cipher = |what: &[u8]| {
            let mut key = [0; 32];
            export(what, &mut key)?;
            Ok(chacha20poly1305::ChaCha20Poly1305::new(&key.into()))
        };
        Ok(Self {
            payment: cipher(b"payment")?,
            contact: cipher(b"contact")?,
            client_secret: cipher(b"client secret")?,
        })
    }
    fn cipher(&self, purpose: Purpose) -> &chacha20poly1305::ChaCha20Poly1305 {
        match purpose {
            Purpose::Payment => &self.payment,
            Purpose::Contact => &self.contact,
            Purpose::ClientSecret => &self.client_secret,
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

/// A public key, the workers' or a reply key: everybody who has it can seal, nobody can open with it. A clone shares its context: clone it rather than parse it again.
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
    /// Seals the provider's client secret of the order `of`; workers do, to the order's reply key.
    ///
    /// # Errors
    /// [`SealError::TooLong`] above [`CLIENT_SECRET_BYTES_MAX`], [`SealError::NotAKey`] when nothing can be sealed to this key.
    pub fn client_secret(&self, of: ReservationId, secret: &str) -> Result<ClientSecret, SealError> {
        self.client_secret_by(of, secret, &mut rand::rng())
    }
    fn client_secret_by(
        &self,
        of: ReservationId,
        secret: &str,
        chance: &mut impl CryptoRng,
    ) -> Result<ClientSecret, SealError> {
        if secret.len() > CLIENT_SECRET_BYTES_MAX {
            return Err(SealError::TooLong { got: secret.len(), max: CLIENT_SECRET_BYTES_MAX });
        }
        let sealed = self.seal(of, Purpose::ClientSecret, secret.as_bytes(), chance)?;
        let text = ClientSecret::SEALED.to_owned() + &BASE64_URL_SAFE_NO_PAD.encode(sealed.as_bytes());
        Ok(text.into())
    }

    fn seal(
        &self,
        of: ReservationId,
        purpose: Purpose,
        content: &[u8],
        chance: &mut impl CryptoRng,
    ) -> Result<Sealed, SealError> {
        let too_long = SealError::TooLong { got: content.len(), max: SEALABLE_BYTES_MAX };
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

/// One private key: a worker's, or that of a reply key.
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
        info: &[u8],
        encapsulated: &[u8],
        ciphertext: &[u8],
    ) -> Result<Vec<u8>, hpke::HpkeError> {
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.private,
            &<Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)?,
            info,
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

/// Private keys by id: the workers', or those of a caller's reply keys. Rotate by adding the new one everywhere, then sealing to it, then destroying the old one.
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
    /// Opens the provider's client secret of the order `of` (its view's `secret`), which a worker sealed to one of these keys.
    ///
    /// # Errors
    /// [`SealError`]; none goes away by trying again with the same keys.
    pub fn client_secret(&self, of: ReservationId, secret: &ClientSecret) -> Result<String, SealError> {
        let digits = secret.as_str().strip_prefix(ClientSecret::SEALED).ok_or(SealError::Empty)?;
        let blob = BASE64_URL_SAFE_NO_PAD.decode(digits).map_err(|_| SealError::NotAuthentic)?;
        let sealed = Sealed::new(blob).map_err(|_| SealError::NotAuthentic)?;
        let content = self.open(of, Purpose::ClientSecret, &sealed)?;
        String::from_utf8(content).map_err(|_| SealError::NotUnderstood { what: "client secret" })
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
            let info = purpose.info().ok_or(SealError::NotAuthentic)?;
            return key.open_single(of, info, encapsulated, rest).map_err(|_| SealError::NotAuthentic);
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

impl From<OpeningKey> for OpeningKeys {
    fn from(key: OpeningKey) -> Self {
        [key].into_iter().collect()
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
mod tests;
