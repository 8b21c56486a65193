//! Runs a setting in a process of its own: the same every time, and what hangs or dies takes nothing with it.
//!
//! **What it is.** The command starts itself with [`CHILD`] as its only argument; the setting goes in as one line of JSON, the report comes out as one,
//! followed by the lines of the journal.
//!
//! **Owns** the child and its time. **Must never** judge: a child that died is a run that failed. **Read next**: [`super::report`].

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};
use tracing_subscriber::prelude::*;

use super::report::{Elected, Report, Setting};
use crate::checkers::Violation;
use crate::faults::Planned;
use crate::history::Run;
use crate::sometimes::{Counts, Probe};

/// The argument that makes the command run one setting from its input.
pub const CHILD: &str = "run-setting";
/// A second one that makes it show its log lines on stderr.
const VERBOSE: &str = "--verbose";
/// Memory that a run may take, many times what one does take: what goes on for ever must not take the machine's.
const MEMORY_MAX: u64 = 4 << 30;
/// Lines of a dead child's last words that are told.
const LAST_WORDS: usize = 12;

/// Where runs get a process of their own.
#[derive(Debug, Clone)]
pub struct Apart {
    /// The command.
    pub exe: PathBuf,
    /// A run that takes more processor time than this, or stands still for as long, hangs.
    pub within: Duration,
    /// Whether the child's log lines are shown.
    pub verbose: bool,
}

/// A report but for its journal.
#[derive(Serialize, Deserialize)]
struct Told {
    seed: u64,
    nodes: usize,
    reached: Counts,
    violations: Vec<(String, String)>,
    struck: BTreeMap<String, u32>,
    plan: Vec<Planned>,
    lost: Vec<usize>,
    simulated: Duration,
    converged_after: Option<Duration>,
    elected: Vec<Elected>,
    trace_digest: String,
    trace_lines: u64,
    trace: Vec<String>,
}

impl Apart {
    /// Children of this command.
    pub fn new(exe: PathBuf) -> Self {
        Self { exe, within: Duration::from_secs(300), verbose: false }
    }

    /// Children of the command that runs.
    ///
    /// # Errors
    /// It cannot be found.
    pub fn here() -> io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?))
    }

    /// Runs a setting. A child that died or hung is a report with that as its violation.
    ///
    /// # Errors
    /// No process could be started.
    pub fn run(&self, setting: &Setting) -> io::Result<Report> {
        let stderr = if self.verbose { Stdio::inherit() } else { Stdio::piped() };
        let mut child = Command::new(&self.exe)
            .arg(CHILD)
            .args(self.verbose.then_some(VERBOSE))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let mut line = serde_json::to_vec(setting)?;
        line.push(b'\n');
        match child.stdin.take().map(|mut stdin| stdin.write_all(&line)) {
            // It died before it listened: how it ended says more.
            Some(Err(why)) if why.kind() != io::ErrorKind::BrokenPipe => return Err(why),
            _ => {}
        }
        let said = hear(&mut child);
        let answer = heard_within(&said, child.id(), self.within);
        if answer.is_none() {
            child.kill()?;
        }
        let status = child.wait()?;
        let died = |what: String| Ok(dead(setting, what));
        match answer {
            None => {
                died(format!("the run took more than {:?} of processor time, or stood still for as long", self.within))
            }
            Some((Ok(report), _)) if status.success() => Ok(report),
            Some((said, words)) => {
                let error = said.err().map(|e| e.to_string()).unwrap_or_default();
                died(format!("the run's process ended with {status}: {error}\n{words}"))
            }
        }
    }
}

type Heard = (io::Result<Report>, String);

/// What was heard before the child had so much processor time, or stood still for as long. A machine that is busy with something else makes no
/// run fail, nor does whoever stops this process or its child for a while.
fn heard_within(said: &mpsc::Receiver<Heard>, child: u32, within: Duration) -> Option<Heard> {
    const LOOK: Duration = Duration::from_secs(1);
    let look = within.min(LOOK);
    let (mut used, mut stood_still) = (Duration::ZERO, Duration::ZERO);
    while used < within && stood_still < within {
        match said.recv_timeout(look) {
            Ok(heard) => return Some(heard),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        match processor_time(child) {
            Some(now) if now > used => (used, stood_still) = (now, Duration::ZERO),
            _ if is_stopped(child) => {}
            _ => stood_still += look,
        }
    }
    None
}

/// Processor time of a process; none where the system does not tell.
fn processor_time(process: u32) -> Option<Duration> {
    // In hundredths of a second: what Linux tells its users in, whatever its own clock does.
    const TICK: Duration = Duration::from_millis(10);
    let told = told_of(process)?;
    let mut numbers = told.split_whitespace().skip(11).map_while(|number| number.parse::<u32>().ok());
    Some(TICK * (numbers.next()? + numbers.next()?))
}

/// Whether somebody sent it SIGSTOP.
fn is_stopped(process: u32) -> bool {
    told_of(process).is_some_and(|told| told.starts_with('T'))
}

/// What the system tells of a process, from its state on.
fn told_of(process: u32) -> Option<String> {
    let told = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(told.rsplit_once(") ")?.1.to_owned())
}

/// Reads both of a child's outputs, each on its own thread, so that neither blocks it.
fn hear(child: &mut Child) -> mpsc::Receiver<Heard> {
    let (tell, told) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || {
        let words = std::thread::spawn(move || last_words(stderr));
        let report = stdout.ok_or_else(|| io::ErrorKind::BrokenPipe.into()).and_then(read_report);
        let words = words.join().unwrap_or_default();
        // Nobody listens any more if it took too long.
        let _late = tell.send((report, words));
    });
    told
}

