//! Registries: pull, push, login, and those that misbehave. Against Debian's `docker-registry`.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which end where they can not go on"
)]

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use skep_testkit::web::{self, Message, Web};
use skep_testkit::{Daemon, Machine, Registry, RegistryOptions, eventually};

const ADDRESS: &str = "127.0.0.1:5000";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
/// `me:secret`
const USERS: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn with_registry(options: &RegistryOptions) -> (Daemon, Registry) {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.machine(), ADDRESS, options).unwrap();
    (daemon, registry)
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The digest in `latest: digest: sha256:… size: …`.
fn pushed_digest(output: &str) -> String {
    let line = output.lines().find(|line| line.contains("digest: sha256:"));
    let line = line.unwrap_or_else(|| panic!("no digest in {output}"));
    let word = line.split(' ').find(|word| word.starts_with("sha256:"));
    word.unwrap().to_owned()
}

#[test]
fn what_is_pushed_can_be_pulled_by_tag_and_by_digest() {
    let (daemon, _registry) = with_registry(&RegistryOptions::default());
    let id = daemon.ok("images -q --no-trunc busybox");
    daemon.ok("tag busybox 127.0.0.1:5000/me/echo:1");
    let pushed = daemon.ok("push 127.0.0.1:5000/me/echo:1");
    assert!(
        pushed.starts_with("The push refers to repository [127.0.0.1:5000/me/echo]"),
        "{pushed}"
    );
    assert!(pushed.contains(": Pushed"), "{pushed}");
    let digest = pushed_digest(&pushed);
    assert!(
        daemon
            .ok("push 127.0.0.1:5000/me/echo:1")
            .contains(": Layer already exists")
    );

    daemon.ok("rmi busybox 127.0.0.1:5000/me/echo:1");
    assert_eq!(daemon.ok("images -q"), "");
    let pulled = daemon.ok("pull 127.0.0.1:5000/me/echo:1");
    let first = pulled.lines().next().unwrap();
    assert_eq!(first, "1: Pulling from me/echo");
    for line in [
        ": Pulling fs layer".to_owned(),
        ": Pull complete".to_owned(),
        format!("Digest: {digest}"),
        "Status: Downloaded newer image for 127.0.0.1:5000/me/echo:1".to_owned(),
    ] {
        assert!(pulled.contains(&line), "{line} in {pulled}");
    }
    assert_eq!(pulled.lines().last().unwrap(), "127.0.0.1:5000/me/echo:1");
    assert_eq!(daemon.ok("images -q --no-trunc"), id);
    assert_eq!(
        daemon.ok("run --rm 127.0.0.1:5000/me/echo:1 echo pulled"),
        "pulled"
    );
    let again = daemon.ok("pull 127.0.0.1:5000/me/echo:1");
    assert!(
        again.contains("Status: Image is up to date for 127.0.0.1:5000/me/echo:1"),
        "{again}"
    );

    let by_digest = format!("127.0.0.1:5000/me/echo@{digest}");
    let inspected = json_of(&daemon.ok("image inspect 127.0.0.1:5000/me/echo:1"));
    assert_eq!(inspected[0]["RepoDigests"], json!([by_digest]));
    // Pushed again from the pulled image: the same bytes.
    daemon.ok("tag 127.0.0.1:5000/me/echo:1 127.0.0.1:5000/other/name:2");
    let other = daemon.ok("push 127.0.0.1:5000/other/name:2");
    assert_eq!(pushed_digest(&other), digest);
    assert!(other.contains(": Mounted from me/echo"), "{other}");

    daemon.ok("rmi -f 127.0.0.1:5000/me/echo:1 127.0.0.1:5000/other/name:2");
    assert_eq!(daemon.ok("images -q"), "");
    let pulled = daemon.ok(&format!("pull {by_digest}"));
    assert!(
        pulled.contains(&format!("Status: Downloaded newer image for {by_digest}")),
        "{pulled}"
    );
    assert_eq!(daemon.ok(&format!("run --rm {by_digest} echo ok")), "ok");
}

