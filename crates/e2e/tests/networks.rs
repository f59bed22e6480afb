//! Local networks: names, IPv6 on the default bridge.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use skep_testkit::Daemon;

fn lab() -> Daemon {
    Daemon::builder().image("busybox").start().unwrap()
}

#[test]
fn containers_of_a_network_know_each_other_by_name() {
    let mut daemon = lab();
    daemon.ok("network create lab");
    daemon.ok("network create other");
    daemon.ok("run -d --name web --network lab --network-alias www --hostname front busybox top");
    daemon.ok("run -d --name box --network lab --link web:server busybox top");
    daemon.ok("run -d --name stranger --network other busybox top");
    let id = daemon.ok("inspect -f {{.Id}} web");
    let ip = daemon.ok("inspect -f {{.NetworkSettings.Networks.lab.IPAddress}} web");
    let ask = |daemon: &Daemon, from: &str, name: &str| {
        daemon
            .sh(&format!("exec {from} nslookup -type=a {name}"))
            .stdout
    };
    for name in ["web", "WEB", "www", "front", "server", "web.lab", &id[..12]] {
        let said = ask(&daemon, "box", name);
        assert!(said.contains(&format!("Address: {ip}")), "{name}: {said}");
    }
    let said = daemon.ok(&format!("exec box nslookup {ip}"));
    assert!(said.contains("name = web.lab"), "{said}");
    // A known name has no such record, and no server outside is asked for one.
    let said = daemon.sh("exec box nslookup -type=aaaa web");
    assert!(!said.stdout.contains("NXDOMAIN"), "{}", said.stdout);
    let said = ask(&daemon, "stranger", "web");
    assert!(!said.contains(&ip), "{said}");
    // `link`s are the linking container's alone.
    assert!(!ask(&daemon, "web", "server").contains(&ip));

    let file = daemon.ok("exec box cat /etc/resolv.conf");
    assert!(file.contains("nameserver 127.0.0.11\n"), "{file}");
    assert!(file.contains("ndots:0"), "{file}");

    // Names live on when the daemon does not, and are served again.
    daemon.kill();
    daemon.start_again();
    let said = ask(&daemon, "box", "web");
    assert!(said.contains(&format!("Address: {ip}")), "{said}");

    daemon.ok("rm -f web");
    assert!(!ask(&daemon, "box", "web").contains(&ip));
}

#[test]
fn a_network_connected_later_brings_its_names() {
    let daemon = lab();
    daemon.ok("network create lab");
    daemon.ok("run -d --name web --network lab busybox top");
    daemon.ok("run -d --name late busybox top");
    daemon.ok("network connect lab late");
    daemon.ok("exec late ping -c 1 -W 2 web");
    daemon.ok("network disconnect lab late");
    let said = daemon.sh("exec late ping -c 1 -W 2 web").stdout;
    assert!(!said.contains("bytes from"), "{said}");
}

#[test]
fn internal_networks_ask_nobody_outside() {
    let daemon = lab();
    daemon.ok("network create --internal cellar");
    daemon.ok("run -d --name box --network cellar --dns 192.0.2.1 busybox top");
    let said = daemon.sh("exec box nslookup -type=a example.com");
    assert!(said.stdout.contains("SERVFAIL"), "{}", said.stdout);
}

#[test]
fn the_default_bridge_has_ipv6_if_asked() {
    let daemon = Daemon::builder()
        .image("busybox")
        .flag("--ipv6")
        .flag("--fixed-cidr-v6=fd00:77::/64")
        .start()
        .unwrap();
    daemon.ok("run -d --name web busybox top");
    let address =
        daemon.ok("inspect -f {{.NetworkSettings.Networks.bridge.GlobalIPv6Address}} web");
    assert!(address.starts_with("fd00:77::"), "{address}");
    daemon.ok(&format!("run --rm busybox ping -6 -c 1 -W 3 {address}"));
}
