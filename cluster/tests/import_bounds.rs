//! A catalog file of any size and shape is read within bounds: of a record, of rows, of complaints.

use std::cell::Cell;
use std::io::{self, Read};

use cluster::catalog::Catalog;
use cluster::limits;

/// So many times the same bytes, and a count of what was taken of them.
struct Endless<'a> {
    bytes: &'a [u8],
    taken: &'a Cell<usize>,
    most: usize,
}
impl Read for Endless<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(self.most - self.taken.get());
        for (i, byte) in into[..n].iter_mut().enumerate() {
            *byte = self.bytes[(self.taken.get() + i) % self.bytes.len()];
        }
        self.taken.set(self.taken.get() + n);
        Ok(n)
    }
}

#[test]
fn a_quote_that_is_never_closed_ends_the_reading_within_the_bound_of_a_record() {
    let taken = Cell::new(0);
    let rest = Endless { bytes: b"b,1\n", taken: &taken, most: 64 << 20 };
    let refused = Catalog::read("sku,units\na,1\n\"b,1\n".as_bytes().chain(rest)).expect_err("refused");
    assert_eq!(refused.count, 1);
    assert!(refused.first[0].to_string().starts_with("line 3: not CSV: "), "{refused:?}");
    assert!(refused.first[0].what.contains("is a quote that opens on it never closed?"), "{refused:?}");
    assert!(taken.get() <= 4 * limits::CATALOG_RECORD_BYTES_MAX, "{} bytes were read", taken.get());
    // A header, and a file of one byte again and again, are bounded as well.
    for bytes in [b"\"".as_slice(), b"x", b"#", b"\0"] {
        taken.set(0);
        let endless = Endless { bytes, taken: &taken, most: 64 << 20 };
        assert!(Catalog::read(endless).is_err());
        assert!(taken.get() <= 4 * limits::CATALOG_RECORD_BYTES_MAX, "{} bytes of {bytes:?} were read", taken.get());
    }
}

#[test]
fn a_file_of_errors_keeps_the_first_few_and_counts_the_rest() {
    let taken = Cell::new(0);
    let most = 10 * (limits::CATALOG_ROWS_MAX + 9);
    let rest = Endless { bytes: b"a b,many\n\n", taken: &taken, most };
    let refused = Catalog::read("sku,units\n".as_bytes().chain(rest)).expect_err("refused");
    assert_eq!(refused.first.len(), limits::CATALOG_ERRORS_SHOWN);
    assert_eq!(refused.count, limits::CATALOG_ROWS_MAX as u64 + 1, "each row, and that there are too many");
}

#[test]
fn a_long_value_is_repeated_by_its_beginning_alone() {
    let text = format!("sku,units\na,{}\n", "9x".repeat(10_000));
    let refused = Catalog::read(text.as_bytes()).expect_err("refused");
    assert!(refused.first[0].what.len() < 120, "{refused:?}");
}
