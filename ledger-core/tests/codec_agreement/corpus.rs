//! The corpus of entry bytes: how its cases are made, and how they are written down.
//!
//! **Owns** which cases there are; their verdicts are in `golden/entries-v1.txt`. **Must never** lose a case.

use ledger_core::limits;

use crate::arbitrary::one_of_each;
use crate::open::{fields, largest_order};
use crate::raw;

/// Every command, its fields at and beyond their bounds, and entries that are wrong as a whole.
pub(crate) fn cases() -> Vec<(String, Vec<u8>)> {
    let mut cases = Vec::new();
    for (name, command) in one_of_each() {
        cases.push((name.to_owned(), raw::entry(std::slice::from_ref(&command))));
        for field in fields(&command) {
            for &n in &field.edges {
                let mut changed = command.clone();
                (field.set)(&mut changed, n);
                cases.push((format!("{name}/{}={n}", field.name), raw::entry(&[changed])));
            }
        }
    }
    cases.extend(wholes());
    cases
}

fn wholes() -> Vec<(String, Vec<u8>)> {
    let all: Vec<_> = one_of_each().into_iter().map(|(_, command)| command).collect();
    let order = all.iter().find(|c| matches!(c, ledger_core::Command::PlaceOrder { reserve: Some(_), .. }));
    let whole = |name: &str, bytes: Vec<u8>| (format!("Entry/{name}"), bytes);
    let counted = |count: u32, body: &[u8]| [&[1][..], &count.to_le_bytes(), body].concat();
    let max = limits::COMMANDS_PER_ENTRY_MAX as u32;
    let mut cases = vec![
        whole("nothing", vec![]),
        whole("empty", counted(0, &[])),
        whole("all", raw::entry(&all)),
        whole("largest", raw::entry(&[largest_order(order.expect("there is one").clone())])),
        whole("count-short", counted(2, &[0])),
        whole("count-long", counted(0, &[0])),
        whole("count-wide", counted(u32::MAX, &[0])),
        whole("most", counted(max, &vec![0; max as usize])),
        whole("too-many", counted(max + 1, &vec![0; max as usize + 1])),
        whole("too-large", counted(1, &vec![0; limits::ENTRY_BYTES_MAX])),
        // A small number written the long way: two forms of one entry, which the released decoder takes.
        whole("long-number", counted(1, &[34, 251, 1, 0])),
        whole("wide-number", counted(1, &[34, 253, 1, 0, 0, 0, 0, 0, 0, 0])),
        whole("widest-number", counted(1, &[&[34, 254][..], &1_u128.to_le_bytes()].concat())),
        whole("no-number", counted(1, &[34, 255, 1])),
    ];
    for version in [0, 2, 250] {
        cases.push(whole(&format!("version-{version}"), vec![version, 0, 0, 0, 0]));
    }
    cases.push(whole("version-long", vec![251, 1, 0, 0, 0, 0, 0]));
    // A later format may have wider bounds than this one.
    cases.push(whole("version-2-large", vec![2; limits::ENTRY_BYTES_MAX + 1]));
    // Numbers that no command has.
    for number in [7, 15, 20, 23, 27, 35, 63, 70, 128, 255] {
        cases.push(whole(&format!("command-{number}"), counted(1, &[number])));
    }
    // Flags, closed sets and texts inside a command that is otherwise good.
    let sku = |name: &[u8]| counted(1, &[&[18, name.len() as u8][..], name, &[0, 1]].concat());
    cases.push(whole("sku", sku(b"a")));
    cases.push(whole("sku-empty", sku(b"")));
    cases.push(whole("sku-space", sku(b"a b")));
    cases.push(whole("sku-not-text", sku(&[0xff])));
    cases.push(whole("sku-longest", sku(&[b'a'; limits::SKU_BYTES_MAX])));
    cases.push(whole("sku-too-long", sku(&[b'a'; limits::SKU_BYTES_MAX + 1])));
    cases.push(whole("flag-two", counted(1, &[18, 1, b'a', 0, 2])));
    cases.push(whole("option-two", counted(1, &[18, 1, b'a', 2, 1])));
    cases.push(whole("id-no-v7", counted(1, &[&[4][..], &[0; 16]].concat())));
    cases
}

/// Bytes as hex; more than eight of one kind as `xx*n`.
pub(crate) fn notation(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut open = false;
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() > 8 {
            out += &format!("{}{:02x}*{} ", if open { " " } else { "" }, run[0], run.len());
            open = false;
        } else {
            run.iter().for_each(|byte| out += &format!("{byte:02x}"));
            open = true;
        }
    }
    out.trim_end().to_owned()
}
