//! Is an answer one that a caller can act on?
//!
//! **What it is.** A call gets an outcome under its tag, or a status whose code says what to do and whose words say why. `Internal` and `Unknown` say
//! neither: they are a fault of the node, whatever was sent. The one exception is the library's own refusal of bytes that are no message, which it calls
//! internal.
//!
//! **Owns** these rules. **Must never** know what the ledger ought to have decided. **Read next**: [`super`].

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage as _, Value};
use tonic::Code;

use super::call::Answered;

/// What was sent.
pub(super) struct Sent<'a> {
    pub(super) method: &'a MethodDescriptor,
    /// Whether the bytes are surely a message of the method's input.
    pub(super) whole: bool,
    /// The tags of its calls, if each must be answered.
    pub(super) tags: &'a [u64],
}

/// An answer that is as it must be.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) messages: Vec<DynamicMessage>,
    /// How it was answered, for the counts.
    pub(super) kind: &'static str,
    /// Calls of the frames sent that the ledger executed.
    pub(super) executed: u64,
    /// Calls of the frames sent that it refused.
    pub(super) refused: u64,
}

impl Judged {
    fn of(messages: Vec<DynamicMessage>, kind: &'static str) -> Self {
        Self { messages, kind, executed: 0, refused: 0 }
    }
}

/// An answer that a caller can act on; or what is wrong with it.
///
/// # Errors
/// Words for the report.
pub(super) fn judge(sent: &Sent<'_>, answered: &Answered) -> Result<Judged, String> {
    let name = sent.method.name();
    let wrong = |what: String| Err(format!("{name}: {what}"));
    if answered.http != 200 {
        return wrong(format!("HTTP status {} instead of a gRPC status: {}", answered.http, answered.words));
    }
    let mut messages = Vec::new();
    for bytes in &answered.messages {
        match DynamicMessage::decode(sent.method.output(), bytes.clone()) {
            Ok(message) if message.unknown_fields().next().is_none() => messages.push(message),
            Ok(_) => return wrong("an answer with fields that its .proto does not have".to_owned()),
            Err(error) => return wrong(format!("an answer that is no {}: {error}", sent.method.output().name())),
        }
    }
    let code = match answered.code {
        None if sent.method.is_server_streaming() => return Ok(Judged::of(messages, "stream")),
        None => return wrong("no status".to_owned()),
        Some(code) => Code::from_i32(code),
    };
    if code != Code::Ok {
        let says = says_what_to_do(code) || (!sent.whole && code == Code::Internal && is_the_decoder(&answered.words));
        return match says && (answered.typed || !answered.words.is_empty()) {
            true => Ok(Judged::of(messages, "status")),
            false => wrong(format!("status {code:?} {:?} says neither what happened nor what to do", answered.words)),
        };
    }
    let (mut executed, mut refused) = (0, 0);
    if sent.whole {
        if !sent.method.is_server_streaming() && messages.len() != 1 {
            return wrong(format!("ok with {} messages", messages.len()));
        }
        (executed, refused) = outcomes(sent, &messages)?;
    }
    Ok(Judged { messages, kind: "ok", executed, refused })
}

/// What the library that decodes messages says of bytes that are none.
fn is_the_decoder(words: &str) -> bool {
    let words = words.replace("%20", " ");
    let words = words.replace("%20", " ");
    words.contains("decode")
        || words.contains("protocol error")
        || words.contains("Missing")
        || words.contains("Unexpected EOF")
}

fn says_what_to_do(code: Code) -> bool {
    !matches!(code, Code::Ok | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted)
}

/// Each call of the frames sent is answered once, with an outcome. How many were executed, and how many refused.
fn outcomes(sent: &Sent<'_>, messages: &[DynamicMessage]) -> Result<(u64, u64), String> {
    if sent.tags.is_empty() {
        return Ok((0, 0));
    }
    let (mut executed, mut refused) = (0, 0);
    let mut left: BTreeMap<u64, usize> = BTreeMap::new();
    sent.tags.iter().for_each(|tag| *left.entry(*tag).or_default() += 1);
    for answer in messages.iter().flat_map(answers) {
        let tag = answer.get_field_by_name("tag").and_then(|tag| tag.as_u64()).unwrap_or_default();
        match left.get_mut(&tag) {
            Some(n) if *n > 0 => *n -= 1,
            _ => return Err(format!("{}: an answer to tag {tag}, which is not asked or answered", sent.method.name())),
        }
        let outcome = answer.descriptor().oneofs().find(|oneof| oneof.name() == "outcome");
        let fields = outcome.iter().flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
        match fields.into_iter().find(|field| answer.has_field(field)) {
            Some(field) if field.name() == "ok" => executed += 1,
            Some(field) if field.name() == "refused" => refused += 1,
            Some(_) => {}
            None => return Err(format!("{}: the answer to tag {tag} has no outcome", sent.method.name())),
        }
    }
    match left.iter().find(|(_, n)| **n > 0) {
        Some((tag, _)) => Err(format!("{}: ok, but tag {tag} is not answered", sent.method.name())),
        None => Ok((executed, refused)),
    }
}

