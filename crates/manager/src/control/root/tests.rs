use futures::FutureExt as _;
use parking_lot::Mutex;

use super::*;

/// An authority that holds a root; reached at one address only.
#[derive(Debug)]
struct Authority {
    root: RootCa,
    asked: Mutex<Vec<String>>,
}

const URL: &str = "https://ca.example/sign";

impl ExternalAuthorities for Authority {
    fn check<'a>(
        &'a self,
        url: &'a str,
        roots_pem: &'a str,
    ) -> BoxFuture<'a, std::result::Result<(), String>> {
        let is_certified = roots_pem.contains(self.root.certificate_pem().trim());
        let reached = url == URL && is_certified;
        futures::future::ready(reached.then_some(()).ok_or("nobody".to_owned())).boxed()
    }

    fn cross_sign<'a>(
        &'a self,
        urls: &'a [String],
        _roots_pem: &'a str,
        request: &'a CrossSignRequest,
    ) -> BoxFuture<'a, std::result::Result<String, String>> {
        self.asked.lock().extend(urls.iter().cloned());
        // A fake cannot read requests: the common name says what to sign.
        let next = request.common_name.clone();
        futures::future::ready(Err(format!("asked for {next}"))).boxed()
    }
}

fn root() -> RootCa {
    RootCa::generate(SystemTime::now().into()).unwrap()
}

fn internal(root: &RootCa) -> proto::RootCa {
    proto::RootCa {
        ca_cert: root.certificate_pem().into(),
        ca_key: root.key_pem().unwrap().into(),
        ..Default::default()
    }
}

fn external(root: &RootCa) -> proto::RootCa {
    proto::RootCa {
        ca_key: Vec::new(),
        ..internal(root)
    }
}

fn given(root: &RootCa, has_key: bool) -> proto::CaConfig {
    proto::CaConfig {
        signing_ca_cert: root.certificate_pem().into(),
        signing_ca_key: if has_key {
            root.key_pem().unwrap().into()
        } else {
            Vec::new()
        },
        ..Default::default()
    }
}

fn reached_at(url: &str, root: Option<&RootCa>) -> proto::ExternalCa {
    proto::ExternalCa {
        url: url.into(),
        ca_cert: root
            .map(|root| root.certificate_pem().into())
            .unwrap_or_default(),
        ..Default::default()
    }
}

async fn decide(current: &proto::RootCa, wanted: &proto::CaConfig) -> Result<proto::RootCa> {
    let decision = RootDecision {
        current,
        wanted,
        external: None,
    };
    decision.decide().await
}

async fn refusal(current: &proto::RootCa, wanted: &proto::CaConfig) -> String {
    decide(current, wanted).await.unwrap_err().message
}

#[tokio::test]
async fn what_is_not_asked_for_does_not_change() {
    let current = internal(&root());
    let wanted = proto::CaConfig::default();
    assert_eq!(decide(&current, &wanted).await.unwrap(), current);
}

#[tokio::test]
async fn a_forced_rotation_makes_a_new_root_and_a_second_one_replaces_it() {
    let current = internal(&root());
    let forced = |force_rotate| proto::CaConfig {
        force_rotate,
        ..Default::default()
    };
    let first = decide(&current, &forced(1)).await.unwrap();
    assert_eq!(
        (&first.ca_cert, &first.ca_key),
        (&current.ca_cert, &current.ca_key)
    );
    assert_eq!(first.last_forced_rotation, 1);
    assert_eq!(
        decide(&first, &forced(1)).await.unwrap(),
        first,
        "once is once"
    );
    let second = decide(&first, &forced(2)).await.unwrap();
    let next = |root: &proto::RootCa| root.root_rotation.clone().unwrap().ca_cert;
    assert_ne!(next(&first), next(&second));
    assert_eq!(second.ca_cert, current.ca_cert);
    root_ca(&second).unwrap();
}

