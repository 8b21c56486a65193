//! Node processes on loopback: started, killed, started again, and never left behind.
//!
//! **What it is.** What `demo`, `dev`, `bench --spawn` and the fault tests stand on. **Owns** the directory layout, free ports
//! and the children. **Must never** outlive its children or let them outlive it: each child's stdin is a pipe from here, and a
//! node in `--until-stdin-closes` mode ends when that pipe does, whichever way this process died.
//! **Read next**: [`crate::demo`].

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use client_sdk::v1;

use crate::limits;
use crate::link::{NodeLink, brief, timed};

/// What runs a node: a program and the arguments before the node's own.
#[derive(Debug, Clone)]
pub struct NodeProgram {
    /// The executable.
    pub path: PathBuf,
    /// Arguments before the node's.
    pub before: Vec<String>,
}

impl NodeProgram {
    /// `ledgerctl run-node`, with `ledgerctl` at this path.
    pub fn ledgerctl(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), before: vec!["run-node".into()] }
    }
    /// This very executable, in node mode: no second build step, and never another version.
    ///
    /// # Errors
    /// When the system does not tell where it is.
    pub fn this() -> std::io::Result<Self> {
        Ok(Self::ledgerctl(std::env::current_exe()?))
    }
}

/// Why a local cluster did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum DevClusterError {
    /// The directory, ports or processes failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A node ended by itself.
    #[error("node {node} ended ({status}); its log is {}\n{tail}", log.display())]
    Ended {
        /// Which.
        node: u64,
        /// Its exit status.
        status: String,
        /// Where its log lies.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// Something awaited did not come.
    #[error("{what} within {within:?}; the log of node {node} is {}\n{tail}", log.display())]
    TimedOut {
        /// What was awaited.
        what: String,
        /// How long.
        within: Duration,
        /// The node whose log is shown.
        node: u64,
        /// Where its log lies.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// No such node.
    #[error("there is no node {0}")]
    NoSuchNode(u64),
}

/// One node's place: addresses, directory, process.
pub struct DevNode {
    /// Its id.
    pub id: u64,
    /// `host:port` for clients.
    pub client: String,
    /// `host:port` for HTTP.
    pub http: String,
    /// `host:port` for peers.
    pub peer: String,
    /// Where its peers are told to find it, if not there.
    pub peer_advertised: Option<String>,
    dir: PathBuf,
    child: Option<std::process::Child>,
}

impl DevNode {
    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.dir.join("node.log")
    }
    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }
    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(std::process::Child::id)
    }
    /// A link to it.
    ///
    /// # Panics
    /// Never: its own address is well-formed.
    pub fn link(&self) -> NodeLink {
        NodeLink::new(&self.client).expect("a loopback address is an address")
    }
    fn tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(limits::LOG_TAIL_LINES)..].join("\n")
    }
}

/// Node processes on loopback.
pub struct DevCluster {
    program: NodeProgram,
    dir: PathBuf,
    extra: Vec<String>,
    nodes: Vec<DevNode>,
}

impl DevCluster {
    /// Prepares `nodes` nodes below `dir` on free ports; starts none. `extra` goes to every node's command line.
    ///
    /// # Errors
    /// When the directory cannot be made or no ports are free.
    pub fn prepare(program: NodeProgram, dir: &Path, nodes: u64, extra: &[String]) -> Result<Self, DevClusterError> {
        let io = |what: String| move |source| DevClusterError::Io { what, source };
        // All ports are held until all are known, so that none is given twice.
        let mut held = Vec::new();
        let mut free = || -> std::io::Result<String> {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?.to_string();
            held.push(listener);
            Ok(address)
        };
        let mut made = Vec::new();
        for id in 1..=nodes {
            let node_dir = dir.join(format!("node-{id}"));
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(node_dir.join("data"))
                .map_err(io(format!("cannot make {}", node_dir.display())))?;
            let kept = std::fs::read_to_string(node_dir.join("addresses")).unwrap_or_default();
            let mut kept = kept.lines().map(str::to_owned);
            let mut address = || match kept.next() {
                Some(address) => Ok(address),
                None => free(),
            };
            let (client, http, peer) =
                (|| Ok((address()?, address()?, address()?)))().map_err(io("no free port".into()))?;
            std::fs::write(node_dir.join("addresses"), format!("{client}\n{http}\n{peer}\n"))
                .map_err(io(format!("cannot write in {}", node_dir.display())))?;
            made.push(DevNode { id, client, http, peer, peer_advertised: None, dir: node_dir, child: None });
        }
        Ok(Self { program, dir: dir.to_owned(), extra: extra.to_vec(), nodes: made })
    }

