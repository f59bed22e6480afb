//! `skep lab`: nodes that reach each other, in every way they can be broken, and nothing left.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use skep_testkit::{Lab, eventually};

fn unjoined() -> Lab {
    Lab::builder()
        .single("one")
        .single("two")
        .single("three")
        .image("busybox")
        .start()
        .unwrap()
}

/// Whether one node's frames reach another within the time.
fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let output = lab
        .exec(from, "busybox")
        .args(["ping", "-c1", "-W1", to])
        .output()
        .unwrap();
    output.status.success()
}

fn eventually_reaches(lab: &Lab, from: &str, to: &str) {
    eventually(&format!("{from} reaches {to}"), || {
        if reaches(lab, from, to) {
            Ok(())
        } else {
            Err("no answer".to_owned())
        }
    });
}

fn states(lab: &Lab) -> Vec<String> {
    let status = lab.status();
    status.iter().map(|node| node.state.to_string()).collect()
}

#[test]
fn nodes_have_names_addresses_and_each_other() {
    let lab = unjoined();
    assert_eq!(lab.ok("one", "info --format {{.Name}}"), "one");
    assert_eq!(lab.ok("two", "info --format {{.Name}}"), "two");
    // By name, and also from the place beside them.
    assert!(reaches(&lab, "one", "two"));
    assert!(reaches(&lab, "outside", "three"));
    let host = lab.exec("two", "hostname").output().unwrap();
    assert_eq!(host.stdout, b"two\n");
    // Containers have the way out that nodes have.
    let outside = "run --rm busybox ping -c1 -W1 198.51.100.1";
    assert!(lab.ok("one", outside).contains("1 packets received"));
}

#[test]
fn a_cut_parts_the_nodes_and_those_cut_together_stay_together() {
    let lab = unjoined();
    lab.cut(&["one", "two"]);
    assert!(reaches(&lab, "one", "two"));
    assert!(!reaches(&lab, "one", "three"));
    assert!(!reaches(&lab, "outside", "two"));
    assert_eq!(states(&lab), ["cut", "cut", "running"]);
    lab.heal(&["one"]);
    eventually_reaches(&lab, "one", "three");
    assert!(!reaches(&lab, "one", "two"));
    lab.heal(&["two"]);
    eventually_reaches(&lab, "one", "two");
    assert_eq!(states(&lab), ["running", "running", "running"]);
}

#[test]
fn a_slow_wire_delays_loses_and_keeps_the_bytes() {
    let lab = unjoined();
    lab.slow("one", Duration::from_millis(40), 0.0);
    let started = Instant::now();
    assert!(reaches(&lab, "two", "one"));
    assert!(
        started.elapsed() >= Duration::from_millis(80),
        "{:?}",
        started.elapsed()
    );
    // Large segments and unfinished checksums go through it unharmed.
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let listener = lab.inside("one", || TcpListener::bind("0.0.0.0:9000").unwrap());
    let mut client = lab.inside("two", || TcpStream::connect("10.231.0.2:9000").unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let bytes = sent.clone();
    let sender = std::thread::spawn(move || client.write_all(&bytes).unwrap());
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
    // Slow and cut at once, then neither.
    lab.cut(&["one"]);
    assert!(!reaches(&lab, "two", "one"));
    lab.heal(&["one"]);
    eventually_reaches(&lab, "two", "one");
    lab.slow("one", Duration::ZERO, 1.0);
    assert!(!reaches(&lab, "two", "one"));
    assert!(lab.status()[0].slowness.is_some());
    lab.heal(&["one"]);
    eventually_reaches(&lab, "two", "one");
    assert_eq!(lab.status()[0].slowness, None);
}

#[test]
fn containers_outlive_a_killed_daemon_and_die_with_the_machine() {
    let lab = unjoined();
    let id = lab.ok("one", "run -d --name box busybox sleep 1000");
    lab.kill("one");
    assert_eq!(states(&lab)[0], "dead");
    lab.start("one");
    assert_eq!(lab.ok("one", "ps -q --no-trunc"), id);
    // The new daemon is in another mount namespace and sees what the old one mounted.
    assert_eq!(lab.ok("one", "exec box echo works"), "works");
    lab.ok("one", "cp box:/etc/hosts -");

    lab.off("one");
    assert_eq!(states(&lab)[0], "off");
    assert!(!reaches(&lab, "two", "one"));
    lab.start("one");
    assert_eq!(lab.ok("one", "ps -q"), "");
    assert!(lab.ok("one", "ps -a").contains("Exited (255)"));
    eventually_reaches(&lab, "two", "one");
}

/// Starts a lab with the command line and looks for everything that a lab has in the kernel.
#[test]
fn down_leaves_nothing_behind_also_when_half_of_it_is_gone() {
    let lab = unjoined();
    let lab_pids: Vec<i32> = lab.status().iter().filter_map(|node| node.pid).collect();
    lab.ok("one", "run -d busybox sleep 1000");
    lab.ok("two", "run -d --cgroupns host busybox sleep 1000");
    lab.slow("two", Duration::from_millis(1), 0.0);
    lab.kill("three");
    let stray = lab
        .node("one")
        .command("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let files = lab.node("one").socket();
    let root = files.ancestors().nth(2).unwrap();
    // The state file, a namespace's name and a data root are gone.
    std::fs::remove_file(root.join("lab.json")).unwrap();
    rustix::mount::unmount(root.join("net/two"), rustix::mount::UnmountFlags::DETACH).unwrap();
    std::fs::remove_file(root.join("net/two")).unwrap();
    let left = lab.down();
    assert!(left.is_empty(), "{left}");
    assert!(!root.exists());
    for pid in lab_pids {
        let gone = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |text| text.contains(") Z "));
        assert!(gone, "{pid}");
    }
    drop(stray);
    // Once more does no harm.
    assert!(lab.down().is_empty());
}

/// The command line, as people use it.
struct Cli<'a> {
    directory: &'a Path,
}

