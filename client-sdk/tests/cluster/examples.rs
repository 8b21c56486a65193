//! The examples do what they show, against a real cluster: what is run here is what `cargo run --example` runs.

use clap::Parser as _;

use crate::nodes::Nodes;

#[path = "../../examples/flash_sale.rs"]
#[expect(dead_code, reason = "its main is the example's own")]
mod flash_sale;
#[path = "../../examples/reserve.rs"]
#[expect(dead_code, reason = "its main is the example's own")]
mod reserve;
#[path = "../../examples/watch.rs"]
#[expect(dead_code, reason = "its main is the example's own")]
mod watch;

#[tokio::test]
async fn the_examples_run_against_a_real_cluster() {
    let nodes = Nodes::start(3, 3, 0).await;
    let endpoints = nodes.endpoints();

    // Repeating it receives nothing anew, and sells one more.
    for sold in 1..=2 {
        let args = reserve::Args::parse_from(["reserve", "--endpoints", &endpoints, "--sku", "mug"]);
        let stock = reserve::run(args).await.expect("it ends well").expect("the product is known");
        assert_eq!((stock.available, stock.held, stock.sold), (10 - sold, 0, sold));
    }

    // From the oldest change on.
    let args = ["watch", "--endpoints", &endpoints, "--from-oldest", "--max", "6"];
    let mut told = Vec::new();
    let watched = watch::run(watch::Args::parse_from(args), |happened| told.push(happened.change.kind.name()));
    tokio::time::timeout(std::time::Duration::from_secs(20), watched).await.expect("in time").expect("it ends well");
    let one_sale = ["InventoryReserved", "ReservationConfirmed"];
    assert_eq!(told, [["ProductCreated", "UnitsReceived"], one_sale, one_sale].concat());

    let args = ["flash_sale", "--endpoints", &endpoints, "--buyers", "300", "--units", "7"];
    let tally = flash_sale::run(flash_sale::Args::parse_from(args)).await.expect("it ends well");
    assert_eq!((tally.held, tally.sold_out), (7, 293), "{tally:?}");
}