#[tokio::test]
async fn a_root_that_is_brought_along_is_rotated_to() {
    let (old, new) = (root(), root());
    let rotated = decide(&internal(&old), &given(&new, true)).await.unwrap();
    let rotation = rotated.root_rotation.clone().unwrap();
    assert_eq!(rotation.ca_cert, new.certificate_pem().as_bytes());
    // Asked for again, it goes on; the present one given again, it is called off.
    let again = decide(&rotated, &given(&new, true)).await.unwrap();
    assert_eq!(again, rotated);
    let back = decide(&rotated, &given(&old, true)).await.unwrap();
    assert_eq!(back, internal(&old));
}

#[tokio::test]
async fn a_root_that_cannot_be_is_refused_in_swarmkits_words() {
    let (old, new) = (root(), root());
    let current = internal(&old);
    let key_only = proto::CaConfig {
        signing_ca_key: b"key".to_vec(),
        ..Default::default()
    };
    assert_eq!(
        refusal(&current, &key_only).await,
        "if a signing CA key is provided, the signing CA cert must also be provided"
    );
    let mut mismatch = given(&new, true);
    mismatch.signing_ca_key.clone_from(&current.ca_key);
    assert_eq!(
        refusal(&current, &mismatch).await,
        "certificate key mismatch"
    );
    let mut two = given(&new, true);
    two.signing_ca_cert.extend_from_slice(&current.ca_cert);
    assert_eq!(
        refusal(&current, &two).await,
        "the desired CA certificate cannot contain multiple certificates"
    );
    let nineteen_years = Duration::from_secs(19 * 365 * 24 * 3600 + 3600);
    let old_one = RootCa::generate((SystemTime::now() - nineteen_years).into()).unwrap();
    assert_eq!(
        refusal(&current, &given(&old_one, true)).await,
        "CA certificate expires too soon"
    );
    assert_eq!(
        refusal(&current, &given(&new, false)).await,
        "there must be at least one valid, reachable external CA corresponding to the desired CA certificate"
    );
}

#[tokio::test]
async fn a_swarm_without_its_key_needs_an_authority_that_answers() {
    let held = root();
    let current = external(&held);
    let none = proto::CaConfig::default();
    let text = "there must be at least one valid, reachable external CA corresponding to the current CA certificate";
    assert_eq!(refusal(&current, &none).await, text);

    let authority: Arc<dyn ExternalAuthorities> = Arc::new(Authority {
        root: RootCa::from_pem(held.certificate_pem(), None).unwrap(),
        asked: Mutex::default(),
    });
    let decide = async |wanted: proto::CaConfig| {
        let decision = RootDecision {
            current: &current,
            wanted: &wanted,
            external: Some(&authority),
        };
        decision.decide().await
    };
    let served = |url: &str| proto::CaConfig {
        external_cas: vec![
            reached_at("https://gone.example", None),
            reached_at(url, None),
        ],
        ..Default::default()
    };
    assert_eq!(decide(served(URL)).await.unwrap(), current);
    let error = decide(served("https://else.example")).await.unwrap_err();
    assert_eq!(error.message, text);
    // From one authority to another one nobody can build a bridge.
    let mut elsewhere = given(&root(), false);
    elsewhere.external_cas = vec![reached_at(URL, None), reached_at(URL, Some(&held))];
    let error = decide(elsewhere).await.unwrap_err();
    assert_eq!(
        error.message,
        "there must be at least one valid, reachable external CA corresponding to the desired CA certificate"
    );
    // With the authority's key, it is not needed any more.
    let taken_over = decide(given(&held, true)).await.unwrap();
    assert_eq!(taken_over, internal(&held));
}

#[tokio::test]
async fn the_authority_of_the_present_root_is_asked_to_certify_the_next_one() {
    let held = root();
    let authority = Arc::new(Authority {
        root: RootCa::from_pem(held.certificate_pem(), None).unwrap(),
        asked: Mutex::default(),
    });
    let asked: Arc<dyn ExternalAuthorities> = Arc::clone(&authority) as _;
    let wanted = proto::CaConfig {
        external_cas: vec![reached_at(URL, None)],
        force_rotate: 1,
        ..Default::default()
    };
    let decision = RootDecision {
        current: &external(&held),
        wanted: &wanted,
        external: Some(&asked),
    };
    let error = decision.decide().await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::Internal, NOT_CROSS_SIGNED)
    );
    assert_eq!(*authority.asked.lock(), [URL]);
}
