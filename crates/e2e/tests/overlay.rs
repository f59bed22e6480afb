//! A swarm of one with services on overlay networks: virtual addresses, names and the routing mesh.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use skep_testkit::{Daemon, eventually_within};

fn swarm() -> Daemon {
    let daemon = Daemon::builder()
        .image("busybox")
        .image("whoami")
        .start()
        .unwrap();
    daemon.ok("swarm init");
    daemon
}

fn until(what: &str, holds: impl FnMut() -> Result<(), String>) {
    eventually_within(Duration::from_secs(60), what, holds);
}

fn converged(daemon: &Daemon, service: &str, replicas: &str) {
    until(&format!("{service} has {replicas}"), || {
        let format = "{{.Name}} {{.Replicas}}";
        let seen = daemon
            .docker()
            .run(["service", "ls", "--format", format])
            .ok();
        if seen
            .lines()
            .any(|line| line == format!("{service} {replicas}"))
        {
            Ok(())
        } else {
            let tasks = daemon.ok(&format!("service ps --no-trunc {service}"));
            Err(format!("{seen}\n{tasks}"))
        }
    });
}

/// The id of a task's container.
fn container(daemon: &Daemon, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let ids = daemon.docker().run(["ps", "-q", "--filter", &filter]).ok();
    ids.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn services_find_each_other_and_the_outside_finds_them() {
    let mut daemon = swarm();
    let listed = daemon.docker().run([
        "network",
        "ls",
        "--format",
        "{{.Name}} {{.Driver}} {{.Scope}}",
    ]);
    let listed = listed.ok();
    assert!(listed.contains("ingress overlay swarm"), "{listed}");
    assert!(listed.contains("docker_gwbridge bridge local"), "{listed}");
    daemon.ok("network create -d overlay backend");
    daemon.ok("service create -d --name web --replicas 2 --network backend --publish 8010:8000 skep/whoami:1.0");
    daemon.ok("service create -d --name box --network backend busybox top");
    converged(&daemon, "web", "2/2");
    converged(&daemon, "box", "1/1");
    let format = "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}";
    let vips = daemon
        .docker()
        .run(["service", "inspect", "-f", format, "web"])
        .ok();
    let vip = vips
        .split_whitespace()
        .find(|address| !address.starts_with("10.0.0."))
        .unwrap();
    let vip = vip.split('/').next().unwrap();
    let client = container(&daemon, "box");

    // By name: the service is its virtual address, its tasks are themselves.
    let named = daemon.ok(&format!("exec {client} nslookup -type=a web"));
    assert!(named.contains(&format!("Address: {vip}")), "{named}");
    until("both tasks are in DNS", || {
        let tasks = daemon.ok(&format!("exec {client} nslookup -type=a tasks.web"));
        let count = tasks.matches("Address: 10.0.1.").count();
        if count == 2 { Ok(()) } else { Err(tasks) }
    });
    // Through the virtual address both tasks answer.
    let pid = daemon.ok(&format!("inspect -f {{{{.State.Pid}}}} {client}"));
    let answers: std::collections::BTreeSet<String> = (0..6)
        .map(|_| {
            // The image's own wget is not to be trusted with names.
            let mut inside = daemon.machine().outside("nsenter");
            let url = format!("http://{vip}:8000/");
            let curl = ["-n", "-t", &pid, "--", "curl", "-s", "-m", "5", &url];
            let said = inside.args(curl).output().unwrap();
            assert!(said.status.success(), "{said:?}");
            String::from_utf8_lossy(&said.stdout).into_owned()
        })
        .collect();
    assert!(answers.len() > 1, "{answers:?}");

    // Through the mesh, from this node's own address and from 127.0.0.1.
    for address in ["127.0.0.1", "10.231.0.2"] {
        until("the mesh answers", || {
            let url = format!("http://{address}:8010/");
            let mut curl = daemon.machine().command("curl");
            let said = curl.args(["-s", "-m", "5", &url]).output().unwrap();
            if said.status.success() && !said.stdout.is_empty() {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        });
    }
    let inspected = daemon.ok("network inspect backend");
    assert!(inspected.contains("web.1."), "{inspected}");

    // Everything goes on while no daemon runs, and is followed again afterwards.
    daemon.kill();
    let mut curl = daemon.machine().command("curl");
    let said = curl
        .args(["-s", "-m", "5", "http://10.231.0.2:8010/"])
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    daemon.start_again();
    converged(&daemon, "web", "2/2");
    daemon.ok("service scale -d web=1");
    until("one task is left in DNS", || {
        let tasks = daemon
            .sh(&format!("exec {client} nslookup -type=a tasks.web"))
            .stdout;
        let count = tasks.matches("Address: 10.0.1.").count();
        if count == 1 { Ok(()) } else { Err(tasks) }
    });

    let refused = daemon.sh("network rm backend");
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("is in use by service"),
        "{}",
        refused.stderr
    );
    daemon.ok("service rm web box");
    until("the network can go", || {
        let removed = daemon.sh("network rm backend");
        if removed.code == 0 {
            Ok(())
        } else {
            Err(removed.stderr)
        }
    });
}

#[test]
fn a_task_behind_the_mesh_sees_its_client() {
    let daemon = swarm();
    daemon.ok("service create -d --name web --publish 8020:8000 skep/whoami:1.0");
    converged(&daemon, "web", "1/1");
    let task = container(&daemon, "web");
    let pid = daemon.ok(&format!("inspect -f {{{{.State.Pid}}}} {task}"));
    until("the client's own address", || {
        let mut curl = daemon.machine().outside("curl");
        let answered = curl.args(["-s", "-m", "5", "http://10.231.0.2:8020/"]);
        let answered = answered.output().unwrap().status.success();
        // The connection that was just answered is remembered for a minute.
        let mut inside = daemon.machine().outside("nsenter");
        let seen = inside.args(["-n", "-t", &pid, "--", "ss", "-tan"]);
        let seen = seen.output().unwrap();
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        if answered && seen.contains("10.231.0.1]:") {
            Ok(())
        } else {
            Err(seen)
        }
    });
}

#[test]
fn a_published_port_of_another_service_is_refused() {
    let daemon = swarm();
    daemon.ok("service create -d --name one --publish 8010:80 busybox top");
    until("the port is taken", || {
        let two = daemon.sh("service create -d --name two --publish 8010:80 busybox top");
        let text = "port '8010' is already in use by service 'one'";
        if two.code != 0 && two.stderr.contains(text) {
            Ok(())
        } else {
            Err(two.stderr)
        }
    });
}

/// What of the mesh and the overlays there is on the machine.
fn traces(daemon: &Daemon, port: &str) -> Vec<String> {
    let said = |program: &str, arguments: &[&str]| {
        let mut command = daemon.machine().command(program);
        let said = command.args(arguments).output().unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let mut traces = Vec::new();
    if said("ip", &["-brief", "link"]).contains("skep_mesh") {
        traces.push("the pair of interfaces".to_owned());
    }
    if said("ss", &["-Hltn"]).contains(&format!(":{port} ")) {
        traces.push("the port".to_owned());
    }
    let namespaces = std::fs::read_dir(daemon.scratch().join("run/netns"));
    let namespaces = namespaces.into_iter().flatten().flatten();
    let names = namespaces.map(|entry| entry.file_name().to_string_lossy().into_owned());
    traces.extend(names.filter(|name| name.starts_with("1-")));
    traces
}

#[test]
fn a_node_that_left_the_swarm_has_nothing_of_its_networks_and_can_begin_again() {
    let daemon = swarm();
    let publish = |daemon: &Daemon| {
        daemon.ok("network create -d overlay backend");
        daemon.ok(
            "service create -d --name web --network backend --publish 8030:8000 skep/whoami:1.0",
        );
        converged(daemon, "web", "1/1");
        until("the mesh answers", || {
            let mut curl = daemon.machine().outside("curl");
            let said = curl.args(["-s", "-m", "5", "http://10.231.0.2:8030/"]);
            let said = said.output().unwrap();
            if said.status.success() {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        });
        assert!(traces(daemon, "8030").len() >= 4);
    };
    publish(&daemon);
    daemon.ok("swarm leave --force");
    assert_eq!(traces(&daemon, "8030"), Vec::<String>::new());
    daemon.ok("run --rm -p 8030:80 busybox true");
    daemon.ok("swarm init");
    publish(&daemon);
    let log = daemon.log();
    assert!(!log.contains("does not reach other nodes"), "{log}");
}
