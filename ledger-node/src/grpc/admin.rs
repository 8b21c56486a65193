//! The Admin service: what operators ask of a node.
//!
//! **Owns** the translation of [`AdminError`] to statuses. **Must never** do what an operator did not ask for.
//! **Read next**: [`crate::node`].

use ledger_proto::v1;
use ledger_proto::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use super::ledger::admit;
use crate::access::Right;
use crate::api::Api;
use crate::node::AdminError;

/// The service.
#[derive(Clone)]
pub struct AdminService {
    api: Api,
}

impl AdminService {
    /// Over a node.
    pub fn new(api: Api) -> Self {
        Self { api }
    }
}

fn failure(why: AdminError) -> Status {
    let message = why.to_string();
    match why {
        AdminError::Invalid(_) => Status::invalid_argument(message),
        AdminError::Refused(_) => Status::failed_precondition(message),
        AdminError::NotNow(_) => Status::unavailable(message),
        AdminError::NotFound(_) => Status::not_found(message),
        AdminError::Failed(_) => Status::internal(message),
    }
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for AdminService {
    async fn init(&self, request: Request<v1::InitRequest>) -> Answered<v1::InitResponse> {
        admit(&self.api, &request, Right::Operate)?;
        self.api.node.init(request.into_inner()).await.map(Response::new).map_err(failure)
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Answered<v1::JoinResponse> {
        admit(&self.api, &request, Right::Operate)?;
        self.api.node.join(request.into_inner()).await.map(Response::new).map_err(failure)
    }

    async fn node_status(&self, request: Request<v1::NodeStatusRequest>) -> Answered<v1::NodeStatusResponse> {
        admit(&self.api, &request, Right::Observe)?;
        Ok(Response::new(self.api.node.status()))
    }

    /// Looks at each shard's ledger in turn, under its lock: an audit is asked for by hand, and a frozen copy would cost the shard
    /// copies of everything it touches meanwhile.
    async fn audit(&self, request: Request<v1::AuditRequest>) -> Answered<v1::AuditResponse> {
        admit(&self.api, &request, Right::Operate)?;
        Ok(Response::new(self.api.node.audit()))
    }

    async fn digests(&self, request: Request<v1::DigestsRequest>) -> Answered<v1::DigestsResponse> {
        admit(&self.api, &request, Right::Observe)?;
        Ok(Response::new(self.api.node.digests()))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Answered<v1::TransferLeaderResponse> {
        admit(&self.api, &request, Right::Operate)?;
        let done = self.api.node.transfer_leader(request.into_inner()).await;
        done.map(|()| Response::new(v1::TransferLeaderResponse {})).map_err(failure)
    }

    async fn snapshot(&self, request: Request<v1::SnapshotRequest>) -> Answered<v1::SnapshotResponse> {
        admit(&self.api, &request, Right::Operate)?;
        let built = self.api.node.snapshot(request.get_ref().shard).await;
        built.map(|index| Response::new(v1::SnapshotResponse { index })).map_err(failure)
    }
}
