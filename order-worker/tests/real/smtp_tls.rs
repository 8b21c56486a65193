//! Mails over TLS, and what is never sent without it.
//!
//! **What it is.** An authority made for each test, a relay that shows its certificate, and the adapter that is told to trust that authority.
//! **Owns** the relay's certificates. **Must never** accept a mail that came in the clear.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client_sdk::{Contact, ReservationId, Slot};
use ledger_core::order::{Ending, Money};
use order_worker::notify::smtp::{Settings, Smtp, SmtpError, TlsMode};
use order_worker::notify::templates::Templates;
use order_worker::notify::{Message, Notifier as _};
use order_worker::payment::Failure;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use crate::mail_sink::{MailSink, Offers};
use crate::observer::Observer;

const USER: &str = "shop-user";
const PASSWORD: &str = "open-sesame";
const BUYER: &str = "anna@buyers.example";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    file: NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let mut file = NamedTempFile::new().expect("a file");
        file.write_all(certificate.pem().as_bytes()).expect("written");
        Self { issuer: Issuer::new(params, key), file }
    }

    /// What a relay of that name shows.
    fn relay(&self, name: &str) -> TlsAcceptor {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], secret).expect("a pair");
        TlsAcceptor::from(Arc::new(config))
    }
}

fn settings(sink: &MailSink, tls: TlsMode, ca_file: Option<&Path>) -> Settings {
    Settings {
        host: "localhost".to_owned(),
        port: sink.port,
        tls,
        ca_file: ca_file.map(Path::to_owned),
        credentials: Some((USER.to_owned(), PASSWORD.to_owned())),
        from: "Shop <orders@shop.example>".to_owned(),
        timeout: Duration::from_secs(10),
    }
}

fn adapter(settings: Settings) -> Smtp {
    Smtp::new(settings, Templates::load(None).expect("texts")).expect("an adapter")
}

fn message() -> Message {
    let order = ReservationId::from_parts(Slot::new(7).expect("a slot"), 1_000, 1);
    Message {
        key: format!("{order}-sold"),
        order,
        ending: Ending::Sold,
        amount: Money::new(1_999, "EUR").expect("money"),
        lines: Vec::new(),
        linked: None,
        contact: Contact { email: Some(BUYER.into()), ..Contact::default() },
    }
}

async fn sink(offers: Offers) -> MailSink {
    MailSink::start(&Observer::new(), offers).await
}

/// Nothing that is worth hiding was heard in the clear; what was heard is only what comes before TLS.
fn nothing_in_the_clear(clear: &[String]) {
    let harmless = |line: &String| ["EHLO", "STARTTLS", "QUIT"].iter().any(|verb| line.starts_with(verb));
    // A failed handshake reads as bytes that are no line of SMTP at all: the sink never reads them as one.
    assert!(clear.iter().all(harmless), "{clear:?}");
}

#[tokio::test]
async fn mails_go_over_starttls_and_over_tls_from_the_first_byte() {
    let authority = Authority::new();
    type Way = fn(TlsAcceptor) -> Offers;
    let ways: [(TlsMode, Way, usize); 2] = [(TlsMode::StartTls, Offers::StartTls, 2), (TlsMode::Tls, Offers::Tls, 0)];
    for (mode, offers, lines_in_the_clear) in ways {
        let sink = sink(offers(authority.relay("localhost"))).await;
        let smtp = adapter(settings(&sink, mode, Some(authority.file.path())));
        let message = message();
        smtp.send(&message).await.unwrap_or_else(|why| panic!("{mode:?}: {why}"));
        let heard = sink.heard();
        assert_eq!(sink.to(BUYER), std::slice::from_ref(&message.key), "{mode:?}");
        assert!(heard.secret.iter().any(|line| line.starts_with("AUTH")), "{mode:?}: {heard:?}");
        // EHLO and STARTTLS, or nothing.
        assert_eq!(heard.clear.len(), lines_in_the_clear, "{mode:?}: {heard:?}");
        nothing_in_the_clear(&heard.clear);
    }
}

#[tokio::test]
async fn a_relay_that_is_not_trusted_is_told_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trusted = Some(authority.file.path());
    let cases = [
        ("an authority that is not trusted", other.relay("localhost"), trusted),
        ("an authority that the system does not know", authority.relay("localhost"), None),
        ("another host's certificate", authority.relay("mail.example"), trusted),
    ];
    for (what, relay, ca_file) in cases {
        for (mode, offers) in
            [(TlsMode::StartTls, Offers::StartTls(relay.clone())), (TlsMode::Tls, Offers::Tls(relay.clone()))]
        {
            let sink = sink(offers).await;
            let failed = adapter(settings(&sink, mode, ca_file)).send(&message()).await;
            let Err(Failure::Config { why }) = &failed else { panic!("{what}, {mode:?}: {failed:?}") };
            assert!(why.contains("certificate") && !why.contains(BUYER), "{what}, {mode:?}: {why}");
            let heard = sink.ended().await;
            nothing_in_the_clear(&heard.clear);
            assert!(heard.secret.is_empty() && heard.mails.is_empty(), "{what}, {mode:?}: {heard:?}");
        }
    }
}

#[tokio::test]
async fn a_relay_without_tls_is_told_nothing_where_tls_is_required() {
    let authority = Authority::new();
    for mode in [TlsMode::StartTls, TlsMode::Tls] {
        let sink = sink(Offers::Nothing).await;
        let mut settings = settings(&sink, mode, Some(authority.file.path()));
        settings.timeout = Duration::from_secs(1);
        let failed = adapter(settings).send(&message()).await;
        let Err(Failure::Config { why }) = &failed else { panic!("{mode:?}: {failed:?}") };
        let names_it = if mode == TlsMode::StartTls { "STARTTLS" } else { "TLS" };
        assert!(why.contains(names_it), "{mode:?}: {why}");
        let heard = sink.ended().await;
        assert!(heard.mails.is_empty(), "{mode:?}: {heard:?}");
        if mode == TlsMode::StartTls {
            nothing_in_the_clear(&heard.clear);
        }
        let clear = heard.clear.join("\n");
        for private in [BUYER, USER, PASSWORD, "AUTH", "MAIL", "RCPT"] {
            assert!(!clear.contains(private), "{mode:?}: {clear:?}");
        }
    }
}

#[test]
fn a_file_of_authorities_must_hold_some() {
    let empty = NamedTempFile::new().expect("a file");
    let mut torn = NamedTempFile::new().expect("a file");
    torn.write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
    for file in [empty.path(), torn.path(), Path::new("/nowhere/ca.pem")] {
        let settings = Settings {
            host: "localhost".to_owned(),
            port: 465,
            tls: TlsMode::Tls,
            ca_file: Some(file.to_owned()),
            credentials: None,
            from: "orders@shop.example".to_owned(),
            timeout: Duration::from_secs(1),
        };
        let refused = Smtp::new(settings, Templates::load(None).expect("texts")).err();
        assert!(matches!(refused, Some(SmtpError::Authorities { .. } | SmtpError::Tls(_))), "{refused:?}");
    }
}
