//! Containers and execs by a `runc`-compatible binary. Runs in the creator only.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::creator::{Task, console_socket, receive_with_fd};
use super::stdio::ChildEnds;
use crate::oci::OciClient;

type Made = Result<(i32, Option<OwnedFd>), String>;

pub(super) fn make(
    directory: &Path,
    task: &Task<'_>,
    path: &Path,
    args: &[String],
    stdio: Option<ChildEnds>,
) -> Made {
    let client = OciClient::new(path, args, directory, task.id());
    let console = console_socket(directory);
    let pid_file = directory.join(format!("pid{}", std::process::id()));
    let mut verb: Vec<OsString> = match task {
        Task::Container(call) => vec![
            "create".into(),
            "--bundle".into(),
            call.bundle.clone().into(),
        ],
        Task::Exec { call, .. } => {
            vec![
                "exec".into(),
                "--detach".into(),
                "--process".into(),
                call.process.clone().into(),
            ]
        }
    };
    verb.extend(["--pid-file".into(), pid_file.clone().into_os_string()]);
    let listener = if task.tty() {
        verb.extend(["--console-socket".into(), console.clone().into_os_string()]);
        Some(super::bind_in(&console).map_err(|error| error.to_string())?)
    } else {
        None
    };
    let mut command = Command::new(client.path());
    command.args(client.arguments(&verb, &[]));
    match stdio {
        Some(ends) => command
            .stdin(ends.stdin)
            .stdout(ends.stdout)
            .stderr(ends.stderr),
        None => command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    };
    let status = command
        .status()
        .map_err(|error| format!("cannot run {}: {error}", client.path().display()))?;
    let result = if status.success() {
        read_pid(&pid_file).and_then(|pid| {
            let terminal = listener
                .map(|listener| {
                    let (connection, _) = listener.accept()?;
                    receive_with_fd(&OwnedFd::from(connection), &mut [0; 256]).map(|(_, fd)| fd)
                })
                .transpose()
                .map_err(|error| error.to_string())?;
            Ok((pid, terminal.flatten()))
        })
    } else {
        let text = client.last_error().unwrap_or_else(|| format!("{status}"));
        Err(innermost(&text).to_owned())
    };
    let _ = std::fs::remove_file(pid_file);
    let _ = std::fs::remove_file(console);
    result
}

fn read_pid(file: &Path) -> Result<i32, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("no pid file: {error}"))?;
    text.trim()
        .parse()
        .map_err(|_| format!("{text:?} is no pid"))
}

/// The runtime's log has its own prefixes before the reason; ours are put on again by the caller.
fn innermost(text: &str) -> &str {
    const PREFIXES: [&str; 5] = [
        "runc create failed: ",
        "exec failed: ",
        "container_linux.go:380: starting container process caused: ",
        "unable to start container process: ",
        "error during container init: ",
    ];
    PREFIXES.iter().fold(text, |rest, prefix| {
        rest.strip_prefix(prefix).unwrap_or(rest)
    })
}
