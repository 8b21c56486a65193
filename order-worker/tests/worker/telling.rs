//! Notifications on the wire: a mail to a relay, a signed event to a shop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use client_sdk::Contact;
use http::{HeaderMap, StatusCode};
use ledger_core::order::{Ending, Money};
use order_worker::notify::templates::Templates;
use order_worker::notify::{Message, Notifier as _, smtp, webhook};
use order_worker::payment::{Failure, signature};
use order_worker::seams::Seams;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::fake_ledger::FakeLedger;

fn message(email: &str) -> Message {
    let order = FakeLedger::id(1);
    Message {
        key: format!("{order}-sold"),
        order,
        ending: Ending::Sold,
        amount: Money::new(500, "EUR").expect("money"),
        lines: vec![],
        linked: None,
        contact: Contact { email: Some(email.into()), lang: Some("de".into()), ..Contact::default() },
    }
}

/// A relay that takes one mail, or refuses its receiver for good.
async fn relay(listener: TcpListener, refuses: bool) -> String {
    let (stream, _) = listener.accept().await.expect("a connection");
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut mail = String::new();
    write.write_all(b"220 relay\r\n").await.expect("written");
    while let Some(line) = lines.next_line().await.expect("a line") {
        let verb = line.split(' ').next().unwrap_or_default().to_uppercase();
        let answer = match verb.as_str() {
            "RCPT" if refuses => "550 5.1.1 no such anna@example.com\r\n",
            "DATA" => {
                write.write_all(b"354 go on\r\n").await.expect("written");
                while let Some(line) = lines.next_line().await.expect("a line") {
                    if line == "." {
                        break;
                    }
                    mail.push_str(&line);
                    mail.push('\n');
                }
                write.write_all(b"250 taken\r\n").await.expect("written");
                return mail;
            }
            "QUIT" => return mail,
            _ => "250 ok\r\n",
        };
        write.write_all(answer.as_bytes()).await.expect("written");
    }
    mail
}

async fn send_by_mail(refuses: bool) -> (Result<(), Failure>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let settings = smtp::Settings {
        host: "127.0.0.1".into(),
        port: listener.local_addr().expect("bound").port(),
        tls: smtp::TlsMode::None,
        ca_file: None,
        credentials: None,
        from: "Shop <orders@shop.example>".into(),
        timeout: Duration::from_secs(5),
    };
    let relay = tokio::spawn(relay(listener, refuses));
    let way = smtp::Smtp::new(settings, Templates::load(None).expect("texts")).expect("a way");
    let sent = way.send(&message("anna@example.com")).await;
    drop(way);
    (sent, relay.await.expect("the relay ends"))
}

#[tokio::test]
async fn a_mail_has_a_text_in_the_buyers_language_and_an_id_that_doubles_share() {
    let (sent, mail) = send_by_mail(false).await;
    assert_eq!(sent, Ok(()));
    assert!(mail.contains(&format!("Message-ID: <{}-sold@shop.example>", FakeLedger::id(1))), "{mail}");
    assert!(mail.contains("To: anna@example.com") && mail.contains("bezahlt (5.00 EUR)"), "{mail}");
}

#[tokio::test]
async fn a_receiver_that_does_not_exist_is_final_and_no_address_is_told() {
    let (sent, _) = send_by_mail(true).await;
    let Err(Failure::No { why }) = sent else { panic!("{sent:?}") };
    assert!(why.contains("550") && !why.contains("anna"), "{why}");
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_no_final_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let settings = smtp::Settings {
        host: "127.0.0.1".into(),
        port,
        tls: smtp::TlsMode::None,
        ca_file: None,
        credentials: None,
        from: "orders@shop.example".into(),
        timeout: Duration::from_secs(5),
    };
    let way = smtp::Smtp::new(settings, Templates::load(None).expect("texts")).expect("a way");
    let sent = way.send(&message("anna@example.com")).await;
    assert!(sent.as_ref().is_err_and(Failure::is_illness), "{sent:?}");
}

type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

async fn shop(answers: StatusCode) -> (String, Got) {
    let got = Got::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
    let keep = Arc::clone(&got);
    let take = async move |headers: HeaderMap, body: Bytes| {
        keep.lock().unwrap().push((headers, body));
        answers
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(take))).await });
    (url, got)
}

fn hook(url: &str) -> webhook::Webhook {
    let settings = webhook::Settings {
        url: Some(url.into()),
        from_contact: false,
        secret: "shop secret".into(),
        source: "holdfast/test".into(),
        timeout: Duration::from_secs(5),
    };
    let clock = Arc::new(std::sync::atomic::AtomicU64::new(1_700_000_000));
    webhook::Webhook::new(settings, Seams::simulated(1, clock)).expect("a way")
}

#[tokio::test]
async fn a_shop_gets_a_signed_cloudevent_without_what_was_sealed() {
    let (url, got) = shop(StatusCode::NO_CONTENT).await;
    assert_eq!(hook(&url).send(&message("anna@example.com")).await, Ok(()));
    let got = got.lock().unwrap().clone();
    let (headers, body) = &got[0];
    let signed = headers["holdfast-signature"].to_str().expect("text");
    assert_eq!(signature::check(&["shop secret".into()], signed, body, 1_700_000_000), Ok(()));
    assert!(headers["content-type"].to_str().expect("text").starts_with("application/cloudevents+json"));
    let event: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let order = FakeLedger::id(1).to_string();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["id"], format!("{order}-sold"));
    assert_eq!(event["type"], "holdfast.order.sold");
    assert_eq!(event["data"]["amount"], 500);
    assert!(!String::from_utf8_lossy(body).contains("anna"));
}

#[tokio::test]
async fn only_gone_is_a_shops_final_no() {
    for (answer, is_final) in [
        (StatusCode::GONE, true),
        (StatusCode::BAD_REQUEST, false),
        (StatusCode::BAD_GATEWAY, false),
        (StatusCode::FOUND, false),
    ] {
        let (url, _) = shop(answer).await;
        let sent = hook(&url).send(&message("anna@example.com")).await;
        assert_eq!(matches!(sent, Err(Failure::No { .. })), is_final, "{answer}: {sent:?}");
        assert!(sent.is_err());
    }
}
