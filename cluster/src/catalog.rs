//! Catalog files: products, units and policies as CSV.
//!
//! **What it is.** `sku` and `units` are needed; `name`, `price`, `low_stock`, `per_key_max`, `per_order_max` and `hold` may be
//! there, in any order. The whole file is read and checked before anything is sent, and every complaint names its line.
//! **Owns** the columns, their checks, and the references of an import. **Must never** send anything.
//! **Read next**: `crate::commands::import`.

use std::io::Read;
use std::path::Path;

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
    /// Every line that is wrong, in order.
    pub fn open(path: &Path) -> Result<Self, Vec<CatalogError>> {
        let file = std::fs::File::open(path)
            .map_err(|e| vec![CatalogError { line: 0, what: format!("cannot open {}: {e}", path.display()) }])?;
        Self::read(std::io::BufReader::new(file))
    }

    /// Reads and checks CSV.
    ///
    /// # Errors
    /// Every line that is wrong, in order.
    pub fn read(input: impl Read) -> Result<Self, Vec<CatalogError>> {
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).comment(Some(b'#')).from_reader(input);
        let header = reader.headers().map_err(|e| vec![CatalogError { line: 1, what: e.to_string() }])?.clone();
        let columns = columns(&header).map_err(|what| vec![CatalogError { line: 1, what }])?;
        let mut lines: Vec<CatalogLine> = Vec::new();
        let mut errors = Vec::new();
        let mut seen: std::collections::HashMap<Sku, usize> = std::collections::HashMap::new();
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(e) => {
                    let line = e.position().map_or(0, csv::Position::line);
                    errors.push(CatalogError { line, what: format!("not CSV: {e}") });
                    continue;
                }
            };
            let line = record.position().map_or(0, csv::Position::line);
            if lines.len() >= limits::CATALOG_ROWS_MAX {
                errors.push(CatalogError {
                    line,
                    what: format!("more than {} lines; split the file", limits::CATALOG_ROWS_MAX),
                });
                break;
            }
            match parse_line(&columns, &record, header.len(), line) {
                Ok(parsed) => {
                    // A product may be delivered twice in one file, but with one policy.
                    if let Some(&first) = seen.get(&parsed.sku)
                        && lines[first].policy != parsed.policy
                    {
                        let first = lines[first].line;
                        errors.push(CatalogError {
                            line,
                            what: format!("{} has other limits or price than on line {first}", parsed.sku),
                        });
                    }
                    seen.entry(parsed.sku.clone()).or_insert(lines.len());
                    lines.push(parsed);
                }
                Err(what) => errors.push(CatalogError { line, what }),
            }
        }
        if lines.is_empty() && errors.is_empty() {
            errors.push(CatalogError { line: 1, what: "the file has no products".into() });
        }
        if errors.is_empty() { Ok(Self { lines }) } else { Err(errors) }
    }
}

fn columns(header: &csv::StringRecord) -> Result<Vec<&'static str>, String> {
    let mut found = Vec::new();
    for name in header {
        let lower = name.trim_start_matches('\u{feff}').to_ascii_lowercase();
        let Some(known) = COLUMNS.iter().find(|c| **c == lower) else {
            return Err(format!("unknown column {name:?}; known are {}", COLUMNS.join(", ")));
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
            .map_err(|_| format!("hold is {text:?}; a duration is wanted, as 10m or 90s"))?;
        policy.hold_ms_default = hold.as_millis() as u64;
    }
    policy.validate().map_err(|e| e.to_string())?;
    let units = match number::<i64>("units", field("units"))? {
        None => return Err("units is empty; 0 creates the product without units".into()),
        Some(0) => None,
        Some(n) => Some(Units::new(n).map_err(|e| e.to_string())?),
    };
    Ok(CatalogLine { line, sku, name: field("name").unwrap_or_default().to_owned(), units, policy })
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(|t| t.replace('_', "").parse().map_err(|_| format!("{name} is {t:?}; a whole number is wanted")))
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
        Catalog::read(csv.as_bytes()).expect_err("must be refused").iter().map(ToString::to_string).collect()
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
