//! Certificates, the root and the lock of a swarm, by the stock CLI.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use skep_testkit::{Daemon, Lab, Outcome, eventually};
use std::io::Write as _;

/// A root as openssl makes one, with its key: a user's own.
const OWN_ROOT: &str = include_str!("../../ca/src/root/fixtures/ec.crt");
const OWN_KEY: &str = include_str!("../../ca/src/root/fixtures/ec.key");
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

fn swarm(init: &str) -> Daemon {
    let daemon = Daemon::builder().image("busybox").start().unwrap();
    daemon.ok(init);
    daemon
}

fn field(daemon: &Daemon, of: &[&str]) -> String {
    daemon.docker().run(of).ok()
}

fn unlock(daemon: &Daemon, key: &str) -> Outcome {
    let typed = format!("{key}\n");
    daemon.docker().run_typing(["swarm", "unlock"], &typed)
}

fn state(daemon: &Daemon) -> String {
    field(daemon, &["info", "-f", "{{.Swarm.LocalNodeState}}"])
}

fn key_file(daemon: &Daemon) -> String {
    let path = daemon.data_root().join("swarm/certificates/swarm-node.key");
    std::fs::read_to_string(path).unwrap()
}

/// The manager follows the cluster object in its own time.
fn eventually_key_file(daemon: &Daemon, what: &str, is_so: impl Fn(&str) -> bool) {
    eventually(what, || {
        let file = key_file(daemon);
        if is_so(&file) { Ok(()) } else { Err(file) }
    });
}

fn is_sealed(file: &str) -> bool {
    file.contains("SEALED PRIVATE KEY")
}

