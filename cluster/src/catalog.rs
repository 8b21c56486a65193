//! Catalog files: products, units and policies as CSV.
//!
//! **What it is.** `sku` and `units` are needed; `name`, `price`, `low_stock`, `per_key_max`, `per_order_max` and `hold` may be
//! there, in any order. The whole file is read and checked before anything is sent, and every complaint names its line.
//! **Owns** the columns, their checks, and the references of an import. **Must never** send anything.
//! **Read next**: `crate::commands::import`.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use ledger_core::{Policy, Price, Reference, Sku, Units};

use crate::limits;

/// One line of a catalog, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogLine {
    /// Line in the file, the header being line 1.
    pub line: u64,
    /// The product.
    pub sku: Sku,
    /// For people; the ledger does not keep it.
    pub name: String,
    /// Units to receive; none when the line only creates the product.
    pub units: Option<Units>,
    /// Policy of the product's plain offer.
    pub policy: Policy,
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CatalogError {
    /// Line in the file.
    pub line: u64,
    /// What is wrong and what would be right.
    pub what: String,
}

/// What is wrong with a file: the first complaints, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatalogErrors {
    /// The first [`limits::CATALOG_ERRORS_SHOWN`], in order.
    pub first: Vec<CatalogError>,
    /// All of them, as far as the file was read.
    pub count: u64,
}

impl CatalogErrors {
    fn one(line: u64, what: String) -> Self {
        Self { first: vec![CatalogError { line, what }], count: 1 }
    }
    fn push(&mut self, line: u64, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < limits::CATALOG_ERRORS_SHOWN {
            self.first.push(CatalogError { line, what: what() });
        }
    }
}

/// A whole catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// In the file's order.
    pub lines: Vec<CatalogLine>,
}

const COLUMNS: [&str; 8] = ["sku", "name", "units", "price", "low_stock", "per_key_max", "per_order_max", "hold"];

impl Catalog {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Self, CatalogErrors> {
        let file = std::fs::File::open(path)
            .map_err(|e| CatalogErrors::one(0, format!("cannot open {}: {e}", path.display())))?;
        Self::read(file)
    }

    /// Units of all lines. A full file has more than 64 bits can say.
    pub fn units(&self) -> u128 {
        self.lines.iter().filter_map(|line| line.units).map(|units| u128::from(units.get())).sum()
    }

    /// Reads and checks CSV, a record at a time; memory is bounded by rows and by the bytes of one record, whatever comes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(input: impl Read) -> Result<Self, CatalogErrors> {
        let left = Rc::new(Cell::new(RECORD_ALLOWANCE));
        let input = Bounded { input, left: left.clone() };
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .flexible(true)
            .comment(Some(b'#'))
            .buffer_capacity(BUFFER)
            .from_reader(input);
        let header = reader.headers().map_err(|e| CatalogErrors::one(1, shown(&e.to_string())))?.clone();
        let columns = columns(&header).map_err(|what| CatalogErrors::one(1, what))?;
        let mut checked = Checked::default();
        let mut record = csv::StringRecord::new();
        for rows in 0.. {
            left.set(RECORD_ALLOWANCE);
            let begins = reader.position().line();
            let read = reader.read_record(&mut record);
            if matches!(read, Ok(false)) {
                break;
            }
            if rows == limits::CATALOG_ROWS_MAX {
                let why = || format!("more than {} lines; split the file", limits::CATALOG_ROWS_MAX);
                checked.errors.push(begins, why);
                break;
            }
            match read {
                Ok(_) => checked.take(&columns, &record, header.len()),
                Err(e) => {
                    let line = e.position().map_or(begins, csv::Position::line);
                    checked.errors.push(line, || format!("not CSV: {}", shown(&e.to_string())));
                    // After a failed read nothing that follows can be trusted to begin where a line does.
                    if e.is_io_error() {
                        break;
                    }
                }
            }
        }
        checked.finish()
    }
}

/// Bytes that the reader takes at once.
const BUFFER: usize = 8 << 10;
/// What may be read for one record: the record itself, and what the buffer takes in before and behind it.
const RECORD_ALLOWANCE: usize = limits::CATALOG_RECORD_BYTES_MAX + 2 * BUFFER;

/// A reader that gives no more than is left for the present record.
struct Bounded<R> {
    input: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.left.get());
        if most == 0 {
            let max = limits::CATALOG_RECORD_BYTES_MAX;
            let why = format!("a line is longer than {max} bytes; is a quote that opens on it never closed?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let n = self.input.read(&mut into[..most])?;
        self.left.set(self.left.get() - n);
        Ok(n)
    }
}

/// What was read so far.
#[derive(Default)]
struct Checked {
    lines: Vec<CatalogLine>,
    errors: CatalogErrors,
    seen: std::collections::HashMap<Sku, usize>,
}

