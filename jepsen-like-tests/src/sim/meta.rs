//! Is a run a function of its seed? Runs it twice, each in a process of its own, and compares the traces line by line.
//!
//! **Owns** the comparison. **Must never** forgive a difference. **Read next**: [`super::trace`].

use std::io;

use super::apart::Apart;
use super::report::Setting;

/// What two runs of one setting have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaReport {
    /// The seed.
    pub seed: u64,
    /// Digests of both traces.
    pub digests: [String; 2],
    /// Lines of both traces.
    pub lines: [u64; 2],
    /// The first line that differs, counted from 1, as each run has it; none where one had ended.
    pub differs: Option<Differs>,
}

/// Where two traces part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs {
    /// Counted from 1.
    pub line: u64,
    /// What the last lines before were.
    pub before: Vec<String>,
    /// As the first run has it.
    pub first: Option<String>,
    /// As the second has it.
    pub second: Option<String>,
}

/// Lines shown before the one that differs.
const BEFORE: usize = 5;

fn compare(first: &[String], second: &[String]) -> Option<Differs> {
    let at = (0..first.len().max(second.len())).find(|at| first.get(*at) != second.get(*at))?;
    Some(Differs {
        line: at as u64 + 1,
        before: first[at.saturating_sub(BEFORE)..at.min(first.len())].to_vec(),
        first: first.get(at).cloned(),
        second: second.get(at).cloned(),
    })
}

/// Runs a setting twice and compares.
///
/// # Errors
/// No process could be started.
pub fn meta(setting: &Setting, apart: &Apart) -> io::Result<MetaReport> {
    let setting = Setting { keep_trace: true, ..setting.clone() };
    let (first, second) = (apart.run(&setting)?, apart.run(&setting)?);
    let mut differs = compare(&first.trace, &second.trace);
    if differs.is_none() && first.trace_digest != second.trace_digest {
        differs = Some(Differs { line: 0, before: Vec::new(), first: None, second: None });
    }
    Ok(MetaReport {
        seed: setting.seed,
        digests: [first.trace_digest, second.trace_digest],
        lines: [first.trace_lines, second.trace_lines],
        differs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn equal_traces_do_not_differ() {
        assert_eq!(compare(&lines("a b c"), &lines("a b c")), None);
    }

    #[test]
    fn the_first_line_that_differs_is_told() {
        let differs = compare(&lines("a b c d"), &lines("a b x d")).expect("they differ");
        assert_eq!((differs.line, differs.first.as_deref(), differs.second.as_deref()), (3, Some("c"), Some("x")));
        assert_eq!(differs.before, lines("a b"));
    }

    #[test]
    fn a_trace_that_ends_early_differs() {
        let differs = compare(&lines("a b"), &lines("a b c")).expect("they differ");
        assert_eq!((differs.line, differs.first, differs.second), (3, None, Some("c".to_owned())));
    }
}
