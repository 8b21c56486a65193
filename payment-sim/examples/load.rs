//! How much of a simulator's processor one call takes.
//!
//! ```text
//! payment-sim --data-dir /tmp/payments --listen 127.0.0.1:12111 &
//! cargo run --release -p payment-sim --example load -- 127.0.0.1:12111 $! [connections] [orders]
//! ```
//!
//! Each order is three calls: create, confirm, retrieve, on kept-alive connections. The processor time is that of the simulator's
//! process (`/proc/<pid>/stat`), so what the client here takes does not count.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

type Failure = Box<dyn Error + Send + Sync>;

const CALLS_AN_ORDER: u64 = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let (address, pid) = args.next().zip(args.next()).ok_or("usage: load ADDRESS PID [CONNECTIONS] [ORDERS]")?;
    let connections: u64 = args.next().map_or(Ok(64), |n| n.parse())?;
    let orders: u64 = args.next().map_or(Ok(50_000), |n| n.parse())?;
    let left = Arc::new(AtomicU64::new(orders));
    let (began, before) = (Instant::now(), processor_ms(&pid)?);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(run(address.clone(), left.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (took, used) = (began.elapsed(), processor_ms(&pid)? - before);
    let calls = orders * CALLS_AN_ORDER;
    println!("orders      {orders} in {:.1} s = {:.0}/s", took.as_secs_f64(), orders as f64 / took.as_secs_f64());
    println!("calls       {calls} = {:.0}/s", calls as f64 / took.as_secs_f64());
    println!("processor   {:.1} us a call", used * 1_000.0 / calls as f64);
    Ok(())
}

async fn run(address: String, left: Arc<AtomicU64>) -> Result<(), Failure> {
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    while let Ok(n) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        let form =
            format!("amount=4900&currency=eur&payment_method=pm_card_visa&metadata[order]={n}&metadata[generation]=1");
        let made = call(&mut send, &address, "POST", "/v1/payment_intents", &format!("c-{n}"), form).await?;
        let id = made.split('"').nth(3).ok_or("no id")?;
        let path = format!("/v1/payment_intents/{id}");
        let paid =
            call(&mut send, &address, "POST", &format!("{path}/confirm"), &format!("p-{n}"), String::new()).await?;
        if !paid.contains("\"status\":\"succeeded\"") {
            return Err(paid.into());
        }
        call(&mut send, &address, "GET", &path, "", String::new()).await?;
    }
    Ok(())
}

async fn call(
    send: &mut SendRequest<Full<Bytes>>,
    address: &str,
    method: &str,
    path: &str,
    key: &str,
    form: String,
) -> Result<String, Failure> {
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", address)
        .header("authorization", "Bearer sk_test_load");
    if method == "POST" {
        request = request.header("idempotency-key", key).header("content-type", "application/x-www-form-urlencoded");
    }
    send.ready().await?;
    let answer = send.send_request(request.body(Full::new(form.into()))?).await?;
    let status = answer.status();
    let text = String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?;
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}").into()) }
}

/// User and system time of a process.
fn processor_ms(pid: &str) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11).zip(fields.get(12)).ok_or("unexpected stat")?;
    let ticks = ticks.0.parse::<f64>()? + ticks.1.parse::<f64>()?;
    Ok(ticks * 1_000.0 / rustix::param::clock_ticks_per_second() as f64)
}
