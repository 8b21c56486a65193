//! Compiles the `.proto` files with protox, so that no protoc is needed, and the Ledger service once more with whole frames.

use tonic_prost_build::Config;
use tonic_prost_build::manual::{Builder, Method, Service};

const REQUESTS: &str = "crate::requests::RequestCodec";
const FRAMES: &str = "crate::frames::FrameCodec";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["holdfast/v1/ledger.proto", "holdfast/v1/orders.proto", "holdfast/v1/admin.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    // The codec asks each message for its name.
    let mut config = Config::new();
    config.enable_type_names();
    tonic_prost_build::configure().bytes(".").codec_path(REQUESTS).compile_fds_with_config(descriptors, config)?;
    let framed = out.join("framed");
    std::fs::create_dir_all(&framed)?;
    Builder::new().out_dir(framed).compile(&[ledger()]);
    Ok(())
}

/// The service `holdfast.v1.Ledger` of `ledger.proto`; a test holds both to the same methods.
fn ledger() -> Service {
    let frames = |name, route, input| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(input)
            .output_type("crate::frames::Answers")
            .codec_path(FRAMES)
    };
    let decoded = |name, route: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::v1::{route}Request"))
            .output_type(format!("crate::v1::{output}"))
            .codec_path(REQUESTS)
    };
    let read = |name, route: &str| decoded(name, route, &format!("{route}Response")).build();
    Service::builder()
        .name("Ledger")
        .package("holdfast.v1")
        .method(frames("submit", "Submit", "crate::frames::OneCall").build())
        .method(frames("submit_batch", "SubmitBatch", "crate::frames::Calls").build())
        .method(
            frames("submit_stream", "SubmitStream", "crate::frames::Calls")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .method(read("get_product", "GetProduct"))
        .method(read("get_offers", "GetOffers"))
        .method(read("list_products", "ListProducts"))
        .method(read("list_sales", "ListSales"))
        .method(read("get_reservation", "GetReservation"))
        .method(read("explain", "Explain"))
        .method(decoded("watch", "Watch", "WatchFrame").server_streaming().build())
        .method(decoded("get_routing", "GetRouting", "Routing").build())
        .build()
}
