//! `cluster init`: running, empty nodes become one cluster.
//!
//! **What it is.** The node that is asked (1) asks every other for its addresses and disk id, (2)
//! stamps itself with a new cluster id, (3) sends every other the whole plan, upon which it stamps
//! itself, and (4) waits until every shard is led and knows its slots. The rest is
//! [`crate::reconcile`]'s, out of the stamps. Repeating the command after a crash anywhere finishes
//! the work: the stamp of step 2 keeps the id. Of several inits at once at most one gets through
//! step 1: each holds its own node and needs all the others. The plan names each member's disk, and
//! a node joins on that one only: one that lost its disk cannot come back empty by a repeated
//! command. **Owns** those steps. **Must never** stamp a node that belongs to somebody else, or
//! make two clusters of one list of members. **Read next**: [`crate::data_dir`].

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use ledger_proto::v1;
use ledger_proto::v1::admin_client::AdminClient;
use ledger_raft::DiskId;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::data_dir::{DataDirError, MemberDisk, Stamp, draw_disk_id, hex};
use crate::limits;
use crate::meta::MemberEntry;
use crate::node::{AdminError, Node, NodeState, lock};
use crate::serve;
use crate::status::member;

impl Node {
    /// Admin.Init.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn init(self: &Arc<Self>, request: v1::InitRequest) -> Result<v1::InitResponse, AdminError> {
        let members = checked_members(&request)?;
        let step = {
            let Ok(_one_at_a_time) = self.joining.try_lock() else { return Err(under_way()) };
            let step = match self.identity()? {
                Some(stamp) if stamp.has_members(&members) => {
                    self.run_as(&stamp).await?;
                    Step::Join { stamp, created: false }
                }
                Some(stamp) => return Err(other_members(&stamp)),
                None => self.found(&request, members).await?,
            };
            if let Step::Join { stamp, .. } = &step {
                self.send_joins(stamp).await?;
            }
            step
        };
        let created = match step {
            Step::Join { created, .. } => created,
            // Not under the lock: that node asks this one to join.
            Step::PassOn(to) => {
                let answer = self.dial(&to.client).await?.init(request).await;
                return answer.map(tonic::Response::into_inner).map_err(|status| of_peer(&to, &status));
            }
        };
        self.kick.notify_one();
        self.settled().await?;
        let (cluster, _) = self.cluster().unwrap_or_default();
        let members = self.members().iter().map(member).collect();
        Ok(v1::InitResponse { cluster: cluster.to_vec().into(), created, members })
    }

    /// What this node is: as it runs, or as its directory says when it could not be run as that.
    fn identity(&self) -> Result<Option<Stamp>, AdminError> {
        if let Some(running) = self.running() {
            return Ok(Some(running.stamp().as_ref().clone()));
        }
        match lock(&self.dir).as_ref() {
            Some(dir) => dir.present().map_err(|e| AdminError::Failed(settings::with_causes(&e))),
            None => Err(stopping()),
        }
    }

    /// First round, then this node's own stamp.
    async fn found(self: &Arc<Self>, request: &v1::InitRequest, members: Vec<MemberEntry>) -> Result<Step, AdminError> {
        let Some(me) = members.iter().find(|member| self.is_me(member)).map(|member| member.node) else {
            return Err(AdminError::Invalid(format!(
                "none of the members has this node's client address {}; hint: list it as the other nodes reach it",
                self.client_addr()
            )));
        };
        let (mut whole, mut disks) = (Vec::new(), BTreeMap::new());
        for asked in &members {
            if asked.node == me {
                whole.push(self.entry(me, &asked.client));
                disks.insert(me, self.hand_out_disk()?);
                continue;
            }
            match self.prepare(asked, me, request).await? {
                Some((entry, disk)) => {
                    whole.push(entry);
                    disks.insert(asked.node, disk);
                }
                None => return Ok(Step::PassOn(asked.clone())),
            }
        }
        each_its_own(&disks)?;
        let random = &self.seams().raft.random;
        let mut cluster = [0; 16];
        cluster[..8].copy_from_slice(&random.next_u64().to_be_bytes());
        cluster[8..].copy_from_slice(&random.next_u64().to_be_bytes());
        let config = self.config();
        let or = |asked: u32, configured| if asked == 0 { configured } else { asked };
        let disk_generations = BTreeMap::new();
        let stamp = Stamp {
            format: Stamp::format_of(&disk_generations),
            cluster,
            incarnation: 1,
            node: me,
            ports: self.ports,
            initiator: true,
            members: whole,
            disks,
            disk_generations,
            shards: or(request.shards, config.shards),
            replicas: or(request.replicas, config.replicas),
        };
        self.take_identity(&stamp).await?;
        Ok(Step::Join { stamp, created: true })
    }

    /// Asks another node for its addresses. None: it has a stamp already. If that is of this very list, an earlier init got so
    /// far, and it goes on from there.
    ///
    /// A node under an init of its own says *not now*, so that of several inits at once at most one gets through this round: each
    /// holds its own node and needs all the others. The one at the lower id waits, the others give way.
    async fn prepare(
        &self,
        asked: &MemberEntry,
        me: u64,
        request: &v1::InitRequest,
    ) -> Result<Option<(MemberEntry, DiskId)>, AdminError> {
        let until = Instant::now() + limits::JOIN_WITHIN;
        let mut client = self.dial(&asked.client).await?;
        loop {
            let prepare = v1::JoinRequest {
                node: asked.node,
                prepare: true,
                members: request.members.clone(),
                ..v1::JoinRequest::default()
            };
            match timeout_at(until, client.join(prepare)).await {
                Ok(Ok(answer)) => {
                    let found = answer.into_inner().member.unwrap_or_default();
                    let disk = disk_of(&found)?;
                    let (node, client) = (asked.node, asked.client.clone());
                    return Ok(Some((MemberEntry { node, client, peer: found.peer, http: found.http }, disk)));
                }
                Ok(Err(status)) => match status.code() {
                    tonic::Code::FailedPrecondition => return Ok(None),
                    tonic::Code::Unavailable if me < asked.node && Instant::now() < until => {
                        tokio::time::sleep(limits::TICK_LOOK).await;
                    }
                    _ => return Err(of_peer(asked, &status)),
                },
                Err(_) => return Err(silent(asked)),
            }
        }
    }

    /// Second round: everybody learns everything. Repeating it is harmless.
    async fn send_joins(&self, stamp: &Stamp) -> Result<(), AdminError> {
        for other in stamp.members.iter().filter(|member| member.node != stamp.node) {
            let mut client = self.dial(&other.client).await?;
            let join = v1::JoinRequest {
                cluster: stamp.cluster.to_vec().into(),
                incarnation: stamp.incarnation,
                node: other.node,
                prepare: false,
                members: stamp.members.iter().map(|m| on_disk(m, stamp.disk(m.node))).collect(),
                shards: stamp.shards,
                replicas: stamp.replicas,
                rejoin: false,
            };
            match timeout_at(Instant::now() + limits::JOIN_WITHIN, client.join(join)).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => return Err(of_peer(other, &status)),
                Err(_) => return Err(silent(other)),
            }
        }
        Ok(())
    }

    /// Waits until every shard is led and, where it has a replica here, knows its slots.
    async fn settled(&self) -> Result<(), AdminError> {
        let until = Instant::now() + limits::INIT_WITHIN;
        loop {
            let placement = self.placement();
            let behind = placement.as_ref().map(|placement| {
                let ready = |shard: u32| {
                    let slots =
                        self.shard(shard).is_none_or(|s| s.with_ledger(|l| l.owned_slots().0) >= placement.generation);
                    slots && self.leader_of(shard).is_some()
                };
                placement.shards.iter().map(|s| s.shard).filter(|&shard| !ready(shard)).collect::<Vec<_>>()
            });
            match behind {
                Some(shards) if shards.is_empty() => return Ok(()),
                behind if Instant::now() >= until => {
                    let what = behind.map_or("the meta group has no placement yet".to_owned(), |shards| {
                        format!("shards {shards:?} have no leader or no slots yet")
                    });
                    return Err(AdminError::NotNow(format!("the nodes have joined, but {what}; repeat the command")));
                }
                _ => tokio::time::sleep(limits::TICK_LOOK).await,
            }
        }
    }

    /// Admin.Join.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn join(self: &Arc<Self>, request: v1::JoinRequest) -> Result<v1::JoinResponse, AdminError> {
        let answer = |member: MemberEntry, disk| v1::JoinResponse {
            member: Some(on_disk(&member, Some(disk))),
            ..v1::JoinResponse::default()
        };
        if request.node == 0 {
            return Err(AdminError::Invalid("a node id is 1 or above".to_owned()));
        }
        if let Some(wanted) = self.config().node_id.filter(|&wanted| wanted != request.node) {
            return Err(invalid(&format!(
                "this node is configured with node_id = {wanted}, not {}; hint: list it under that id",
                request.node
            )));
        }
        if request.members.iter().any(|member| member.disk_generation > limits::DISK_GENERATION_MAX) {
            return Err(invalid("a disk generation is above its bound"));
        }
        let asked = request.members.iter().find(|member| member.node == request.node);
        let client = asked.map_or_else(|| self.client_addr(), |member| member.client.clone());
        if request.prepare {
            let Ok(_one_at_a_time) = self.joining.try_lock() else { return Err(under_way()) };
            let entry = self.entry(request.node, &client);
            return match self.identity()? {
                stamp if request.rejoin => {
                    self.prepare_rejoin(stamp.as_ref(), &entry, asked.map_or(0, |member| member.disk_generation))
                }
                Some(stamp) => Err(other_members(&stamp)),
                None => Ok(answer(entry, MemberDisk { generation: 0, id: self.hand_out_disk()? })),
            };
        }
        let cluster: [u8; 16] = request.cluster.as_ref().try_into().map_err(|_| invalid("cluster has 16 bytes"))?;
        let members: Vec<_> = request.members.iter().map(entry_of).collect();
        if members.is_empty() || members.len() > limits::MEMBERS_MAX || asked.is_none() || request.incarnation == 0 {
            return Err(invalid("join names the incarnation, all members, and this node among them"));
        }
        let disks = request.members.iter().map(|m| disk_of(m).map(|disk| (m.node, disk)));
        let disks = disks.collect::<Result<BTreeMap<_, _>, _>>()?;
        each_its_own(&disks)?;
        let rejoined = request.members.iter().filter(|m| m.disk_generation > 0);
        let disk_generations: BTreeMap<_, _> = rejoined.map(|m| (m.node, m.disk_generation)).collect();
        let Ok(_one_at_a_time) = self.joining.try_lock() else { return Err(under_way()) };
        // Not before: the id may be drawn anew meanwhile.
        let disk = self.identity_file.disk_id();
        if let Some(planned) = disks.get(&request.node).filter(|planned| **planned != disk)
            && !ledger_raft::bad!("disk-id-unchecked")
        {
            // Another attempt has drawn a later id, or has come to its end.
            return Err(if request.rejoin { under_way() } else { other_disk(request.node, *planned, disk) });
        }
        let stamp = Stamp {
            format: Stamp::format_of(&disk_generations),
            cluster,
            incarnation: request.incarnation,
            node: request.node,
            ports: self.ports,
            initiator: false,
            members,
            disks,
            disk_generations,
            shards: request.shards,
            replicas: request.replicas,
        };
        match self.identity()? {
            Some(known) if known.cluster == cluster && known.node == request.node => self.run_as(&known).await?,
            Some(known) => return Err(other_members(&known)),
            // Everything that the node had is lost, or nothing is: the directory was prepared for the one or the other.
            None if request.rejoin != self.identity_file.is_rejoining() => return Err(prepared_otherwise(&request)),
            None => self.take_identity(&stamp).await?,
        }
        self.kick.notify_one();
        let own = stamp.disk(request.node).unwrap_or(MemberDisk { generation: 0, id: disk });
        Ok(answer(self.entry(request.node, &client), own))
    }

    /// The disk's id for a plan of members, durable before anybody has it.
    fn hand_out_disk(&self) -> Result<DiskId, AdminError> {
        let random = &self.seams().raft.random;
        let drawn = self.identity_file.hand_out(|| draw_disk_id(random.as_ref()));
        drawn.map_err(|e| AdminError::Failed(format!("the disk's id cannot be written: {e}")))
    }

    /// Stamps the directory, then runs as what the stamp says.
    async fn take_identity(self: &Arc<Self>, stamp: &Stamp) -> Result<(), AdminError> {
        let stamped = match lock(&self.dir).as_ref() {
            Some(dir) => dir.stamp(stamp),
            None => return Err(stopping()),
        };
        stamped.map_err(|e| match e {
            DataDirError::OtherCluster { .. } => AdminError::Refused(e.to_string()),
            _ => AdminError::Failed(settings::with_causes(&e)),
        })?;
        self.run_as(stamp).await
    }

    /// Runs as what the stamp says, unless it does already.
    async fn run_as(self: &Arc<Self>, stamp: &Stamp) -> Result<(), AdminError> {
        if self.running().is_some() {
            return Ok(());
        }
        if let Err(error) = serve::activate(self, stamp.clone()).await {
            self.set_state(NodeState::Uninitialised);
            return Err(AdminError::Failed(format!(
                "{}; repeat the command once that is fixed",
                settings::with_causes(&error)
            )));
        }
        tracing::info!(node = stamp.node, cluster = hex(&stamp.cluster), "this node joined a cluster");
        Ok(())
    }

    /// How clients reach this node.
    pub(crate) fn client_addr(&self) -> String {
        serve::advertised(&self.config().client, self.ports.client)
    }

    fn entry(&self, node: u64, client: &str) -> MemberEntry {
        let config = self.config();
        MemberEntry {
            node,
            client: client.to_owned(),
            peer: serve::advertised(&config.peer, self.ports.peer),
            http: serve::advertised(&config.http, self.ports.http),
        }
    }

    fn is_me(&self, member: &MemberEntry) -> bool {
        match self.config().node_id {
            Some(id) => id == member.node,
            None => member.client == self.client_addr(),
        }
    }

    pub(crate) async fn dial(&self, address: &str) -> Result<AdminClient<Channel>, AdminError> {
        let net = self.seams().raft.net.clone();
        let target = address.to_owned();
        let endpoint =
            Endpoint::try_from(format!("http://{address}")).map_err(|e| invalid(&format!("{address}: {e}")))?;
        let connect = tower::service_fn(move |_: Uri| {
            let (net, target) = (net.clone(), target.clone());
            async move { net.connect(&target).await.map(TokioIo::new) }
        });
        let dialled = timeout_at(Instant::now() + limits::JOIN_WITHIN, endpoint.connect_with_connector(connect)).await;
        match dialled {
            Ok(Ok(channel)) => Ok(AdminClient::new(channel)),
            Ok(Err(e)) => Err(AdminError::NotNow(format!(
                "node at {address} cannot be reached ({e}); start it and repeat the command"
            ))),
            Err(_) => {
                Err(AdminError::NotNow(format!("node at {address} does not answer; start it and repeat the command")))
            }
        }
    }
}

