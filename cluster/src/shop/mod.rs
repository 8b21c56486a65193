//! What stands behind the counter, for the demo and the bench: the payment provider, order workers, and whoever is told how orders end.
//!
//! **What it is.** `payment-sim` and order workers as processes of this executable, so that each can be killed and its cost is known;
//! a mail relay ([`mails`]) or a receiver of webhooks ([`hooks`]) in this process. **Owns** those processes. **Must never** leave one behind:
//! each one's stdin is a pipe from here. **Read next**: [`provider`].

pub(crate) mod hooks;
pub(crate) mod mails;
mod process;
pub(crate) mod provider;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use client_sdk::{OpeningKey, SealingKey};

use crate::limits;
use crate::output::{Failure, Outcome};
use hooks::Hooks;
use mails::Mailbox;
use process::Process;
pub(crate) use process::cpu_ms;
pub(crate) use provider::Provider;

/// Key of the provider's API and secret of its webhooks: of a demo, so they are no secrets.
const API_KEY: &str = "sk_test_demo";
const WEBHOOK_SECRET: &str = "whsec_demo";

fn refused(e: impl std::fmt::Display) -> Failure {
    Failure::refused(e.to_string())
}

/// How it is set up.
pub(crate) struct Plan {
    /// Order workers, at least one.
    pub(crate) workers: usize,
    /// The provider tells the last worker what it did.
    pub(crate) webhooks: bool,
    /// Buyers are told by mail; else by webhooks to one receiver.
    pub(crate) mail: bool,
    /// Further flags of every worker; all else is as by default.
    pub(crate) flags: Vec<(&'static str, String)>,
}

/// Who is told how orders end.
pub(crate) enum Told {
    /// Buyers, by mail.
    Mails(Mailbox),
    /// The shop, by webhooks.
    Hooks(Hooks),
}

/// The shop.
pub(crate) struct Shop {
    /// How the provider is told to behave.
    pub(crate) provider: Provider,
    /// What was told.
    pub(crate) told: Told,
    /// What tokens and contacts are sealed to.
    pub(crate) sealing: SealingKey,
    /// What opens the client secrets of the shop's orders.
    pub(crate) reply: OpeningKey,
    /// The last one is never killed: the provider's webhooks go there.
    workers: Vec<Process>,
    provider_process: Process,
}

fn free_address() -> Outcome<SocketAddr> {
    let bound = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map_err(refused)
}

impl Shop {
    /// Opens it, with its files in `dir`, for the cluster at `endpoints`; returns when all of it is ready.
    pub(crate) async fn open(dir: &Path, endpoints: &[String], plan: &Plan) -> Outcome<Self> {
        let provider = Provider { address: free_address()? };
        let addresses = || (0..plan.workers.max(1)).map(|_| free_address()).collect::<Outcome<Vec<_>>>();
        let (hooks, health) = (addresses()?, addresses()?);
        let told = if plan.mail {
            Told::Mails(Mailbox::open().await.map_err(refused)?)
        } else {
            Told::Hooks(Hooks::open().await.map_err(refused)?)
        };
        let opening = OpeningKey::generate();
        let flags = worker_flags(dir, endpoints, &provider, &told, &opening).map_err(refused)?;
        let worker = |(n, (hooks, health)): (usize, (&SocketAddr, &SocketAddr))| {
            let name = format!("worker-{}", n + 1);
            let listen = [("http-listen", hooks.to_string()), ("metrics-listen", health.to_string())];
            let own = [("name", name.clone())].into_iter().chain(listen);
            let all = own.chain(flags.iter().cloned()).chain(plan.flags.iter().cloned());
            Process::new("worker", name.clone(), dir.join(format!("{name}.log")), all)
        };
        let mut shop = Self {
            provider,
            told,
            sealing: opening.sealing_key().clone(),
            reply: OpeningKey::generate(),
            workers: hooks.iter().zip(&health).enumerate().map(worker).collect(),
            provider_process: provider_process(dir, &provider, hooks.last().filter(|_| plan.webhooks)),
        };
        shop.provider_process.spawn().map_err(refused)?;
        for worker in &mut shop.workers {
            worker.spawn().map_err(refused)?;
        }
        shop.answers(provider.address, "/sim/behaviour").await?;
        for address in health {
            shop.answers(address, "/readyz").await?;
        }
        Ok(shop)
    }

