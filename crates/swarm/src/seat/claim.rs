//! How a node comes to be a member of the raft group: by founding it, by joining it, or by having
//! been one.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use skep_ca::{RootCa, UnlockKey};
use skep_model::proto;
use skep_raft::{IfNew, RaftConfig, RaftNode};
use skep_rpc::{Connector, RaftTransport};
use skep_store::Store;
use tonic::{Code, Status};

use super::{Place, SeatError, founder};
use crate::founding::Founding;
use crate::persisted;
use crate::replication::{MAX_PROPOSAL_BYTES, RaftProposer, StoreMachine};

/// Longer than any election of a member that is alone; a disk may be slow.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Attempts to join through managers that do not answer or do not lead, and the time between two.
const JOIN_ATTEMPTS: usize = 5;
const JOIN_RETRY: Duration = Duration::from_secs(1);

/// Holds the answer to `Join` until the log itself says who the members are: without it a member
/// that stops in between could answer nobody.
const JOINED_FILE: &str = "raft-joined";
const RAFT_DIR: &str = "raft";

/// What entitles the node to its seat.
pub(crate) enum Claim {
    /// It makes the swarm.
    Found {
        founding: Box<Founding>,
        root: Box<RootCa>,
        unlock: Option<UnlockKey>,
    },
    /// It has a manager's certificate. Whether it is a member already, the disk says.
    Certificate,
    /// It was a member, and is to go on as the only one.
    Alone,
}

impl Claim {
    pub(super) async fn make_good(
        self,
        place: &Place,
    ) -> Result<(Store, RaftNode, RaftTransport), SeatError> {
        let if_new = match &self {
            Self::Found { .. } => IfNew::Bootstrap(founder(place)),
            Self::Certificate => membership(place).await?,
            Self::Alone => IfNew::Refuse,
        };
        let alone = matches!(self, Self::Alone);
        let (store, raft, transport) = replicate(place, if_new, alone).await?;
        if let Self::Found {
            founding,
            root,
            unlock,
        } = self
        {
            let founded = found(&store, &raft, &founding, &root, unlock.as_ref()).await;
            if let Err(error) = founded {
                transport.stop();
                raft.stop().await;
                store.close();
                return Err(error);
            }
        }
        forget_when_known(place, &raft);
        Ok((store, raft, transport))
    }
}

/// Whether this node is, or was, a member of the raft group.
pub(crate) fn has_log(place: &Place) -> bool {
    place.state_dir.join(RAFT_DIR).exists()
}