/// How an init goes on.
enum Step {
    /// This node has its stamp; the others are sent the plan.
    Join { stamp: Stamp, created: bool },
    /// That node has a stamp already: it is asked to go on.
    PassOn(MemberEntry),
}

pub(crate) fn under_way() -> AdminError {
    AdminError::NotNow("another init, join or rejoin is under way here; repeat the command".to_owned())
}

pub(crate) fn stopping() -> AdminError {
    AdminError::NotNow("the node is stopping".to_owned())
}

/// A member as it is named while it joins: with its disk.
pub(crate) fn on_disk(entry: &MemberEntry, disk: Option<MemberDisk>) -> v1::Member {
    let disk_generation = disk.map_or(0, |disk| disk.generation);
    let disk = disk.map(|disk| disk.id.0.to_vec()).unwrap_or_default();
    v1::Member { disk: disk.into(), disk_generation, ..member(entry) }
}

pub(crate) fn disk_of(member: &v1::Member) -> Result<DiskId, AdminError> {
    let id = <[u8; 16]>::try_from(member.disk.as_ref());
    id.map(DiskId).map_err(|_| invalid(&format!("the disk id of node {} has 16 bytes", member.node)))
}

/// Two members on one disk would be two directories of which one is a copy of the other.
fn each_its_own(disks: &BTreeMap<u64, DiskId>) -> Result<(), AdminError> {
    let mut known = BTreeMap::new();
    for (node, disk) in disks {
        if let Some(other) = known.insert(disk, node) {
            return Err(AdminError::Refused(format!(
                "nodes {other} and {node} have the same disk id {disk}: one data directory is a copy of the other; hint: \
                 empty both, start the nodes and repeat the command"
            )));
        }
    }
    Ok(())
}

