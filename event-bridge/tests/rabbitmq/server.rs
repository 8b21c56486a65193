//! A private RabbitMQ, as `rabbitmq.sh` beside these tests starts it; ended by its own process id.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A server starts within this time, also on a loaded machine.
const STARTS_WITHIN: Duration = Duration::from_secs(90);
/// ... and one that listens answers within this.
const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
/// The script's word for: RabbitMQ cannot be had here.
const CANNOT_BE_HAD: i32 = 77;

pub(crate) struct Rabbit {
    dir: TempDir,
    ports: [u16; 3],
    /// Ended when dropped.
    _names: Child,
    server: Option<Child>,
}

fn script() -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rabbitmq.sh"));
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Ports that nobody listens on now.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

impl Rabbit {
    /// Starts one; none, loudly, where RabbitMQ cannot be had.
    pub(crate) async fn start() -> Option<Self> {
        let ensured = script().arg("ensure").status().await.expect("the script runs");
        if ensured.code() == Some(CANNOT_BE_HAD) {
            eprintln!("\n*** SKIPPED: RabbitMQ cannot be had here, so nothing was tested against a real broker. ***\n");
            return None;
        }
        assert!(ensured.success(), "rabbitmq.sh ensure: {ensured}");
        let dir = tempfile::tempdir().expect("a directory");
        let ports = free_ports::<3>();
        let names = script().args(["names", &ports[2].to_string()]).spawn().expect("the script runs");
        let mut rabbit = Self { dir, ports, _names: names, server: None };
        rabbit.begin();
        rabbit.connect().await;
        Some(rabbit)
    }

    pub(crate) fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f?heartbeat=5", self.ports[0])
    }

    /// Starts the server, on the files it had; does not wait.
    pub(crate) fn begin(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("out")).expect("a log");
        let mut run = script();
        run.arg("run").arg(self.dir.path()).args(self.ports.map(|port| port.to_string()));
        run.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.server = Some(run.spawn().expect("the script runs"));
    }

    /// Kills the server, as SIGKILL does.
    pub(crate) async fn kill(&mut self) {
        self.server.take().expect("it runs").kill().await.expect("it can be killed");
    }

    /// A connection, once the server takes one.
    pub(crate) async fn connect(&mut self) -> Connection {
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            // A server that is about to listen may take a connection and never go on with it.
            let uri = self.uri();
            let connected = Connection::connect(&uri, ConnectionProperties::default());
            let connected = timeout(CONNECTS_WITHIN, connected).await.map_err(|late| late.to_string());
            match connected.and_then(|connected| connected.map_err(|why| why.to_string())) {
                Ok(connection) => return connection,
                Err(why) => {
                    let ended = self.server.as_mut().and_then(|server| server.try_wait().expect("its state"));
                    let log = || std::fs::read_to_string(self.dir.path().join("out")).unwrap_or_default();
                    assert!(ended.is_none() && Instant::now() < until, "RabbitMQ does not start: {why}\n{}", log());
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
