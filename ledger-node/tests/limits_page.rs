//! docs/limits.md names every bound on what one client can take: as the source has it, with a test
//! that exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// A bound, in a unit that a page and a source can be brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Count(u64),
    Milliseconds(u64),
}

/// The constants of a file by name, each as its expression.
fn constants(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for part in text.split("pub const ").skip(1) {
        let Some((name, rest)) = part.split_once(':') else { continue };
        let value = rest.split_once('=').and_then(|(_, rest)| rest.split_once(';'));
        out.extend(
            value.map(|(value, _)| (name.trim().to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))),
        );
    }
    out
}

/// What an expression is: a number, a duration, another constant, products and shifts of them.
fn evaluate(expression: &str, known: &BTreeMap<String, String>) -> Option<Bound> {
    let text = expression.trim();
    let text = text.split(" as ").next().unwrap_or(text).trim();
    if let Some(inner) = text.strip_prefix("Duration::from_").and_then(|rest| rest.strip_suffix(')')) {
        let (unit, value) = inner.split_once('(')?;
        let Bound::Count(value) = evaluate(value, known)? else { return None };
        return Some(Bound::Milliseconds(if unit == "secs" { value * 1_000 } else { value }));
    }
    let both = |(left, right): (&str, &str)| match (evaluate(left, known)?, evaluate(right, known)?) {
        (Bound::Count(left), Bound::Count(right)) => Some((left, right)),
        _ => None,
    };
    if let Some(parts) = text.split_once("<<") {
        return both(parts).map(|(left, right)| Bound::Count(left << right));
    }
    if let Some(parts) = text.split_once('*') {
        return both(parts).map(|(left, right)| Bound::Count(left * right));
    }
    match text.replace('_', "").parse() {
        Ok(value) => Some(Bound::Count(value)),
        Err(_) => evaluate(known.get(text)?, known),
    }
}

/// What the page says, as `4,096`, `64 KiB` or `5 s`.
fn on_page(text: &str) -> Option<Bound> {
    let (value, unit) = text.split_once(' ').unwrap_or((text, ""));
    let value: u64 = value.replace(',', "").parse().ok()?;
    Some(match unit {
        "" | "%" => Bound::Count(value),
        "KiB" => Bound::Count(value << 10),
        "MiB" => Bound::Count(value << 20),
        "ms" => Bound::Milliseconds(value),
        "s" => Bound::Milliseconds(value * 1_000),
        "h" => Bound::Milliseconds(value * 3_600_000),
        _ => return None,
    })
}

/// The text of every source file of the workspace.
fn sources(dir: &Path, out: &mut String) {
    for entry in fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() && !entry.ends_with("target") && !entry.ends_with(".git") {
            sources(&entry, out);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            out.push_str(&fs::read_to_string(&entry).expect("text"));
        }
    }
}

#[test]
fn every_bound_on_the_page_is_in_the_source_and_has_a_test() {
    let page = fs::read_to_string(root().join("docs/limits.md")).expect("the page");
    let mut all = String::new();
    sources(&root(), &mut all);
    let (mut file, mut known, mut rows) = (String::new(), BTreeMap::new(), 0);
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            file = heading.split('`').nth(1).unwrap_or_else(|| panic!("{heading} names its file")).to_owned();
            known = constants(&fs::read_to_string(root().join(&file)).expect("the file of a heading"));
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, value, per, beyond, test] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        rows += 1;
        let expression = known.get(name).unwrap_or_else(|| panic!("{file} has no {name}"));
        let (source, page) = (evaluate(expression, &known), on_page(value));
        assert!(source.is_some() && source == page, "{name}: {file} has {expression} ({source:?}), the page {value}");
        assert!(!per.is_empty() && !beyond.is_empty(), "{line}");
        assert!(
            test == "-" || all.contains(&format!("fn {}(", test.trim_matches('`'))),
            "{name}: no test is called {test}"
        );
    }
    assert!(rows > 50, "only {rows} bounds were found");
}
