//! Registries with TLS and with tokens: Debian's `docker-registry`, and a token server of the test's own.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which end where they can not go on"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SigningKey as _};
use serde_json::{Value, json};
use skep_testkit::web::{self, Message, Web};
use skep_testkit::{Daemon, Machine, Registry, RegistryOptions};

/// The registry's directory below `certs.d`, which is the host's: its name is this test's own.
struct CertsDir(PathBuf);

impl CertsDir {
    fn new(registry: &str) -> Self {
        let path = PathBuf::from("/etc/docker/certs.d").join(registry);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for CertsDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        // The directories above, if nothing else is in them.
        for above in self.0.ancestors().skip(1).take(2) {
            let _ = std::fs::remove_dir(above);
        }
    }
}

/// A port of this process's own: the machine's address is the same in every test.
fn address() -> String {
    format!(
        "{}:{}",
        Machine::ADDRESS,
        20_000 + std::process::id() % 20_000
    )
}

#[test]
fn a_certificate_of_certs_d_is_trusted_and_another_is_not() {
    let daemon = Daemon::start();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![Machine::ADDRESS.to_owned()]).unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    let registry = Registry::start(
        daemon.machine(),
        &address(),
        &RegistryOptions {
            tls: Some((certificate.pem(), key.serialize_pem())),
            ..RegistryOptions::default()
        },
    )
    .unwrap();
    let image = format!("{}/secure", registry.name());
    daemon.ok(&format!("tag busybox {image}"));
    let error = daemon.sh(&format!("push {image}")).fails_with(1);
    assert!(
        error.ends_with(
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        ),
        "{error}"
    );
    let certs = CertsDir::new(&registry.name());
    std::fs::write(certs.0.join("ca.crt"), issuer.pem()).unwrap();
    daemon.ok(&format!("push -q {image}"));
    daemon.ok(&format!("rmi busybox {image}"));
    daemon.ok(&format!("pull -q {image}"));
    std::fs::write(certs.0.join("client.cert"), "no key").unwrap();
    let error = daemon.sh(&format!("pull {image}")).fails_with(1);
    assert!(
        error.contains("missing key client.key for client certificate client.cert. CA certificates must use the extension .crt"),
        "{error}"
    );
}

#[test]
fn a_self_signed_certificate_as_everybody_makes_them_works() {
    let daemon = Daemon::start();
    // `openssl req -x509` calls it an authority.
    let mut own = CertificateParams::new(vec![Machine::ADDRESS.to_owned()]).unwrap();
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = own.self_signed(&key).unwrap();
    let registry = Registry::start(
        daemon.machine(),
        &address(),
        &RegistryOptions {
            tls: Some((certificate.pem(), key.serialize_pem())),
            ..RegistryOptions::default()
        },
    )
    .unwrap();
    let certs = CertsDir::new(&registry.name());
    std::fs::write(certs.0.join("domain.crt"), certificate.pem()).unwrap();
    let image = format!("{}/own", registry.name());
    daemon.ok(&format!("tag busybox {image}"));
    daemon.ok(&format!("push -q {image}"));
}

#[test]
fn an_insecure_registry_may_have_any_certificate_or_none() {
    let daemon = Daemon::builder()
        .image("busybox")
        .flag("--insecure-registry=10.231.0.0/24")
        .start()
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["elsewhere".to_owned()]).unwrap();
    let certificate = own.self_signed(&key).unwrap();
    let tls = RegistryOptions {
        tls: Some((certificate.pem(), key.serialize_pem())),
        ..RegistryOptions::default()
    };
    for (port, options) in [("5001", tls), ("5002", RegistryOptions::default())] {
        let address = format!("{}:{port}", Machine::ADDRESS);
        let registry = Registry::start(daemon.machine(), &address, &options).unwrap();
        let image = format!("{}/any", registry.name());
        daemon.ok(&format!("tag busybox {image}"));
        daemon.ok(&format!("push -q {image}"));
        daemon.ok(&format!("rmi {image}"));
        daemon.ok(&format!("pull -q {image}"));
    }
}

/// Signs tokens that the registry takes.
struct Authority {
    key: KeyPair,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["token".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { key, certificate }
    }

    fn token(&self, user: &str, access: &[Value]) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let header = json!({
            "typ": "JWT",
            "alg": "ES256",
            "x5c": [STANDARD.encode(self.certificate.der())],
        });
        let claims = json!({
            "iss": "test", "sub": user, "aud": "test", "jti": "1", "access": access,
            "iat": now, "nbf": now - 10, "exp": now + 300,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(plain(&signature)))
    }
}

