//! Mails over SMTP.
//!
//! **What it is.** lettre's pooled transport. The Message-ID is the message's key, so that receivers can drop doubles.
//!
//! **Owns** the mail's form. **Must never** put an address into an error or a log, or say more than `EHLO` and `STARTTLS` to a relay that it does not trust yet.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message as Mail, Tokio1Executor};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::templates::Templates;
use super::{Message, Notifier};
use crate::payment::Failure;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all; for a relay on the same host.
    None,
    /// After `STARTTLS`, or not at all: it is required.
    StartTls,
    /// From the first byte.
    Tls,
}

/// The relay.
#[derive(Clone)]
pub struct Settings {
    /// Host name, also the one its certificate must carry.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// Certificates (PEM) of the only authorities that are trusted; none: those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// User and password; none: not asked for.
    pub credentials: Option<(String, String)>,
    /// Sender, as `Shop <orders@shop.example>`.
    pub from: String,
    /// Longest call.
    pub timeout: Duration,
}

/// Why the adapter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The sender is no mailbox.
    #[error("the sender is no mailbox, as Shop <orders@shop.example>")]
    From(#[source] lettre::address::AddressError),
    /// The file of authorities cannot be read, or holds no certificate.
    #[error("no certificate of an authority can be had from {}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be prepared.
    #[error("TLS cannot be prepared")]
    Tls(#[source] lettre::transport::smtp::Error),
}

fn tls_parameters(settings: &Settings) -> Result<TlsParameters, SmtpError> {
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(path) = &settings.ca_file {
        builder = builder.certificate_store(CertificateStore::None);
        for certificate in authorities(path).map_err(|source| SmtpError::Authorities { path: path.clone(), source })? {
            let certificate = Certificate::from_der(certificate.to_vec()).map_err(SmtpError::Tls)?;
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(SmtpError::Tls)
}

fn authorities(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path)?;
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|why| invalid(why.to_string()))?;
    if all.is_empty() { Err(invalid("there is no PEM certificate in it".to_owned())) } else { Ok(all) }
}

/// What TLS says was wrong, however deep the transport has put it.
fn tls_error(error: &lettre::transport::smtp::Error) -> Option<&rustls::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        // An I/O error names what it wraps as its own, not as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(tls) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<rustls::Error>()) {
            return Some(tls);
        }
        source = error.source();
    }
    None
}

/// Why this relay is told nothing; none when it was not TLS that is missing, or may work later.
fn untrusted(error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(why) => Some(format!("the relay's certificate is not trusted: {why}")),
        rustls::Error::InvalidMessage(_) => Some("the relay does not speak TLS on this port".to_owned()),
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoCertificatesPresented => {
            Some(format!("TLS cannot be agreed upon with the relay: {error}"))
        }
        _ => None,
    }
}

/// What the transport would not even ask of this relay. The words are its own, so that no address is in them.
fn not_asked(error: &lettre::transport::smtp::Error, to: &str) -> Failure {
    if !to.is_ascii() {
        return Failure::No { why: "the relay takes only ASCII addresses".into() };
    }
    Failure::Config { why: error.source().map_or_else(|| error.to_string(), ToString::to_string) }
}

/// The adapter.
pub struct Smtp {
    from: Mailbox,
    domain: String,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    templates: Templates,
}

impl Smtp {
    /// An adapter; connects when there is something to send.
    ///
    /// # Errors
    /// [`SmtpError`].
    pub fn new(settings: Settings, templates: Templates) -> Result<Self, SmtpError> {
        crate::process::one_crypto_provider();
        let from: Mailbox = settings.from.parse().map_err(SmtpError::From)?;
        let parameters = || tls_parameters(&settings);
        let tls = match settings.tls {
            TlsMode::None => Tls::None,
            TlsMode::StartTls => Tls::Required(parameters()?),
            TlsMode::Tls => Tls::Wrapper(parameters()?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            .tls(tls)
            .timeout(Some(settings.timeout));
        if let Some((user, password)) = settings.credentials {
            builder = builder.credentials(Credentials::new(user, password));
        }
        let domain = from.email.domain().to_owned();
        Ok(Self { from, domain, transport: builder.build(), templates })
    }

    fn mail(&self, message: &Message, to: &str) -> Result<Mail, Failure> {
        let no = |why: &str| Failure::No { why: why.to_owned() };
        let to: lettre::Address = to.parse().map_err(|_| no("the contact's mail address is none"))?;
        let text = self.templates.render(message).map_err(|why| Failure::Config { why })?;
        Mail::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .message_id(Some(format!("<{}@{}>", message.key, self.domain)))
            .subject(text.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text.body)
            .map_err(|_| no("the mail cannot be written"))
    }
}

#[async_trait]
impl Notifier for Smtp {
    async fn send(&self, message: &Message) -> Result<(), Failure> {
        let Some(to) = &message.contact.email else { return Ok(()) };
        let mail = self.mail(message, to)?;
        match self.transport.send(mail).await {
            Ok(_) => Ok(()),
            // A relay's words can quote the address.
            Err(e) if e.is_permanent() => Err(match e.status().map(u16::from) {
                Some(code @ (530 | 534 | 535 | 538)) => Failure::Config { why: format!("the relay answered {code}") },
                Some(code) => Failure::No { why: format!("the relay answered {code}") },
                None => Failure::No { why: "the relay refused".into() },
            }),
            Err(e) if e.is_transient() => Err(Failure::Unknown { why: "the relay asks to come back later".into() }),
            Err(e) if e.is_client() => Err(not_asked(&e, to)),
            Err(e) if e.is_timeout() => Err(Failure::Unknown { why: "no answer in time".into() }),
            // Nothing was sent that TLS was to protect, and nothing will be until somebody mends the relay or the configuration.
            Err(e) => Err(match tls_error(&e).and_then(untrusted) {
                Some(why) => Failure::Config { why },
                None => Failure::Unknown { why: "the connection to the relay failed".into() },
            }),
        }
    }
}