    /// Prepares, starts and initialises a cluster, and waits until every shard has a leader.
    ///
    /// # Errors
    /// [`DevClusterError`], with the tail of the log of the node that failed.
    pub async fn start(
        program: NodeProgram,
        dir: &Path,
        nodes: u64,
        shards: u32,
        extra: &[String],
    ) -> Result<Self, DevClusterError> {
        let mut cluster = Self::prepare(program, dir, nodes, extra)?;
        for id in 1..=nodes {
            cluster.spawn(id)?;
        }
        for id in 1..=nodes {
            cluster.wait_up(id).await?;
        }
        cluster.init(shards).await?;
        cluster.wait_led().await?;
        Ok(cluster)
    }

    /// The directory everything lies in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The nodes, by id.
    pub fn nodes(&self) -> &[DevNode] {
        &self.nodes
    }
    /// One node.
    ///
    /// # Errors
    /// [`DevClusterError::NoSuchNode`].
    pub fn node(&self, id: u64) -> Result<&DevNode, DevClusterError> {
        self.nodes.iter().find(|n| n.id == id).ok_or(DevClusterError::NoSuchNode(id))
    }
    fn node_mut(&mut self, id: u64) -> Result<&mut DevNode, DevClusterError> {
        self.nodes.iter_mut().find(|n| n.id == id).ok_or(DevClusterError::NoSuchNode(id))
    }
    /// The client addresses.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.client.clone()).collect()
    }

    /// Lets peers find a node elsewhere than where it listens, as behind a proxy; before it is started for the first time.
    ///
    /// # Errors
    /// [`DevClusterError::NoSuchNode`].
    pub fn advertise_peer(&mut self, id: u64, address: String) -> Result<(), DevClusterError> {
        self.node_mut(id)?.peer_advertised = Some(address);
        Ok(())
    }

    /// Starts one node's process.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawn(&mut self, id: u64) -> Result<(), DevClusterError> {
        let (program, extra) = (self.program.clone(), self.extra.clone());
        let node = self.node_mut(id)?;
        let io = |what: String| move |source| DevClusterError::Io { what, source };
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(node.log())
            .map_err(io(format!("cannot open {}", node.log().display())))?;
        let log_too = log.try_clone().map_err(io("cannot share the log".into()))?;
        let child = std::process::Command::new(&program.path)
            .args(&program.before)
            .arg("--until-stdin-closes")
            .arg("--data-dir")
            .arg(node.data_dir())
            .args(["--client-listen", &node.client, "--http-listen", &node.http, "--peer-listen", &node.peer])
            .args(node.peer_advertised.iter().flat_map(|address| ["--peer-advertise", address.as_str()]))
            .args(&extra)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .map_err(io(format!("cannot run {}", program.path.display())))?;
        node.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When there is no such node, or it cannot be waited for.
    pub fn kill(&mut self, id: u64) -> Result<(), DevClusterError> {
        let node = self.node_mut(id)?;
        if let Some(mut child) = node.child.take() {
            let io = |source| DevClusterError::Io { what: format!("cannot kill node {id}"), source };
            child.kill().map_err(io)?;
            child.wait().map_err(io)?;
        }
        Ok(())
    }

    /// SIGTERM: a graceful stop, with SIGKILL after [`limits::NODE_DOWN_WITHIN`].
    ///
    /// # Errors
    /// When there is no such node, or it cannot be waited for.
    pub async fn stop(&mut self, id: u64) -> Result<(), DevClusterError> {
        self.signal(id, rustix::process::Signal::TERM)?;
        let until = Instant::now() + limits::NODE_DOWN_WITHIN;
        while Instant::now() < until {
            let node = self.node_mut(id)?;
            match node.child.as_mut().map(std::process::Child::try_wait) {
                None => return Ok(()),
                Some(Ok(Some(_))) => {
                    node.child = None;
                    return Ok(());
                }
                Some(_) => tokio::time::sleep(limits::POLL).await,
            }
        }
        self.kill(id)
    }

    /// Sends any signal, as SIGSTOP and SIGCONT for a node that hangs.
    ///
    /// # Errors
    /// When there is no such node; a node that does not run is no error.
    pub fn signal(&mut self, id: u64, signal: rustix::process::Signal) -> Result<(), DevClusterError> {
        let pid = self.node(id)?.pid().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
        match pid.map(|pid| rustix::process::kill_process(pid, signal)) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(e)) => Err(DevClusterError::Io { what: format!("cannot signal node {id}"), source: e.into() }),
        }
    }

    /// Waits until a node answers its operator.
    ///
    /// # Errors
    /// When it ends or does not answer in time.
    pub async fn wait_up(&mut self, id: u64) -> Result<v1::NodeStatusResponse, DevClusterError> {
        let until = Instant::now() + limits::NODE_UP_WITHIN;
        let link = self.node(id)?.link();
        loop {
            match link.status().await {
                Ok(status) if status.state != "starting" => return Ok(status),
                answer => {
                    self.check_alive(id)?;
                    if Instant::now() >= until {
                        let why = answer.map_or_else(|e| brief(&e), |s| s.state);
                        return Err(self.timed_out(
                            id,
                            format!("node {id} did not come up ({why})"),
                            limits::NODE_UP_WITHIN,
                        ));
                    }
                }
            }
            tokio::time::sleep(limits::POLL).await;
        }
    }

    fn timed_out(&self, id: u64, what: String, within: Duration) -> DevClusterError {
        match self.node(id) {
            Ok(node) => DevClusterError::TimedOut { what, within, node: id, log: node.log(), tail: node.tail() },
            Err(error) => error,
        }
    }

    /// Checks that a node's process runs.
    ///
    /// # Errors
    /// [`DevClusterError::Ended`] with the tail of its log.
    pub fn check_alive(&mut self, id: u64) -> Result<(), DevClusterError> {
        let node = self.node_mut(id)?;
        let status = match node.child.as_mut().map(std::process::Child::try_wait) {
            Some(Ok(None)) => return Ok(()),
            Some(Ok(Some(status))) => status.to_string(),
            Some(Err(e)) => e.to_string(),
            None => "not started".to_owned(),
        };
        node.child = None;
        Err(DevClusterError::Ended { node: id, status, log: node.log(), tail: node.tail() })
    }

    /// Makes the nodes one cluster.
    ///
    /// # Errors
    /// When the first node refuses.
    pub async fn init(&mut self, shards: u32) -> Result<(), DevClusterError> {
        let member = |n: &DevNode| v1::Member {
            node: n.id,
            client: n.client.clone(),
            peer: n.peer_advertised.as_ref().unwrap_or(&n.peer).clone(),
            http: n.http.clone(),
            ..v1::Member::default()
        };
        let members = self.nodes.iter().map(member).collect();
        let request = v1::InitRequest { members, shards, replicas: 0 };
        let until = Instant::now() + limits::NODE_UP_WITHIN;
        loop {
            let answer = timed(limits::NODE_UP_WITHIN, self.nodes[0].link().admin().init(request.clone())).await;
            match answer {
                Ok(_) => return Ok(()),
                Err(status) if Instant::now() >= until => {
                    return Err(self.timed_out(1, format!("init: {}", brief(&status)), limits::NODE_UP_WITHIN));
                }
                Err(status)
                    if matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition) =>
                {
                    return Err(self.timed_out(1, format!("init was refused: {}", status.message()), Duration::ZERO));
                }
                Err(_) => {
                    for id in 1..=self.nodes.len() as u64 {
                        self.check_alive(id)?;
                    }
                    tokio::time::sleep(limits::POLL).await;
                }
            }
        }
    }

    /// Waits until every shard has a leader that is sure of its clock.
    ///
    /// # Errors
    /// When that does not come.
    pub async fn wait_led(&self) -> Result<(), DevClusterError> {
        let until = Instant::now() + limits::NODE_UP_WITHIN;
        loop {
            let mut shards = std::collections::BTreeMap::new();
            for node in self.nodes.iter().filter(|n| n.child.is_some()) {
                for shard in node.link().status().await.map(|s| s.shards).unwrap_or_default() {
                    *shards.entry(shard.shard).or_insert(false) |= shard.role == "leader" && shard.clock_sure;
                }
            }
            if !shards.is_empty() && shards.values().all(|led| *led) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(self.timed_out(1, "not every shard got a leader".into(), limits::NODE_UP_WITHIN));
            }
            tokio::time::sleep(limits::POLL).await;
        }
    }

    /// The node that leads a shard, asked of all that run.
    pub async fn leader_of(&self, shard: u32) -> Option<u64> {
        let mut best: Option<(u64, u64)> = None;
        for node in self.nodes.iter().filter(|n| n.child.is_some()) {
            let Ok(status) = node.link().status().await else { continue };
            for s in status.shards.iter().filter(|s| s.shard == shard && s.role == "leader") {
                best = best.max(Some((s.term, node.id)));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Stops all nodes: gracefully, then for good.
    pub async fn stop_all(&mut self) {
        for id in 1..=self.nodes.len() as u64 {
            drop(self.signal(id, rustix::process::Signal::TERM));
        }
        for id in 1..=self.nodes.len() as u64 {
            drop(self.stop(id).await);
        }
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}