    async fn answers(&mut self, address: SocketAddr, path: &str) -> Outcome {
        let until = Instant::now() + limits::NODE_UP_WITHIN;
        while let Err(why) = provider::call(address, http::Method::GET, path, String::new()).await {
            self.all_run()?;
            if Instant::now() >= until {
                return Err(refused(format!("{path} is not answered within {:?}: {why}", limits::NODE_UP_WITHIN)));
            }
            tokio::time::sleep(limits::POLL).await;
        }
        Ok(())
    }

    /// Kills the first worker and starts it again after a pause.
    pub(crate) async fn kill_worker(&mut self, pause: Duration) -> Outcome<String> {
        let worker = &mut self.workers[0];
        worker.kill();
        tokio::time::sleep(pause).await;
        worker.spawn().map_err(refused)?;
        Ok(worker.name.clone())
    }

    /// Whether all of them run; else which does not, with where its log lies.
    pub(crate) fn all_run(&mut self) -> Outcome {
        self.provider_process.runs()?;
        self.workers.iter_mut().try_for_each(Process::runs)
    }

    /// What runs now: names and process ids.
    pub(crate) fn processes(&self) -> Vec<(String, u32)> {
        let all = self.workers.iter().chain([&self.provider_process]);
        all.filter_map(|process| Some((process.name.clone(), process.pid()?))).collect()
    }

    /// Ends the workers, then the provider.
    pub(crate) async fn close(mut self) {
        let until = Instant::now() + limits::NODE_DOWN_WITHIN;
        self.workers.iter().for_each(Process::ask_to_stop);
        for worker in &mut self.workers {
            worker.ended(until).await;
        }
        self.provider_process.ask_to_stop();
        self.provider_process.ended(until + limits::NODE_DOWN_WITHIN).await;
    }
}

fn provider_process(dir: &Path, provider: &Provider, hooks: Option<&SocketAddr>) -> Process {
    let mut flags = vec![
        ("listen", provider.address.to_string()),
        ("data-dir", dir.join("payments").display().to_string()),
        ("api-key", API_KEY.to_owned()),
    ];
    if let Some(hooks) = hooks {
        flags.push(("webhook-url", format!("http://{hooks}/webhooks/stripe")));
        flags.push(("webhook-secret", WEBHOOK_SECRET.to_owned()));
    }
    Process::new("provider", "provider".to_owned(), dir.join("provider.log"), flags)
}

/// What all workers are told.
fn worker_flags(
    dir: &Path,
    endpoints: &[String],
    provider: &Provider,
    told: &Told,
    opening: &OpeningKey,
) -> io::Result<Vec<(&'static str, String)>> {
    let file = |name: &str, text: &str| -> io::Result<String> {
        let path = dir.join(name);
        settings::private_files::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let hook_secret = file("provider.webhook", WEBHOOK_SECRET)?;
    let mut flags = vec![
        ("nodes", endpoints.join(",")),
        ("keys-file", file("worker.keys", &opening.secret_text())?),
        ("payment-url", provider.url()),
        ("payment-secret-key-file", file("provider.key", API_KEY)?),
        ("payment-webhook-secrets-file", hook_secret.clone()),
    ];
    match told {
        Told::Mails(mails) => flags.extend([
            ("smtp-on", "true".to_owned()),
            ("smtp-port", mails.port().to_string()),
            ("smtp-tls", "none".to_owned()),
        ]),
        Told::Hooks(hooks) => flags.extend([
            ("webhook-on", "true".to_owned()),
            ("webhook-url", hooks.url()),
            ("webhook-secret-file", hook_secret),
        ]),
    }
    Ok(flags)
}
