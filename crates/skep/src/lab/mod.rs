//! `skep lab`: a swarm of several nodes on this machine, to try things out and to break them.

#![expect(clippy::print_stdout, reason = "a command line tool for people")]

mod options;
mod table;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser as _;
use skep_lab::{Lab, LabError, LabFiles, LabSpec, Slowness};

use options::{Action, Options, Up};

/// Runs one lab command.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    let args = std::iter::once(OsString::from("skep lab")).chain(args.iter().cloned());
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // Help is an "error" to clap, and goes to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skep lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let files = LabFiles::new(&options.dir, &options.name)?;
    match options.action {
        Action::Up(wanted) => up(&options.dir, &files, &wanted),
        Action::Ls => ls(&options.dir, &files),
        Action::Exec { place, command } => exec(&open(&files)?, &place, &command),
        Action::Cut { nodes } => cut(&open(&files)?, &nodes),
        Action::Heal { nodes } => heal(&open(&files)?, &nodes),
        Action::Slow { node, delay, loss } => {
            slow(&open(&files)?, &node, delay.as_deref(), loss.as_deref())
        }
        Action::Kill { nodes } => each(&open(&files)?, &nodes, "killed", Lab::kill),
        Action::Off { nodes } => each(&open(&files)?, &nodes, "off", Lab::off),
        Action::Start { nodes } => each(&open(&files)?, &nodes, "started", Lab::start),
        Action::Down => down(&options.dir, &files),
        Action::Wire {
            one,
            other,
            delay,
            loss,
        } => Ok(skep_lab::wire::carry(
            &one,
            &other,
            slowness(Some(&delay), Some(&loss))?,
        )?),
    }
}

fn open(files: &LabFiles) -> Result<Lab, LabError> {
    Lab::open(files.clone())
}

fn up(parent: &Path, files: &LabFiles, wanted: &Up) -> anyhow::Result<()> {
    let started = Instant::now();
    let program = std::env::current_exe().context("can't find this program's own file")?;
    let mut spec = LabSpec::new(files.name(), program).with(wanted.managers, wanted.workers);
    parent.clone_into(&mut spec.parent);
    spec.flags.clone_from(&wanted.flags);
    if wanted.no_join {
        for node in &mut spec.nodes {
            node.role = skep_lab::Role::Single;
        }
    }
    let lab = Lab::create(&spec)?;
    let outcome = fill(&lab, wanted);
    if outcome.is_err() && !wanted.keep {
        // What failed is said; that nothing is left of it goes without saying.
        if let Err(error) = skep_lab::down(files) {
            eprintln!("skep lab: {error}");
        }
    }
    outcome?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{}", table::welcome(&spec, &lab.status(), seconds));
    Ok(())
}

fn fill(lab: &Lab, wanted: &Up) -> anyhow::Result<()> {
    lab.start_all()?;
    for image in &wanted.images {
        load(lab, image)?;
    }
    if !wanted.no_join {
        lab.join()?;
    }
    Ok(())
}

/// Loads an image on every node: a lab has no way to a registry.
fn load(lab: &Lab, image: &Path) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let loading: Vec<_> = lab
            .nodes()
            .iter()
            .map(|node| scope.spawn(move || lab.load_image(&node.name, image)))
            .collect();
        for node in loading {
            node.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })
}

fn ls(parent: &Path, files: &LabFiles) -> anyhow::Result<()> {
    match Lab::open(files.clone()) {
        Ok(lab) => {
            println!("{}", table::nodes(&lab.status()));
            Ok(())
        }
        Err(error @ LabError::NoLab { .. }) => {
            let others = LabFiles::all(parent);
            if others.is_empty() {
                return Err(error.into());
            }
            let hint = format!("there are these labs: {}", others.join(", "));
            Err(anyhow::Error::from(error).context(hint))
        }
        Err(error) => Err(error.into()),
    }
}

fn exec(lab: &Lab, place: &str, command: &[OsString]) -> anyhow::Result<()> {
    let (program, args) = command
        .split_first()
        .context("say what to run: `skep lab exec NODE -- COMMAND`")?;
    let mut command = Command::new(program);
    command.args(args);
    Err(lab.exec(place, command).into())
}

fn cut(lab: &Lab, nodes: &[String]) -> anyhow::Result<()> {
    lab.cut(&names(nodes))?;
    println!(
        "{}: cut off (their frames vanish without a sign); `skep lab heal` undoes it",
        nodes.join(", ")
    );
    Ok(())
}

fn heal(lab: &Lab, nodes: &[String]) -> anyhow::Result<()> {
    let all: Vec<String> = lab.nodes().iter().map(|node| node.name.clone()).collect();
    let nodes = if nodes.is_empty() { &all } else { nodes };
    lab.heal(&names(nodes))?;
    println!("{}: plugged in", nodes.join(", "));
    Ok(())
}

fn slow(lab: &Lab, node: &str, delay: Option<&str>, loss: Option<&str>) -> anyhow::Result<()> {
    let slowness = slowness(delay, loss)?;
    if slowness == Slowness::default() {
        anyhow::bail!("say how slow: --delay 50ms, --loss 5% or both");
    }
    lab.slow(node, slowness)?;
    println!(
        "{node}: {} each way; `skep lab heal {node}` undoes it",
        table::slowness(slowness)
    );
    Ok(())
}

fn slowness(delay: Option<&str>, loss: Option<&str>) -> Result<Slowness, LabError> {
    Ok(Slowness {
        delay: delay.map_or(Ok(Duration::ZERO), skep_lab::parse_delay)?,
        loss: loss.map_or(Ok(0.0), skep_lab::parse_loss)?,
    })
}

fn each(
    lab: &Lab,
    nodes: &[String],
    done: &str,
    work: impl Fn(&Lab, &str) -> Result<(), LabError>,
) -> anyhow::Result<()> {
    for node in nodes {
        work(lab, node)?;
        println!("{node}: {done}");
    }
    Ok(())
}

fn down(parent: &Path, files: &LabFiles) -> anyhow::Result<()> {
    if !files.root().exists() && skep_lab::Leftovers::of(files).is_empty() {
        let others = LabFiles::all(parent);
        println!("there is no lab \"{}\": nothing to remove", files.name());
        if !others.is_empty() {
            println!("there are these labs: {}", others.join(", "));
        }
        return Ok(());
    }
    skep_lab::down(files)?;
    println!("the lab \"{}\" is gone", files.name());
    Ok(())
}

fn names(nodes: &[String]) -> Vec<&str> {
    nodes.iter().map(String::as_str).collect()
}
