//! What stands behind the counter: the payment provider, two order workers, the mail relay.
//!
//! **What it is.** `payment-sim` in this process, on loopback; order workers as processes of their own, so that one can be killed; a [`Mailbox`].
//! **Owns** the workers' processes and the provider's manners. **Must never** leave a worker behind: each one's stdin is a pipe from here.
//! **Read next**: [`super::orders`].

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client_sdk::{OpeningKey, SealingKey};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use payment_sim::behaviour::{Behaviour, Manners, Outage};
use serde::Deserialize;

use super::mails::Mailbox;
use super::refused;
use crate::limits;
use crate::output::Outcome;

/// Key of the provider's API and secret of its webhooks: of a demo, so they are no secrets.
const API_KEY: &str = "sk_test_demo";
const WEBHOOK_SECRET: &str = "whsec_demo";

/// The shop.
pub(super) struct Shop {
    provider: payment_sim::Running,
    pub(super) mails: Mailbox,
    pub(super) sealing: SealingKey,
    workers: Vec<Worker>,
}

struct Worker {
    name: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Worker {
    fn spawn(&mut self) -> io::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(std::env::current_exe()?)
            .args(["worker", "--until-stdin-closes"])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits for its end.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One intent of the provider's book.
#[derive(Debug, Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) captured: u64,
    pub(super) refunded: u64,
    pub(super) metadata: std::collections::BTreeMap<String, String>,
}

impl Intent {
    /// What the provider keeps of it, minor units; below zero it gave back more than it took.
    pub(super) fn net(&self) -> i64 {
        self.captured as i64 - self.refunded as i64
    }
}

#[derive(Deserialize)]
struct Book {
    intents: Vec<Intent>,
}

fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Shop {
    /// Opens it: provider, relay, and two workers that serve the cluster at `endpoints`.
    pub(super) async fn open(dir: &Path, endpoints: &[String]) -> Outcome<Self> {
        let ports = [free_port().map_err(refused)?, free_port().map_err(refused)?];
        let mut config = payment_sim::Config::new(dir.join("payments"));
        config.api_key = Some(API_KEY.to_owned());
        // The last worker is never killed: webhooks go there.
        let hooks = format!("http://127.0.0.1:{}/webhooks/stripe", ports[1]);
        config.webhook = Some(payment_sim::WebhookTo::new(hooks, WEBHOOK_SECRET));
        let provider = payment_sim::serve(config).await.map_err(refused)?;
        let mails = Mailbox::open().await.map_err(refused)?;
        let opening = OpeningKey::generate();
        let file = |name: &str, text: &str| -> io::Result<String> {
            let path = dir.join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let keys = file("worker.keys", &opening.secret_text()).map_err(refused)?;
        let api_key = file("provider.key", API_KEY).map_err(refused)?;
        let hook_secret = file("provider.webhook", WEBHOOK_SECRET).map_err(refused)?;
        let worker = |n: usize| {
            let name = format!("worker-{}", n + 1);
            let flags = [
                ("nodes", endpoints.join(",")),
                ("name", name.clone()),
                ("keys-file", keys.clone()),
                ("http-listen", format!("127.0.0.1:{}", ports[n])),
                ("payment-url", provider.url()),
                ("payment-secret-key-file", api_key.clone()),
                ("payment-webhook-secrets-file", hook_secret.clone()),
                ("smtp-on", "true".to_owned()),
                ("smtp-port", mails.port().to_string()),
                ("smtp-tls", "none".to_owned()),
                // A short story needs short patience: half a minute of an open breaker would be most of it.
                ("lease", "5s".to_owned()),
                ("attempt", "2s".to_owned()),
                ("call-timeout", "2s".to_owned()),
                ("retry-min", "200ms".to_owned()),
                ("retry-max", "1s".to_owned()),
                ("retry-pay-max", "1s".to_owned()),
                ("breaker-open", "1s".to_owned()),
            ];
            let arguments = flags.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]).collect();
            Worker { log: dir.join(format!("{name}.log")), name, arguments, child: None }
        };
        let mut workers = vec![worker(0), worker(1)];
        for worker in &mut workers {
            worker.spawn().map_err(refused)?;
        }
        let mut shop = Self { provider, mails, sealing: opening.sealing_key().clone(), workers };
        let until = Instant::now() + limits::NODE_UP_WITHIN;
        for port in ports {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            while let Err(why) = call(address, http::Method::GET, "/readyz", String::new()).await {
                shop.all_run()?;
                if Instant::now() >= until {
                    return Err(refused(format!("a worker is not ready within {:?}: {why}", limits::NODE_UP_WITHIN)));
                }
                tokio::time::sleep(limits::POLL).await;
            }
        }
        Ok(shop)
    }

