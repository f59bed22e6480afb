//! The daemon itself: flags, files, signals, two on one data root.

use rustix::process::Signal;
use skep_testkit::{Daemon, eventually};
use std::process::Stdio;

#[test]
fn version_and_info_speak_dockers_language() {
    let daemon = Daemon::start();
    let version = daemon.ok("version");
    assert!(version.contains("Server: skep"), "{version}");
    assert!(version.contains("minimum version 1.24"), "{version}");
    let info = daemon.ok("info");
    for line in [
        "Storage Driver: overlay2",
        "Swarm: inactive",
        "Default Runtime: runc",
        "Images: 1",
    ] {
        assert!(info.contains(line), "{line} is missing in\n{info}");
    }
}

#[test]
fn an_old_cli_works_too() {
    let daemon = Daemon::start();
    let old = std::env::var_os("SKEP_DEBIAN_DOCKER").expect("cargo xtask test sets it");
    let docker = daemon
        .docker()
        .with_program(&std::path::Path::new(&old).join("usr/bin/docker"));
    assert!(docker.ok("version").contains("20.10"));
    assert_eq!(docker.ok("run --rm busybox echo old friend"), "old friend");
    docker.ok("swarm init");
    docker.ok("service create --name s --replicas 2 busybox sleep 1000");
    assert!(docker.ok("service ps s").contains("Running"));
    assert!(docker.ok("info").contains("Swarm: active"));
}

#[test]
fn a_second_daemon_on_the_same_data_root_is_refused() {
    let daemon = Daemon::start();
    let second = daemon.command().stdin(Stdio::null()).output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("is still running"), "{text}");
    let other = daemon.scratch().join("other");
    let mut command = daemon.command();
    command.arg(format!("--pidfile={}", other.join("pid").display()));
    command.arg(format!("--exec-root={}", other.join("run").display()));
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(daemon.ok("run --rm busybox echo unharmed"), "unharmed");
}

#[test]
fn unknown_flags_and_bad_files_are_errors() {
    let daemon = Daemon::start();
    let mut command = daemon.command();
    let output = command.arg("--no-such-flag").output().unwrap();
    assert!(!output.status.success());
    let file = daemon.scratch().join("daemon.json");
    std::fs::write(&file, r#"{"nonsense": true}"#).unwrap();
    let mut command = daemon
        .machine()
        .command(&std::env::var("SKEP_BIN").unwrap());
    let output = command
        .args(["daemon", "--validate", "--config-file"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains("the following directives don't match any configuration option: nonsense"),
        "{text}"
    );
    std::fs::write(&file, r#"{"debug": true}"#).unwrap();
    let mut command = daemon
        .machine()
        .command(&std::env::var("SKEP_BIN").unwrap());
    let output = command
        .args(["daemon", "--validate", "--config-file"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("configuration OK"));
}

#[test]
fn sighup_reloads_and_says_so() {
    let file = std::env::temp_dir().join(format!("skep-reload-{}.json", std::process::id()));
    std::fs::write(&file, r#"{"labels": ["a=1"]}"#).unwrap();
    let daemon = Daemon::builder()
        .flag(&format!("--config-file={}", file.display()))
        .start()
        .unwrap();
    let labels = || daemon.docker().run(["info", "-f", "{{.Labels}}"]).ok();
    assert_eq!(labels(), "[a=1]");
    let since = daemon.docker().run(["info", "-f", "{{.SystemTime}}"]).ok();
    std::fs::write(&file, r#"{"labels": ["a=2"]}"#).unwrap();
    daemon.signal(Signal::HUP);
    eventually("the label changed", || {
        if labels() == "[a=2]" {
            Ok(())
        } else {
            Err(labels())
        }
    });
    let until = daemon.docker().run(["info", "-f", "{{.SystemTime}}"]).ok();
    let events = daemon
        .docker()
        .run([
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "type=daemon",
            "--format",
            "{{.Action}}",
        ])
        .ok();
    assert_eq!(events, "reload");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn signals_end_it_cleanly() {
    let mut daemon = Daemon::start();
    assert!(daemon.stop().success());
    assert!(!daemon.socket().exists(), "the socket is gone");
    assert!(
        !daemon.scratch().join("docker.pid").exists(),
        "the PID file is gone"
    );
    daemon.start_again();
    daemon.signal(Signal::USR1);
    eventually("the stacks were dumped", || {
        if daemon.log().contains("stacks written") {
            Ok(())
        } else {
            Err(daemon.log())
        }
    });
    daemon.ok("version");
}
