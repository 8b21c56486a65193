//! The process that attacks, as the one that measures sees it.
//!
//! **Owns** that process: it is killed with its owner. **Must never** leave it behind. **Read next**: [`super::attack`].

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::attack::{AttackCounts, AttackPlan};

/// The command of this executable that attacks.
pub const COMMAND: &str = "run-attack";

/// An attack that was prepared, or goes on.
pub(super) struct AttackProcess {
    child: Child,
    stdin: ChildStdin,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    counts: Arc<Mutex<AttackCounts>>,
}

impl AttackProcess {
    /// Starts it, and waits until it has its keys.
    pub(super) async fn prepare(plan: &AttackPlan) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut stdin = child.stdin.take().ok_or_else(pipe)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(pipe)?).lines();
        stdin.write_all(format!("{}\n", serde_json::to_string(plan)?).as_bytes()).await?;
        match lines.next_line().await? {
            Some(ready) if ready == "ready" => Ok(Self { child, stdin, lines: Some(lines), counts: Arc::default() }),
            _ => Err(io::Error::other("the attack ended before it began")),
        }
    }

    /// Lets it begin.
    pub(super) async fn begin(&mut self) -> io::Result<()> {
        self.stdin.write_all(b"begin\n").await?;
        self.stdin.flush().await?;
        if let Some(mut lines) = self.lines.take() {
            let counts = self.counts.clone();
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Ok(now) = serde_json::from_str(&line) {
                        *counts.lock().unwrap_or_else(PoisonError::into_inner) = now;
                    }
                }
            });
        }
        Ok(())
    }

    /// What it has done so far.
    pub(super) fn counts(&self) -> AttackCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it; all of its connections are gone then.
    pub(super) async fn end(mut self) -> io::Result<AttackCounts> {
        self.child.kill().await?;
        Ok(self.counts())
    }
}
