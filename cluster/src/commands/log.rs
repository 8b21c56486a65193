//! `ledgerctl log`: entries of a stopped node's log, also those that cannot be decoded.
//!
//! **Owns** the documents of entries. **Must never** write to a data directory, or print without a bound.
//! **Read next**: [`ledger_node::log_view`].

use ledger_node::data_dir::DataDirError;
use ledger_node::log_view::{Content, EntryView, GroupView, LogView, LogViewError};
use serde::Serialize;

use crate::cli::{LogListArgs, LogShowArgs, LogVerb};
use crate::output::{Failure, Outcome, Printer, instant, maybe, num, table, text};

/// Bytes of an entry that are printed, as hexadecimal.
const PREFIX_BYTES: usize = 64;
/// Longest text of one command.
const COMMAND_CHARS: usize = 400;

/// A group's log.
#[derive(Debug, Serialize)]
struct GroupDoc {
    group: u32,
    first: u64,
    last: u64,
    committed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

/// One entry.
#[derive(Debug, Serialize)]
struct EntryDoc {
    group: u32,
    term: u64,
    index: u64,
    /// `raft`, `commands`, `malformed`, or `unsupported`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stamp_ms: Option<u64>,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// The entry's first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How many commands it has; `commands` may hold fewer.
    commands_total: usize,
    commands: Vec<String>,
    /// The first bytes, hexadecimal; of entries that cannot be decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
}

/// Runs a verb of `log`.
///
/// # Errors
/// [`Failure`]: the directory is in use or not a node's, or the log does not hold the entry.
pub(super) fn run(verb: LogVerb, printer: Printer) -> Outcome {
    match verb {
        LogVerb::List(args) => list(&args, printer),
        LogVerb::Show(args) => show(&args, printer),
    }
}

fn open(dir: &std::path::Path) -> Outcome<LogView> {
    LogView::open(dir).map_err(|why| match why {
        LogViewError::Dir(DataDirError::InUse { dir }) => {
            Failure::refused(format!("{} is in use: the log is shown of a stopped node only", dir.display()))
                .hint("stop that node first, or look at the entry in the data directory of one that is stopped")
        }
        why => Failure::refused(why.to_string()),
    })
}

fn unreadable(why: &LogViewError) -> Failure {
    Failure::refused(why.to_string()).hint("the same entry may be readable on another node")
}

fn list(args: &LogListArgs, printer: Printer) -> Outcome {
    let view = open(&args.data_dir)?;
    let groups = view.groups();
    let Some(group) = args.group else {
        let docs: Vec<GroupDoc> = groups.into_iter().map(group_document).collect();
        return printer.print(&docs, |docs| groups_table(docs));
    };
    let known = groups.iter().find(|known| known.group == group);
    let known = known.ok_or_else(|| no_group(group, &groups))?;
    let newest = args.before.map_or(known.last, |before| before.saturating_sub(1).min(known.last));
    let mut docs = Vec::new();
    for index in (known.first..=newest).rev() {
        if docs.len() >= args.max as usize {
            break;
        }
        let Some(entry) = view.entry(group, index).map_err(|why| unreadable(&why))? else { continue };
        if !args.refused || entry.undecoded().is_some() {
            docs.push(entry_document(&entry, 0));
        }
    }
    printer.print(&docs, |docs| entries_table(docs))
}

fn show(args: &LogShowArgs, printer: Printer) -> Outcome {
    let view = open(&args.data_dir)?;
    let Some(entry) = view.entry(args.group, args.index).map_err(|why| unreadable(&why))? else {
        let groups = view.groups();
        let known = groups.iter().find(|known| known.group == args.group);
        return Err(match known {
            None => no_group(args.group, &groups),
            Some(known) => Failure::refused(format!(
                "the log of group {} holds the indexes {} to {} here, not {}",
                args.group, known.first, known.last, args.index
            ))
            .hint("what is older is in snapshots; another node's log may still hold it"),
        });
    };
    printer.print(&entry_document(&entry, args.max as usize), entry_text)
}

fn no_group(group: u32, groups: &[GroupView]) -> Failure {
    let known: Vec<String> = groups.iter().map(|known| known.group.to_string()).collect();
    Failure::refused(format!("the log has no group {group}; it has {}", known.join(", ")))
}

fn group_document(view: GroupView) -> GroupDoc {
    let GroupView { group, first, last, committed, damage } = view;
    GroupDoc { group, first, last, committed, damage }
}

fn entry_document(entry: &EntryView, commands_max: usize) -> EntryDoc {
    let mut doc = EntryDoc {
        group: entry.group,
        term: entry.term,
        index: entry.index,
        kind: "raft",
        stamp_ms: None,
        bytes: 0,
        hash: None,
        format: None,
        error: None,
        commands_total: 0,
        commands: Vec::new(),
        prefix: None,
    };
    match &entry.content {
        Content::Raft(what) => doc.commands = vec![what.clone()],
        Content::Data { stamp_ms, bytes, hash, decoded } => {
            doc.stamp_ms = Some(*stamp_ms);
            doc.bytes = bytes.len();
            doc.hash = Some(format!("{hash:032x}"));
            doc.format = bytes.first().copied();
            match decoded {
                Ok(commands) => {
                    doc.kind = "commands";
                    doc.commands_total = commands.len();
                    doc.commands = commands.iter().take(commands_max).map(|text| cut(text)).collect();
                }
                Err(why) => {
                    doc.kind = if why.unsupported { "unsupported" } else { "malformed" };
                    doc.error = Some(cut(&why.why));
                    let prefix = bytes.iter().take(PREFIX_BYTES);
                    doc.prefix = Some(prefix.map(|byte| format!("{byte:02x}")).collect());
                }
            }
        }
    }
    doc
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(COMMAND_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn groups_table(docs: &[GroupDoc]) -> String {
    let rows = docs
        .iter()
        .map(|doc| [num(doc.group), num(doc.first), num(doc.last), num(doc.committed), maybe(doc.damage.clone())]);
    table(["GROUP", "FIRST", "LAST", "COMMITTED", "DAMAGE"], rows)
}

fn entries_table(docs: &[EntryDoc]) -> String {
    if docs.is_empty() {
        return "no such entries".to_owned();
    }
    let rows = docs.iter().map(|doc| {
        let what = match (&doc.error, doc.kind) {
            (Some(error), _) => error.clone(),
            (None, "raft") => doc.commands.first().cloned().unwrap_or_default(),
            (None, _) => format!("{} commands", doc.commands_total),
        };
        let stamp = maybe(doc.stamp_ms.map(instant));
        [num(doc.index), num(doc.term), stamp, num(doc.bytes as u64), text(doc.kind), text(what)]
    });
    table(["INDEX", "TERM", "STAMP", "BYTES", "KIND", "WHAT"], rows)
}

fn entry_text(doc: &EntryDoc) -> String {
    let mut lines = vec![format!("group {}, index {}, term {}", doc.group, doc.index, doc.term)];
    if let (Some(stamp_ms), Some(hash)) = (doc.stamp_ms, &doc.hash) {
        lines.push(format!("stamp   {} ({stamp_ms})", instant(stamp_ms)));
        let format = doc.format.map_or("none".to_owned(), |format| format.to_string());
        lines.push(format!("bytes   {}, format {format}", doc.bytes));
        lines.push(format!("hash    {hash}"));
    }
    match (doc.kind, &doc.error) {
        ("unsupported", Some(error)) => {
            lines.push(format!("not known to this build: {error}"));
            lines.push("a replica stops at it until a build that knows it runs".to_owned());
        }
        (_, Some(error)) => {
            lines.push(format!("cannot be decoded: {error}"));
            lines.push("every replica refuses it as a whole".to_owned());
        }
        (_, None) => {}
    }
    if let Some(prefix) = &doc.prefix {
        let more = if doc.bytes > PREFIX_BYTES { " …" } else { "" };
        lines.push(format!("begins  {prefix}{more}"));
    }
    lines.extend(doc.commands.iter().enumerate().map(|(place, command)| format!("{place:>5}  {command}")));
    if doc.commands.len() < doc.commands_total {
        let left = doc.commands_total - doc.commands.len();
        lines.push(format!("{left} more commands; --max shows more"));
    }
    lines.join("\n")
}
