//! Mails over SMTP.
//!
//! **What it is.** lettre's pooled transport. The Message-ID is the message's key, so that receivers can drop doubles.
//!
//! **Owns** the mail's form. **Must never** put an address into an error or a log.

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message as Mail, Tokio1Executor};

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
    /// TLS cannot be prepared.
    #[error("TLS cannot be prepared")]
    Tls(#[source] lettre::transport::smtp::Error),
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
        let parameters = || TlsParameters::new(settings.host.clone()).map_err(SmtpError::Tls);
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
            Err(e) if e.is_timeout() => Err(Failure::Unknown { why: "no answer in time".into() }),
            Err(_) => Err(Failure::Unknown { why: "the connection to the relay failed".into() }),
        }
    }
}
