//! `--init`: a first process that passes signals on and collects orphans.
//!
//! The container's image may be anything, so the program must be static. A configured one is
//! used, else one of the host's if it is static, else this very binary if that is static: it
//! is bind-mounted as `/sbin/docker-init` and sees by its name what it shall be.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bollard_stubs::models as m;

use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// The name under which the binary is an init: the daemon's `main` calls [`run_init`] when its
/// `argv[0]` ends in it.
pub const INIT_NAME: &str = "docker-init";

/// Where hosts keep an init for containers.
const CANDIDATES: &[&str] = &[
    "/usr/libexec/docker/docker-init",
    "/usr/bin/docker-init",
    "/usr/bin/tini-static",
    "/usr/bin/tini",
    "/sbin/tini-static",
];

impl Engine {
    /// The init to run in a container, if it shall have one.
    pub(crate) fn init_program(&self, host: &m::HostConfig) -> Result<Option<PathBuf>> {
        // With somebody else's processes around it would not be the first one.
        let own_pids = host.pid_mode.as_deref().is_none_or(str::is_empty);
        if !own_pids || !host.init.unwrap_or(self.config.init) {
            return Ok(None);
        }
        self.find_init().map(Some)
    }

    /// The init program, for `docker info` too.
    pub(crate) fn find_init(&self) -> Result<PathBuf> {
        if let Some(path) = &self.config.init_path {
            return Ok(path.clone());
        }
        let shim =
            std::fs::canonicalize(&self.config.shim).unwrap_or_else(|_| self.config.shim.clone());
        let mut candidates = CANDIDATES.iter().map(PathBuf::from).chain([shim]);
        candidates.find(|path| is_static(path)).ok_or_else(|| {
            EngineError::system(
                "--init needs a statically linked init program: give one with --init-path, or install tini or a static build of this daemon",
            )
        })
    }
}

/// An ELF file without an interpreter.
fn is_static(path: &Path) -> bool {
    let Ok(mut file) = std::fs::File::open(path) else {
        return false;
    };
    let mut header = vec![0; 8192];
    let Ok(read) = file.read(&mut header) else {
        return false;
    };
    header.truncate(read);
    has_no_interpreter(&header).unwrap_or(false)
}

fn has_no_interpreter(header: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let sixty_four = match header.get(..5)? {
        [0x7f, b'E', b'L', b'F', 2] => true,
        [0x7f, b'E', b'L', b'F', 1] => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            header.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let u32_at = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let (offset, size, count) = if sixty_four {
        let offset = u64::from_le_bytes(header.get(32..40)?.try_into().ok()?);
        (usize::try_from(offset).ok()?, u16_at(54)?, u16_at(56)?)
    } else {
        (u32_at(28)? as usize, u16_at(42)?, u16_at(44)?)
    };
    for index in 0..count {
        if u32_at(offset + index * size)? == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

/// Runs as a container's init: `docker-init -- program arguments…`. Returns the program's code.
pub fn run_init(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip_while(|arg| arg == "--");
    let Some(program) = args.next() else {
        eprintln!("docker-init: no program given");
        return ExitCode::from(1);
    };
    match supervise(&program, args.collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("exec {} failed: {error}", program.to_string_lossy());
            ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            })
        }
    }
}

fn supervise(program: &OsString, args: Vec<OsString>) -> std::io::Result<u8> {
    use signal_hook::consts::SIGCHLD;
    // All that can be passed on, and the end of children.
    let passed: Vec<i32> = (1..32)
        .filter(|signal| ![9, 19, 11, 4, 8, 17, 21, 22, 5, 6, 7, 31].contains(signal))
        .collect();
    let mut signals = signal_hook::iterator::Signals::new(passed.iter().chain([&SIGCHLD]))?;
    // A group of its own in the foreground, as a shell expects that is told of ^C.
    let child = Command::new(program).args(args).process_group(0).spawn()?;
    let child = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let Some(child) = child else { return Ok(1) };
    let _ = rustix::termios::tcsetpgrp(std::io::stdin(), child);
    loop {
        for signal in signals.pending() {
            if signal != SIGCHLD
                && let Some(signal) = rustix::process::Signal::from_named_raw(signal)
            {
                let _ = rustix::process::kill_process(child, signal);
            }
        }
        while let Ok(Some((pid, status))) =
            rustix::process::wait(rustix::process::WaitOptions::NOHANG)
        {
            if pid == child {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                let code = status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                return Ok(u8::try_from(code).unwrap_or(255));
            }
        }
        // Sleeps until the next signal; one that came since the look above is kept in its pipe.
        if let Some(signal) = signals.wait().next()
            && signal != SIGCHLD
            && let Some(signal) = rustix::process::Signal::from_named_raw(signal)
        {
            let _ = rustix::process::kill_process(child, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_programs_are_told_from_static_ones() {
        assert!(!is_static(Path::new("/bin/sh")));
        assert!(!is_static(Path::new("/etc/passwd")));
    }

    #[test]
    fn the_programs_code_is_returned() {
        let run =
            |script: &str| supervise(&"/bin/sh".into(), vec!["-c".into(), script.into()]).unwrap();
        assert_eq!(run("exit 7"), 7);
        assert_eq!(run("kill -9 $$"), 137);
    }
}
