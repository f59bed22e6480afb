//! The project's commands: `cargo xtask demo`, `test`, `verify`, `fix`, `bench`, `sim` and `images`.
//!
//! They work in a fresh clone and install what they need (Debian packages) themselves.

#![expect(clippy::print_stdout, reason = "a command line tool for people")]

mod bench;
mod demo;
mod images;
mod install;
mod layers;
mod shell;
mod sim;
mod steps;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  demo            a swarm of three nodes: deploy a service, break it, heal it, update it, clean up
  test            install what tests need, run every check and every test
  verify          formatting, lints and the layer rule, without tests
  fix             apply formatting and the lints' own fixes
  bench SUITE     measure against a peer in one run; suites: engine, scheduler, cluster
  sim             simulate clusters: --seeds N --from S; with one seed, tell all that happens
  images          build the test images from Debian packages into target/images
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args
        .split_first()
        .map_or(("", &[][..]), |(c, rest)| (c.as_str(), rest));
    let outcome = match command {
        "demo" => demo::run(),
        "test" => steps::test(rest),
        "verify" => steps::verify(),
        "fix" => steps::fix(),
        "bench" => bench::run(rest),
        "sim" => sim::run(rest),
        "images" => images::run(rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
