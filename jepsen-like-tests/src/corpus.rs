//! Every seed that ever failed, with what it found: run again by CI, so that what was mended stays so.
//!
//! **Owns** the format of `seeds.txt`: a seed a line (`7x75`: in a run stretched 75 times), then what it found; `#` begins a remark. **Must never** drop
//! a seed because it holds now.
//! **Read next**: [`crate::sim`].

use std::fmt;

/// The corpus as it was when this was built.
const SEEDS: &str = include_str!("../seeds.txt");

/// A seed that once failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The seed.
    pub seed: u64,
    /// How many times its run was stretched; once is the usual run.
    pub stretch: u64,
    /// What it found.
    pub found: String,
}

impl fmt::Display for Kept {
    /// As in `seeds.txt`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed;
        f.pad(&if self.stretch == 1 { seed.to_string() } else { format!("{seed}x{}", self.stretch) })
    }
}

/// Why a corpus cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the corpus is not a seed and what it found: {text:?}")]
pub struct NotACorpus {
    line: usize,
    text: String,
}

/// The seeds of this build.
///
/// # Errors
/// [`NotACorpus`].
pub fn built_in() -> Result<Vec<Kept>, NotACorpus> {
    parse(SEEDS)
}

/// Reads a corpus.
///
/// # Errors
/// [`NotACorpus`], with the line.
pub fn parse(text: &str) -> Result<Vec<Kept>, NotACorpus> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| {
            let wrong = || NotACorpus { line, text: text.to_owned() };
            let (seed, found) = text.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let (seed, stretch) = seed.split_once('x').unwrap_or((seed, "1"));
            let seed = seed.parse().map_err(|_| wrong())?;
            let stretch = stretch.parse().map_err(|_| wrong())?;
            Ok(Kept { seed, stretch, found: found.trim().to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_seed_and_what_it_found() {
        let kept = parse("# remark\n\n 42   a lost write\n7x75\tanother\n").unwrap();
        let of = |seed, stretch, found: &str| Kept { seed, stretch, found: found.into() };
        assert_eq!(kept, [of(42, 1, "a lost write"), of(7, 75, "another")]);
        assert_eq!(parse("1 a\n12").unwrap_err().line, 2);
        assert!(parse("x y").is_err() && parse("7x y").is_err());
    }

    #[test]
    fn the_built_in_corpus_can_be_read_and_names_no_seed_twice() {
        let kept = built_in().unwrap();
        let mut seeds: Vec<u64> = kept.iter().map(|k| k.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), kept.len());
    }
}