impl Cli<'_> {
    fn run(&self, line: &str) -> (bool, String) {
        let output = Command::new(std::env::var_os("SKEP_BIN").unwrap())
            .arg("lab")
            .arg("--dir")
            .arg(self.directory)
            .args(line.split_whitespace())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let (good, text) = self.run(line);
        assert!(good, "skep lab {line}: {text}");
        text
    }

    #[track_caller]
    fn fails(&self, line: &str) -> String {
        let (good, text) = self.run(line);
        assert!(!good, "skep lab {line}: {text}");
        text
    }
}

impl Drop for Cli<'_> {
    fn drop(&mut self) {
        let _ = self.run("down --name t1");
    }
}

#[test]
fn the_command_line_says_what_it_did_and_what_to_do_next() {
    let directory = tempfile::Builder::new().prefix("skep-c").tempdir().unwrap();
    let cli = Cli {
        directory: directory.path(),
    };
    let said = cli.fails("ls --name t1");
    assert!(said.contains("skep lab up --name t1"), "{said}");
    let said = cli.ok("up --name t1 --managers 1 --no-join");
    let socket = format!("unix://{}/t1/m1/docker.sock", directory.path().display());
    assert!(said.starts_with(&format!("docker -H {socket}")), "{said}");
    assert!(said.contains("skep lab down --name t1 --dir"), "{said}");

    let listed = cli.ok("ls --name t1");
    assert!(
        listed.contains("running") && listed.contains(&socket),
        "{listed}"
    );
    assert!(
        cli.ok("exec --name t1 m1 -- cat /etc/hosts")
            .contains("10.231.0.2\tm1")
    );
    let (good, _) = cli.run("exec --name t1 m1 -- false");
    assert!(!good);

    for (line, hint) in [
        ("up --name t1", "skep lab down --name t1"),
        ("up --name t2 --managers 0 --workers 1", "--managers 1"),
        ("ls", "there are these labs: t1"),
        ("cut --name t1 m9", "its nodes: m1"),
        ("start --name t1 m1", "runs already"),
        ("slow --name t1 m1", "--delay 50ms"),
        ("slow --name t1 m1 --delay 50", "50ms, 1.5s or 200us"),
        (
            "exec --name t1 m1 -- no-such-program",
            "can't run no-such-program on m1",
        ),
    ] {
        let said = cli.fails(line);
        assert!(said.contains(hint), "{line}: {said}");
    }
    cli.ok("kill --name t1 m1");
    let said = cli.fails("kill --name t1 m1");
    assert!(said.contains("skep lab start m1"), "{said}");
    cli.ok("start --name t1 m1");
    let said = cli.ok("down --name t1");
    assert!(said.contains("is gone"), "{said}");
    let said = cli.ok("down --name t1");
    assert!(said.contains("nothing to remove"), "{said}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn an_up_that_fails_is_removed_and_says_what_the_daemon_said() {
    let directory = tempfile::Builder::new().prefix("skep-c").tempdir().unwrap();
    let cli = Cli {
        directory: directory.path(),
    };
    let said = cli.fails("up --name t1 -- --no-such-flag");
    assert!(said.contains("--no-such-flag"), "{said}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn debians_dockerd_is_a_node_as_well() {
    let lab = Lab::builder()
        .dockerd("one")
        .dockerd("two")
        .image("busybox")
        .start()
        .unwrap();
    lab.ok(
        "one",
        &format!("swarm init --advertise-addr {}", lab.node("one").address),
    );
    let token = lab.ok("one", "swarm join-token -q worker");
    lab.ok("two", &format!("swarm join --token {token} one:2377"));
    let nodes = lab.ok("one", "node ls --format {{.Hostname}}");
    let mut names: Vec<&str> = nodes.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "two"]);
    let left = lab.down();
    assert!(left.is_empty(), "{left}");
}
