//! Who the managers are, as the control API shows them: raft's members with what raft says of them.

use std::sync::Arc;

use skep_manager::{Member, Members};
use skep_model::proto::raft_member_status::Reachability;
use skep_raft::{Leadership, RaftNode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn list(raft: &RaftNode, members: &skep_raft::Members, leadership: &Leadership) -> Vec<Member> {
    let member = |member: &skep_model::proto::RaftMember| Member {
        raft_id: member.raft_id,
        node_id: member.node_id.as_str().into(),
        addr: member.addr.clone(),
        leader: leadership.leader == Some(member.raft_id),
        // Raft cannot tell about the others before there are others to talk to.
        reachability: if member.raft_id == raft.id() {
            Reachability::Reachable
        } else {
            Reachability::Unknown
        },
    };
    members.iter().map(member).collect()
}

/// What the manager needs to know of raft, kept up to date by `follow` until it is told to stop.
pub(crate) struct RaftView {
    pub(crate) members: Members,
    /// Whether this member leads and has caught up.
    pub(crate) leads: watch::Receiver<bool>,
}

pub(crate) fn follow(
    raft: &RaftNode,
    stop: CancellationToken,
) -> (RaftView, impl Future<Output = ()> + Send + use<>) {
    let raft = raft.clone();
    let (mut members, mut leadership) = (raft.members(), raft.leadership());
    let now = Arc::new(list(&raft, &members.borrow(), &leadership.borrow()));
    let (member_sender, member_receiver) = watch::channel(now);
    let (leads_sender, leads) = watch::channel(leadership.borrow().is_leader());
    let follow = async move {
        loop {
            let state = leadership.borrow_and_update().clone();
            let now = list(&raft, &members.borrow_and_update(), &state);
            member_sender.send_if_modified(|known| {
                let changed = **known != now;
                if changed {
                    *known = Arc::new(now);
                }
                changed
            });
            let leads = state.is_leader();
            leads_sender.send_if_modified(|known| std::mem::replace(known, leads) != leads);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = members.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    };
    (
        RaftView {
            members: member_receiver,
            leads,
        },
        follow,
    )
}
