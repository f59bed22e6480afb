use super::*;
use crate::{CertificateInfo, DEFAULT_NODE_CERTIFICATE_VALIDITY, NodeIdentity, NodeRole};
use rustls::{ClientConnection, ServerConnection};

struct Cluster {
    root: RootCa,
    manager: NodeCertificate,
    worker: NodeCertificate,
}

fn cluster() -> Cluster {
    let now = OffsetDateTime::now_utc();
    let root = RootCa::generate(now).unwrap();
    let issue = |role, node_id: &str| {
        let identity = NodeIdentity {
            organization: "cluster".into(),
            role,
            node_id: node_id.into(),
        };
        root.issue(&identity, DEFAULT_NODE_CERTIFICATE_VALIDITY, now)
            .unwrap()
    };
    let manager = issue(NodeRole::Manager, "m1");
    let worker = issue(NodeRole::Worker, "w1");
    Cluster {
        root,
        manager,
        worker,
    }
}

/// Runs a handshake in memory and returns who the server sees.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
    name: &'static str,
) -> Result<Option<NodeIdentity>, rustls::Error> {
    let name = ServerName::try_from(name).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    let leaf = server.peer_certificates().and_then(<[_]>::first);
    Ok(leaf.and_then(|leaf| CertificateInfo::from_der(leaf).unwrap().identity()))
}

#[test]
fn a_manager_learns_the_identity_of_the_worker_that_calls() {
    let swarm = cluster();
    let seen = handshake(
        client_config(&swarm.root, &swarm.worker).unwrap(),
        server_config(&swarm.root, &swarm.manager).unwrap(),
        "swarm-manager",
    );
    let seen = seen.unwrap().unwrap();
    assert_eq!((seen.role, seen.node_id.as_str()), (NodeRole::Worker, "w1"));
}

#[test]
fn a_joining_node_comes_in_without_a_certificate() {
    let swarm = cluster();
    for root in [None, Some(&swarm.root)] {
        let client = bootstrap_client_config(root).unwrap();
        let server = server_config(&swarm.root, &swarm.manager).unwrap();
        assert_eq!(handshake(client, server, "swarm-ca").unwrap(), None);
    }
}

#[test]
fn a_client_without_alpn_is_served() {
    let swarm = cluster();
    let mut client = client_config(&swarm.root, &swarm.worker).unwrap();
    client.alpn_protocols.clear();
    let server = server_config(&swarm.root, &swarm.manager).unwrap();
    assert!(
        handshake(client, server, "swarm-manager")
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_worker_cannot_pose_as_a_manager() {
    let swarm = cluster();
    let client = client_config(&swarm.root, &swarm.worker).unwrap();
    let server = server_config(&swarm.root, &swarm.worker).unwrap();
    handshake(client, server, "swarm-manager").unwrap_err();
}

#[test]
fn certificates_of_another_cluster_are_refused_by_both_sides() {
    let (ours, theirs) = (cluster(), cluster());
    let client = client_config(&ours.root, &theirs.worker).unwrap();
    let server = server_config(&ours.root, &ours.manager).unwrap();
    handshake(client, server, "swarm-manager").unwrap_err();
    let client = client_config(&ours.root, &ours.worker).unwrap();
    let server = server_config(&theirs.root, &theirs.manager).unwrap();
    handshake(client, server, "swarm-manager").unwrap_err();
}

#[test]
fn an_expired_certificate_completes_the_handshake() {
    let swarm = cluster();
    let identity = NodeIdentity {
        organization: "cluster".into(),
        role: NodeRole::Worker,
        node_id: "w2".into(),
    };
    let long_ago = OffsetDateTime::now_utc() - time::Duration::days(2);
    let expired = swarm
        .root
        .issue(&identity, std::time::Duration::ZERO, long_ago);
    let client = client_config(&swarm.root, &expired.unwrap()).unwrap();
    let server = server_config(&swarm.root, &swarm.manager).unwrap();
    let seen = handshake(client, server, "swarm-manager").unwrap().unwrap();
    assert_eq!(seen.node_id, "w2");
}