impl Checked {
    fn take(&mut self, columns: &[&str], record: &csv::StringRecord, width: usize) {
        let line = record.position().map_or(0, csv::Position::line);
        let parsed = match parse_line(columns, record, width, line) {
            Ok(parsed) => parsed,
            Err(what) => return self.errors.push(line, || what),
        };
        // Lines that nobody will use: the file is refused.
        if self.errors.count > 0 {
            self.lines = Vec::new();
            self.seen.clear();
            return;
        }
        // A product may be delivered twice in one file, but with one policy.
        if let Some(&first) = self.seen.get(&parsed.sku)
            && self.lines[first].policy != parsed.policy
        {
            let (sku, first) = (&parsed.sku, self.lines[first].line);
            return self.errors.push(line, || format!("{sku} has other limits or price than on line {first}"));
        }
        self.seen.entry(parsed.sku.clone()).or_insert(self.lines.len());
        self.lines.push(parsed);
    }

    fn finish(mut self) -> Result<Catalog, CatalogErrors> {
        if self.lines.is_empty() && self.errors.count == 0 {
            self.errors.push(1, || "the file has no products".into());
        }
        if self.errors.count == 0 { Ok(Catalog { lines: self.lines }) } else { Err(self.errors) }
    }
}

/// A text of the file as a complaint repeats it: its beginning.
fn shown(text: &str) -> String {
    match text.char_indices().nth(limits::CATALOG_VALUE_SHOWN * 4) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A value of the file, likewise.
fn value(text: &str) -> String {
    match text.char_indices().nth(limits::CATALOG_VALUE_SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn columns(header: &csv::StringRecord) -> Result<Vec<&'static str>, String> {
    let mut found = Vec::new();
    for name in header {
        let lower = name.trim_start_matches('\u{feff}').to_ascii_lowercase();
        let Some(known) = COLUMNS.iter().find(|c| **c == lower) else {
            return Err(format!("unknown column {}; known are {}", value(name), COLUMNS.join(", ")));
        };
        if found.contains(known) {
            return Err(format!("column {name:?} is there twice"));
        }
        found.push(*known);
    }
    for needed in ["sku", "units"] {
        if !found.contains(&needed) {
            return Err(format!(
                "column {needed:?} is missing; the first line must name the columns, as: sku,name,units,price"
            ));
        }
    }
    Ok(found)
}

fn parse_line(columns: &[&str], record: &csv::StringRecord, width: usize, line: u64) -> Result<CatalogLine, String> {
    if record.len() != width {
        return Err(format!("{} fields, the header has {width} (a comma in a name wants quotes)", record.len()));
    }
    let field = |name: &str| {
        columns.iter().position(|c| *c == name).and_then(|i| record.get(i)).filter(|text| !text.is_empty())
    };
    let sku = Sku::new(field("sku").unwrap_or_default()).map_err(|e| e.to_string())?;
    let mut policy = Policy::default();
    if let Some(price) = field("price") {
        policy.price = Some(Price::new(price).map_err(|e| e.to_string())?);
    }
    if let Some(n) = number::<u64>("low_stock", field("low_stock"))? {
        policy.low_stock_at = n;
    }
    policy.per_key_max = number("per_key_max", field("per_key_max"))?;
    if let Some(n) = number::<u32>("per_order_max", field("per_order_max"))? {
        policy.per_order_max = n;
    }
    if let Some(text) = field("hold") {
        let hold = humantime::parse_duration(text)
            .map_err(|_| format!("hold is {}; a duration is wanted, as 10m or 90s", value(text)))?;
        policy.hold_ms_default = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
    }
    policy.validate().map_err(|e| e.to_string())?;
    let units = match number::<i64>("units", field("units"))? {
        None => return Err("units is empty; 0 creates the product without units".into()),
        Some(0) => None,
        Some(n) => Some(Units::new(n).map_err(|e| e.to_string())?),
    };
    let name = field("name").unwrap_or_default();
    let (got, max) = (name.len(), limits::CATALOG_NAME_BYTES_MAX);
    if got > max {
        return Err(format!("name has {got} bytes, at most {max} are allowed"));
    }
    Ok(CatalogLine { line, sku, name: name.to_owned(), units, policy })
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(|t| t.replace('_', "").parse().map_err(|_| format!("{name} is {}; a whole number is wanted", value(t))))
        .transpose()
}

/// The reference of an imported line: the batch's name and the line number, so that the same file adds nothing twice.
///
/// Long names keep their beginning and a fingerprint of the whole.
///
/// # Errors
/// When the name has characters that a reference must not have.
pub fn reference(batch: &str, line: u64) -> Result<Reference, ledger_core::InvalidValue> {
    let name = if batch.len() <= limits::REFERENCE_NAME_BYTES {
        batch.to_owned()
    } else {
        let keep = limits::REFERENCE_NAME_BYTES - 17;
        let cut = (0..=keep).rev().find(|&i| batch.is_char_boundary(i)).unwrap_or(0);
        format!("{}~{:016x}", &batch[..cut], fnv1a(batch.as_bytes()))
    };
    Reference::new(format!("{name}:{line}"))
}

/// FNV-1a: frozen here because references made yesterday must be made again tomorrow.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(csv: &str) -> Vec<String> {
        Catalog::read(csv.as_bytes()).expect_err("must be refused").first.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn columns_may_come_in_any_order_and_most_may_be_absent() {
        let catalog = Catalog::read("units,sku,low_stock,hold\n50,a,5,90s\n0,b,,\n".as_bytes()).expect("good");
        assert_eq!(catalog.lines[0].line, 2);
        assert_eq!(catalog.lines[0].units.map(Units::get), Some(50));
        assert_eq!(catalog.lines[0].policy.low_stock_at, 5);
        assert_eq!(catalog.lines[0].policy.hold_ms_default, 90_000);
        assert_eq!(catalog.lines[1].units, None);
    }

    #[test]
    fn units_of_all_lines_are_summed_beyond_64_bits() {
        let max = ledger_core::limits::UNITS_MAX;
        let rows = (0..=u64::MAX / max).map(|n| format!("s{n},{max}\n"));
        let csv: String = std::iter::once("sku,units\n".to_owned()).chain(rows).collect();
        let catalog = Catalog::read(csv.as_bytes()).expect("good");
        assert_eq!(catalog.units(), u128::from(u64::MAX) + 1);
        let done = crate::commands::ImportDoc { received_units: catalog.units(), ..Default::default() };
        let text = serde_json::to_string(&done).expect("a document");
        assert!(text.contains("\"received_units\":18446744073709551616"), "{text}");
    }

    #[test]
    fn every_wrong_line_is_named() {
        let got = errors("sku,units,price\na,1,9.99\nb,many,1\n,3,1\nc,-4,1\nd,5\ne f,1,1\ng,,1\n");
        assert_eq!(
            got,
            [
                "line 3: units is \"many\"; a whole number is wanted",
                "line 4: SKU is empty",
                "line 5: units is -4, allowed is 1 to 281474976710656",
                "line 6: 2 fields, the header has 3 (a comma in a name wants quotes)",
                "line 7: SKU contains a character that is not allowed at byte 1",
                "line 8: units is empty; 0 creates the product without units",
            ]
        );
    }

    #[test]
    fn line_numbers_survive_quoted_newlines_and_comments() {
        let got = errors("sku,name,units\n# a comment\na,\"two\nlines\",1\nb,x,none\n");
        assert_eq!(got, ["line 5: units is \"none\"; a whole number is wanted"]);
    }

    #[test]
    fn a_product_twice_needs_one_policy() {
        let ok = Catalog::read("sku,units,low_stock\na,1,5\na,2,5\n".as_bytes());
        assert_eq!(ok.expect("two deliveries").lines.len(), 2);
        assert_eq!(
            errors("sku,units,low_stock\na,1,5\na,2,6\n"),
            ["line 3: a has other limits or price than on line 2"]
        );
    }

    #[test]
    fn unknown_missing_and_double_columns_are_refused() {
        assert!(errors("sku,units,colour\n")[0].starts_with("line 1: unknown column \"colour\""));
        assert!(errors("sku,name\n")[0].starts_with("line 1: column \"units\" is missing"));
        assert!(errors("sku,units,units\n")[0].starts_with("line 1: column \"units\" is there twice"));
        assert_eq!(errors("sku,units\n"), ["line 1: the file has no products"]);
    }

    #[test]
    fn references_are_stable_and_bounded() {
        assert_eq!(reference("june.csv", 7).expect("short").as_str(), "june.csv:7");
        let long = "a-very-long-file-name-that-somebody-made-for-a-delivery-in-june.csv";
        let made = reference(long, 1_000_000).expect("long");
        assert_eq!(made.as_str(), "a-very-long-file-name-t~2b60d9d9a732df92:1000000");
        assert_ne!(made, reference(&long.replace("june", "july"), 1_000_000).expect("other"));
    }

    #[test]
    fn the_shipped_catalog_is_good() {
        let catalog = Catalog::read(crate::demo::SAMPLE_CATALOG.as_bytes()).expect("the sample");
        assert!(catalog.lines.len() >= 40);
        assert_eq!(catalog.lines[0].units.map(Units::get), Some(50));
    }
}
