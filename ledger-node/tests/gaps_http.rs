//! A client that is slow with its headers or its body is cut off; one that is quick enough is not. Time is simulated.

#[expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
mod common;

use std::time::Duration;

use ledger_node::limits::{HTTP_BODY_BYTES, HTTP_BODY_WITHIN};
use ledger_node::{NodeSeams, RunningNode, serve};
use ledger_raft::seam::{BoxIo, Net};
use ledger_raft::seam_real::TcpNet;
use service::limits::{FIRST_BYTE_WITHIN, FIRST_CALL_WITHIN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

async fn node() -> (RunningNode, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = serve(common::config(dir.path()), NodeSeams::real()).await.expect("an empty node starts");
    (node, dir)
}

async fn connect(node: &RunningNode) -> BoxIo {
    TcpNet.connect(&node.http_addr().to_string()).await.expect("the node listens")
}

async fn rest(io: &mut BoxIo) -> String {
    let mut answer = Vec::new();
    let _reset = io.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test(start_paused = true)]
async fn headers_that_dribble_end_the_connection() {
    let (node, _dir) = node().await;
    let mut io = connect(&node).await;
    let began = Instant::now();
    io.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n").await.expect("sent");
    let dribble = async {
        let mut io = connect(&node).await;
        for n in 0.. {
            let header = format!("x-{n}: y\r\n");
            if io.write_all(header.as_bytes()).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
            assert!(n < 60, "a line a second keeps the connection");
        }
    };
    let (answer, ()) = tokio::join!(rest(&mut io), dribble);
    assert!(!answer.contains("200"), "{answer}");
    assert!(began.elapsed() < 2 * FIRST_CALL_WITHIN, "after {:?}", began.elapsed());
    node.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_dribbles_is_answered_408_and_nothing_is_done() {
    let (node, _dir) = node().await;
    let mut io = connect(&node).await;
    let began = Instant::now();
    io.write_all(b"POST /v1/reservations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{").await.expect("sent");
    let answer = rest(&mut io).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("/errors/request-too-slow") && answer.contains("application/problem+json"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    let after = began.elapsed();
    assert!(after >= HTTP_BODY_WITHIN && after < HTTP_BODY_WITHIN * 2, "after {after:?}");
    node.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_but_in_time_is_answered() {
    let (node, _dir) = node().await;
    let mut io = connect(&node).await;
    sleep(FIRST_BYTE_WITHIN / 2).await;
    io.write_all(b"POST /v1/products HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n").await.expect("sent");
    sleep(FIRST_CALL_WITHIN / 4).await;
    io.write_all(b"content-type: application/json\r\ncontent-length: 4\r\n\r\n{\"").await.expect("sent");
    sleep(HTTP_BODY_WITHIN / 2).await;
    io.write_all(b"x\"").await.expect("sent");
    let answer = rest(&mut io).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("/errors/malformed-json"), "{answer}");
    node.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_body_above_the_bound_is_refused_however_it_comes() {
    let (node, _dir) = node().await;
    let mut io = connect(&node).await;
    let head = "POST /v1/products HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    io.write_all(head.as_bytes()).await.expect("sent");
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..=HTTP_BODY_BYTES / 0x1000 {
        io.write_all(chunk.as_bytes()).await.expect("sent");
    }
    let mut answer = [0; 12];
    io.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    node.shutdown(Duration::from_secs(1)).await;
}