fn last_words(stderr: Option<impl Read>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut last = std::collections::VecDeque::with_capacity(LAST_WORDS);
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(line);
    }
    Vec::from(last).join("\n")
}

fn read_report(from: impl Read) -> io::Result<Report> {
    let mut from = BufReader::new(from);
    let mut first = String::new();
    from.read_line(&mut first)?;
    let head: Told = serde_json::from_str(&first)?;
    let run = Run::read_events(&mut from)?;
    let violations = head.violations.into_iter().map(|(property, what)| Violation { property: known(property), what });
    Ok(Report {
        seed: head.seed,
        nodes: head.nodes,
        run,
        reached: head.reached,
        violations: violations.collect(),
        struck: head.struck,
        plan: head.plan,
        lost: head.lost,
        simulated: head.simulated,
        converged_after: head.converged_after,
        elected: head.elected,
        trace_digest: head.trace_digest,
        trace_lines: head.trace_lines,
        trace: head.trace,
    })
}

fn write_report(report: &Report, to: &mut dyn Write) -> io::Result<()> {
    let head = Told {
        seed: report.seed,
        nodes: report.nodes,
        reached: report.reached.clone(),
        violations: report.violations.iter().map(|v| (v.property.to_owned(), v.what.clone())).collect(),
        struck: report.struck.clone(),
        plan: report.plan.clone(),
        lost: report.lost.clone(),
        simulated: report.simulated,
        converged_after: report.converged_after,
        elected: report.elected.clone(),
        trace_digest: report.trace_digest.clone(),
        trace_lines: report.trace_lines,
        trace: report.trace.clone(),
    };
    serde_json::to_writer(&mut *to, &head)?;
    to.write_all(b"\n")?;
    // What consumers saw is most of it, and nobody looks at that of a run that held.
    match report.violations.is_empty() {
        true => report.run.clone_without_changes().write_events(to)?,
        false => report.run.write_events(to)?,
    }
    to.flush()
}

/// The name of a property as the checkers have it.
fn known(property: String) -> &'static str {
    let ours = crate::checkers::ALL.iter().map(|(name, _)| *name).find(|name| *name == property);
    // A handful of names in the life of a process.
    ours.unwrap_or_else(|| property.leak())
}

fn dead(setting: &Setting, what: String) -> Report {
    Report {
        seed: setting.seed,
        nodes: setting.nodes,
        run: Run::default(),
        reached: Counts::new(),
        violations: vec![Violation { property: "the run ends by itself", what }],
        struck: BTreeMap::new(),
        plan: setting.plan(),
        lost: Vec::new(),
        simulated: Duration::ZERO,
        converged_after: None,
        elected: Vec::new(),
        trace_digest: String::new(),
        trace_lines: 0,
        trace: Vec::new(),
    }
}

/// What the command does first: if it was started as a child, it runs the one setting and is done.
pub fn as_child() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(CHILD) {
        return None;
    }
    if args.next().as_deref() == Some(VERBOSE) {
        let usual = || "info,jepsen_like_tests=debug,ledger_node=debug,ledger_raft=debug".into();
        let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_filter(filter);
        tracing_subscriber::registry().with(lines).with(Probe).init();
    }
    let ran = || -> io::Result<()> {
        // Whoever ends the command ends its runs.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let most = Rlimit { current: Some(MEMORY_MAX), maximum: Some(MEMORY_MAX) };
        rustix::process::setrlimit(Resource::Data, most)?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        let setting: Setting = serde_json::from_str(&line)?;
        write_report(&super::run(setting), &mut BufWriter::new(io::stdout().lock()))
    };
    Some(match ran() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the setting could not be run: {error}");
            ExitCode::from(2)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_what_it_used_and_whether_it_is_stopped() {
        let before = processor_time(std::process::id()).expect("the system tells");
        while processor_time(std::process::id()).expect("it still does") == before {
            std::hint::spin_loop();
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a process");
        assert!(!is_stopped(child.id()));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("ours");
        while !is_stopped(child.id()) {
            std::thread::yield_now();
        }
        child.kill().expect("ours");
        child.wait().expect("it ended");
    }
}
