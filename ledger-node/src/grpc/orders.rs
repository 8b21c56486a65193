//! The Orders service: reads about orders and their queues.
//!
//! **Owns** the translation. **Must never** change anything: what is done to orders goes through the Ledger service.
//! **Read next**: [`super::ledger`], [`crate::api::reads`].

use ledger_core::types::Slot;
use ledger_proto::limits::page_size;
use ledger_proto::v1::orders_server::Orders;
use ledger_proto::{Invalid, names, orders, status, v1};
use tonic::{Request, Response, Status};

use super::ledger::{Answered, as_of, failure, reader};
use crate::api::Api;

/// The service.
#[derive(Clone)]
pub struct OrdersService {
    api: Api,
}

impl OrdersService {
    /// Over a node.
    pub fn new(api: Api) -> Self {
        Self { api }
    }
}

fn slot(number: u32) -> Result<Slot, Status> {
    let slot = Slot::new(u16::try_from(number).unwrap_or(u16::MAX));
    slot.map_err(|why| status::invalid(Invalid::of("slot")(why)))
}

#[tonic::async_trait]
impl Orders for OrdersService {
    async fn get_order(&self, request: Request<v1::GetOrderRequest>) -> Answered<v1::GetOrderResponse> {
        let reader = reader(&self.api, &request, request.get_ref().consistency)?;
        let id = names::id("id", &request.get_ref().id).map_err(status::invalid)?;
        let (order, at) = reader.order(id).await.map_err(failure)?;
        Ok(Response::new(v1::GetOrderResponse { order: order.as_ref().map(orders::view_to_wire), as_of: as_of(at) }))
    }

    async fn list_orders(&self, request: Request<v1::ListOrdersRequest>) -> Answered<v1::ListOrdersResponse> {
        let reader = reader(&self.api, &request, request.get_ref().consistency)?;
        let asked = request.get_ref();
        let slot = slot(asked.slot)?;
        let phase = match asked.phase {
            0 => None,
            number => Some(
                orders::phase(number)
                    .ok_or_else(|| status::invalid(Invalid::new("phase", "not known to this node")))?,
            ),
        };
        let after = (!asked.after.is_empty()).then(|| names::id("after", &asked.after)).transpose();
        let after = after.map_err(status::invalid)?;
        let (page, at) = reader.orders(slot, phase, after, page_size(asked.max)).await.map_err(failure)?;
        let found = page.orders.iter().map(orders::view_to_wire).collect();
        let next = page.next.map(names::id_to_wire).unwrap_or_default();
        Ok(Response::new(v1::ListOrdersResponse { orders: found, next, as_of: as_of(at) }))
    }

    async fn get_queue(&self, request: Request<v1::GetQueueRequest>) -> Answered<v1::GetQueueResponse> {
        let reader = reader(&self.api, &request, request.get_ref().consistency)?;
        let (stats, at) = reader.queue(slot(request.get_ref().slot)?).await.map_err(failure)?;
        Ok(Response::new(v1::GetQueueResponse { stats: Some(orders::queue_to_wire(stats)), as_of: as_of(at) }))
    }
}
