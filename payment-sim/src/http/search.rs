//! `GET /v1/payment_intents/search`: `metadata['order']:'x' AND status:'succeeded'`.
//!
//! **Owns** the part of Stripe's query language that is understood: equality of metadata, status and currency, joined by AND.
//! **Must never** answer a query it understands only in part. **Read next**: [`crate::book::Book::with_metadata`].

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::call;
use crate::behaviour::Operation;
use crate::book::records::{Charge, Intent};
use crate::book::shelf::Locked;
use crate::book::{Book, IntentRow};
use crate::form::Form;
use crate::limits::QUERY_CHARS_MAX;
use crate::params;
use crate::refusal::Refusal;
use crate::sim::Sim;
use crate::wire::{self, IntentView, SearchView};

/// One condition.
#[derive(Debug, PartialEq, Eq)]
enum Clause {
    Metadata(String, String),
    Status(String),
    Currency(String),
}

/// The endpoint.
pub(super) async fn search(State(sim): State<Arc<Sim>>, request: Request) -> Response {
    let newest_ms = sim.clock.now_ms().saturating_sub_unsigned(sim.dice.search_lag_ms());
    let find = |locked: &Locked, mut form: Form| {
        let query = form.take("query")?.ok_or_else(|| Refusal::missing("query"))?;
        let after = form.take("page")?;
        let page = params::page(&mut form)?;
        if page.starting_after.is_some() || page.ending_before.is_some() {
            return Err(Refusal::parameter("page", "A search is continued with page=next_page."));
        }
        let expand = params::ending(form, &["data.latest_charge"])?;
        let clauses = parse(&query)?;
        let below = match after {
            None => usize::MAX,
            Some(text) => text.parse().map_err(|_| Refusal::parameter("page", "Invalid page"))?,
        };
        let mut found = found(&locked.book, &clauses)
            .filter(|row| row.intent.id.number() < below && row.intent.created_ms <= newest_ms)
            .map(|row| row.intent.clone());
        let some: Vec<_> = found.by_ref().take(page.limit).collect();
        let next = found.next().and(some.last()).map(|last: &Intent| last.id.number().to_string());
        let some: Vec<_> = some
            .into_iter()
            .map(|intent| {
                let charge = intent.charge.filter(|_| expand.latest_charge).and_then(|id| locked.book.charge(id));
                (intent, charge.cloned())
            })
            .collect();
        Ok(((some, next), locked.ticket_for_all()))
    };
    let tell = |_: &Sim, (found, next_page): (Vec<(Intent, Option<Charge>)>, Option<String>)| {
        Ok(wire::json(&SearchView {
            object: "search_result",
            data: found.iter().map(|(intent, charge)| IntentView::new(intent, charge.as_ref())).collect(),
            has_more: next_page.is_some(),
            next_page,
            url: "/v1/payment_intents/search",
        }))
    };
    call::look(sim, Operation::Search, request, find, tell).await
}

/// Newest first. The first condition on metadata goes through the index; without one every intent is looked at.
fn found<'a>(book: &'a Book, clauses: &'a [Clause]) -> Box<dyn Iterator<Item = &'a IntentRow> + 'a> {
    let indexed = clauses.iter().find_map(|clause| match clause {
        Clause::Metadata(key, value) => Some(book.with_metadata(key, value)),
        _ => None,
    });
    let meets = |row: &&IntentRow| clauses.iter().all(|clause| clause.met_by(&row.intent));
    match indexed {
        Some(rows) => Box::new(rows.rev().filter(meets)),
        None => Box::new(book.intents().iter().rev().filter(meets)),
    }
}

impl Clause {
    fn met_by(&self, intent: &Intent) -> bool {
        match self {
            Self::Metadata(key, value) => intent.metadata.get(key) == Some(value),
            Self::Status(status) => intent.status.name() == status,
            Self::Currency(currency) => intent.currency.as_str() == currency,
        }
    }
}

fn parse(query: &str) -> Result<Vec<Clause>, Refusal> {
    let not_understood = || {
        Refusal::parameter(
            "query",
            "We were unable to parse your search query. It has to look like metadata['key']:'value' AND status:'succeeded'.",
        )
    };
    if query.chars().count() > QUERY_CHARS_MAX {
        return Err(not_understood());
    }
    let (mut clauses, mut rest) = (Vec::new(), query.trim());
    loop {
        let (clause, after) = clause(rest).ok_or_else(not_understood)?;
        clauses.push(clause);
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(clauses);
        }
        let (and, after) = rest.split_at_checked(3).ok_or_else(not_understood)?;
        if !and.eq_ignore_ascii_case("and") || !after.starts_with(' ') {
            return Err(not_understood());
        }
        rest = after.trim_start();
    }
}

fn clause(text: &str) -> Option<(Clause, &str)> {
    if let Some(rest) = text.strip_prefix("metadata[") {
        let (key, rest) = quoted(rest)?;
        let (value, rest) = quoted(rest.strip_prefix("]:")?)?;
        return Some((Clause::Metadata(key, value), rest));
    }
    if let Some(rest) = text.strip_prefix("status:") {
        let (value, rest) = quoted(rest)?;
        return Some((Clause::Status(value), rest));
    }
    let (value, rest) = quoted(text.strip_prefix("currency:")?)?;
    Some((Clause::Currency(value.to_ascii_lowercase()), rest))
}

/// A text in quotation marks of either kind, with `\` before what is meant as it stands; and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mark = text.chars().next().filter(|mark| matches!(mark, '\'' | '"'))?;
    let (mut value, mut chars) = (String::new(), text[1..].char_indices());
    while let Some((at, one)) = chars.next() {
        match one {
            '\\' => value.push(chars.next()?.1),
            _ if one == mark => return Some((value, &text[at + 2..])),
            _ => value.push(one),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_understood_whole_or_not_at_all() {
        let pair = |key: &str, value: &str| Clause::Metadata(key.to_owned(), value.to_owned());
        let parsed = |query| parse(query).expect(query);
        assert_eq!(parsed("metadata['order']:'a-1'"), [pair("order", "a-1")]);
        assert_eq!(
            parsed(r#" metadata["o"]:'it\'s' and status:"succeeded" "#),
            [pair("o", "it's"), Clause::Status("succeeded".to_owned())]
        );
        assert_eq!(parsed("currency:'EUR'"), [Clause::Currency("eur".to_owned())]);
        for bad in [
            "",
            "order",
            "metadata['order']:'a",
            "metadata['order']:'a' OR status:'x'",
            "metadata['order']:'a' AND",
            "metadata['order']~'a'",
            "amount>1",
            "-status:'succeeded'",
            "metadata['é']:é",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
