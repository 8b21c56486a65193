//! The Admin service: what operators ask of a node.
//!
//! **Owns** the translation of [`AdminError`] to statuses. **Must never** do what an operator did not ask for.
//! **Read next**: [`crate::node`].

use ledger_proto::v1;
use ledger_proto::v1::admin_client::AdminClient;
use ledger_proto::v1::admin_server::Admin;
use ledger_raft::NodeId;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use super::ledger::admit;
use crate::access::Right;
use crate::api::Api;
use crate::api::forward::FORWARDED;
use crate::intent::ChangeError;
use crate::limits::OWN_COMMAND_WITHIN;
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

impl AdminService {
    /// Passes a change on to the leader of the meta group, once.
    async fn at_leader(&self, leader: NodeId, request: v1::SetSettingsRequest) -> Answered<v1::SetSettingsResponse> {
        let channel = self.api.node.client_addr_of(leader).and_then(|addr| self.api.forward.channel(&addr));
        let Some(channel) = channel else {
            return Err(Status::unavailable(format!("node {} leads the meta group and has no address", leader.0)));
        };
        let mut request = Request::new(request);
        request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        let within = 2 * OWN_COMMAND_WITHIN;
        match tokio::time::timeout(within, AdminClient::new(channel).set_settings(request)).await {
            Ok(Err(status)) if status.code() == Code::Unknown => Err(Status::unavailable(format!(
                "the answer of node {} is lost, so the settings may have changed: {}",
                leader.0,
                status.message()
            ))),
            Ok(answered) => answered,
            Err(_) => Err(Status::deadline_exceeded(format!("node {} did not answer within {within:?}", leader.0))),
        }
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

    async fn rejoin(&self, request: Request<v1::RejoinRequest>) -> Answered<v1::RejoinResponse> {
        admit(&self.api, &request, Right::Operate)?;
        self.api.node.rejoin(request.into_inner()).await.map(Response::new).map_err(failure)
    }

    async fn node_status(&self, request: Request<v1::NodeStatusRequest>) -> Answered<v1::NodeStatusResponse> {
        admit(&self.api, &request, Right::Observe)?;
        Ok(Response::new(self.api.node.status()))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Answered<v1::AuditResponse> {
        admit(&self.api, &request, Right::Operate)?;
        self.api.node.audit().await.map(Response::new).map_err(failure)
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

    async fn accept_clock(&self, request: Request<v1::AcceptClockRequest>) -> Answered<v1::AcceptClockResponse> {
        admit(&self.api, &request, Right::Operate)?;
        let accepted = self.api.node.accept_clock(request.get_ref());
        accepted.map(|()| Response::new(v1::AcceptClockResponse {})).map_err(failure)
    }

    async fn get_settings(&self, request: Request<v1::GetSettingsRequest>) -> Answered<v1::GetSettingsResponse> {
        admit(&self.api, &request, Right::Observe)?;
        self.api.node.settings().await.map(Response::new).map_err(failure)
    }

    async fn set_settings(&self, request: Request<v1::SetSettingsRequest>) -> Answered<v1::SetSettingsResponse> {
        admit(&self.api, &request, Right::Operate)?;
        let forwarded = request.metadata().contains_key(FORWARDED);
        let request = request.into_inner();
        match self.api.node.set_settings(&request).await {
            Ok(set) => Ok(Response::new(set)),
            Err(ChangeError::NotLeader { leader: Some(leader) }) if !forwarded => self.at_leader(leader, request).await,
            Err(why) => Err(failure(why.into())),
        }
    }
}
