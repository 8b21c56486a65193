//! A mail relay that keeps what it is given, so that what buyers were told can be counted.
//!
//! **What it is.** SMTP by the `mailin` crate's state machine over loopback connections. **Owns** its mails. **Must never** pass one on.
//! **Read next**: [`super::hooks`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailin::{Action, Handler, Response, SessionBuilder, response};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Longest mail taken.
const MAIL_BYTES_MAX: usize = 256 << 10;

/// Mails by recipient.
type Mails = HashMap<String, Vec<String>>;

/// The relay.
pub(crate) struct Mailbox {
    address: SocketAddr,
    mails: Arc<Mutex<Mails>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock(mails: &Mutex<Mails>) -> MutexGuard<'_, Mails> {
    mails.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox {
    pub(crate) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mails = Arc::<Mutex<Mails>>::default();
        let kept = mails.clone();
        let serving = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, from)) = listener.accept().await {
                sessions.spawn(session(stream, from.ip(), kept.clone()));
                while sessions.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, mails, serving })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The mails to an address, whole.
    pub(crate) fn to(&self, address: &str) -> Vec<String> {
        lock(&self.mails).get(address).cloned().unwrap_or_default()
    }

    /// How many came.
    pub(crate) fn count(&self) -> usize {
        lock(&self.mails).values().map(Vec::len).sum()
    }
}

#[derive(Clone)]
struct Receiver {
    mails: Arc<Mutex<Mails>>,
    to: Vec<String>,
    text: Vec<u8>,
}

impl Handler for Receiver {
    fn mail(&mut self, _ip: IpAddr, _domain: &str, _from: &str) -> Response {
        self.to.clear();
        response::OK
    }
    fn rcpt(&mut self, to: &str) -> Response {
        self.to.push(to.to_owned());
        response::OK
    }
    fn data_start(&mut self, _domain: &str, _from: &str, _is8bit: bool, _to: &[String]) -> Response {
        self.text.clear();
        response::START_DATA
    }
    fn data(&mut self, part: &[u8]) -> io::Result<()> {
        if self.text.len() + part.len() > MAIL_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(part);
        Ok(())
    }
    fn data_end(&mut self) -> Response {
        let text = String::from_utf8_lossy(&self.text).into_owned();
        let mut mails = lock(&self.mails);
        for to in std::mem::take(&mut self.to) {
            mails.entry(to).or_default().push(text.clone());
        }
        response::OK
    }
}

async fn session(stream: TcpStream, from: IpAddr, mails: Arc<Mutex<Mails>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut session =
        SessionBuilder::new("localhost").build(from, Receiver { mails, to: Vec::new(), text: Vec::new() });
    write.write_all(&bytes_of(&session.greeting())?).await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if read.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answer = session.process(&line);
        if answer.action != Action::NoReply {
            write.write_all(&bytes_of(&answer)?).await?;
        }
        if answer.action == Action::Close {
            return Ok(());
        }
    }
}

fn bytes_of(answer: &Response) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    answer.write_to(&mut bytes)?;
    Ok(bytes)
}
