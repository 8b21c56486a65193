//! The gRPC servers: Ledger, Orders, Admin, health, reflection.
//!
//! **What it is.** tonic over the network seam. `SubmitStream` is the fast way in: whole frames, decoded straight to commands, and
//! answered in frames that carry whatever has come.
//!
//! **Owns** HTTP/2's numbers and the translation between messages and [`crate::api`]. **Must never** hold a rule that HTTP needs too.
//! **Read next**: [`stream`], [`ledger`], [`admin`].

pub mod admin;
pub mod connection;
mod frames;
pub mod ledger;
mod meter;
pub mod orders;
mod request;
pub mod stream;
mod watch;
pub mod watch_places;

use std::io;

use ledger_proto::framed::ledger_server::LedgerServer;
use ledger_proto::limits::{ANSWER_BYTES_MAX, CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, STREAM_WINDOW_BYTES};
use ledger_proto::v1::admin_server::AdminServer;
use ledger_proto::v1::orders_server::OrdersServer;
use ledger_raft::seam::NetListener;
use tonic::transport::Server;

use crate::api::Api;
use crate::limits::{
    GRPC_HEADER_BYTES, GRPC_KEEPALIVE_EVERY, GRPC_KEEPALIVE_WITHIN, GRPC_RESETS_LOCAL_MAX, GRPC_RESETS_PENDING_MAX,
    GRPC_STREAMS_PER_CONNECTION, METRICS_UPKEEP_EVERY,
};
use crate::node::NodeState;

/// Serves gRPC until `shutdown` completes and its calls have ended.
///
/// # Errors
/// The server cannot be built; broken connections are not errors.
pub async fn serve(
    api: Api,
    listener: Box<dyn NetListener>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let ledger = LedgerServer::new(ledger::LedgerService::new(api.clone()))
        .max_decoding_message_size(FRAME_BYTES_MAX + (1 << 16))
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let orders = OrdersServer::new(orders::OrdersService::new(api.clone())).max_encoding_message_size(ANSWER_BYTES_MAX);
    let admin = AdminServer::new(admin::AdminService::new(api.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(ledger_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(io::Error::other)?;
    let report = report_health(api.clone(), health);
    let incoming = connection::incoming(listener, api.node.gates.client.clone(), api.metrics.control_waits.clone());
    let upkeep = async move {
        loop {
            tokio::time::sleep(METRICS_UPKEEP_EVERY).await;
            api.metrics.upkeep();
        }
    };
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(GRPC_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(GRPC_KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(GRPC_KEEPALIVE_WITHIN))
        .http2_max_header_list_size(GRPC_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(GRPC_RESETS_PENDING_MAX))
        .http2_max_local_error_reset_streams(Some(GRPC_RESETS_LOCAL_MAX))
        .max_frame_size(1 << 20)
        .layer(meter::MeterLayer)
        .add_service(ledger)
        .add_service(orders)
        .add_service(admin)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, shutdown);
    tokio::select! {
        served = server => served.map_err(io::Error::other),
        () = report => Ok(()),
        () = upkeep => Ok(()),
    }
}

/// Keeps the standard health service's word in step with the node's state.
async fn report_health(api: Api, health: tonic_health::server::HealthReporter) {
    let mut state = api.node.watch_state();
    loop {
        let serving = *state.borrow_and_update() == NodeState::Serving;
        if serving {
            health.set_serving::<LedgerServer<ledger::LedgerService>>().await;
        } else {
            health.set_not_serving::<LedgerServer<ledger::LedgerService>>().await;
        }
        let overall =
            if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        health.set_service_status("", overall).await;
        if state.changed().await.is_err() {
            // The node is gone; the server ends by its own shutdown.
            std::future::pending::<()>().await;
        }
    }
}