fn root_on_disk(daemon: &Daemon) -> String {
    let path = daemon
        .data_root()
        .join("swarm/certificates/swarm-root-ca.crt");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn the_root_is_shown_and_rotated() {
    let daemon = swarm("swarm init");
    let root = daemon.ok("swarm ca");
    assert!(root.starts_with("-----BEGIN CERTIFICATE-----"), "{root}");
    assert_eq!(root_on_disk(&daemon), root);
    let token = daemon.ok("swarm join-token -q worker");
    daemon.ok("service create -d --name web --replicas 1 busybox top");

    let said = daemon.ok("swarm ca --rotate");
    assert!(said.contains("rotated TLS certificates"), "{said}");
    let next = daemon.ok("swarm ca");
    assert_ne!(next, root);
    assert!(said.ends_with(&next), "{said}");
    assert_eq!(root_on_disk(&daemon), next);
    let rotated = daemon.ok("swarm join-token -q worker");
    assert_ne!(token.split('-').nth(2), rotated.split('-').nth(2));
    let trusted = field(
        &daemon,
        &[
            "node",
            "inspect",
            "self",
            "-f",
            "{{.Description.TLSInfo.TrustRoot}}",
        ],
    );
    assert_eq!(trusted.trim(), next);
    assert_eq!(daemon.ok("swarm ca --rotate -q"), "");
    assert_ne!(daemon.ok("swarm ca"), next);
    daemon.ok("service rm web");
}

#[test]
fn the_rotated_root_is_still_there_after_a_restart() {
    let mut daemon = swarm("swarm init");
    daemon.ok("swarm ca --rotate -q");
    let root = daemon.ok("swarm ca");
    daemon.kill();
    daemon.start_again();
    eventually("the manager is back", || {
        let seen = daemon.sh("swarm ca");
        if seen.stdout.trim() == root {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
}

#[test]
fn a_root_that_is_brought_along_is_rotated_to() {
    let daemon = swarm("swarm init");
    let file = |name: &str, text: &str| {
        let path = daemon.scratch().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        path.display().to_string()
    };
    let (root, key) = (file("own.crt", OWN_ROOT), file("own.key", OWN_KEY));
    let wrong = daemon.sh(&format!(
        "swarm ca --rotate -d --ca-cert {root} --ca-key {root}"
    ));
    assert!(
        wrong
            .clone()
            .fails_with(1)
            .contains("malformed private key"),
        "{wrong}"
    );
    let lone = daemon.sh(&format!(
        "swarm ca --rotate -d --ca-cert {root} --external-ca protocol=cfssl,url=https://127.0.0.1:1"
    ));
    assert!(
        lone.clone().fails_with(1).contains("there must be at least one valid, reachable external CA corresponding to the desired CA certificate"),
        "{lone}"
    );
    daemon.ok(&format!(
        "swarm ca --rotate -q --ca-cert {root} --ca-key {key}"
    ));
    assert_eq!(daemon.ok("swarm ca"), OWN_ROOT.trim());
    // What was brought along is not shown, and does not rotate again with the next update.
    daemon.ok("swarm update --task-history-limit 3");
    let in_progress = field(
        &daemon,
        &["info", "-f", "{{.Swarm.Cluster.RootRotationInProgress}}"],
    );
    assert_eq!(in_progress, "false");
    daemon.ok("swarm ca --rotate -q");
    assert_ne!(daemon.ok("swarm ca"), OWN_ROOT.trim());
}

#[test]
fn a_locked_manager_waits_for_its_key() {
    let mut daemon = swarm("swarm init --autolock");
    let key = daemon.ok("swarm unlock-key -q");
    assert!(key.starts_with("SWMKEY-1-"), "{key}");
    daemon.kill();
    daemon.start_again();
    assert_eq!(state(&daemon), "locked");
    assert!(daemon.sh("node ls").fails_with(1).contains(LOCKED));
    let leave = daemon.sh("swarm leave").fails_with(1);
    assert!(
        leave.contains("Please unlock it first or use `--force`"),
        "{leave}"
    );
    let other = "SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8";
    assert!(
        unlock(&daemon, other)
            .fails_with(1)
            .contains("swarm could not be unlocked: invalid key provided")
    );
    let nonsense = unlock(&daemon, "SWMKEY-1-x").fails_with(1);
    assert!(nonsense.contains("invalid key string"), "{nonsense}");
    unlock(&daemon, &key).ok();
    eventually("the manager is back", || {
        let seen = daemon.sh("node ls");
        if seen.code == 0 {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    let again = unlock(&daemon, &key).fails_with(1);
    assert!(again.contains("swarm is not locked"), "{again}");
}

#[test]
fn the_lock_is_turned_on_and_off_and_its_key_changed() {
    let mut daemon = swarm("swarm init");
    assert!(!is_sealed(&key_file(&daemon)));
    let none = daemon.sh("swarm unlock-key").fails_with(1);
    assert!(none.contains("no unlock key is set"), "{none}");
    daemon.ok("swarm update --autolock=true");
    eventually_key_file(&daemon, "the key is sealed", is_sealed);
    let first = daemon.ok("swarm unlock-key -q");
    let sealed = key_file(&daemon);
    let second = daemon.ok("swarm unlock-key --rotate -q");
    assert_ne!(first, second);
    eventually_key_file(&daemon, "the key is sealed anew", |file| file != sealed);

    daemon.stop();
    daemon.start_again();
    assert!(
        unlock(&daemon, &first)
            .fails_with(1)
            .contains("invalid key provided")
    );
    unlock(&daemon, &second).ok();
    eventually("the manager is back", || {
        let seen = daemon.sh("swarm update --autolock=false");
        if seen.code == 0 {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    eventually_key_file(&daemon, "the key is open", |file| !is_sealed(file));
    daemon.stop();
    daemon.start_again();
    eventually("the manager is back", || {
        let seen = state(&daemon);
        if seen == "active" { Ok(()) } else { Err(seen) }
    });
}

#[test]
fn tokens_are_rotated_one_at_a_time_and_certificates_last_an_hour_at_least() {
    let daemon = swarm("swarm init");
    let tokens =
        || ["worker", "manager"].map(|role| daemon.ok(&format!("swarm join-token -q {role}")));
    let before = tokens();
    let said = daemon.ok("swarm join-token --rotate worker");
    assert!(
        said.starts_with("Successfully rotated worker join token."),
        "{said}"
    );
    let after = tokens();
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
    // The root has not changed, only the secret.
    assert_eq!(before[0].split('-').nth(2), after[0].split('-').nth(2));

    let short = daemon.sh("swarm update --cert-expiry 59m").fails_with(1);
    assert!(
        short.contains("minimum certificate expiry time is: 1h0m0s"),
        "{short}"
    );
    daemon.ok("swarm update --cert-expiry 1h");
    assert!(daemon.ok("info").contains("Expiry Duration: About an hour"));
}

fn trusted_by(lab: &Lab, node: &str) -> String {
    let field = "{{.Description.TLSInfo.TrustRoot}}";
    let asked = ["node", "inspect", node, "-f", field];
    let trusted = lab.node("m1").docker().run(asked).ok();
    trusted.trim().to_owned()
}

#[test]
fn all_managers_and_workers_follow_a_rotation() {
    let lab = Lab::builder().managers(3).workers(2).start().unwrap();
    let before = lab.ok("m1", "swarm ca");
    let token = lab.ok("m1", "swarm join-token -q worker");
    // Asked of a manager that does not lead.
    lab.ok("m2", "swarm ca --rotate -q");
    let after = lab.ok("m3", "swarm ca");
    assert_ne!(after, before);
    for node in ["m1", "m2", "m3", "w1", "w2"] {
        eventually(&format!("{node} trusts the next root"), || {
            let trusted = trusted_by(&lab, node);
            if trusted == after {
                Ok(())
            } else {
                Err(trusted)
            }
        });
    }
    lab.ok("w2", "swarm leave");
    let refused = lab.sh("w2", &format!("swarm join --token {token} m1:2377"));
    let refused = refused.fails_with(1);
    assert!(
        refused.contains("remote CA does not match fingerprint. Expected: "),
        "{refused}"
    );
}

#[test]
fn a_locked_manager_waits_while_the_others_go_on() {
    let lab = Lab::builder().managers(3).start().unwrap();
    lab.ok("m1", "swarm update --autolock=true");
    let key = lab.ok("m2", "swarm unlock-key -q");
    // Every manager seals its key in its own time; a killed one that had not is not locked.
    eventually("the third manager comes back locked", || {
        lab.kill("m3");
        lab.start("m3");
        let state = lab.ok("m3", "info -f {{.Swarm.LocalNodeState}}");
        if state == "locked" {
            Ok(())
        } else {
            Err(state)
        }
    });
    assert!(lab.sh("m3", "node ls").fails_with(1).contains(LOCKED));
    lab.ok("m1", "node ls");
    let docker = lab.node("m3").docker();
    docker
        .run_typing(["swarm", "unlock"], &format!("{key}\n"))
        .ok();
    eventually("the third manager is back", || {
        let seen = lab.sh("m3", "node ls");
        if seen.code == 0 {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    // A worker has no lock, also when it was a manager.
    lab.ok("m1", "node demote m3");
    eventually("the third node is a worker", || {
        let manages = lab.ok("m3", "info -f {{.Swarm.ControlAvailable}}");
        if manages == "false" {
            Ok(())
        } else {
            Err(manages)
        }
    });
    lab.kill("m3");
    lab.start("m3");
    assert_ne!(lab.ok("m3", "info -f {{.Swarm.LocalNodeState}}"), "locked");
}