/// What the member promised lies on the disk it joined with. An empty one knows of no vote and no
/// acknowledgement.
fn other_disk(node: u64, planned: DiskId, found: DiskId) -> AdminError {
    AdminError::Refused(format!(
        "node {node} of this cluster has the disk {planned}, and this directory is on disk {found}: what node {node} \
         acknowledged lies on the first; hint: start node {node} on the directory it had or, if that is lost, bring it back on \
         this one with `ledgerctl node rejoin {node}`"
    ))
}

fn prepared_otherwise(request: &v1::JoinRequest) -> AdminError {
    let node = request.node;
    AdminError::Refused(match request.rejoin {
        true => format!("the directory of node {node} is not prepared for a rejoin; hint: repeat the command"),
        false => format!(
            "a rejoin of node {node} on this directory was not finished; hint: finish it with `ledgerctl node rejoin {node}`"
        ),
    })
}

fn entry_of(member: &v1::Member) -> MemberEntry {
    MemberEntry {
        node: member.node,
        client: member.client.clone(),
        peer: member.peer.clone(),
        http: member.http.clone(),
    }
}

fn checked_members(request: &v1::InitRequest) -> Result<Vec<MemberEntry>, AdminError> {
    let members: Vec<_> = request.members.iter().map(entry_of).collect();
    if members.is_empty() || members.len() > limits::MEMBERS_MAX {
        return Err(invalid(&format!(
            "a cluster has 1 to {} members, {} were named",
            limits::MEMBERS_MAX,
            members.len()
        )));
    }
    for (i, member) in members.iter().enumerate() {
        if member.node == 0 || member.client.is_empty() {
            return Err(invalid("every member has a node id of 1 or above and a client address"));
        }
        if members[..i].iter().any(|other| other.node == member.node || other.client == member.client) {
            return Err(invalid(&format!("node {} or its address {} is named twice", member.node, member.client)));
        }
    }
    if request.shards > limits::SHARDS_MAX || request.replicas > limits::REPLICAS_MAX {
        return Err(invalid(&format!(
            "at most {} shards and {} replicas are allowed, {} and {} were asked for",
            limits::SHARDS_MAX,
            limits::REPLICAS_MAX,
            request.shards,
            request.replicas
        )));
    }
    Ok(members)
}

pub(crate) fn invalid(why: &str) -> AdminError {
    AdminError::Invalid(why.to_owned())
}

fn other_members(stamp: &Stamp) -> AdminError {
    let members: Vec<_> = stamp.members.iter().map(|m| format!("{}={}", m.node, m.client)).collect();
    AdminError::Refused(format!(
        "this is node {} of cluster {} already, with members {}; a node never changes its cluster",
        stamp.node,
        hex(&stamp.cluster),
        members.join(", ")
    ))
}

pub(crate) fn of_peer(member: &MemberEntry, status: &tonic::Status) -> AdminError {
    let text = format!("node {} at {}: {}", member.node, member.client, status.message());
    match status.code() {
        tonic::Code::InvalidArgument => AdminError::Invalid(text),
        tonic::Code::FailedPrecondition => AdminError::Refused(text),
        tonic::Code::Internal => AdminError::Failed(text),
        _ => AdminError::NotNow(format!("{text}; repeat the command")),
    }
}

pub(crate) fn silent(member: &MemberEntry) -> AdminError {
    AdminError::NotNow(format!("node {} at {} does not answer; repeat the command", member.node, member.client))
}
