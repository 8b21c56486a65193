//! Encoding takes exactly what decoding gives back: whatever a command holds, and however full the entry is.
//!
//! **Owns** the verdicts of the released entry format, `golden/entries-v1.txt`. **Must never** have those rewritten to fit the code: a decoder that takes
//! more, or less, is a new format. **Read next**: `codec.rs`.

#[path = "../arbitrary/mod.rs"]
#[expect(dead_code, reason = "its day is for others")]
mod arbitrary;
mod corpus;
mod open;
mod raw;

use ledger_core::codec::{CodecError, EntryBuilder, PushError, decode_entry};
use ledger_core::{Command, LedgerTime, limits};
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> Result<Vec<Command>, CodecError> {
    decode_entry(LedgerTime(1), bytes).map(|entry| entry.commands)
}

/// A command with a field or two set to what may be beyond its bounds.
fn any_command() -> impl Strategy<Value = Command> {
    let all: Vec<Command> = arbitrary::one_of_each().into_iter().map(|(_, command)| command).collect();
    let good = prop_oneof![
        arbitrary::batch().prop_filter_map("none", |mut commands| commands.pop()),
        prop::sample::select(all),
    ];
    let change =
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop_oneof![any::<u64>(), 0..70_u64], 0..4);
    (good, prop::collection::vec(change, 0..3)).prop_map(|(mut command, changes)| {
        for (field, edge, any, kind) in changes {
            let fields = open::fields(&command);
            if fields.is_empty() {
                break;
            }
            let field = field.get(&fields);
            (field.set)(&mut command, if kind == 0 { any } else { *edge.get(&field.edges) });
        }
        command
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_command_is_encoded_if_and_only_if_it_decodes_to_itself(
        before in arbitrary::batch(),
        command in any_command(),
    ) {
        let unchecked = raw::entry(std::slice::from_ref(&command));
        let decodes = decode(&unchecked).is_ok_and(|decoded| decoded == [command.clone()]);
        let mut entry = EntryBuilder::new();
        for one in &before {
            entry.push(one).expect("a command within its bounds is taken");
        }
        let pushed = entry.push(&command);
        prop_assert_eq!(pushed.is_ok(), decodes, "{:?}", pushed);
        // The refused command left nothing behind.
        let taken = [before.as_slice(), if decodes { std::slice::from_ref(&command) } else { &[] }].concat();
        prop_assert_eq!(entry.commands(), taken.len());
        let bytes = entry.finish();
        prop_assert_eq!(&bytes[..], &raw::entry(&taken)[..]);
        prop_assert_eq!(decode(&bytes).expect("an entry of the builder decodes"), taken);
    }
}

#[test]
fn an_entry_takes_as_many_commands_as_decode_and_no_more() {
    let mut entry = EntryBuilder::new();
    for _ in 0..limits::COMMANDS_PER_ENTRY_MAX {
        entry.push(&Command::Tick).expect("up to the bound");
    }
    assert_eq!(entry.push(&Command::Tick), Err(PushError::Full));
    let decoded = decode(&entry.finish()).expect("a full entry decodes");
    assert_eq!(decoded.len(), limits::COMMANDS_PER_ENTRY_MAX);
}

#[test]
fn an_entry_takes_as_many_bytes_as_decode_and_no_more() {
    let mut entry = EntryBuilder::new();
    let order = arbitrary::one_of_each().into_iter().find(|(name, _)| *name == "PlaceOrder").expect("it is there").1;
    let large = open::largest_order(order);
    let mut bytes = 0;
    let full = loop {
        match entry.push(&large) {
            Ok(now) => bytes = now,
            Err(why) => break why,
        }
    };
    assert_eq!(full, PushError::Full);
    assert!(entry.commands() < limits::COMMANDS_PER_ENTRY_MAX, "bytes bound it, not commands");
    let one = raw::entry(std::slice::from_ref(&large)).len();
    assert!(bytes <= limits::ENTRY_BYTES_MAX && bytes + one > limits::ENTRY_BYTES_MAX, "{bytes} of {one} each");
    // A small one may still fit.
    entry.push(&Command::Tick).expect("one byte is left");
    assert!(decode(&entry.finish()).is_ok());
}

/// One line of the corpus: a name, a verdict, and bytes as hex, `xx*n` being n times the byte.
struct Case<'a> {
    name: &'a str,
    verdict: &'a str,
    bytes: Vec<u8>,
}

fn kept() -> Vec<Case<'static>> {
    let lines =
        include_str!("../golden/entries-v1.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line: &'static str| {
        let mut words = line.split_whitespace();
        let (name, verdict) = (words.next().expect("a name"), words.next().expect("a verdict"));
        Case { name, verdict, bytes: words.flat_map(bytes_of).collect() }
    };
    lines.map(case).collect()
}

fn bytes_of(word: &str) -> Vec<u8> {
    let byte = |hex: &str| u8::from_str_radix(hex, 16).expect("two hex digits");
    match word.split_once('*') {
        Some((hex, times)) => vec![byte(hex); times.parse().expect("a number")],
        None => word.as_bytes().chunks(2).map(|pair| byte(std::str::from_utf8(pair).expect("text"))).collect(),
    }
}

fn verdict(bytes: &[u8]) -> &'static str {
    match decode(bytes) {
        Ok(_) => "taken",
        Err(why) if why.is_unsupported() => "unknown",
        Err(_) => "refused",
    }
}

#[test]
fn bytes_of_the_released_format_keep_their_verdicts() {
    let cases = kept();
    assert!(cases.len() > 200, "only {} cases", cases.len());
    let changed: Vec<String> = (cases.iter())
        .filter(|case| verdict(&case.bytes) != case.verdict)
        .map(|case| format!("{} was {}, is {}", case.name, case.verdict, verdict(&case.bytes)))
        .collect();
    assert!(changed.is_empty(), "a released format's decoder never widens or narrows:\n{}", changed.join("\n"));
}

/// The corpus covers every command, at its bounds and beyond them.
#[test]
fn the_corpus_has_a_verdict_for_every_case_that_is_generated() {
    let mut cases = kept().into_iter().map(|case| (case.name, case.bytes));
    let mut missing = String::new();
    for (name, bytes) in corpus::cases() {
        match cases.next() {
            Some((known, kept)) if known == name && kept == bytes => {}
            _ => missing += &format!("{name} {} {}\n", verdict(&bytes), corpus::notation(&bytes)),
        }
    }
    assert!(missing.is_empty(), "these lines differ or are missing in golden/entries-v1.txt:\n{missing}");
    assert_eq!(cases.next(), None, "a case that nothing generates any more");
}
