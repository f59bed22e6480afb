//! `cargo xtask demo`: a real swarm of three nodes, a real service, real failures, in a minute.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use skep_testkit::{Lab, eventually_within};

use crate::{images, install, shell};

const SERVICE: &str = "timecheck";
const BOUND: Duration = Duration::from_secs(60);
/// The node that commands are given to, and the one that fails.
const MANAGER: &str = "m1";
const VICTIM: &str = "m3";

/// Builds everything, shows a swarm of three at work, and leaves nothing behind.
pub(crate) fn run() -> anyhow::Result<()> {
    say("Installing what is missing and building skep (the first time takes some minutes)");
    install::for_tests()?;
    let skep = shell::build_skep()?;
    let tarballs = shell::target().join("images");
    images::ensure(&tarballs)?;
    let cli = install::docker_cli()?;
    // The test kit's labs read these.
    for (name, value) in [
        ("SKEP_BIN", &skep),
        ("SKEP_IMAGES", &tarballs),
        ("SKEP_DOCKER", &cli),
    ] {
        shell::export(name, value);
    }

    say("A lab of three managers, each in a network namespace of its own, joined to one swarm");
    let lab = Lab::builder()
        .managers(3)
        .image("timecheck")
        .start()
        .context("the lab")?;
    let demo = Demo { lab: &lab };
    demo.docker("node ls")?;

    say("A service with three replicas: one on each node");
    demo.docker(&format!(
        "service create --detach --name {SERVICE} --replicas 3 --update-delay 1s skep/timecheck:1.0"
    ))?;
    demo.converged();
    demo.docker(&format!("service ps {SERVICE}"))?;

    say("One container is removed by force: the swarm heals itself");
    let container = lab.ok(MANAGER, "ps --last 1 -q");
    demo.docker(&format!("rm -f {container}"))?;
    demo.replaced();
    demo.docker(&format!("service ps {SERVICE}"))?;
    demo.docker(&format!("service logs --tail 1 {SERVICE}"))?;

    say("An update to version 2.0, then back");
    demo.docker(&format!(
        "service update --image skep/timecheck:2.0 {SERVICE}"
    ))?;
    demo.docker(&format!("service update --rollback {SERVICE}"))?;

    say("A machine loses its power: the others keep the quorum and take over its task");
    println!("\n$ skep lab off {VICTIM}");
    lab.off(VICTIM);
    demo.moved();
    demo.docker("node ls")?;
    demo.docker(&format!(
        "service ps --filter desired-state=running {SERVICE}"
    ))?;

    say("Cleaning up");
    demo.docker(&format!("service rm {SERVICE}"))?;
    let left = lab.down();
    if !left.is_empty() {
        bail!("the demo left something behind: {left}");
    }
    drop(lab);
    println!(
        "\nNothing is left behind. To go on yourself, as root:\n\n  \
         {skep} lab up --managers 3 --workers 2 --image {images}/busybox.tar\n  \
         {skep} lab --help\n",
        skep = skep.display(),
        images = tarballs.display(),
    );
    Ok(())
}

struct Demo<'a> {
    lab: &'a Lab,
}

impl Demo<'_> {
    /// Shows a docker command and runs it on this terminal.
    fn docker(&self, line: &str) -> anyhow::Result<()> {
        println!("\n$ docker {line}");
        let mut command = self
            .lab
            .node(MANAGER)
            .docker()
            .command(line.split_whitespace());
        shell::run(command.stdin(Stdio::null()))
    }

    fn converged(&self) {
        eventually_within(BOUND, "three replicas run", || {
            let seen = self.lab.ok(MANAGER, "service ls --format {{.Replicas}}");
            if seen == "3/3" { Ok(()) } else { Err(seen) }
        });
    }

    /// Three run, and the history knows of one that does not.
    fn replaced(&self) {
        eventually_within(BOUND, "the replacement runs", || {
            let line = format!("service ps --format {{{{.CurrentState}}}} {SERVICE}");
            let seen = self.lab.ok(MANAGER, &line);
            let running = seen
                .lines()
                .filter(|state| state.starts_with("Running"))
                .count();
            if running == 3 && seen.lines().count() == 4 {
                Ok(())
            } else {
                Err(seen)
            }
        });
    }

    /// Three run on the nodes that are left.
    fn moved(&self) {
        eventually_within(BOUND, "its task runs elsewhere", || {
            let line = format!(
                "service ps --filter desired-state=running --format {{{{.Node}}}}:{{{{.CurrentState}}}} {SERVICE}"
            );
            let seen = self.lab.ok(MANAGER, &line);
            let running = seen
                .lines()
                .filter(|task| !task.starts_with(VICTIM) && task.contains(":Running"))
                .count();
            if running == 3 { Ok(()) } else { Err(seen) }
        });
    }
}

fn say(text: &str) {
    println!("\n=== {text}");
}
