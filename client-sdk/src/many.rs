//! Explicit batches, and single calls past the streams.
//!
//! **Owns** the order of a batch's outcomes. **Must never** make a batch look like a transaction: each command has its own outcome.

use std::task::Poll;
use std::time::Duration;

use ledger_core::{Command, Settled};
use ledger_proto::reply::Reply;
use ledger_proto::{OneCall, calls};
use tokio::time::Instant;

use crate::calling::{first_try, ok, pursue, refused};
use crate::chance;
use crate::client::Client;
use crate::lane::{Landed, Ticket};
use crate::limits;
use crate::outcome::{NotNow, Outcome, Unknown};

enum Sent {
    Waiting(Ticket),
    Unsettled(Option<Landed>),
    Settled(Outcome<Settled>),
}

/// Sends all commands at once; what the first try does not settle is pursued one by one.
pub(crate) async fn submit_many(client: &Client, commands: Vec<Command>, deadline: Duration) -> Vec<Outcome<Settled>> {
    let now = Instant::now();
    let until = chance::after(now, deadline);
    let send = |command: &Command| match calls::check(command) {
        Err(invalid) => Sent::Settled(refused(invalid.into(), None)),
        Ok(()) => match first_try(client, command, now, until) {
            Some(ticket) => Sent::Waiting(ticket),
            None => Sent::Unsettled(None),
        },
    };
    let mut sent: Vec<Sent> = commands.iter().map(send).collect();
    let mut first = 0;
    // Only the first unanswered one is waited for: one wake-up a frame instead of one a call.
    std::future::poll_fn(|cx| {
        while let Some(one) = sent.get_mut(first) {
            if let Sent::Waiting(ticket) = one {
                *one = match std::task::ready!(ticket.poll(cx)) {
                    Landed::Answer(Reply::Ok(value), at) => Sent::Settled(ok(value, at)),
                    Landed::Answer(Reply::Refused(why), at) => Sent::Settled(refused(why, at)),
                    other => Sent::Unsettled(Some(other)),
                };
            }
            first += 1;
        }
        Poll::Ready(())
    })
    .await;
    let outcome = |(sent, command)| async move {
        match sent {
            Sent::Settled(outcome) => outcome,
            Sent::Unsettled(landed) => pursue(client.clone(), command, until, landed).await.0,
            Sent::Waiting(_) => unreachable!("all were waited for"),
        }
    };
    if sent.iter().all(|sent| matches!(sent, Sent::Settled(_))) {
        let settled = sent.into_iter().filter_map(|sent| match sent {
            Sent::Settled(outcome) => Some(outcome),
            _ => None,
        });
        return settled.collect();
    }
    futures::future::join_all(sent.into_iter().zip(commands).map(outcome)).await
}

/// One unary call to the leader; no second try.
pub(crate) async fn submit_unary(client: &Client, command: Command, deadline: Duration) -> Outcome<Settled> {
    if let Err(invalid) = calls::check(&command) {
        return refused(invalid.into(), None);
    }
    let within = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
    let rpc = client.routes().with(command.slot(), 0, |node| node.rpc.clone());
    let (Some(mut rpc), Some(call)) = (rpc, OneCall::of(1, within, &command)) else {
        return not_now("no node is known");
    };
    let unknown = |message: String| Outcome::Unknown(Unknown { message });
    let answers = match tokio::time::timeout(deadline, rpc.submit(call)).await {
        Ok(Ok(answers)) => answers.into_inner().decode(),
        Ok(Err(status)) => return unknown(status.to_string()),
        Err(_) => return unknown("the deadline passed".into()),
    };
    match answers.map(|mut answers| answers.pop()) {
        Ok(Some(answer)) => {
            client.routes().heard.answers(std::slice::from_ref(&answer));
            match answer.reply {
                Reply::Ok(value) => ok(value, answer.at),
                Reply::Refused(why) => refused(why, answer.at),
                Reply::NotNow(told) => {
                    let retry_after = chance::retry_after(told.retry_ms);
                    Outcome::NotNow(NotNow { cause: told.cause, message: told.message, retry_after })
                }
                Reply::Unknown(message) => unknown(message),
            }
        }
        Ok(None) => unknown("the node answered without an answer".into()),
        Err(error) => unknown(error.to_string()),
    }
}

fn not_now(message: &str) -> Outcome<Settled> {
    let cause = ledger_proto::Cause::Unreachable;
    Outcome::NotNow(NotNow { cause, message: message.into(), retry_after: limits::BACKOFF_MAX })
}
