//! Clients of a test cluster: gRPC, and HTTP by hand.

use std::collections::BTreeMap;

use ledger_proto::framed::ledger_client::LedgerClient;
use ledger_proto::v1::admin_client::AdminClient;
use ledger_raft::seam::Net;
use ledger_raft::seam_real::TcpNet;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::{Channel, Endpoint};

use super::Cluster;

impl Cluster {
    pub(crate) async fn channel(&self, i: usize) -> Channel {
        let address = self.nodes[i].as_ref().expect("the node runs").client_addr();
        Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect()
            .await
            .expect("the node listens")
    }
    pub(crate) async fn grpc(&self, i: usize) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel(i).await)
    }
    pub(crate) async fn admin(&self, i: usize) -> AdminClient<Channel> {
        AdminClient::new(self.channel(i).await)
    }

    /// One HTTP request of JSON to a node; headers as `name: value`.
    pub(crate) async fn http(&self, i: usize, method: &str, path: &str, headers: &[&str], body: &str) -> HttpAnswer {
        let host = format!("host: {}", self.http_addr(i));
        let headers = [&[host.as_str(), "content-type: application/json"], headers].concat();
        self.http_as(i, method, path, &headers, body).await
    }

    pub(crate) fn http_addr(&self, i: usize) -> String {
        self.nodes[i].as_ref().expect("the node runs").http_addr().to_string()
    }

    /// One HTTP request with just these headers.
    pub(crate) async fn http_as(&self, i: usize, method: &str, path: &str, headers: &[&str], body: &str) -> HttpAnswer {
        let mut io = TcpNet.connect(&self.http_addr(i)).await.expect("the node listens");
        let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}");
        io.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.expect("the answer is read");
        HttpAnswer::parse(&String::from_utf8(answer).expect("text"))
    }

    pub(crate) async fn get(&self, i: usize, path: &str) -> HttpAnswer {
        self.http(i, "GET", path, &[], "").await
    }
    pub(crate) async fn post(&self, i: usize, path: &str, body: &Value) -> HttpAnswer {
        self.http(i, "POST", path, &[], &body.to_string()).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl HttpAnswer {
    fn parse(answer: &str) -> Self {
        let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Self { status: status.expect("a status"), headers: lines.filter_map(header).collect(), text: text.to_owned() }
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
    /// Asserts the shape that every problem has; answers its type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.headers.get("content-type").map(String::as_str), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(body["title"].is_string() && body["detail"].is_string(), "{self:?}");
        body["type"].as_str().and_then(|kind| kind.strip_prefix("/errors/")).expect("a type of ours").to_owned()
    }
}