#[test]
fn all_tags_are_pulled_and_pushed_at_once() {
    let (daemon, _registry) = with_registry(&RegistryOptions::default());
    for tag in ["a", "b", "c"] {
        daemon.ok(&format!("tag busybox localhost:5000/many:{tag}"));
    }
    daemon.ok("push -a -q localhost:5000/many");
    daemon.ok("rmi localhost:5000/many:a localhost:5000/many:b localhost:5000/many:c busybox");
    let pulled = daemon.ok("pull -a localhost:5000/many");
    assert!(
        pulled.contains("Status: Downloaded newer image for localhost:5000/many"),
        "{pulled}"
    );
    let mut tags: Vec<_> = daemon
        .docker()
        .run(["images", "--format", "{{.Tag}}"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    tags.sort();
    assert_eq!(tags, ["a", "b", "c"]);
}

#[test]
fn a_run_pulls_what_is_not_here_and_events_tell_it() {
    let (daemon, _registry) = with_registry(&RegistryOptions::default());
    daemon.ok("tag busybox 127.0.0.1:5000/tool");
    daemon.ok("push -q 127.0.0.1:5000/tool");
    daemon.ok("rmi busybox 127.0.0.1:5000/tool");
    let outcome = daemon.sh("run --rm 127.0.0.1:5000/tool echo here");
    assert!(
        outcome
            .stderr
            .starts_with("Unable to find image '127.0.0.1:5000/tool:latest' locally"),
        "{outcome}"
    );
    assert_eq!(outcome.ok(), "here");
    // The CLI cuts "now" to the second, so the newest events are seen a little later.
    eventually("both events are told", || {
        let events = daemon
            .docker()
            .run([
                "events",
                "--since=10m",
                "--until=0s",
                "--filter=type=image",
                "--format={{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}",
            ])
            .ok();
        let told = |action: &str| {
            let line = format!("{action} 127.0.0.1:5000/tool:latest 127.0.0.1:5000/tool");
            events.lines().any(|event| event == line)
        };
        if told("push") && told("pull") {
            Ok(())
        } else {
            Err(events)
        }
    });
}

#[test]
fn errors_are_told_in_dockers_words() {
    let (daemon, _registry) = with_registry(&RegistryOptions::default());
    let pull = |name: &str| daemon.sh(&format!("pull {name}")).fails_with(1);
    assert_eq!(
        pull("127.0.0.1:5000/nope:1"),
        "Error response from daemon: manifest for 127.0.0.1:5000/nope:1 not found: manifest unknown: manifest unknown"
    );
    assert_eq!(
        pull("127.0.0.1:5999/a"),
        "Error response from daemon: Get \"http://127.0.0.1:5999/v2/\": dial tcp 127.0.0.1:5999: connect: connection refused"
    );
    let lookup = pull("no-such-host.invalid/a");
    assert!(
        lookup.contains(
            "Get \"https://no-such-host.invalid/v2/\": dial tcp: lookup no-such-host.invalid"
        ),
        "{lookup}"
    );
    assert_eq!(
        pull("scratch"),
        "Error response from daemon: 'scratch' is a reserved name"
    );
    let push = daemon.sh("push 127.0.0.1:5000/nope:1").fails_with(1);
    assert_eq!(
        push,
        "An image does not exist locally with the tag: 127.0.0.1:5000/nope"
    );
}

#[test]
fn a_login_opens_a_registry_that_wants_a_password() {
    let (daemon, _registry) = with_registry(&RegistryOptions {
        htpasswd: Some(USERS.to_owned()),
        ..RegistryOptions::default()
    });
    daemon.ok("tag busybox 127.0.0.1:5000/private");
    let refused = daemon.sh("push 127.0.0.1:5000/private").fails_with(1);
    assert!(refused.ends_with("no basic auth credentials"), "{refused}");
    let wrong = login(&daemon, "wrong");
    assert!(
        wrong.contains(
            "login attempt to http://127.0.0.1:5000/v2/ failed with status: 401 Unauthorized"
        ),
        "{wrong}"
    );
    assert!(login(&daemon, "secret").contains("Login Succeeded"));
    daemon.ok("push -q 127.0.0.1:5000/private");
    daemon.ok("rmi 127.0.0.1:5000/private");
    daemon.ok("pull -q 127.0.0.1:5000/private");
    daemon.ok("logout 127.0.0.1:5000");
    let out = daemon.sh("pull 127.0.0.1:5000/private").fails_with(1);
    assert!(out.ends_with("no basic auth credentials"), "{out}");
    let log = daemon.log();
    assert!(!log.contains("secret") && !log.contains("wrong"), "{log}");
}

/// Logs in as `me`; standard output and error.
fn login(daemon: &Daemon, password: &str) -> String {
    use std::process::Stdio;
    let mut child = daemon
        .docker()
        .command(["login", "-u", "me", "--password-stdin", ADDRESS])
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

#[test]
fn a_service_gets_its_image_from_a_private_registry_and_pins_its_digest() {
    let (daemon, _registry) = with_registry(&RegistryOptions {
        htpasswd: Some(USERS.to_owned()),
        ..RegistryOptions::default()
    });
    assert!(login(&daemon, "secret").contains("Login Succeeded"));
    daemon.ok("tag busybox 127.0.0.1:5000/web:1");
    let digest = pushed_digest(&daemon.ok("push 127.0.0.1:5000/web:1"));
    daemon.ok("rmi busybox 127.0.0.1:5000/web:1");
    daemon.ok("swarm init --advertise-addr 127.0.0.1");
    let created = daemon
        .sh("service create -d --with-registry-auth --name web 127.0.0.1:5000/web:1 sleep 1000");
    assert!(
        !created.stderr.contains("could not be accessed"),
        "{created}"
    );
    created.ok();
    let service = daemon.ok("service inspect web");
    assert!(!service.contains("secret") && !service.contains("PullOptions"));
    assert_eq!(
        json_of(&service)[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"],
        format!("127.0.0.1:5000/web:1@{digest}")
    );
    eventually("the task runs", || {
        let tasks = daemon.ok("service ps web");
        if tasks.contains("Running ") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    // Nobody can ask this one: the CLI says so, and the task why it can not run.
    let unknown = daemon.sh("service create -d --name lost 127.0.0.1:5999/lost:1");
    assert!(
        unknown.stderr.starts_with(
            "image 127.0.0.1:5999/lost:1 could not be accessed on a registry to record\nits digest."
        ),
        "{unknown}"
    );
    unknown.ok();
    eventually("the task says why", || {
        let tasks = daemon.ok("service ps --no-trunc lost");
        if tasks.contains("Rejected")
            && tasks.contains("No such image: 127.0.0.1:5999/lost:1")
            && tasks.contains("connection refused")
        {
            Ok(())
        } else {
            Err(tasks)
        }
    });
}

/// Puts a blob into a registry that asks nobody, from inside the machine.
fn put_blob(machine: &Machine, repository: &str, bytes: &[u8]) -> String {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let digest = digest(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/");
    let begun = web::request(machine, address, "POST", &path, &[], b"").unwrap();
    assert_eq!(begun.status(), 202, "{begun:?}");
    let place = begun.headers["location"].clone();
    let place = place
        .strip_prefix("http://127.0.0.1:5000")
        .unwrap_or(&place);
    let put = format!("{place}&digest={digest}");
    let kind = [("content-type", "application/octet-stream")];
    let done = web::request(machine, address, "PUT", &put, &kind, bytes).unwrap();
    assert_eq!(done.status(), 201, "{done:?}");
    digest
}

fn put_manifest(
    machine: &Machine,
    repository: &str,
    tag: &str,
    kind: &str,
    body: &Value,
) -> String {
    let bytes = body.to_string().into_bytes();
    let path = format!("/v2/{repository}/manifests/{tag}");
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let kind = [("content-type", kind)];
    let done = web::request(machine, address, "PUT", &path, &kind, &bytes).unwrap();
    assert_eq!(done.status(), 201, "{done:?}");
    digest(&bytes)
}

/// An image of one layer with a file `mark`, for an architecture: its manifest.
fn image(architecture: &str, layer: &[u8], diff_id: &str) -> (Vec<u8>, Value) {
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["cat", "/mark"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "a test"}],
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": config.len(),
            "digest": digest(&config),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "size": layer.len(),
            "digest": digest(layer),
        }],
    });
    (config, manifest)
}

fn layer_with(mark: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(mark.len() as u64);
    tar.append_data(&mut header, "mark", mark.as_bytes())
        .unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn an_index_gives_each_platform_its_image() {
    let (daemon, _registry) = with_registry(&RegistryOptions::default());
    let machine = daemon.machine();
    let mut entries = Vec::new();
    for architecture in ["s390x", "amd64", "arm64"] {
        let tar = layer_with(architecture);
        let layer = zstd::encode_all(&tar[..], 3).unwrap();
        let (config, manifest) = image(architecture, &layer, &digest(&tar));
        put_blob(machine, "multi", &layer);
        put_blob(machine, "multi", &config);
        let size = manifest.to_string().len();
        let digest = put_manifest(machine, "multi", architecture, OCI, &manifest);
        entries.push(json!({
            "mediaType": OCI, "size": size, "digest": digest,
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let index_digest = put_manifest(machine, "multi", "latest", INDEX, &index);

    for (flag, expected) in [("", "amd64"), ("--platform=linux/s390x", "s390x")] {
        let pulled = daemon.ok(&format!("pull {flag} 127.0.0.1:5000/multi"));
        assert!(
            pulled.contains(&format!("Digest: {index_digest}")),
            "{pulled}"
        );
        let found = daemon
            .docker()
            .run([
                "image",
                "inspect",
                "-f",
                "{{.Architecture}}",
                "127.0.0.1:5000/multi",
            ])
            .ok();
        assert_eq!(found, expected);
    }
    let error = daemon
        .sh("pull --platform=linux/mips64le 127.0.0.1:5000/multi")
        .fails_with(1);
    assert!(
        error.contains("no matching manifest for linux/mips64le in the manifest list entries"),
        "{error}"
    );
}

#[test]
fn a_layer_that_is_cut_off_is_resumed_where_it_broke() {
    let daemon = Daemon::builder().start().unwrap();
    let tar = layer_with(&noise(3 << 20));
    let (config, mut manifest) = image("amd64", &tar, &digest(&tar));
    manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    let manifest = manifest.to_string().into_bytes();
    let requests = Arc::new(AtomicUsize::new(0));
    let (counted, blob) = (requests.clone(), tar.clone());
    let _web = Web::start(daemon.machine(), ADDRESS, move |request, stream| {
        if !request.path().contains(&digest(&blob)) {
            return serve(request, stream, &manifest, &config, &blob);
        }
        let start: usize = request
            .headers
            .get("range")
            .and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let turn = counted.fetch_add(1, Ordering::SeqCst);
        assert_eq!(
            start > 0,
            turn > 0,
            "the first asks for all, the others for the rest"
        );
        let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
        let length = (blob.len() - start).to_string();
        let headers = [
            ("content-range", range.as_str()),
            ("content-length", &length),
        ];
        let status = if start > 0 {
            "206 Partial Content"
        } else {
            "200 OK"
        };
        let end = (start + (1 << 20) + 4321).min(blob.len());
        web::answer(stream, status, &headers, &blob[start..end])?;
        if end < blob.len() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    })
    .unwrap();
    daemon.ok("pull 127.0.0.1:5000/broken:1");
    assert!(requests.load(Ordering::SeqCst) >= 3);
    assert_eq!(
        daemon.ok("images -q").lines().count(),
        1,
        "the image is whole"
    );
}

/// A registry with one image, for all names.
fn serve(
    request: &Message,
    stream: &mut TcpStream,
    manifest: &[u8],
    config: &[u8],
    layer: &[u8],
) -> std::io::Result<()> {
    let head = request.method() == "HEAD";
    let path = request.path();
    if path == "/v2/" {
        return web::answer(stream, "200 OK", &[], b"{}");
    }
    let (kind, body) = if path.contains("/manifests/") {
        (OCI, manifest)
    } else if path.ends_with(&digest(config)) {
        ("application/json", config)
    } else if path.ends_with(&digest(layer)) {
        ("application/octet-stream", layer)
    } else {
        return web::answer(stream, "404 Not Found", &[], b"");
    };
    let (length, name) = (body.len().to_string(), digest(body));
    let headers = [
        ("content-type", kind),
        ("content-length", length.as_str()),
        ("docker-content-digest", name.as_str()),
    ];
    web::answer(stream, "200 OK", &headers, if head { b"" } else { body })
}

/// Text that does not compress and is always the same.
fn noise(length: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 90) as u8)
        })
        .collect()
}

#[test]
fn a_registry_that_lies_gets_nowhere() {
    let daemon = Daemon::builder().start().unwrap();
    let tar = layer_with("mark");
    let (config, manifest) = image("amd64", &tar, &digest(&tar));
    let mut manifest = manifest;
    manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    let manifest = manifest.to_string().into_bytes();
    let layer = tar.clone();
    let _web = Web::start(daemon.machine(), ADDRESS, move |request, stream| {
        let path = request.path().to_owned();
        let blob = path.ends_with(&digest(&layer));
        let head = request.method() == "HEAD";
        let manifest_asked = path.contains("/manifests/") && request.method() == "GET";
        if blob && path.contains("/wrong/") {
            let other = vec![b'x'; layer.len()];
            return web::answer(stream, "200 OK", &[], &other);
        }
        if blob && path.contains("/endless/") {
            let length = [("content-length", "99999999999")];
            web::answer(stream, "200 OK", &length, b"")?;
            let zeros = vec![0; 65536];
            loop {
                stream.write_all(&zeros)?;
            }
        }
        if blob && path.contains("/short/") {
            return web::answer(stream, "200 OK", &[], &layer[..layer.len() / 2]);
        }
        if blob && path.contains("/file/") {
            let location = [("location", "file:///etc/passwd")];
            return web::answer(stream, "307 Temporary Redirect", &location, b"");
        }
        if manifest_asked && path.contains("/manifest/") {
            let kind = [("content-type", OCI)];
            return web::answer(stream, "200 OK", &kind, b"{\"schemaVersion\":2}");
        }
        if path.contains("/limited/") {
            let kind = [("content-type", "application/json")];
            let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
            let body: &[u8] = if head { b"" } else { body };
            return web::answer(stream, "429 Too Many Requests", &kind, body);
        }
        if path.contains("/denied/") {
            let kind = [("content-type", "application/json")];
            let body = br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
            let body: &[u8] = if head { b"" } else { body };
            return web::answer(stream, "403 Forbidden", &kind, body);
        }
        serve(request, stream, &manifest, &config, &layer)
    })
    .unwrap();
    let wrong = format!(
        "filesystem layer verification failed for digest {}",
        digest(&tar)
    );
    for (name, text) in [
        ("wrong", wrong.as_str()),
        ("endless", &wrong),
        ("short", &wrong),
        (
            "file",
            "refusing to follow a redirect to \"file:///etc/passwd\"",
        ),
        (
            "manifest",
            "manifest verification failed for digest sha256:",
        ),
        (
            "limited",
            "toomanyrequests: You have reached your pull rate limit.",
        ),
        (
            "denied",
            "pull access denied for 127.0.0.1:5000/denied/a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
        ),
    ] {
        let error = daemon
            .sh(&format!("pull 127.0.0.1:5000/{name}/a"))
            .fails_with(1);
        assert!(error.contains(text), "{name}: {error}");
    }
    assert_eq!(daemon.ok("images -q"), "");
    let left: Vec<_> = std::fs::read_dir(daemon.data_root().join("image/tmp"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // The same registry is fine where it tells the truth.
    daemon.ok("pull 127.0.0.1:5000/true/a");
}

#[test]
fn killed_in_the_middle_of_a_pull_nothing_remains() {
    let mut daemon = Daemon::builder().start().unwrap();
    let tar = layer_with("mark");
    let (config, manifest) = image("amd64", &tar, &digest(&tar));
    let mut manifest = manifest;
    manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    manifest["layers"][0]["size"] = json!(tar.len());
    let manifest = manifest.to_string().into_bytes();
    let layer = tar.clone();
    let _web = Web::start(daemon.machine(), ADDRESS, move |request, stream| {
        let stuck = request.path().contains("/stuck/") && request.path().ends_with(&digest(&layer));
        if stuck {
            let length = layer.len().to_string();
            web::answer(
                stream,
                "200 OK",
                &[("content-length", &length)],
                &layer[..512],
            )?;
            std::thread::park();
        }
        serve(request, stream, &manifest, &config, &layer)
    })
    .unwrap();
    let downloads = daemon.data_root().join("image/tmp");
    let begun = || {
        let names = std::fs::read_dir(&downloads)
            .into_iter()
            .flatten()
            .flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("pull-"))
            .count()
    };
    let pull = |daemon: &Daemon| {
        let mut command = daemon
            .docker()
            .command(["pull", "-q", "127.0.0.1:5000/stuck/a"]);
        let child = command.spawn().unwrap();
        eventually("the download has begun", || match begun() {
            1 => Ok(()),
            other => Err(format!("{other} downloads")),
        });
        child
    };
    // The client hangs up: the download ends.
    let mut client = pull(&daemon);
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("the download has ended", || match begun() {
        0 => Ok(()),
        other => Err(format!("{other} downloads")),
    });

    let mut client = pull(&daemon);
    daemon.kill();
    client.wait().unwrap();
    assert_eq!(begun(), 1, "the killed daemon could not clean up");
    daemon.start_again();
    assert_eq!(begun(), 0);
    assert_eq!(daemon.ok("images -q"), "");
    daemon.ok("pull 127.0.0.1:5000/fine/a");
}
