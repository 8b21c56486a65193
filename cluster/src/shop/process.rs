//! A process of this executable beside the nodes: a worker, or the provider.
//!
//! **Owns** its arguments, its log, its end. **Must never** leave it behind: its stdin is a pipe from here. **Read next**: [`super`].

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::refused;
use crate::limits;
use crate::output::Outcome;

/// The process, whether it runs or not.
pub(crate) struct Process {
    /// What it is called.
    pub(crate) name: String,
    verb: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    /// `ledgerctl VERB` with these flags, not started yet; what it says goes to `log`.
    pub(crate) fn new(
        verb: &'static str,
        name: String,
        log: PathBuf,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let arguments = flags.into_iter().flat_map(|(flag, value)| [format!("--{flag}"), value]).collect();
        Self { name, verb, arguments, log, child: None }
    }

    /// Starts it.
    pub(crate) fn spawn(&mut self) -> io::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(std::env::current_exe()?)
            .args([self.verb, "--until-stdin-closes"])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop, with SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        if let Some(pid) = self.pid().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Waits until it has ended, as it was asked to; in the end it is killed.
    pub(crate) async fn ended(&mut self, until: Instant) {
        while Instant::now() < until && self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            tokio::time::sleep(limits::POLL).await;
        }
        self.kill();
    }

    /// Whether it runs; else how it ended, and where its log lies.
    pub(crate) fn runs(&mut self) -> Outcome {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().transpose());
        match ended {
            None => Ok(()),
            Some(status) => {
                let status = status.map_err(refused)?;
                Err(refused(format!("{} ended ({status}); its log is {}", self.name, self.log.display())))
            }
        }
    }

    /// Its process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }
}

/// CPU time of a process so far, milliseconds; zero when it is gone.
pub(crate) fn cpu_ms(pid: u32) -> u64 {
    let tick = Duration::from_millis(10); // USER_HZ is 100 on every Linux
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields count from behind the name, which may hold anything in parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    (field(11) + field(12)) * tick.as_millis() as u64
}
