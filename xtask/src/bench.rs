//! `cargo xtask bench engine`: the same commands against skep and Debian's dockerd in one run.
//!
//! Machines are noisy, so what counts is the ratio of medians. Each figure also shows how many
//! samples it rests on.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use skep_testkit::{Daemon, DaemonBuilder};

use crate::{images, install, shell};

const SAMPLES: usize = 15;
const REPLICAS: usize = 50;
const SERVICE_ROUNDS: usize = 3;
/// Containers that idle at the same time, of which the mean is told.
const IDLE_CONTAINERS: usize = 8;
/// A shim gives its memory back after two idle seconds.
const IDLE_AFTER: Duration = Duration::from_secs(3);
const SERVICE_BOUND: Duration = Duration::from_secs(40);

/// Runs one suite and prints its table.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args.first().map(String::as_str) {
        Some("engine") => engine(),
        Some("scheduler") => scheduler(&args[1..]),
        Some("cluster") => cluster(&args[1..]),
        Some(other) => bail!("there is no suite \"{other}\"; suites: {SUITES}"),
        None => bail!("name a suite: {SUITES}"),
    }
}

const SUITES: &str = "engine, scheduler, cluster";

/// A program of its own: it speaks SwarmKit's protocol, so it is made of crates that no other command
/// should have to wait for.
fn cluster(args: &[String]) -> anyhow::Result<()> {
    install::for_tests()?;
    let cli = install::docker_cli()?;
    shell::run(&mut shell::cargo(&[
        "build",
        "--release",
        "--package",
        "skep",
        "--package",
        "skep-bench",
    ]))?;
    let built = shell::target().join("release");
    shell::export("SKEP_BIN", &built.join("skep"));
    shell::export("SKEP_DOCKER", &cli);
    shell::run(std::process::Command::new(built.join("skep-bench")).args(args))
}

/// SwarmKit's in-tree figures stand in the table: it is not built here.
fn scheduler(args: &[String]) -> anyhow::Result<()> {
    let mut cargo = shell::cargo(&["bench", "-p", "skep-manager", "--bench", "scheduler", "--"]);
    shell::run(cargo.args(args))
}

fn engine() -> anyhow::Result<()> {
    install::for_tests()?;
    install::packages(if install::on_path("iptables") {
        &[]
    } else {
        &["iptables"]
    })?;
    let skep = shell::build_skep()?;
    let tarballs = shell::target().join("images");
    images::ensure(&tarballs)?;
    let tree = install::debian_docker()?;
    let cli = install::docker_cli()?;
    for (name, value) in [
        ("SKEP_BIN", &skep),
        ("SKEP_IMAGES", &tarballs),
        ("SKEP_DOCKER", &cli),
    ] {
        shell::export(name, value);
    }
    println!("measuring skep");
    let ours = Figures::measure(&alike(Daemon::builder()).start()?)?;
    println!("measuring dockerd");
    let theirs = Figures::measure(&peer(&tree)?)?;
    print_table(&ours, &theirs);
    Ok(())
}

/// What both daemons get: an exec root in memory, as `/run` is, and a name server that refuses at once.
/// A daemon that asks the host's for a registry would wait for it in vain, and be measured for that.
fn alike(builder: DaemonBuilder) -> DaemonBuilder {
    builder
        .exec_root_in_memory()
        .name_server("127.0.0.1")
        .image("busybox")
}

