//! `--link` on the default bridge.

use skep_testkit::{Daemon, eventually};

fn hosts_of(daemon: &Daemon, container: &str) -> String {
    daemon.ok(&format!("exec {container} cat /etc/hosts"))
}

fn address_of(daemon: &Daemon, container: &str) -> String {
    daemon.ok(&format!(
        "inspect -f {{{{.NetworkSettings.IPAddress}}}} {container}"
    ))
}

#[test]
fn a_linked_container_is_known_by_its_alias_and_its_variables() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name db -e MODE=fast --expose 6379 busybox sleep 1000");
    daemon.ok("run -d --name web --link db:my-store busybox sleep 1000");
    let address = address_of(&daemon, "db");
    let hosts = hosts_of(&daemon, "web");
    let line = hosts
        .lines()
        .find(|line| line.starts_with(&format!("{address}\t")))
        .expect("a line for the linked container");
    assert!(
        line.contains("\tmy-store ") && line.ends_with(" db"),
        "{line}"
    );
    daemon.ok("exec web ping -c1 -W2 my-store");

    let env = daemon.ok("exec web env");
    for variable in [
        format!("MY_STORE_PORT=tcp://{address}:6379"),
        "MY_STORE_NAME=/web/my-store".to_owned(),
        "MY_STORE_ENV_MODE=fast".to_owned(),
    ] {
        assert!(
            env.lines().any(|line| line == variable),
            "{variable}: {env}"
        );
    }
    assert_eq!(
        daemon.ok("inspect -f {{.HostConfig.Links}} web"),
        "[/db:/web/my-store]"
    );
    assert_eq!(
        daemon.ok("ps --no-trunc --filter name=db --format {{.Names}}"),
        "db,web/my-store"
    );

    daemon.ok("rm --link web/my-store");
    assert!(!hosts_of(&daemon, "web").contains("my-store"));
    assert_eq!(daemon.ok("inspect -f {{.HostConfig.Links}} web"), "[]");
}

#[test]
fn a_linked_container_that_starts_anew_is_found_at_its_new_address() {
    let daemon = Daemon::start();
    daemon.ok("run -d --name db --stop-timeout 0 busybox sleep 1000");
    daemon.ok("run -d --name web --link db busybox sleep 1000");
    let before = address_of(&daemon, "db");
    daemon.ok("stop db");
    daemon.ok("run -d --name squatter busybox sleep 1000");
    daemon.ok("start db");
    let after = address_of(&daemon, "db");
    assert_ne!(before, after, "the squatter has the old address");
    eventually("the new address in the hosts file", || {
        let hosts = hosts_of(&daemon, "web");
        let found = hosts.contains(&format!("{after}\tdb ")) && !hosts.contains(&before);
        if found { Ok(()) } else { Err(hosts) }
    });
}

#[test]
fn links_that_can_not_work_are_refused_in_dockers_words() {
    let daemon = Daemon::start();
    let refused = daemon
        .sh("run -d --link nobody busybox true")
        .fails_with(125);
    assert!(
        refused.contains("could not get container for nobody: No such container: nobody"),
        "{refused}"
    );
    let refused = daemon
        .sh("run -d --network host --link nobody busybox true")
        .fails_with(125);
    assert!(
        refused.contains("host type networking can't be used with links"),
        "{refused}"
    );
    daemon.ok("create --name db busybox true");
    let refused = daemon
        .sh("run -d --name web --link db:store busybox true")
        .fails_with(125);
    assert!(
        refused.contains("Cannot link to a non running container: /db AS /web/store"),
        "{refused}"
    );
}
