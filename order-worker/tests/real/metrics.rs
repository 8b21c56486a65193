//! The worker's page of metrics: what docs/metrics.md says, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use crate::lane::Lane;

const TABLES: &str = include_str!("../../../docs/metrics.md");

/// Name → (kind, labels).
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// As the document says of order workers.
fn documented() -> Metrics {
    let mut out = Metrics::new();
    let part = TABLES.split("\n# ").find(|part| part.starts_with("Metrics of order workers")).expect("a part of them");
    for line in part.lines().filter(|line| line.starts_with("| `holdfast_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, what] = cells[..] else { panic!("four cells: {line}") };
        assert!(!what.is_empty(), "{line}");
        let word = |text: &str| text.trim().trim_matches('`').to_owned();
        let labels = labels.split(',').map(word).filter(|label| !label.is_empty()).collect();
        assert_eq!(out.insert(word(name), (kind.to_owned(), labels)), None, "twice: {line}");
    }
    out
}

/// As a page says.
fn exported(page: &str) -> Metrics {
    let mut out = Metrics::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            out.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
    }
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let series = line.rsplit_once(' ').expect("a value").0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let name = [Some(name), base].into_iter().flatten().find(|name| out.contains_key(*name));
        let (_, known) = out.get_mut(name.unwrap_or_else(|| panic!("no type for {line}"))).expect("found");
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
        known.extend(labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le"));
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_a_worker_is_documented_and_every_documented_one_is_there() {
    let lane = Lane::open().await;
    let (id, _) = lane.place("pm_card_visa").await;
    let mut worker = lane.worker("charge");
    let (hooks, metrics) = worker.listens().await;
    assert!(lane.told(id).await, "{:?}", lane.client.order(id).await);
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let hook = http.post(format!("http://{hooks}/webhooks/stripe")).body("{}").send().await.expect("an answer");
    assert!(hook.status().is_client_error(), "it is not signed: {}", hook.status());
    let page = http.get(format!("http://{metrics}/metrics")).send().await.expect("an answer");
    let page = String::from_utf8(page.bytes().await.expect("all of it").to_vec()).expect("text");
    let (documented, exported) = (documented(), exported(&page));
    for (name, said) in &documented {
        assert_eq!(exported.get(name), Some(said), "{name} on the page and in docs/metrics.md\n{page}");
    }
    let unknown: Vec<_> = exported.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
    worker.kill().await;
}
