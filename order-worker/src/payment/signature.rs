//! Signatures of webhooks: `t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`, as Stripe's are, for those that come and those that go.
//!
//! **Owns** making and checking. **Must never** compare in a time that depends on the signature, or take one without looking at its age.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::limits::SIGNATURE_TOLERANCE_S;

/// Why a signature was not taken. Never tells the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The header is missing or not understood.
    #[error("the signature's header is missing or not of the form t=...,v1=...")]
    NotUnderstood,
    /// None of its signatures is ours.
    #[error("the signature does not belong to this body and secret")]
    Wrong,
    /// Too old, or from the future: perhaps a replay.
    #[error("the signature's time is more than {SIGNATURE_TOLERANCE_S} s from now")]
    TooOld,
}

fn mac(secret: &str, unix_s: u64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(unix_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

/// The header for a body.
pub fn sign(secret: &str, unix_s: u64, body: &[u8]) -> String {
    let digest = mac(secret, unix_s, body).finalize().into_bytes();
    format!("t={unix_s},v1={}", hex::encode(digest))
}

/// Checks a header. Several secrets may be right while one replaces another; several `v1` may be in the header, too.
///
/// # Errors
/// [`BadSignature`].
pub fn check(secrets: &[String], header: &str, body: &[u8], now_unix_s: u64) -> Result<(), BadSignature> {
    let fields = || header.split(',').filter_map(|field| field.trim().split_once('='));
    let time = fields().find(|(name, _)| *name == "t").and_then(|(_, time)| time.parse::<u64>().ok());
    let time = time.ok_or(BadSignature::NotUnderstood)?;
    let given: Vec<Vec<u8>> =
        fields().filter(|(name, _)| *name == "v1").filter_map(|(_, digits)| hex::decode(digits).ok()).collect();
    if given.is_empty() {
        return Err(BadSignature::NotUnderstood);
    }
    let ours =
        |signature: &Vec<u8>| secrets.iter().any(|secret| mac(secret, time, body).verify_slice(signature).is_ok());
    if !given.iter().any(ours) {
        return Err(BadSignature::Wrong);
    }
    if now_unix_s.abs_diff(time) > SIGNATURE_TOLERANCE_S {
        return Err(BadSignature::TooOld);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_frozen() {
        // HMAC-SHA256 of "1700000000.{}" under "whsec_test", from another implementation of it.
        assert_eq!(sign("whsec_test", 1_700_000_000, b"{}"), GOLDEN);
    }
    const GOLDEN: &str = "t=1700000000,v1=35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91";

    #[test]
    fn a_signature_holds_for_its_body_secret_and_five_minutes() {
        let secrets = ["new".to_owned(), "old".to_owned()];
        let header = sign("old", 1_000, b"body");
        assert_eq!(check(&secrets, &header, b"body", 1_300), Ok(()));
        assert_eq!(check(&secrets, &header, b"body", 1_301), Err(BadSignature::TooOld));
        assert_eq!(check(&secrets, &header, b"body", 699), Err(BadSignature::TooOld));
        assert_eq!(check(&secrets, &header, b"b0dy", 1_000), Err(BadSignature::Wrong));
        assert_eq!(check(&secrets[..1], &header, b"body", 1_000), Err(BadSignature::Wrong));
        assert_eq!(check(&secrets, &header.replace("t=1000", "t=1001"), b"body", 1_000), Err(BadSignature::Wrong));
    }

    #[test]
    fn headers_that_are_none_are_told() {
        for header in ["", "t=1", "v1=00", "t=x,v1=00", "t=1,v1=xyz", ",,,", "t=1,v0=00"] {
            assert_eq!(check(&["s".into()], header, b"", 1), Err(BadSignature::NotUnderstood), "{header:?}");
        }
    }
}
