//! Whether a call is allowed, in SwarmKit's words.

use http::HeaderMap;
use time::OffsetDateTime;
use tonic::Status;

use crate::identity::{Peer, RemoteNode, Subject};
use crate::metadata::{self, Forwarded};

/// What is known of the cluster at the time of a call.
pub(crate) struct Rules<'a> {
    /// The cluster's id: the organization that every certificate must name.
    pub(crate) organization: &'a str,
    /// Whether a node was removed; its certificate is still valid then.
    pub(crate) is_removed: &'a (dyn Fn(&str) -> bool + Sync),
    pub(crate) now: OffsetDateTime,
    /// A certificate may be past its time: only for asking for a new one.
    pub(crate) accept_expired: bool,
}

/// SwarmKit's words for a node that was removed.
const REMOVED: &str = "was removed from swarm";

/// Whether a manager refused the call because this node was removed: no manager takes its certificate
/// again.
pub fn says_removed(status: &Status) -> bool {
    status.code() == tonic::Code::PermissionDenied && status.message().contains(REMOVED)
}

/// Only managers forward: the word of anybody else about its client counts for nothing.
const FORWARDERS: &[&str] = &["swarm-manager"];

/// The node that the call is from, if one of its roles may make it.
pub(crate) fn authorize(
    peer: &Peer,
    headers: &HeaderMap,
    roles: &[&str],
    rules: &Rules<'_>,
) -> Result<RemoteNode, Status> {
    let Some(client) = metadata::forwarded(headers) else {
        let subject = check(peer, roles, rules)
            .map_err(|error| denied(format!("unauthorized peer role: {}", go(&error))))?;
        return Ok(RemoteNode {
            node_id: subject.node_id.clone(),
            roles: vec![subject.unit.clone()],
            organization: subject.organization.clone(),
            addr: peer.addr.to_string(),
            forwarded_by: None,
        });
    };
    let forwarder = check(peer, FORWARDERS, rules)
        .map_err(|error| denied(format!("unauthorized forwarder role: {}", go(&error))))?;
    check_client(&client, roles, rules)?;
    Ok(RemoteNode {
        node_id: client.node_id,
        roles: client.units,
        organization: client.organization,
        addr: client.addr,
        forwarded_by: Some(forwarder.node_id.clone()),
    })
}

/// SwarmKit checks the blacklist for the forwarder only; a removed node must not come back by way of
/// a follower either.
fn check_client(client: &Forwarded, roles: &[&str], rules: &Rules<'_>) -> Result<(), Status> {
    if client.units.is_empty() || client.node_id.is_empty() || client.organization.is_empty() {
        return Err(denied("missing information in forwarded request"));
    }
    if !client
        .units
        .iter()
        .any(|unit| roles.contains(&unit.as_str()))
    {
        let roles = list(roles);
        return Err(denied(format!(
            "unauthorized forwarded role, expecting: {roles}"
        )));
    }
    if client.organization != rules.organization {
        let organization = rules.organization;
        return Err(denied(format!(
            "organization mismatch, expecting: {organization}"
        )));
    }
    check_not_removed(&client.node_id, rules)
}

fn check<'a>(peer: &'a Peer, roles: &[&str], rules: &Rules<'_>) -> Result<&'a Subject, Status> {
    let subject = peer
        .subject
        .as_ref()
        .ok_or_else(|| Status::permission_denied("no client certificates in request"))?;
    if !roles.contains(&subject.unit.as_str()) {
        let roles = list(roles);
        return Err(denied(format!(
            "remote certificate not part of OUs: {roles}"
        )));
    }
    check_not_removed(&subject.node_id, rules)?;
    if subject.organization != rules.organization {
        let organization = rules.organization;
        return Err(denied(format!(
            "remote certificate not part of organization: {organization}"
        )));
    }
    if subject.not_after < rules.now && !rules.accept_expired {
        let node = &subject.node_id;
        return Err(denied(format!(
            "the certificate of node {node} has expired"
        )));
    }
    Ok(subject)
}

fn check_not_removed(node_id: &str, rules: &Rules<'_>) -> Result<(), Status> {
    if (rules.is_removed)(node_id) {
        return Err(denied(format!("node {node_id} {REMOVED}")));
    }
    Ok(())
}

fn denied(what: impl AsRef<str>) -> Status {
    Status::permission_denied(format!("Permission denied: {}", what.as_ref()))
}

/// An error within another, as Go prints gRPC errors.
pub(crate) fn go(error: &Status) -> String {
    format!(
        "rpc error: code = {:?} desc = {}",
        error.code(),
        error.message()
    )
}

fn list(roles: &[&str]) -> String {
    format!("[{}]", roles.join(" "))
}

#[cfg(test)]
mod tests;