/// Debian's dockerd, run from the tree it was unpacked to.
fn peer(tree: &Path) -> anyhow::Result<Daemon> {
    let config = shell::target().join("peers/daemon.json");
    std::fs::write(&config, "{}")?;
    let join = |parts: &[&str]| {
        parts
            .iter()
            .map(|part| tree.join(part).display().to_string())
            .collect::<Vec<_>>()
            .join(":")
    };
    let path = format!(
        "{}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        join(&["usr/bin", "usr/sbin", "usr/libexec/docker"])
    );
    alike(Daemon::builder())
        .program(&tree.join("usr/sbin/dockerd"))
        .env("PATH", &path)
        .env(
            "LD_LIBRARY_PATH",
            &join(&["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]),
        )
        .flag(&format!("--config-file={}", config.display()))
        .start()
        .context("Debian's dockerd")
}

/// Samples of one daemon.
#[derive(Default)]
struct Figures {
    run_ms: Vec<f64>,
    exec_ms: Vec<f64>,
    create_ms: Vec<f64>,
    remove_ms: Vec<f64>,
    idle_kb: Vec<f64>,
    container_kb: Vec<f64>,
}

impl Figures {
    fn measure(daemon: &Daemon) -> anyhow::Result<Self> {
        let mut figures = Self::default();
        figures.idle_kb.push(family_pss(daemon.pid())? as f64);
        for _ in 0..SAMPLES {
            figures
                .run_ms
                .push(timed(|| daemon.ok("run --rm busybox true")));
        }
        daemon.ok("run -d --name bench busybox sleep 100000");
        for _ in 0..SAMPLES {
            figures.exec_ms.push(timed(|| daemon.ok("exec bench true")));
        }
        daemon.ok("rm -f bench");
        figures.idle_containers(daemon)?;
        daemon.ok("swarm init --advertise-addr 10.231.0.2");
        for round in 0..SERVICE_ROUNDS {
            // What a peer can not do here (dockerd wants kernel modules for some of it) must not
            // hide the rest of the table.
            if let Err(error) = figures.service_round(daemon, round) {
                println!("no service figures from this daemon: {error:#}");
                println!(
                    "{}",
                    daemon
                        .sh(&format!("service ps --no-trunc bench{round}"))
                        .stdout
                        .lines()
                        .take(4)
                        .collect::<Vec<_>>()
                        .join("\n")
                );
                break;
            }
        }
        let _ = daemon.sh("swarm leave --force");
        Ok(figures)
    }

    fn idle_containers(&mut self, daemon: &Daemon) -> anyhow::Result<()> {
        for number in 0..IDLE_CONTAINERS {
            daemon.ok(&format!("run -d --name idle{number} busybox sleep 100000"));
        }
        std::thread::sleep(IDLE_AFTER);
        for shim in shims(&daemon.scratch()) {
            self.container_kb.push(pss(shim)? as f64);
        }
        for number in 0..IDLE_CONTAINERS {
            daemon.ok(&format!("rm -f idle{number}"));
        }
        Ok(())
    }

    fn service_round(&mut self, daemon: &Daemon, round: usize) -> anyhow::Result<()> {
        let name = format!("bench{round}");
        let socket = daemon.socket();
        let started = Instant::now();
        daemon.ok(&format!(
            // A first process ignores TERM: the removal would measure the grace period.
            "service create --detach --name {name} --replicas {REPLICAS} --stop-signal KILL busybox sleep 100000"
        ));
        until(|| Ok(running_tasks(&socket, &name)? == REPLICAS))?;
        self.create_ms.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        daemon.ok(&format!("service rm {name}"));
        until(|| {
            Ok(get(&socket, "/containers/json?all=1")?
                .as_array()
                .is_some_and(Vec::is_empty))
        })?;
        self.remove_ms.push(started.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }
}

fn running_tasks(socket: &Path, service: &str) -> anyhow::Result<usize> {
    let tasks = get(
        socket,
        &format!("/tasks?filters={{\"service\":[\"{service}\"]}}"),
    )?;
    let running = |task: &&Value| task["Status"]["State"] == "running";
    Ok(tasks
        .as_array()
        .context("tasks are a list")?
        .iter()
        .filter(running)
        .count())
}

fn until(mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let started = Instant::now();
    while !done()? {
        if started.elapsed() > SERVICE_BOUND {
            bail!("not done within {SERVICE_BOUND:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// One GET over the API socket; HTTP/1.0, so the body simply ends.
fn get(socket: &Path, path: &str) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    let path = path
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('"', "%22");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a body")?;
    serde_json::from_str(body).with_context(|| format!("not JSON: {body}"))
}

fn timed(run: impl FnOnce() -> String) -> f64 {
    let started = Instant::now();
    run();
    started.elapsed().as_secs_f64() * 1e3
}

/// Proportional memory of a process and its children, in kB: dockerd has containerd beside it.
fn family_pss(pid: u32) -> anyhow::Result<u64> {
    let mut total = pss(pid)?;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
        {
            total += family_pss(child).unwrap_or(0);
        }
    }
    Ok(total)
}

fn pss(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Pss:"))
        .context("no Pss")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0))
}

/// The processes that stand between the daemon and a container.
fn shims(root: &Path) -> Vec<u32> {
    let needle = root.display().to_string();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("shim") && line.contains(&needle)
        })
        .collect()
}

fn print_table(ours: &Figures, theirs: &Figures) {
    println!(
        "\n{:<44} {:>12} {:>12} {:>8} {:>4}",
        "median", "skep", "dockerd", "ratio", "n"
    );
    let rows: [Row<'_>; 6] = [
        (
            "docker run --rm busybox true",
            &ours.run_ms,
            &theirs.run_ms,
            "ms",
            median,
        ),
        (
            "docker exec c true",
            &ours.exec_ms,
            &theirs.exec_ms,
            "ms",
            median,
        ),
        (
            "service create --replicas 50 until 50/50",
            &ours.create_ms,
            &theirs.create_ms,
            "ms",
            median,
        ),
        (
            "service rm until no container is left",
            &ours.remove_ms,
            &theirs.remove_ms,
            "ms",
            median,
        ),
        (
            "daemon idle (with its children), PSS",
            &ours.idle_kb,
            &theirs.idle_kb,
            "kB",
            median,
        ),
        (
            "an idle container beside its own, mean PSS",
            &ours.container_kb,
            &theirs.container_kb,
            "kB",
            mean,
        ),
    ];
    for (name, ours, theirs, unit, summary) in rows {
        let (a, b) = (summary(ours), summary(theirs));
        let ratio = a
            .zip(b)
            .map_or_else(|| "none".to_owned(), |(a, b)| format!("{:.1}x", b / a));
        println!(
            "{name:<44} {:>12} {:>12} {ratio:>8} {:>4}",
            figure(a, unit),
            figure(b, unit),
            ours.len()
        );
    }
}

/// A name, our samples, the peer's, their unit, and what is told of them.
type Row<'a> = (&'a str, &'a [f64], &'a [f64], &'a str, Summary);

/// What a row makes of its samples; `None` without any.
type Summary = fn(&[f64]) -> Option<f64>;

fn figure(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:.1} {unit}"))
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn mean(samples: &[f64]) -> Option<f64> {
    let sum: f64 = samples.iter().sum();
    (!samples.is_empty()).then(|| sum / samples.len() as f64)
}
