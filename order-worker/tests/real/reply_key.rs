//! The provider's client secret is in no file of the node and in no answer, but for the caller that placed the order.

use std::path::Path;

use client_sdk::order::{OrderView, Phase};
use client_sdk::{Cursor, OpeningKey, OpeningKeys, PaymentToken, SealError};

use crate::lane::{Lane, PATIENCE};

const METHOD: &str = "pm_card_authenticationRequired";
/// What stands in every client secret of the simulator, as in Stripe's.
const IN_CLEAR: &[u8] = b"_secret_";

async fn awaited(lane: &Lane, token: PaymentToken) -> OrderView {
    let (id, _) = lane.place_with(token).await;
    let view = lane.client.wait_for(id, PATIENCE).await.ok().expect("it gets there");
    assert_eq!(view.brief.phase, Phase::AwaitingBuyer, "{view:?}");
    view
}

/// The files under `dir` with these bytes in them.
fn files_with(bytes: &[u8], dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(dir).expect("a directory") {
        let file = file.expect("an entry").path();
        if file.is_dir() {
            found.extend(files_with(bytes, &file));
        } else if std::fs::read(&file).expect("a file").windows(bytes.len()).any(|part| part == bytes) {
            found.push(file.display().to_string());
        }
    }
    found
}

/// All that the feed says up to where the order awaits its buyer.
async fn feed_until_awaited(lane: &Lane, view: &OrderView) -> String {
    let mut feed = lane.client.watch(Cursor::oldest());
    let mut all = String::new();
    let read = async {
        while let Some(Ok(batch)) = feed.next().await {
            all += &format!("{batch:?}");
            let awaited = |name: &str, id| name == "BuyerAwaited" && id == Some(view.id);
            if batch.changes.iter().any(|one| awaited(one.change.kind.name(), one.change.kind.reservation())) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the feed gets there");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_secret_opens_with_the_reply_key_alone_and_is_stored_nowhere_in_clear() {
    let lane = Lane::open().await;
    let worker = lane.worker("charge");
    let reply = OpeningKey::generate();
    let view = awaited(&lane, PaymentToken::new(METHOD).reply_to(reply.sealing_key())).await;
    let stored = view.secret.clone().expect("a sealed secret");
    assert!(stored.is_sealed() && !format!("{view:?}").contains("_secret_"), "{view:?}");

    let other = OpeningKeys::from(OpeningKey::generate());
    assert!(matches!(other.client_secret(view.id, &stored), Err(SealError::NoSuchKey(_))));
    let secret = OpeningKeys::from(reply).client_secret(view.id, &stored).expect("its own key opens it");
    let intent = view.intent.as_ref().expect("an intent").as_str();
    assert!(secret.starts_with(&format!("{intent}_secret_")), "that of another intent");

    // The sealed form is there, so the search below looks at the right bytes.
    let node = lane.dir.path().join("node");
    assert_ne!(files_with(stored.as_str().as_bytes(), &node), Vec::<String>::new());
    assert_eq!(files_with(IN_CLEAR, &node), Vec::<String>::new());
    assert!(!feed_until_awaited(&lane, &view).await.contains("_secret_"));
    worker.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_without_a_reply_key_awaits_its_buyer_and_gets_no_secret() {
    let lane = Lane::open().await;
    let worker = lane.worker("charge");
    let view = awaited(&lane, PaymentToken::new(METHOD)).await;
    assert_eq!(view.secret, None);
    assert_eq!(files_with(IN_CLEAR, &lane.dir.path().join("node")), Vec::<String>::new());
    // The intent is known: its shop can ask the provider itself.
    assert!(view.intent.is_some());
    worker.kill().await;
}
