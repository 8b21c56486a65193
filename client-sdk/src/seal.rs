//! Sealed boxes: what only order workers can open.
//!
//! **What it is.** HPKE (RFC 9180) in its base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. A blob is
//! `version (1 byte) · key id (4) · encapsulated key (32) · ciphertext · tag (16)`. The reservation's id and what the content is for
//! are authenticated with it, so that nobody who reads a ledger can put the token of one order under another.
//!
//! **Owns** the form of keys and blobs, and the two contents. **Must never** seal the same content to the same bytes twice: whoever
//! guesses an address could prove the guess. So seal once, store the blob beside the id, and place with the stored one: a
//! second sealing is other content. **Read next**: [`SealingKey`], [`OpeningKeys`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use ledger_core::order::Sealed;
use ledger_core::{ReservationId, limits};
use rand::CryptoRng;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

type Kem = X25519HkdfSha256;

/// The only version of blobs so far.
const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const ENCAPSULATED_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// What sealing adds to a content.
const OVERHEAD_BYTES: usize = 1 + KEY_ID_BYTES + ENCAPSULATED_BYTES + TAG_BYTES;
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
    fn info(self) -> &'static [u8] {
        match self {
            Self::Payment => b"holdfast order payment 1",
            Self::Contact => b"holdfast order contact 1",
        }
    }
}

fn key_bytes(text: &str, prefix: &'static str) -> Result<[u8; 32], SealError> {
    let wrong = SealError::NotAKey { want: prefix };
    let digits = text.trim().strip_prefix(prefix).ok_or(wrong.clone())?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong)?;
    Ok(bytes)
}

/// The workers' public key: whoever has it can seal, nobody can open with it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey {
    id: KeyId,
    public: <Kem as hpke::Kem>::PublicKey,
}

impl SealingKey {
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
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeS::Base,
            &self.public,
            purpose.info(),
            content,
            of.as_bytes(),
            chance,
        )
        .map_err(|_| SealError::NotAKey { want: PUBLIC_PREFIX })?;
        let mut blob = Vec::with_capacity(OVERHEAD_BYTES + content.len());
        blob.push(VERSION);
        blob.extend_from_slice(&self.id.0);
        blob.extend_from_slice(&encapsulated.to_bytes());
        blob.extend_from_slice(&ciphertext);
        Sealed::new(Bytes::from(blob)).map_err(|_| too_long)
    }
}

impl FromStr for SealingKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&key_bytes(text, PUBLIC_PREFIX)?)
            .map_err(|_| SealError::NotAKey { want: PUBLIC_PREFIX })?;
        Ok(Self { id: KeyId::of(&public), public })
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
        Self { sealing: SealingKey { id: KeyId::of(&public), public }, private }
    }
    /// Its public half.
    pub fn sealing_key(&self) -> &SealingKey {
        &self.sealing
    }
    /// The line that a key file holds. A secret: `Debug` and `Display` do not tell it.
    pub fn secret_text(&self) -> String {
        format!("{PRIVATE_PREFIX}{}", hex::encode(self.private.to_bytes()))
    }
}

impl FromStr for OpeningKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(&key_bytes(text, PRIVATE_PREFIX)?)
            .map_err(|_| SealError::NotAKey { want: PRIVATE_PREFIX })?;
        let public = Kem::sk_to_pk(&private);
        Ok(Self { sealing: SealingKey { id: KeyId::of(&public), public }, private })
    }
}
impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKey({})", self.sealing.id)
    }
}

/// The private keys of the workers, by id. Rotate by adding the new one everywhere, then sealing to it, then destroying the old one.
#[derive(Debug, Clone, Default)]
pub struct OpeningKeys(BTreeMap<KeyId, OpeningKey>);

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
        self.0.values().map(OpeningKey::sealing_key)
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        if version != VERSION {
            return Err(SealError::UnknownVersion(version));
        }
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::NotAuthentic)?;
        let (encapsulated, ciphertext) =
            rest.split_first_chunk::<ENCAPSULATED_BYTES>().ok_or(SealError::NotAuthentic)?;
        let key = self.0.get(&KeyId(*id)).ok_or(SealError::NoSuchKey(KeyId(*id)))?;
        let encapsulated =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| SealError::NotAuthentic)?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &key.private,
            &encapsulated,
            purpose.info(),
            ciphertext,
            of.as_bytes(),
        )
        .map_err(|_| SealError::NotAuthentic)
    }
}

impl FromIterator<OpeningKey> for OpeningKeys {
    fn from_iter<I: IntoIterator<Item = OpeningKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.sealing.id, key)).collect())
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
    fn the_longest_content_fits_and_one_more_byte_does_not() {
        let seal = |len: usize| {
            key(1).sealing_key().seal(id(1), Purpose::Contact, &vec![b'x'; len], &mut StdRng::seed_from_u64(1))
        };
        assert_eq!(seal(SEALABLE_BYTES_MAX).expect("fits").as_bytes().len(), limits::SEALED_BYTES_MAX);
        assert_eq!(seal(SEALABLE_BYTES_MAX + 1), Err(SealError::TooLong { got: SEALABLE_BYTES_MAX + 1 }));
    }
}
