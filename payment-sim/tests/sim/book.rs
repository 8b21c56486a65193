//! The book as others read it, and that it survives the process.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client::{Client, World};

const PAY: &str = "payment_method=pm_card_visa&confirm=true";

/// The binary, killed when dropped.
struct Process {
    child: Child,
    client: Client,
}

impl Process {
    fn start(dir: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_payment-sim"));
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(dir).args(flags).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim_end().strip_prefix("listening on http://").expect("where it listens").to_owned();
        Self { child, client: Client::new(address) }
    }

    /// As a power switch does, as far as a process can tell.
    fn kill(mut self) {
        self.child.kill().expect("it lived");
        self.child.wait().expect("it ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn the_book_survives_a_kill() {
    for flags in [&[][..], &["--no-sync"]] {
        let dir = tempfile::tempdir().expect("a directory");
        let process = Process::start(dir.path(), flags);
        let calls = (0..50).map(|n| {
            let client = process.client.key(&format!("k-{n}"));
            async move { client.create(&format!("{PAY}&metadata[order]={n}")).await }
        });
        let made = futures::future::join_all(calls).await;
        process.client.post("/v1/refunds", &format!("payment_intent={}&amount=10", made[0])).await.ok();
        let book = process.client.get("/sim/book").await.ok();
        let intent = process.client.get(&format!("/v1/payment_intents/{}", made[7])).await.ok();
        process.kill();
        let process = Process::start(dir.path(), flags);
        assert_eq!(process.client.get("/sim/book").await.ok(), book);
        assert_eq!(process.client.get(&format!("/v1/payment_intents/{}", made[7])).await.ok(), intent);
        let form = format!("amount=1000&currency=eur&{PAY}&metadata[order]=7");
        assert_eq!(process.client.key("k-7").post("/v1/payment_intents", &form).await.ok(), intent);
    }
}

#[tokio::test]
async fn a_process_ends_as_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = Process::start(dir.path(), &["--outage", "hang", "--only", "list"]);
    let client = process.client.clone();
    let hung = tokio::spawn(async move { client.call("GET", "/v1/payment_intents", "").await.is_none() });
    process.client.create(PAY).await;
    let pid = rustix::process::Pid::from_child(&process.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    let ended = tokio::task::spawn_blocking(move || process.child.wait()).await.expect("no panic").expect("it ended");
    assert_eq!(ended.code(), Some(0));
    assert!(hung.await.expect("no panic"), "who waited for ever was told nothing");
}

#[tokio::test]
async fn a_damaged_book_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("payments.journal"), "not a journal\n").expect("written");
    let output =
        Command::new(env!("CARGO_BIN_EXE_payment-sim")).arg("--data-dir").arg(dir.path()).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("payments.journal is damaged at line 1 (byte 0)"), "{told}");
    let output = Command::new(env!("CARGO_BIN_EXE_payment-sim")).arg("--outage=sometimes").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn the_book_shows_every_charge() {
    let world = World::new().await;
    let client = &world.client;
    let paid = client.create(&format!("{PAY}&metadata[order]=a")).await;
    client.post("/v1/refunds", &format!("payment_intent={paid}&amount=300")).await.ok();
    let tried = client.create("").await;
    client.verb(&tried, "confirm", "payment_method=pm_card_chargeDeclined").await;
    client.verb(&tried, "confirm", "payment_method=pm_card_visa").await.ok();
    let freed = client.create(&format!("{PAY}&capture_method=manual")).await;
    client.verb(&freed, "cancel", "").await.ok();

    let book = client.get("/sim/book").await.ok();
    let intents = book["intents"].as_array().expect("intents");
    assert_eq!(intents.len(), 3);
    assert_eq!((&intents[0]["metadata"]["order"], &intents[0]["amount"]), (&"a".into(), &1_000.into()));
    assert_eq!((&intents[0]["captured"], &intents[0]["refunded"]), (&1_000.into(), &300.into()));
    assert_eq!(intents[0]["charges"][0]["captured_ms"], crate::client::BEGIN_MS);
    assert_eq!(intents[0]["refunds"][0]["amount"], 300);
    let states = |at: usize| -> Vec<_> {
        intents[at]["charges"].as_array().expect("charges").iter().map(|charge| charge["state"].clone()).collect()
    };
    assert_eq!((states(1), states(2)), (vec!["failed".into(), "paid".into()], vec!["voided".into()]));
    assert_eq!(
        (&intents[2]["captured"], &intents[2]["refunded"]),
        (&0.into(), &0.into()),
        "what was freed was never taken"
    );

    let summary = client.get("/sim/book/summary").await.ok();
    assert_eq!(summary["currencies"]["eur"], serde_json::json!({"captured": 2_000, "refunded": 300, "capturable": 0}));
    assert_eq!((&summary["paid"], &summary["failed"], &summary["voided"]), (&2.into(), &1.into(), &1.into()));
    assert_eq!(summary["by_status"], serde_json::json!({"succeeded": 2, "canceled": 1}));
}

#[tokio::test]
async fn a_long_book_comes_whole() {
    let world = World::with(|config| config.no_sync = true).await;
    assert_eq!(world.client.get("/sim/book").await.ok()["intents"], serde_json::json!([]));
    for part in 0..11 {
        let calls = (0..100).map(|n| {
            let client = world.client.clone();
            async move { client.create(&format!("metadata[n]={}", part * 100 + n)).await }
        });
        futures::future::join_all(calls).await;
    }
    let book = world.client.get("/sim/book").await.ok();
    assert_eq!(book["intents"].as_array().expect("intents").len(), 1_100);
}
