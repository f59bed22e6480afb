//! Who the managers are, as the control API shows them: raft's members with what raft says of them.

use std::sync::Arc;

use skep_manager::{Member, Members};
use skep_model::proto::raft_member_status::Reachability;
use skep_raft::{Leadership, RaftNode};
use skep_rpc::{RaftTransport, Reachability as Reachable};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn list(
    this: u64,
    members: &skep_raft::Members,
    leadership: &Leadership,
    reachable: &Reachable,
) -> Vec<Member> {
    let answers = |id: u64| id == this || reachable.get(&id).copied().unwrap_or(false);
    let member = |member: &skep_model::proto::RaftMember| Member {
        raft_id: member.raft_id,
        node_id: member.node_id.as_str().into(),
        addr: member.addr.clone(),
        leader: leadership.leader == Some(member.raft_id),
        reachability: if answers(member.raft_id) {
            Reachability::Reachable
        } else {
            Reachability::Unreachable
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
    transport: &RaftTransport,
    stop: CancellationToken,
) -> (RaftView, impl Future<Output = ()> + Send + use<>) {
    // Not the raft node itself: its last handle keeps it alive.
    let id = raft.id();
    let (mut members, mut leadership) = (raft.members(), raft.leadership());
    let mut reachable = transport.reachability();
    let now = list(
        id,
        &members.borrow(),
        &leadership.borrow(),
        &reachable.borrow(),
    );
    let (member_sender, member_receiver) = watch::channel(Arc::new(now));
    let (leads_sender, leads) = watch::channel(leadership.borrow().is_leader());
    let follow = async move {
        loop {
            let state = leadership.borrow_and_update().clone();
            let now = list(
                id,
                &members.borrow_and_update(),
                &state,
                &reachable.borrow_and_update(),
            );
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
                changed = reachable.changed() => if changed.is_err() { return },
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