/// Removes all that is on the disk of a member that has been removed.
pub(crate) fn forget(place: &Place) -> std::io::Result<()> {
    persisted::remove(&place.state_dir, JOINED_FILE)?;
    match std::fs::remove_dir_all(place.state_dir.join(RAFT_DIR)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn membership(place: &Place) -> Result<IfNew, SeatError> {
    let files = |error| SeatError::because("reading the swarm's state", &error);
    let joined = persisted::read(&place.state_dir, JOINED_FILE).map_err(files)?;
    if let Some(bytes) = joined {
        let joined = proto::JoinResponse::decode(&*bytes)
            .map_err(|error| SeatError::because("reading who the managers are", &error))?;
        return Ok(if_new(place, joined));
    }
    if has_log(place) {
        return Ok(IfNew::Refuse);
    }
    let joined = join(place).await.map_err(|status| {
        let text = crate::ClusterError::from(status).message;
        SeatError(format!(
            "manager stopped: can't initialize raft node: {text}"
        ))
    })?;
    persisted::write(&place.state_dir, JOINED_FILE, &joined.encode_to_vec())
        .map_err(|error| SeatError::because("writing who the managers are", &error))?;
    Ok(if_new(place, joined))
}

fn if_new(place: &Place, joined: proto::JoinResponse) -> IfNew {
    let mut members = joined.members;
    members.retain(|member| member.node_id != place.node_id);
    IfNew::Join {
        raft_id: joined.raft_id,
        members,
    }
}

/// Asks the managers one after the other to be taken in; any of them passes it on to the leader.
async fn join(place: &Place) -> Result<proto::JoinResponse, Status> {
    let connector = Connector::new(Arc::clone(&place.security));
    let mut tried: Option<String> = None;
    let mut attempt = 1;
    loop {
        let remote = place.remotes.select(tried.as_deref());
        let remote = remote.ok_or_else(|| Status::unavailable("no remote hosts provided"))?;
        let answer = skep_rpc::join_raft(&connector, &remote.addr, told_addr(place)).await;
        place.remotes.observe(&remote, answer.is_ok());
        match answer {
            Err(status) if is_passing(&status) && attempt < JOIN_ATTEMPTS => {
                tracing::warn!(manager = remote.addr, %status, "a manager does not take this one in");
            }
            answer => return answer,
        }
        attempt += 1;
        tried = Some(remote.addr);
        tokio::time::sleep(JOIN_RETRY).await;
    }
}

/// What the others are told; an unspecified host stands for where the call comes from.
fn told_addr(place: &Place) -> &str {
    if place.advertise_addr.is_empty() {
        &place.listen_addr
    } else {
        &place.advertise_addr
    }
}

/// Being dialled back in vain has no better chance the next time.
fn is_passing(status: &Status) -> bool {
    let refused = status
        .message()
        .starts_with("could not connect to prospective");
    !refused
        && !matches!(
            status.code(),
            Code::InvalidArgument | Code::PermissionDenied | Code::NotFound
        )
}

async fn replicate(
    place: &Place,
    if_new: IfNew,
    alone: bool,
) -> Result<(Store, RaftNode, RaftTransport), SeatError> {
    let keys = place
        .keys
        .log_keys()
        .map_err(|error| SeatError::because("reading the raft log's key", &error))?;
    let mut config = RaftConfig::new(place.state_dir.join(RAFT_DIR), keys.dek, if_new);
    config.former_deks.extend(keys.pending);
    config.max_proposal_bytes = MAX_PROPOSAL_BYTES;
    config.alone = alone;
    let store = Store::new();
    let machine = Arc::new(StoreMachine(store.clone()));
    let transport = RaftTransport::new(Connector::new(Arc::clone(&place.security)));
    let network = Arc::new(transport.clone());
    let started =
        tokio::task::spawn_blocking(move || RaftNode::start(config, machine, network)).await;
    let raft = started
        .map_err(|error| SeatError::because("starting raft", &error))?
        .map_err(|error| SeatError::because("starting raft", &error))?;
    transport.attach(&raft);
    store.attach(Arc::new(RaftProposer::new(raft.clone())));
    Ok((store, raft, transport))
}

/// Writes the swarm's first objects, as its only member.
async fn found(
    store: &Store,
    raft: &RaftNode,
    founding: &Founding,
    root: &RootCa,
    unlock: Option<&UnlockKey>,
) -> Result<(), SeatError> {
    let mut leadership = raft.leadership();
    let elected = leadership.wait_for(|state| state.is_leader() || state.stopped);
    let leads = match tokio::time::timeout(ELECTION_TIMEOUT, elected).await {
        Ok(Ok(state)) => !state.stopped,
        Ok(Err(_)) | Err(_) => false,
    };
    if !leads {
        return Err(match raft.failure() {
            Some(error) => SeatError::because("starting raft", &*error),
            None => SeatError("raft did not elect a leader in time".into()),
        });
    }
    store
        .update(|tx| founding.write(root, unlock, tx))
        .await
        .map_err(|error| SeatError::because("writing the new swarm", &error))
}

/// Once the log has this member in it, it has all that were there before.
fn forget_when_known(place: &Place, raft: &RaftNode) {
    let (mut members, id) = (raft.members(), raft.id());
    let directory = place.state_dir.clone();
    tokio::spawn(async move {
        let known = members.wait_for(|members| members.get(id).is_some()).await;
        if known.is_ok()
            && let Err(error) = persisted::remove(&directory, JOINED_FILE)
        {
            tracing::warn!(%error, "cannot remove what the log has made superfluous");
        }
    });
}
