use std::io::Write as _;

use x509_parser::prelude::FromDer as _;

use super::*;
use crate::{DEFAULT_NODE_CERTIFICATE_VALIDITY, NodeRole};

/// Of P-384, with two organizational units, and a key as openssl writes it.
const EC: (&str, &str) = (
    include_str!("fixtures/ec.crt"),
    include_str!("fixtures/ec.key"),
);
/// With the name that SwarmKit's roots have, and a key in the oldest form.
const RSA: (&str, &str) = (
    include_str!("fixtures/rsa.crt"),
    include_str!("fixtures/rsa.key"),
);

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn identity() -> NodeIdentity {
    NodeIdentity {
        organization: "cluster".into(),
        role: NodeRole::Manager,
        node_id: "node".into(),
    }
}

fn issue(root: &RootCa) -> NodeCertificate {
    root.issue(&identity(), DEFAULT_NODE_CERTIFICATE_VALIDITY, now())
        .unwrap()
}

fn rotating(old: &RootCa, new: &RootCa) -> RootCa {
    let key = new.key_pem();
    let next = NextRoot {
        certificate_pem: new.certificate_pem(),
        key_pem: key.as_deref(),
        cross_signed_pem: &old.cross_sign(new.certificate_pem()).unwrap(),
    };
    RootCa::rotating(old.certificate_pem(), next).unwrap()
}

fn roots() -> Vec<RootCa> {
    vec![
        RootCa::generate(now()).unwrap(),
        RootCa::from_pem(EC.0, Some(EC.1)).unwrap(),
        RootCa::from_pem(RSA.0, Some(RSA.1)).unwrap(),
    ]
}

#[test]
fn a_certificate_issued_during_a_rotation_is_good_with_the_old_root_and_with_the_new_one() {
    for old in roots() {
        for new in roots() {
            if old.certificate_pem() == new.certificate_pem() {
                continue;
            }
            let issued = issue(&rotating(&old, &new)).certificate_pem;
            old.verify(&issued, now()).unwrap();
            new.verify(&issued, now()).unwrap();
            // The issuer is the new root, for those who still trust only the old one as well.
            let issuer = IssuerInfo::of_node(&issued, old.certificate_pem()).unwrap();
            assert_eq!(issuer, Some(new.issuer_info().unwrap()));
            // Before the rotation the roots have nothing to do with each other.
            assert!(new.verify(&issue(&old).certificate_pem, now()).is_err());
        }
    }
}

#[test]
fn a_cross_signed_root_says_what_the_root_said() {
    let (old, new) = (RootCa::generate(now()).unwrap(), roots().remove(1));
    let crossed = old.cross_sign(new.certificate_pem()).unwrap();
    let (crossed, root) = (pem::parse(crossed).unwrap(), pem::parse(EC.0).unwrap());
    let (_, crossed) = x509_parser::parse_x509_certificate(crossed.contents()).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(root.contents()).unwrap();
    assert_eq!(crossed.subject().as_raw(), root.subject().as_raw());
    assert_eq!(crossed.public_key().raw, root.public_key().raw);
    assert_eq!(crossed.validity(), root.validity());
    assert_eq!(crossed.raw_serial(), root.raw_serial());
    assert!(crossed.is_ca());
    assert_eq!(
        crossed.issuer().as_raw(),
        old.issuer_info().unwrap().subject
    );
    assert_eq!(crossed.extensions().len(), root.extensions().len());
}

#[test]
fn openssl_follows_the_chain_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        path
    };
    for new in roots() {
        let old = RootCa::generate(now()).unwrap();
        let issued = issue(&rotating(&old, &new)).certificate_pem;
        let at = issued.rfind("-----BEGIN").unwrap();
        let output = std::process::Command::new("openssl")
            .args(["verify", "-purpose", "sslserver", "-CAfile"])
            .arg(file("old.crt", old.certificate_pem()))
            .arg("-untrusted")
            .arg(file("crossed.crt", &issued[at..]))
            .arg(file("leaf.crt", &issued[..at]))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn two_roots_of_one_name_are_told_apart_by_their_keys() {
    let (one, two) = (
        RootCa::generate(now()).unwrap(),
        RootCa::generate(now()).unwrap(),
    );
    let bundle = format!("{}{}", one.certificate_pem(), two.certificate_pem());
    let issuer = |root: &RootCa| IssuerInfo::of_node(&issue(root).certificate_pem, &bundle);
    assert_eq!(issuer(&one).unwrap(), Some(one.issuer_info().unwrap()));
    assert_eq!(issuer(&two).unwrap(), Some(two.issuer_info().unwrap()));
    let stranger = RootCa::generate(now()).unwrap();
    assert_eq!(issuer(&stranger).unwrap(), None);
}

#[test]
fn a_key_comes_back_as_it_was_given() {
    let root = RootCa::from_pem(RSA.0, Some(RSA.1)).unwrap();
    assert_eq!(root.key_pem().as_deref(), Some(RSA.1));
}

#[test]
fn what_a_user_gives_is_refused_in_swarmkits_words() {
    let refusal = |certificate: &str, key: Option<&str>| {
        RootCa::from_pem(certificate, key).unwrap_err().to_string()
    };
    assert_eq!(refusal("", None), "no valid root CA certificates found");
    assert_eq!(refusal(EC.0, Some(RSA.1)), "certificate key mismatch");
    assert_eq!(
        refusal(EC.0, Some(EC.0)),
        "malformed private key: no private key found"
    );
    let leaf = issue(&RootCa::generate(now()).unwrap()).certificate_pem;
    assert_eq!(
        refusal(&leaf, None),
        "error while validating Root CA Certificate: certificate not a CA"
    );
    let old = RootCa::generate(now()).unwrap();
    let crossed = old.cross_sign(RSA.0).unwrap();
    assert_eq!(
        refusal(&crossed, None),
        "error while validating Root CA Certificate: x509: certificate signed by unknown authority"
    );
}

#[test]
fn bundles_are_compared_without_regard_to_white_space() {
    let loose = format!("\n\n  {}\r\n\n", RSA.0.replace('\n', "\r\n"));
    assert_eq!(normalize_pem(&loose), normalize_pem(RSA.0));
    assert_eq!(normalize_pem("nothing"), "");
}

#[test]
fn an_authority_elsewhere_is_asked_for_a_certificate_of_the_roots_name_and_key() {
    for root in roots() {
        let request = root.cross_sign_request().unwrap();
        let der = pem::parse(&request.csr_pem).unwrap();
        let (_, csr) =
            x509_parser::certification_request::X509CertificationRequest::from_der(der.contents())
                .unwrap();
        csr.verify_signature().unwrap();
        let info = &csr.certification_request_info;
        let issuer = root.issuer_info().unwrap();
        assert_eq!(info.subject.as_raw(), issuer.subject);
        assert_eq!(info.subject_pki.raw, issuer.public_key);
        assert!(request.basic_constraints_hex.starts_with("30"));
    }
    let request = roots()[1].cross_sign_request().unwrap();
    assert_eq!(request.common_name, "Our own root");
    assert_eq!(
        (request.name["C"].as_str(), request.name["O"].as_str()),
        ("CH", "Example")
    );
}
