//! Log drivers and their options.

use skep_testkit::Daemon;

#[test]
fn the_local_driver_keeps_a_log_that_can_be_read() {
    let mut daemon = Daemon::start();
    let docker = daemon.docker();
    docker
        .run([
            "run",
            "--name",
            "quiet",
            "--log-driver",
            "local",
            "busybox",
            "sh",
            "-c",
            "seq 1 3; echo bad >&2",
        ])
        .ok();
    let logs = daemon.sh("logs quiet");
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("1\n2\n3\n", "bad\n")
    );
    assert_eq!(
        daemon.ok("logs --tail 2 quiet"),
        "3",
        "the other one is of stderr"
    );
    assert_eq!(
        daemon.ok("inspect -f {{.HostConfig.LogConfig.Type}}:{{.LogPath}} quiet"),
        "local:"
    );
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.sh("logs quiet").stdout, "1\n2\n3\n");
    assert_eq!(daemon.stop_and_list_leftovers(), Vec::<String>::new());
}

#[test]
fn a_log_that_does_not_block_is_whole_when_nothing_is_slow() {
    let mut daemon = Daemon::start();
    daemon
        .docker()
        .run([
            "run",
            "-d",
            "--name",
            "fast",
            "--log-opt",
            "mode=non-blocking",
            "--log-opt",
            "max-buffer-size=4m",
            "busybox",
            "sh",
            "-c",
            "seq 1 5000",
        ])
        .ok();
    assert_eq!(daemon.ok("wait fast"), "0");
    let lines = daemon.ok("logs fast");
    assert_eq!(lines.lines().count(), 5000);
    assert_eq!(lines.lines().last(), Some("5000"));
    assert_eq!(daemon.stop_and_list_leftovers(), Vec::<String>::new());
}

#[test]
fn details_have_labels_variables_and_the_tag() {
    let daemon = Daemon::start();
    daemon.ok(
        "run --name tagged --label com.shop.tier=web -e REGION=north --log-opt labels-regex=^com\\. --log-opt env=REGION --log-opt tag={{.Name}}/{{.ImageName}} busybox echo hi",
    );
    assert_eq!(
        daemon.ok("logs --details tagged"),
        "REGION=north,com.shop.tier=web,tag=tagged%2Fbusybox hi"
    );
    let refused = daemon
        .sh("create --log-opt tag={{.Colour}} busybox true")
        .fails_with(1);
    assert!(refused.contains("log opt 'tag'"), "{refused}");
}
