//! A mail relay that keeps what it is given, and what it heard before there was TLS.
//!
//! **What it is.** As much of SMTP as a client needs, in the clear, after `STARTTLS`, or within TLS from the first byte. It always offers `AUTH`, also where a client must
//! not use it. **Owns** the mails. **Must never** pass one on.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::observer::{Observer, Side};

/// When a relay speaks TLS.
#[derive(Clone)]
pub(crate) enum Offers {
    Nothing,
    StartTls(TlsAcceptor),
    Tls(TlsAcceptor),
}

/// What a relay heard.
#[derive(Debug, Default, Clone)]
pub(crate) struct Heard {
    /// Lines outside of TLS.
    pub(crate) clear: Vec<String>,
    /// Lines inside.
    pub(crate) secret: Vec<String>,
    pub(crate) mails: Vec<Mail>,
    /// Connections that ended.
    pub(crate) ended: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Mail {
    pub(crate) to: Vec<String>,
    pub(crate) text: String,
}

impl Mail {
    /// `Message-ID`, without its brackets and domain.
    pub(crate) fn key(&self) -> String {
        let id = self.text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("every mail has one");
        id.trim().trim_start_matches('<').split('@').next().expect("a part").to_owned()
    }
}

pub(crate) struct MailSink {
    pub(crate) port: u16,
    heard: Arc<watch::Sender<Heard>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for MailSink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl MailSink {
    pub(crate) async fn start(observer: &Arc<Observer>, offers: Offers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let heard = Arc::new(watch::Sender::new(Heard::default()));
        let (observer, keeps) = (Arc::clone(observer), Arc::clone(&heard));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (observer, heard, offers) = (Arc::clone(&observer), Arc::clone(&keeps), offers.clone());
                tokio::spawn(async move {
                    // A client may hang up at any time, and one that does not trust us will.
                    let _ = connection(stream, offers, &observer, &heard).await;
                    heard.send_modify(|heard| heard.ended += 1);
                });
            }
        });
        Self { port, heard, serving }
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// What was heard once a connection has ended.
    pub(crate) async fn ended(&self) -> Heard {
        self.heard.subscribe().wait_for(|heard| heard.ended > 0).await.expect("the sink lives").clone()
    }

    /// The keys of what was told to an address, doubles and all.
    pub(crate) fn to(&self, address: &str) -> Vec<String> {
        let heard = self.heard.borrow();
        heard.mails.iter().filter(|mail| mail.to.iter().any(|to| to == address)).map(Mail::key).collect()
    }
}

async fn connection(
    stream: TcpStream,
    offers: Offers,
    observer: &Observer,
    heard: &watch::Sender<Heard>,
) -> std::io::Result<()> {
    match offers {
        Offers::Nothing => session(&mut BufStream::new(stream), observer, heard, Speaks::Clear).await.map(drop),
        Offers::Tls(acceptor) => {
            let stream = acceptor.accept(stream).await?;
            session(&mut BufStream::new(stream), observer, heard, Speaks::Tls { greets: true }).await.map(drop)
        }
        Offers::StartTls(acceptor) => {
            let mut clear = BufStream::new(stream);
            if session(&mut clear, observer, heard, Speaks::ClearThenTls).await? {
                let stream = acceptor.accept(clear.into_inner()).await?;
                session(&mut BufStream::new(stream), observer, heard, Speaks::Tls { greets: false }).await?;
            }
            Ok(())
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Clear,
    ClearThenTls,
    Tls { greets: bool },
}

fn between_brackets(line: &str) -> String {
    let after = line.split_once('<').map_or("", |(_, rest)| rest);
    after.split('>').next().unwrap_or_default().to_owned()
}

/// One session; whether TLS is to follow.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
    observer: &Observer,
    heard: &watch::Sender<Heard>,
    speaks: Speaks,
) -> std::io::Result<bool> {
    let secret = matches!(speaks, Speaks::Tls { .. });
    if speaks != (Speaks::Tls { greets: false }) {
        say(stream, "220 sink").await?;
    }
    let mut to = Vec::new();
    while let Some(line) = line(stream).await? {
        heard.send_modify(|heard| if secret { &mut heard.secret } else { &mut heard.clear }.push(line.clone()));
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                let tls = if speaks == Speaks::ClearThenTls { "250-STARTTLS\r\n" } else { "" };
                say(stream, &format!("250-sink\r\n250-8BITMIME\r\n{tls}250 AUTH PLAIN LOGIN")).await?;
            }
            "STARTTLS" if speaks == Speaks::ClearThenTls => {
                say(stream, "220 go on").await?;
                return Ok(true);
            }
            "AUTH" => say(stream, "235 welcome").await?,
            "RCPT" => {
                to.push(between_brackets(&line));
                say(stream, "250 good").await?;
            }
            "MAIL" | "RSET" | "NOOP" => say(stream, "250 good").await?,
            "DATA" => {
                say(stream, "354 go on").await?;
                let text = text(stream).await?;
                if observer.pass("mail", Side::Before).await.is_err() {
                    return Ok(false);
                }
                let mail = Mail { to: std::mem::take(&mut to), text };
                heard.send_modify(|heard| heard.mails.push(mail));
                if observer.pass("mail", Side::After).await.is_err() {
                    return Ok(false);
                }
                say(stream, "250 taken").await?;
            }
            "QUIT" => {
                say(stream, "221 bye").await?;
                return Ok(false);
            }
            _ => say(stream, "502 what?").await?,
        }
    }
    Ok(false)
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>, line: &str) -> std::io::Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await
}

async fn line<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    match stream.read_until(b'\n', &mut line).await? {
        0 => Ok(None),
        _ => Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned())),
    }
}

async fn text<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        match line(stream).await? {
            None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Some(line) if line == "." => return Ok(text),
            Some(line) => text = text + &line + "\n",
        }
    }
}