    /// Kills the first worker and starts it again after a pause.
    pub(super) async fn kill_worker(&mut self, pause: Duration) -> Outcome<String> {
        let worker = &mut self.workers[0];
        worker.kill();
        tokio::time::sleep(pause).await;
        worker.spawn().map_err(refused)?;
        Ok(worker.name.clone())
    }

    /// Whether all workers run; else which does not, with where its log lies.
    pub(super) fn all_run(&mut self) -> Outcome {
        for worker in &mut self.workers {
            let ended = worker.child.as_mut().and_then(|child| child.try_wait().transpose());
            if let Some(status) = ended {
                let status = status.map_err(refused)?;
                return Err(refused(format!("{} ended ({status}); its log is {}", worker.name, worker.log.display())));
            }
        }
        Ok(())
    }

    async fn call(&self, method: http::Method, path: &str, body: String) -> Outcome<Bytes> {
        call(self.provider.address(), method, path, body).await
    }

    async fn behave(&self, manners: Manners) -> Outcome {
        let behaviour = Behaviour { everywhere: manners, ..Behaviour::default() };
        let text = serde_json::to_string(&behaviour).map_err(refused)?;
        self.call(http::Method::PUT, "/sim/behaviour", text).await.map(drop)
    }

    /// Three seconds slow from now on.
    pub(super) async fn be_slow(&self) -> Outcome {
        self.behave(Manners { latency_ms: 3_000, ..Manners::default() }).await
    }

    /// Not there from now on, or after charging and without a word.
    pub(super) async fn fail(&self) -> Outcome {
        self.behave(Manners { outage: Outage::Refuse, ..Manners::default() }).await
    }

    /// There again, but one charge in ten is answered with an error.
    pub(super) async fn stumble(&self) -> Outcome {
        self.behave(Manners { charge_then_error_rate: 0.1, ..Manners::default() }).await
    }

    /// Well again.
    pub(super) async fn recover(&self) -> Outcome {
        self.behave(Manners::default()).await
    }

    /// The buyer of an intent does what the bank asks for.
    pub(super) async fn authenticate(&self, secret: &str) -> Outcome {
        let intent = secret.split_once("_secret_").map_or(secret, |(intent, _)| intent);
        let path = format!("/sim/intents/{intent}/authenticate?outcome=ok");
        self.call(http::Method::POST, &path, String::new()).await.map(drop)
    }

    /// The provider's book.
    pub(super) async fn book(&self) -> Outcome<Vec<Intent>> {
        let text = self.call(http::Method::GET, "/sim/book", String::new()).await?;
        serde_json::from_slice::<Book>(&text).map(|book| book.intents).map_err(refused)
    }

    /// Ends the workers, then the provider.
    pub(super) async fn close(mut self) {
        for worker in &mut self.workers {
            let Some(child) = &mut worker.child else { continue };
            if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let until = Instant::now() + limits::NODE_DOWN_WITHIN;
        for worker in &mut self.workers {
            while Instant::now() < until
                && worker.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
            {
                tokio::time::sleep(limits::POLL).await;
            }
        }
        self.workers.clear();
        self.provider.shutdown().await;
    }
}

async fn call(address: std::net::SocketAddr, method: http::Method, path: &str, body: String) -> Outcome<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(refused)?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(refused)?;
    let driver = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(refused)?;
    let answer = send.send_request(request).await.map_err(refused)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(refused)?.to_bytes();
    driver.abort();
    if status.is_success() {
        Ok(body)
    } else {
        Err(refused(format!("{path} answered {status}: {}", String::from_utf8_lossy(&body))))
    }
}
