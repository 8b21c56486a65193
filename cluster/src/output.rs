//! What a command says and how it ends: tables or JSON on stdout, everything else on stderr, one exit code.
//!
//! **Owns** formats, exit codes, the question before a change. **Must never** colour, or mix telling with data.
//! **Read next**: [`crate::cli`].

use std::io::{BufRead, IsTerminal, Write};

use serde::Serialize;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Aligned, for people.
    #[default]
    Table,
    /// One JSON document (or one a line, for streams); its fields are stable.
    Json,
}

/// Why a command ended without having done what was asked; decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing changed, and why: exit 1.
    #[error("{what}")]
    Refused {
        /// What was refused and why.
        what: String,
        /// The exact next command, if there is one.
        hint: Option<String>,
    },
    /// The command line or a file given to it is wrong; nothing was sent: exit 2.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// The exact next command, if there is one.
        hint: Option<String>,
    },
    /// It may or may not have happened: exit 3.
    #[error("{what}")]
    Unknown {
        /// What is not known.
        what: String,
        /// How to find out.
        hint: Option<String>,
    },
}

impl Failure {
    /// Nothing changed.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), hint: None }
    }
    /// The command line or a file is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: None }
    }
    /// It may have happened.
    pub fn unknown(what: impl Into<String>) -> Self {
        Self::Unknown { what: what.into(), hint: None }
    }
    /// Names the exact next command.
    #[must_use]
    pub fn hint(mut self, next: impl Into<String>) -> Self {
        let (Self::Refused { hint, .. } | Self::Usage { hint, .. } | Self::Unknown { hint, .. }) = &mut self;
        *hint = Some(next.into());
        self
    }
    /// 1 refused · 2 usage · 3 unknown.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Usage { .. } => 2,
            Self::Unknown { .. } => 3,
        }
    }
    /// Tells it on stderr.
    pub fn tell(&self) {
        let (kind, hint) = match self {
            Self::Refused { hint, .. } => ("refused", hint),
            Self::Usage { hint, .. } => ("usage", hint),
            Self::Unknown { hint, .. } => ("unknown", hint),
        };
        eprintln!("{kind}: {self}");
        if let Some(hint) = hint {
            eprintln!("hint: {hint}");
        }
    }
}

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Prints data in the format asked for.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// Table or JSON.
    pub format: Format,
    /// Do not ask before a change.
    pub yes: bool,
}

impl Printer {
    /// One document: its JSON form, or the table made of it.
    ///
    /// # Errors
    /// [`Failure::Refused`] when stdout is gone.
    pub fn print<T: Serialize>(&self, document: &T, table: impl FnOnce(&T) -> String) -> Outcome {
        match self.format {
            Format::Json => self.line(&to_json_pretty(document)),
            Format::Table => self.line(table(document).trim_end()),
        }
    }
    /// One record of a stream: a JSON line, or a line for people.
    ///
    /// # Errors
    /// [`Failure::Refused`] when stdout is gone.
    pub fn record<T: Serialize>(&self, record: &T, line: impl FnOnce(&T) -> String) -> Outcome {
        match self.format {
            Format::Json => self.line(&serde_json::to_string(record).unwrap_or_default()),
            Format::Table => self.line(&line(record)),
        }
    }
    fn line(&self, text: &str) -> Outcome {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Failure::refused(format!("stdout: {e}")))
    }
    /// Says what will be done and asks, unless `--yes`. Without a terminal and without `--yes` nothing is done.
    ///
    /// # Errors
    /// [`Failure::Refused`] when the answer is no; [`Failure::Usage`] when nobody can be asked.
    pub fn ask(&self, will: &str) -> Outcome {
        eprintln!("will: {will}");
        if self.yes {
            return Ok(());
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::usage("nobody to ask: stdin is not a terminal; nothing was done")
                .hint("repeat the command with --yes"));
        }
        eprint!("go on? [y/N] ");
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).map_err(|e| Failure::usage(format!("stdin: {e}")))?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::refused("not done: you said no")) }
    }
}

fn to_json_pretty<T: Serialize>(document: &T) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// A table in the house style: aligned, no lines between rows, no colour.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [Cell; N]>) -> String {
    use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    // A column is a column of numbers when it has some, and nothing else but dashes.
    let mut numeric = [true; N];
    let mut some = [false; N];
    let rows: Vec<[Cell; N]> = rows.into_iter().collect();
    for row in &rows {
        for (i, cell) in row.iter().enumerate() {
            numeric[i] &= cell.number || cell.text == "-";
            some[i] |= cell.number;
        }
    }
    for (numeric, some) in numeric.iter_mut().zip(some) {
        *numeric &= some;
    }
    let side = |number: bool| if number { CellAlignment::Right } else { CellAlignment::Left };
    table.set_header(header.iter().zip(numeric).map(|(h, n)| comfy_table::Cell::new(h).set_alignment(side(n))));
    for row in rows {
        table.add_row(row.into_iter().zip(numeric).map(|(c, n)| comfy_table::Cell::new(c.text).set_alignment(side(n))));
    }
    let text: Vec<String> = table.lines().map(|l| l.strip_prefix(' ').unwrap_or(&l).trim_end().to_owned()).collect();
    text.join("\n")
}

/// One cell; numbers are right-aligned.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    number: bool,
}

/// A number for people: thousands apart.
pub fn grouped(n: impl Into<i128>) -> String {
    let n: i128 = n.into();
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if n < 0 {
        out.push('-');
    }
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number cell.
pub fn num(n: impl Into<i128>) -> Cell {
    Cell { text: grouped(n), number: true }
}
/// A text cell; empty text is `-`.
pub fn text(t: impl Into<String>) -> Cell {
    let t = t.into();
    Cell { text: if t.is_empty() { "-".into() } else { t }, number: false }
}
/// A cell with a number and its unit, right-aligned.
pub fn unit(t: impl Into<String>) -> Cell {
    Cell { text: t.into(), number: true }
}
/// Text, or `-` when there is none.
pub fn maybe(t: Option<impl Into<String>>) -> Cell {
    text(t.map(Into::into).unwrap_or_default())
}

pub use client_sdk::document::instant;

/// Microseconds for people.
pub fn micros(us: u64) -> String {
    match us {
        0..=9_999 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..=999_999 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_numbers_right_and_text_left() {
        let got = table(["SKU", "AVAILABLE"], [[text("a"), num(5u32)], [text("longer"), num(12_345u32)]]);
        assert_eq!(got, "SKU     AVAILABLE\na               5\nlonger     12,345");
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(table(["SKU", "UNITS"], std::iter::empty::<[Cell; 2]>()), "SKU  UNITS");
    }

    #[test]
    fn exit_codes_tell_no_from_unknown() {
        assert_eq!(
            [Failure::refused("").exit_code(), Failure::usage("").exit_code(), Failure::unknown("").exit_code()],
            [1, 2, 3]
        );
    }

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!(grouped(-1_234_567), "-1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!(instant(0), "-");
        assert_eq!(instant(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(micros(412), "0.41 ms");
        assert_eq!(micros(1_500_000), "1.50 s");
    }
}
