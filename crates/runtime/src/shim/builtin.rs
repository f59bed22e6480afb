//! Containers and execs by libcontainer. Runs in the creator only.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::ContainerStatus;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use super::creator::{Task, console_socket, receive_with_fd};
use super::executor::{MARK, ShimExecutor, go_error};
use super::stdio::ChildEnds;
use super::{complaints, sys};
use crate::cgroup::{Cgroup, CgroupVersion, host_version};
use crate::protocol::{CreateCall, Security};
use crate::seccomp::Program;

type Made = Result<(i32, Option<OwnedFd>), String>;

pub(super) fn make(directory: &Path, task: &Task<'_>, stdio: Option<ChildEnds>) -> Made {
    let mut complaints = complaints::collect().map_err(|error| error.to_string())?;
    make_inner(directory, task, stdio).map_err(|text| {
        let mut details = String::new();
        let _ = complaints.seek(SeekFrom::Start(0));
        let _ = complaints.read_to_string(&mut details);
        let _ = writeln!(io::stderr(), "{text}\n{details}");
        readable(&text, &details, task)
    })
}

fn make_inner(directory: &Path, task: &Task<'_>, stdio: Option<ChildEnds>) -> Made {
    let text = |error: &dyn std::error::Error| chain(error);
    let console = console_socket(directory);
    let listener = if task.tty() {
        Some(listen(&console)?)
    } else {
        None
    };
    let mut builder = ContainerBuilder::new(task.id().to_owned(), SyscallType::default())
        .with_executor(executor(task.security())?)
        .with_root_path(directory.join("oci"))
        .map_err(|error| text(&error))?;
    if listener.is_some() {
        builder = builder.with_console_socket(Some(&console));
    }
    if let Some(ends) = stdio {
        builder = builder
            .with_stdin(ends.stdin)
            .with_stdout(ends.stdout)
            .with_stderr(ends.stderr);
    }
    let pid = match task {
        Task::Container(call) => {
            let mut container = builder
                .as_init(&call.bundle)
                .with_systemd(call.systemd_cgroup)
                .as_sibling(true)
                .build()
                .map_err(|error| text(&error))?;
            // The program waits for the start on its notify socket; to libcontainer it may as well be
            // running, which is what lets us exec into it later without writing states.
            container
                .set_status(ContainerStatus::Running)
                .save()
                .map_err(|error| text(&error))?;
            let pid = container.state.pid.unwrap_or(0);
            restrict_devices(call, pid)?;
            pid
        }
        Task::Exec { call, .. } => builder
            .as_tenant()
            .with_process(Some(&call.process))
            .with_detach(true)
            .as_sibling(true)
            .build()
            .map_err(|error| text(&error))?
            .as_raw(),
    };
    let terminal = listener
        .map(|listener| accept_terminal(&listener))
        .transpose();
    let _ = std::fs::remove_file(&console);
    let terminal = terminal.map_err(|error| format!("cannot receive the terminal: {error}"))?;
    Ok((pid, terminal.flatten()))
}

fn executor(security: &Security) -> Result<ShimExecutor, String> {
    let program = security
        .seccomp
        .as_ref()
        .map(|path| {
            let bytes = std::fs::read(path).map_err(|error| {
                format!("cannot read the seccomp filter {}: {error}", path.display())
            })?;
            Program::from_bytes(&bytes)
                .ok_or_else(|| format!("the seccomp filter {} is damaged", path.display()))
        })
        .transpose()?;
    Ok(ShimExecutor::new(program, security))
}

/// On cgroup v2 the rules for devices are a program of ours, attached before anything of the container
/// runs.
fn restrict_devices(call: &CreateCall, pid: i32) -> Result<(), String> {
    let Some(path) = &call.device_rules else {
        return Ok(());
    };
    if host_version() == CgroupVersion::V1 {
        return Ok(());
    }
    let attach = || -> io::Result<()> {
        let cgroup = Cgroup::of_process(pid, &call.cgroup_name)?;
        let directory = cgroup
            .directory("")
            .ok_or_else(|| io::Error::other("it has no cgroup"))?;
        let handle = std::fs::File::open(directory)?;
        sys::attach_device_program(&std::fs::read(path)?, handle.as_fd())
    };
    attach().map_err(|error| {
        // Created but not started, and nobody will: without rules it must not run.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
        format!("cannot restrict the container's devices: {error}")
    })
}

/// Binds without naming the whole path, which may be too long for a socket address.
fn listen(path: &Path) -> Result<UnixListener, String> {
    super::bind_in(path).map_err(|error| format!("cannot listen for the terminal: {error}"))
}

fn accept_terminal(listener: &UnixListener) -> io::Result<Option<OwnedFd>> {
    let (connection, _) = listener.accept()?;
    let mut name = [0; 256];
    let (_, terminal) = receive_with_fd(&OwnedFd::from(connection), &mut name)?;
    Ok(terminal)
}

/// An error with its causes; those that only repeat are left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// The text for users: ours where we framed one, else libcontainer's with what it logged.
fn readable(text: &str, details: &str, task: &Task<'_>) -> String {
    if let Some(ours) = text.split(MARK).nth(1) {
        return ours.to_owned();
    }
    let first = details.lines().next().unwrap_or_default();
    if let Some(errno) = first
        .strip_prefix("failed to chdir ")
        .and_then(complaints::errno)
    {
        let cwd = working_directory(task).unwrap_or_default();
        let reason = go_error(&io::Error::from_raw_os_error(errno));
        return format!("chdir to cwd ({cwd:?}) set in config.json failed: {reason}");
    }
    if first.is_empty() || text.contains(first) {
        text.to_owned()
    } else {
        format!("{text}: {first}")
    }
}

fn working_directory(task: &Task<'_>) -> Option<String> {
    let (path, pointer) = match task {
        Task::Container(call) => (call.bundle.join("config.json"), "/process/cwd"),
        Task::Exec { call, .. } => (call.process.clone(), "/cwd"),
    };
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(value.pointer(pointer)?.as_str()?.to_owned())
}