/// The answers of a frame of answers.
pub(super) fn answers(frame: &DynamicMessage) -> Vec<DynamicMessage> {
    let list = |of: &DynamicMessage, name: &str| match of.get_field_by_name(name).as_deref() {
        Some(Value::List(values)) => {
            values.iter().filter_map(|value| value.as_message().cloned()).collect::<Vec<DynamicMessage>>()
        }
        _ => Vec::new(),
    };
    list(frame, "entries").iter().flat_map(|entry| list(entry, "answers")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::methods;
    use super::*;
    use bytes::Bytes;
    use ledger_proto::{Answers, Cause, NotNow, Reply, v1};
    use prost_reflect::prost::Message as _;

    fn told(code: i32, words: &str, typed: bool, messages: Vec<Bytes>) -> Answered {
        Answered { http: 200, code: Some(code), words: words.to_owned(), typed, messages }
    }

    fn submitted(tags: &[u64], answered: &Answered) -> Result<&'static str, String> {
        let method = methods::method("SubmitBatch");
        judge(&Sent { method: &method, whole: true, tags }, answered).map(|judged| judged.kind)
    }

    fn frame(tags: &[u64]) -> Bytes {
        let mut frame = Answers::new();
        let busy = NotNow { cause: Cause::Overloaded, message: "busy".into(), retry_ms: 20, leader: None };
        tags.iter().for_each(|tag| frame.push(*tag, &Reply::NotNow(busy.clone())));
        Bytes::copy_from_slice(frame.as_bytes())
    }

    #[test]
    fn every_tag_must_be_answered_once() {
        assert_eq!(submitted(&[1, 2], &told(0, "", false, vec![frame(&[2, 1])])), Ok("ok"));
        assert!(submitted(&[1, 2], &told(0, "", false, vec![frame(&[1])])).is_err());
        assert!(submitted(&[1], &told(0, "", false, vec![frame(&[1, 1])])).is_err());
        assert!(submitted(&[1], &told(0, "", false, vec![])).is_err());
    }

    #[test]
    fn executed_and_refused_calls_are_counted_and_not_now_is_neither() {
        let method = methods::method("SubmitBatch");
        let outcomes = [
            v1::answer::Outcome::Ok(v1::Settled::default()),
            v1::answer::Outcome::Refused(v1::Refusal::default()),
            v1::answer::Outcome::NotNow(v1::NotNow::default()),
        ];
        let answers = (1..).zip(outcomes).map(|(tag, outcome)| v1::Answer {
            tag,
            outcome: Some(outcome),
            ..v1::Answer::default()
        });
        let entry = v1::EntryAnswers { answers: answers.collect(), ..v1::EntryAnswers::default() };
        let frame = v1::AnswerFrame { entries: vec![entry] }.encode_to_vec();
        let sent = Sent { method: &method, whole: true, tags: &[1, 2, 3] };
        let judged = judge(&sent, &told(0, "", false, vec![frame.into()])).expect("every tag has an outcome");
        assert_eq!((judged.executed, judged.refused, judged.kind), (1, 1, "ok"));
    }

    #[test]
    fn a_status_must_say_what_to_do() {
        let code = |code: Code| code as i32;
        assert_eq!(submitted(&[1], &told(code(Code::InvalidArgument), "no frame", false, vec![])), Ok("status"));
        assert!(submitted(&[1], &told(code(Code::Internal), "it broke", false, vec![])).is_err());
        assert!(submitted(&[1], &told(code(Code::Unknown), "", false, vec![])).is_err());
        assert!(submitted(&[1], &Answered { http: 502, ..Answered::default() }).is_err());
    }
}
