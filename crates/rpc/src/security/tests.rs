use std::time::Duration;

use skep_ca::NodeRole;
use time::OffsetDateTime;

use super::*;

fn issue(root: &RootCa, role: NodeRole) -> NodeCertificate {
    let identity = NodeIdentity {
        organization: "c".into(),
        role,
        node_id: "n".into(),
    };
    let validity = Duration::from_secs(3600);
    root.issue(&identity, validity, OffsetDateTime::now_utc())
        .unwrap()
}

#[test]
fn a_renewed_certificate_replaces_the_old_one_and_is_announced() {
    let root = RootCa::generate(OffsetDateTime::now_utc()).unwrap();
    let security = NodeSecurity::new(&root, issue(&root, NodeRole::Worker)).unwrap();
    let mut changes = security.subscribe();
    let before = security.current();
    security.renew(issue(&root, NodeRole::Manager)).unwrap();

    assert!(changes.has_changed().unwrap());
    assert_eq!(
        changes.borrow_and_update().identity().role,
        NodeRole::Manager
    );
    assert_eq!(before.identity().role, NodeRole::Worker);
    assert_eq!(security.current().tls_info(), before.tls_info());
}

#[test]
fn a_certificate_that_is_no_nodes_is_refused() {
    let root = RootCa::generate(OffsetDateTime::now_utc()).unwrap();
    let no_node = NodeCertificate {
        certificate_pem: root.certificate_pem().to_owned(),
        key_pem: root.key_pem().unwrap(),
    };
    let error = NodeSecurity::new(&root, no_node).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the node certificate is not acceptable: its subject is not a swarm node's"
    );
}

/// The old root on the way to the new one.
fn rotating(old: &RootCa, new: &RootCa) -> RootCa {
    let key = new.key_pem();
    let next = skep_ca::NextRoot {
        certificate_pem: new.certificate_pem(),
        key_pem: key.as_deref(),
        cross_signed_pem: &old.cross_sign(new.certificate_pem()).unwrap(),
    };
    RootCa::rotating(old.certificate_pem(), next).unwrap()
}

#[test]
fn a_new_root_is_trusted_only_after_the_certificate_is_of_it() {
    let [old, new] = [(); 2].map(|()| RootCa::generate(OffsetDateTime::now_utc()).unwrap());
    let security = NodeSecurity::new(&old, issue(&old, NodeRole::Worker)).unwrap();
    let error = security.trust(&new).unwrap_err().to_string();
    assert!(
        error.contains("new root CA does not match existing TLS credentials"),
        "{error}"
    );

    security
        .renew(issue(&rotating(&old, &new), NodeRole::Worker))
        .unwrap();
    let told = security.current().tls_info().clone();
    assert_eq!(told.trust_root, old.certificate_pem().as_bytes());
    assert_eq!(
        told.cert_issuer_public_key,
        new.issuer_info().unwrap().public_key
    );
    security.trust(&new).unwrap();
    assert_eq!(security.current().root_pem(), new.certificate_pem());
}
