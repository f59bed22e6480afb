use super::*;

const WORKERS: &[&str] = &["swarm-worker", "swarm-manager"];
const MANAGERS: &[&str] = &["swarm-manager"];

fn peer(organization: &str, unit: &str, node_id: &str) -> Peer {
    Peer {
        addr: "10.0.0.9:999".parse().unwrap(),
        subject: Some(Subject {
            organization: organization.into(),
            unit: unit.into(),
            node_id: node_id.into(),
            not_after: OffsetDateTime::UNIX_EPOCH + time::Duration::days(1),
        }),
    }
}

fn call(peer: &Peer, headers: &HeaderMap, roles: &[&str]) -> Result<RemoteNode, String> {
    call_at(peer, headers, roles, OffsetDateTime::UNIX_EPOCH)
}

fn call_at(
    peer: &Peer,
    headers: &HeaderMap,
    roles: &[&str],
    now: OffsetDateTime,
) -> Result<RemoteNode, String> {
    let rules = Rules {
        organization: "c",
        is_removed: &|node| node == "gone",
        now,
        accept_expired: false,
    };
    authorize(peer, headers, roles, &rules).map_err(|status| status.message().to_owned())
}

/// What a manager sends that forwards for `client`.
fn forwarded_for(client: &Peer) -> HeaderMap {
    let mut headers = HeaderMap::new();
    metadata::forward(&mut headers, client);
    headers
}

#[test]
fn a_worker_may_what_workers_may_and_no_more() {
    let worker = peer("c", "swarm-worker", "w");
    let none = HeaderMap::new();
    let node = call(&worker, &none, WORKERS).unwrap();
    assert_eq!(
        (node.node_id.as_str(), node.addr.as_str()),
        ("w", "10.0.0.9:999")
    );
    assert_eq!(
        call(&worker, &none, MANAGERS).unwrap_err(),
        "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = \
         Permission denied: remote certificate not part of OUs: [swarm-manager]"
    );
}

#[test]
fn strangers_removed_nodes_and_other_clusters_are_refused() {
    let none = HeaderMap::new();
    let stranger = Peer {
        subject: None,
        ..peer("", "", "")
    };
    let refused = |peer: &Peer| {
        let text = call(peer, &none, WORKERS).unwrap_err();
        text.rsplit_once("desc = ").unwrap().1.to_owned()
    };
    assert_eq!(refused(&stranger), "no client certificates in request");
    assert_eq!(
        refused(&peer("c", "swarm-worker", "gone")),
        "Permission denied: node gone was removed from swarm"
    );
    assert_eq!(
        refused(&peer("other", "swarm-worker", "w")),
        "Permission denied: remote certificate not part of organization: c"
    );
}

#[test]
fn a_manager_may_speak_for_its_client_and_a_worker_may_not() {
    let client = peer("c", "swarm-worker", "w");
    let headers = forwarded_for(&client);
    let node = call(&peer("c", "swarm-manager", "m"), &headers, WORKERS).unwrap();
    assert_eq!(
        (node.node_id.as_str(), node.forwarded_by.as_deref()),
        ("w", Some("m"))
    );

    let claims = forwarded_for(&peer("c", "swarm-manager", "m"));
    let error = call(&client, &claims, MANAGERS).unwrap_err();
    assert!(
        error.starts_with("Permission denied: unauthorized forwarder role: "),
        "{error}"
    );
}

#[test]
fn a_forwarded_client_is_judged_like_a_direct_one() {
    let manager = peer("c", "swarm-manager", "m");
    let refused =
        |client: &Peer, roles: &[&str]| call(&manager, &forwarded_for(client), roles).unwrap_err();
    let stranger = Peer {
        subject: None,
        ..peer("", "", "")
    };
    assert_eq!(
        refused(&stranger, WORKERS),
        "Permission denied: missing information in forwarded request"
    );
    assert_eq!(
        refused(&peer("c", "swarm-worker", "w"), MANAGERS),
        "Permission denied: unauthorized forwarded role, expecting: [swarm-manager]"
    );
    assert_eq!(
        refused(&peer("x", "swarm-worker", "w"), WORKERS),
        "Permission denied: organization mismatch, expecting: c"
    );
    assert_eq!(
        refused(&peer("c", "swarm-worker", "gone"), WORKERS),
        "Permission denied: node gone was removed from swarm"
    );
}

#[test]
fn an_expired_certificate_is_good_for_nothing_but_a_new_one() {
    let late = OffsetDateTime::UNIX_EPOCH + time::Duration::days(2);
    let worker = peer("c", "swarm-worker", "w");
    let error = call_at(&worker, &HeaderMap::new(), WORKERS, late).unwrap_err();
    assert!(
        error.ends_with("the certificate of node w has expired"),
        "{error}"
    );
    let rules = Rules {
        organization: "c",
        is_removed: &|_| false,
        now: late,
        accept_expired: true,
    };
    authorize(&worker, &HeaderMap::new(), WORKERS, &rules).unwrap();
}