/// Two numbers of 32 bytes out of the DER that certificates have.
fn plain(der: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    let mut rest = &der[2..];
    while !rest.is_empty() {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let significant = &number[number.len().saturating_sub(32)..];
        numbers.extend(std::iter::repeat_n(0, 32 - significant.len()));
        numbers.extend(significant);
        rest = after;
    }
    numbers
}

/// The repositories and actions a request asks for.
fn scopes(query: &str) -> Vec<Value> {
    let decoded = query
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",")
        .replace('+', " ");
    decoded
        .split('&')
        .filter_map(|pair| pair.strip_prefix("scope="))
        .flat_map(|scopes| scopes.split(' '))
        .filter_map(|scope| {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            let actions: Vec<_> = actions.split(',').collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect()
}

#[test]
fn tokens_are_asked_for_with_scopes_and_refreshed() {
    let daemon = Daemon::start();
    let authority = Arc::new(Authority::new());
    let registry = Registry::start(
        daemon.machine(),
        "127.0.0.1:5000",
        &RegistryOptions {
            token: Some((
                "http://127.0.0.1:5055/token".to_owned(),
                authority.certificate.pem(),
            )),
            ..RegistryOptions::default()
        },
    )
    .unwrap();
    let refreshed = Arc::new(AtomicUsize::new(0));
    let (issuer, count) = (authority.clone(), refreshed.clone());
    let _tokens = Web::start(
        daemon.machine(),
        "127.0.0.1:5055",
        move |request: &Message, stream| {
            let basic = format!("Basic {}", STANDARD.encode("me:secret"));
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let by_refresh = body.contains("refresh_token=keep-me");
            let known = request.headers.get("authorization") == Some(&basic) || by_refresh;
            if request.headers.contains_key("authorization") && !known {
                let kind = [("content-type", "application/json")];
                let text = br#"{"details":"incorrect username or password"}"#;
                return web::answer(stream, "401 Unauthorized", &kind, text);
            }
            if by_refresh {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let query = request
                .path()
                .split_once('?')
                .map_or(body.as_str(), |(_, query)| query);
            // Who is not known may do nothing.
            let access = if known { scopes(query) } else { Vec::new() };
            let token = issuer.token(if known { "me" } else { "" }, &access);
            let mut answer = json!({"token": token, "access_token": token, "expires_in": 300});
            if query.contains("offline_token=true") {
                answer["refresh_token"] = json!("keep-me");
            }
            let kind = [("content-type", "application/json")];
            web::answer(stream, "200 OK", &kind, answer.to_string().as_bytes())
        },
    )
    .unwrap();
    let image = format!("{}/team/app", registry.name());
    daemon.ok(&format!("tag busybox {image}"));
    let denied = daemon.sh(&format!("push {image}")).fails_with(1);
    assert!(
        denied.ends_with("denied: requested access to the resource is denied"),
        "{denied}"
    );
    let denied = daemon.sh(&format!("pull {image}")).fails_with(1);
    assert_eq!(
        denied,
        format!(
            "Error response from daemon: pull access denied for {image}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        )
    );
    let wrong = login(&daemon, &registry.name(), "wrong");
    assert!(
        wrong.ends_with("unauthorized: incorrect username or password\n"),
        "{wrong}"
    );
    assert!(login(&daemon, &registry.name(), "secret").contains("Login Succeeded"));
    daemon.ok(&format!("push -q {image}"));
    daemon.ok(&format!("rmi busybox {image}"));
    daemon.ok(&format!("pull -q {image}"));
    // The CLI keeps the refresh token instead of the password, so all of that was done with it.
    assert!(refreshed.load(Ordering::SeqCst) >= 2);
    // A layer of another repository is mounted, which needs its scope as well.
    daemon.ok(&format!("tag {image} {}/team/other", registry.name()));
    let pushed = daemon.ok(&format!("push {}/team/other", registry.name()));
    assert!(pushed.contains(": Mounted from team/app"), "{pushed}");
    let log = daemon.log();
    for secret in ["keep-me", "secret", "eyJ"] {
        assert!(!log.contains(secret), "{log}");
    }
}

fn login(daemon: &Daemon, registry: &str, password: &str) -> String {
    let mut child = daemon
        .docker()
        .command(["login", "-u", "me", "--password-stdin", registry])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(password.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
