//! Connections that do nothing, to the port that the provider reaches, stop no payment.

use tokio::net::TcpStream;

use crate::lane::Lane;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_leave_payments_webhooks_and_health_served() {
    let lane = Lane::open().await;
    let mut worker = lane.worker_with_descriptors(256);
    let (hooks, metrics) = worker.listens().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(&hooks).await.expect("it listens"));
    }
    let (id, _) = lane.place("pm_card_visa").await;
    assert!(lane.told(id).await, "{:?}", lane.client.order(id).await);
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let hook = http.post(format!("http://{hooks}/webhooks/stripe")).body("{}").send().await.expect("an answer");
    assert!(hook.status().is_client_error(), "it is not signed: {}", hook.status());
    let lives = http.get(format!("http://{metrics}/livez")).send().await.expect("an answer");
    assert!(lives.status().is_success());
    drop(idle);
    worker.kill().await;
}
