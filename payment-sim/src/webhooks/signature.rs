//! `Stripe-Signature`: `t=<seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<payload>">`.
//!
//! **Owns** the header. **Must never** be used to check one: that is the receiver's. **Read next**: [`super::lane`].

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The header's value for `payload` at `seconds` since 1970.
pub(crate) fn header(secret: &str, seconds: i64, payload: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(payload);
    format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_hmac_that_others_compute() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec_test
        let header = super::header("whsec_test", 1_700_000_000, b"{}");
        assert_eq!(header, "t=1700000000,v1=35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91");
    }
}
