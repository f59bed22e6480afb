use super::*;
use crate::{DEFAULT_NODE_CERTIFICATE_VALIDITY, NodeRole};

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn manager() -> NodeIdentity {
    NodeIdentity {
        organization: "clusterid0000000000000000".into(),
        role: NodeRole::Manager,
        node_id: "nodeid0000000000000000000".into(),
    }
}

#[test]
fn the_root_is_swarmkits() {
    let now = whole_seconds(now());
    let root = RootCa::generate(now).unwrap();
    let info = CertificateInfo::from_pem(root.certificate_pem()).unwrap();
    assert_eq!(info.common_name.as_deref(), Some("swarm-ca"));
    assert_eq!(
        info.not_after - info.not_before,
        time::Duration::days(20 * 365)
    );
    assert_eq!(info.not_before, now);

    let der = pem::parse(root.certificate_pem()).unwrap().into_contents();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(certificate.is_ca());
    certificate.verify_signature(None).unwrap();
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign());
    assert!(!root.certificate_pem().contains('\r'));
}

#[test]
fn a_managers_certificate_says_who_it_is_and_chains_to_the_root() {
    let now = whole_seconds(now());
    let root = RootCa::generate(now).unwrap();
    let issued = root
        .issue(&manager(), DEFAULT_NODE_CERTIFICATE_VALIDITY, now)
        .unwrap();
    let info = root.verify(&issued.certificate_pem, now).unwrap();
    assert_eq!(info.identity(), Some(manager()));
    assert_eq!(
        info.dns_names,
        ["swarm-manager", "nodeid0000000000000000000", "swarm-ca"]
    );
    assert_eq!(info.not_before, now - time::Duration::HOUR);
    assert_eq!(info.not_after, now + time::Duration::days(90));
    assert_eq!(info.issuer_subject, root.issuer_info().unwrap().subject);

    let der = pem::parse(&issued.certificate_pem).unwrap().into_contents();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment());
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth);
}

#[test]
fn a_worker_does_not_answer_to_the_name_of_the_ca() {
    let root = RootCa::generate(now()).unwrap();
    let worker = NodeIdentity {
        role: NodeRole::Worker,
        ..manager()
    };
    let issued = root.issue(&worker, Duration::ZERO, now()).unwrap();
    let info = CertificateInfo::from_pem(&issued.certificate_pem).unwrap();
    assert_eq!(
        info.dns_names,
        ["swarm-worker", "nodeid0000000000000000000"]
    );
    // One hour is the least that is issued.
    assert_eq!(info.not_after - info.not_before, time::Duration::hours(2));
}

#[test]
fn the_subject_in_the_request_does_not_matter() {
    let root = RootCa::generate(now()).unwrap();
    let key = new_key().unwrap();
    let mut params = CertificateParams::new(vec!["swarm-ca".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "swarm-manager");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let worker = NodeIdentity {
        role: NodeRole::Worker,
        ..manager()
    };
    let signed = root.sign(&request, &worker, Duration::ZERO, now()).unwrap();
    let info = CertificateInfo::from_pem(&signed).unwrap();
    assert_eq!(info.identity(), Some(worker));
    assert!(!info.dns_names.iter().any(|name| name == "swarm-ca"));
}

#[test]
fn refuses_a_request_whose_signature_is_wrong() {
    let root = RootCa::generate(now()).unwrap();
    let request = NodeKey::generate().unwrap().request_pem().unwrap();
    let block = pem::parse(&request).unwrap();
    let mut der = block.contents().to_vec();
    *der.last_mut().unwrap() ^= 1;
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    assert!(
        root.sign(&forged, &manager(), Duration::ZERO, now())
            .is_err()
    );
    assert!(
        root.sign("no pem", &manager(), Duration::ZERO, now())
            .is_err()
    );
}

#[test]
fn a_root_without_its_key_verifies_but_does_not_sign() {
    let root = RootCa::generate(now()).unwrap();
    let issued = root
        .issue(&manager(), DEFAULT_NODE_CERTIFICATE_VALIDITY, now())
        .unwrap();
    let trusted = RootCa::from_pem(root.certificate_pem(), None).unwrap();
    trusted.verify(&issued.certificate_pem, now()).unwrap();
    let request = NodeKey::generate().unwrap().request_pem().unwrap();
    let error = trusted
        .sign(&request, &manager(), Duration::ZERO, now())
        .unwrap_err();
    assert_eq!(error.to_string(), "no valid signer found");
    assert_eq!(trusted.key_pem(), None);
}

#[test]
fn signs_again_after_being_read_back_from_pem() {
    let root = RootCa::generate(now()).unwrap();
    let again = RootCa::from_pem(root.certificate_pem(), root.key_pem().as_deref()).unwrap();
    assert_eq!(again.digest(), root.digest());
    let issued = again
        .issue(&manager(), DEFAULT_NODE_CERTIFICATE_VALIDITY, now())
        .unwrap();
    root.verify(&issued.certificate_pem, now()).unwrap();
}

#[test]
fn refuses_a_key_of_another_root_and_a_leaf_as_root() {
    let (one, two) = (
        RootCa::generate(now()).unwrap(),
        RootCa::generate(now()).unwrap(),
    );
    let error = RootCa::from_pem(one.certificate_pem(), two.key_pem().as_deref()).unwrap_err();
    assert!(
        error.to_string().contains("certificate key mismatch"),
        "{error}"
    );
    let leaf = one.issue(&manager(), Duration::ZERO, now()).unwrap();
    assert!(RootCa::from_pem(&leaf.certificate_pem, None).is_err());
    assert!(RootCa::from_pem("", None).is_err());
}

#[test]
fn a_certificate_of_another_root_or_out_of_date_does_not_verify() {
    let (one, two) = (
        RootCa::generate(now()).unwrap(),
        RootCa::generate(now()).unwrap(),
    );
    let issued = one.issue(&manager(), Duration::ZERO, now()).unwrap();
    assert!(two.verify(&issued.certificate_pem, now()).is_err());
    assert!(
        one.verify(&issued.certificate_pem, now() + time::Duration::hours(3))
            .is_err()
    );
    one.verify(&issued.certificate_pem, now()).unwrap();
}
