//! The one binary: daemon, shim, lab and (later) command line.
//!
//! Which one it is, the first argument says; called as `dockerd`, it is the daemon. This crate is
//! the only one that knows all the others; it holds no logic beyond putting them together.

mod daemon;
mod lab;

use std::ffi::OsString;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: skep COMMAND

  daemon    run the engine (the same as calling this program `dockerd`); see `skep daemon --help`
  lab       a swarm of several nodes on this machine; see `skep lab --help`
  shim      one container's supervisor; started by the daemon, not by people

Use the docker CLI to talk to the daemon.
";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called_as = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    let name = std::path::Path::new(&called_as)
        .file_name()
        .unwrap_or_default();
    if name == "dockerd" {
        return daemon::main("dockerd", &rest);
    }
    let (command, rest) = rest
        .split_first()
        .map_or((None, &[][..]), |(c, rest)| (c.to_str(), rest));
    match command {
        // First, and before anything allocates: this process lives as long as its container.
        Some("shim") => {
            let code = skep_runtime::shim::main(rest.iter().cloned());
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Some("daemon") => daemon::main("skep daemon", rest),
        Some("lab") => lab::main(rest),
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
