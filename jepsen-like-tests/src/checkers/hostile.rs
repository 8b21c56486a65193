//! Hostile clients: whatever they send is answered with an outcome or a typed refusal, and the ledger decided some of it.
//!
//! What they changed is no other client's: [`others`] gives the run without it to the checkers that explain every effect by somebody's call.
//!
//! **Owns** these two. **Must never** take away a change of a product or an id that the journal names. **Read next**: [`super::replicas`], which sees all.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::history::{Change, Hostile, Run};

/// Answers that nobody can act on. A run in which no call was executed, or none refused, proves nothing:
/// a node that answers *unavailable* to everything would pass.
pub fn check(run: &Run) -> Vec<String> {
    let Some(hostile) = &run.hostile else { return Vec::new() };
    let mut wrong = hostile.wrong.clone();
    let Hostile { asked, answered, executed, refused, .. } = hostile;
    if *executed == 0 || *refused == 0 {
        wrong.push(format!(
            "{asked} hostile calls: {answered} answered, {executed} executed, {refused} refused: the run proves nothing"
        ));
    }
    wrong
}

/// The run without the changes that hostile clients alone can have caused: those of products and ids that no call in the journal names.
pub(crate) fn others(run: &Run) -> Cow<'_, Run> {
    if run.hostile.is_none() {
        return Cow::Borrowed(run);
    }
    let skus: BTreeSet<&str> = run.events.iter().flat_map(|event| event.op.skus()).collect();
    let ids: BTreeSet<&str> = run.events.iter().filter_map(|event| event.op.id()).collect();
    let is_ordinary = |change: &Change| {
        let lines = change.lines.iter().chain(&change.given_back).map(|line| &line.line.offer);
        let mut offers = lines.chain(&change.offer).peekable();
        match offers.peek() {
            Some(_) => offers.any(|offer| skus.contains(offer.sku.as_str())),
            None => change.id.as_deref().is_some_and(|id| ids.contains(id)),
        }
    };
    let mut run_of_others = run.clone_without_changes();
    for (of_others, watched) in run_of_others.watched.iter_mut().zip(&run.watched) {
        of_others.changes = watched.changes.iter().filter(|change| is_ordinary(change)).cloned().collect();
    }
    Cow::Owned(run_of_others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Event, Op, Watched};

    fn told(sku: Option<&str>, id: Option<&str>) -> Change {
        let mut change: Change = serde_json::from_str(
            r#"{"at":{"shard":1,"index":1,"place":0,"term":1},"time_ms":1,"name":"UnitsReceived"}"#,
        )
        .expect("a change");
        change.offer = sku.map(crate::history::Offer::plain);
        change.id = id.map(str::to_owned);
        change
    }

    fn run(hostile: Option<Hostile>) -> Run {
        let event = Event {
            client: 1,
            op: Op::ReadOffer { offer: crate::history::Offer::plain("known"), stale: false },
            asked_ms: 0,
            answered_ms: 1,
            answer: Answer::Unknown { why: String::new() },
        };
        let watched = Watched {
            consumer: 0,
            node: 1,
            began: "oldest".into(),
            behind: vec![],
            from_ms: 0,
            to_ms: 0,
            changes: vec![told(Some("known"), None), told(Some("other"), None), told(None, Some("an id"))],
            ended: "caught up".into(),
        };
        Run { events: vec![event], watched: vec![watched], hostile, ..Run::default() }
    }

    #[test]
    fn what_no_call_names_is_taken_out_where_hostile_clients_were() {
        let all = run(None);
        assert_eq!(others(&all).watched[0].changes.len(), 3);
        let all = run(Some(Hostile::default()));
        assert_eq!(others(&all).watched[0].changes, [told(Some("known"), None)]);
    }

    #[test]
    fn a_run_that_decided_nothing_and_an_answer_without_a_reason_fail() {
        assert_eq!(check(&run(None)), Vec::<String>::new());
        assert_eq!(check(&run(Some(Hostile::default()))).len(), 1);
        let mut hostile = Hostile::default();
        hostile.count("Submit", "ok");
        hostile.executed = 1;
        assert_eq!(check(&run(Some(hostile.clone()))).len(), 1);
        hostile.refused = 1;
        assert_eq!(check(&run(Some(hostile.clone()))), Vec::<String>::new());
        hostile.wrong("Submit: no status".into());
        assert_eq!(check(&run(Some(hostile))), ["Submit: no status"]);
    }
}
