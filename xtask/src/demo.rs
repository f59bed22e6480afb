//! `cargo xtask demo`: a real daemon, a real service, a real failure, in a minute.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use skep_testkit::{Daemon, eventually};

use crate::{images, install, shell};

const SERVICE: &str = "timecheck";

/// Builds everything, shows a swarm of one at work, and leaves nothing behind.
pub(crate) fn run() -> anyhow::Result<()> {
    say("Installing what is missing and building skep (the first time takes some minutes)");
    install::for_tests()?;
    let skep = shell::build_skep()?;
    let tarballs = shell::target().join("images");
    images::ensure(&tarballs)?;
    let cli = install::docker_cli()?;
    // The daemon of the test kit reads these.
    for (name, value) in [
        ("SKEP_BIN", &skep),
        ("SKEP_IMAGES", &tarballs),
        ("SKEP_DOCKER", &cli),
    ] {
        shell::export(name, value);
    }

    say("Starting a throwaway daemon in a network namespace of its own");
    let mut daemon = Daemon::builder()
        .image("timecheck")
        .image("busybox")
        .start()
        .context("the daemon")?;
    let demo = Demo { daemon: &daemon };
    demo.docker("version --format {{.Server.Platform.Name}}:{{.Server.Version}}")?;

    say("A swarm of one");
    demo.docker("swarm init")?;
    demo.docker("node ls")?;

    say("A service with three replicas");
    demo.docker(&format!(
        "service create --name {SERVICE} --replicas 3 --update-delay 1s skep/timecheck:1.0"
    ))?;
    demo.docker(&format!("service ps {SERVICE}"))?;
    demo.docker("ps")?;

    say("One container is removed by force: the swarm heals itself");
    let victim = daemon.ok("ps --last 1 -q");
    demo.docker(&format!("rm -f {victim}"))?;
    eventually("three replicas run again", || {
        let seen = daemon.ok("service ls --format {{.Replicas}}");
        if seen == "3/3" { Ok(()) } else { Err(seen) }
    });
    demo.docker(&format!("service ps {SERVICE}"))?;
    demo.docker(&format!("service logs --tail 1 {SERVICE}"))?;

    say("An update to version 2.0, then back");
    demo.docker(&format!(
        "service update --image skep/timecheck:2.0 {SERVICE}"
    ))?;
    demo.docker(&format!("service update --rollback {SERVICE}"))?;
    demo.docker(&format!("service ps {SERVICE}"))?;

    say("Cleaning up");
    demo.docker(&format!("service rm {SERVICE}"))?;
    demo.docker("swarm leave --force")?;
    let left = daemon.stop_and_list_leftovers();
    if !left.is_empty() {
        bail!("the demo left something behind:\n{}", left.join("\n"));
    }
    drop(daemon);
    println!(
        "\nNothing is left behind. To go on yourself, as root:\n\n  \
         {skep} daemon --host unix:///tmp/skep.sock --data-root /tmp/skep/data \\\n      \
         --exec-root /tmp/skep/run --pidfile /tmp/skep/docker.pid &\n  \
         export DOCKER_HOST=unix:///tmp/skep.sock\n  \
         docker load -i {images}/busybox.tar\n  \
         docker run --rm busybox echo hello\n  \
         docker swarm init\n",
        skep = skep.display(),
        images = tarballs.display(),
    );
    Ok(())
}

struct Demo<'a> {
    daemon: &'a Daemon,
}

impl Demo<'_> {
    /// Shows a docker command and runs it on this terminal.
    fn docker(&self, line: &str) -> anyhow::Result<()> {
        println!("\n$ docker {line}");
        let mut command: Command = self.daemon.docker().command(line.split_whitespace());
        shell::run(command.stdin(Stdio::null()))
    }
}

fn say(text: &str) {
    println!("\n=== {text}");
}
