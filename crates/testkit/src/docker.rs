//! The stock docker CLI against one daemon.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Builds and runs `docker` commands.
#[derive(Debug, Clone)]
pub struct Docker {
    program: PathBuf,
    socket: PathBuf,
    /// An empty directory, so that no configuration of whoever runs the tests matters.
    config: PathBuf,
}

impl Docker {
    /// `program` is the CLI, `socket` the daemon's, `config` an empty directory for the CLI.
    #[must_use]
    pub fn new(program: &Path, socket: &Path, config: &Path) -> Self {
        Self {
            program: program.into(),
            socket: socket.into(),
            config: config.into(),
        }
    }

    /// The same daemon through another CLI.
    #[must_use]
    pub fn with_program(&self, program: &Path) -> Self {
        Self {
            program: program.into(),
            ..self.clone()
        }
    }

    /// A command ready to be given more arguments, pipes or a TTY.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("DOCKER_CONFIG", &self.config)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        let mut command = self.command(args);
        let output = command.output().expect("the docker CLI can be run");
        Outcome::new(&command, &output)
    }

    /// Runs to the end with what is typed into it.
    #[track_caller]
    pub fn run_typing<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        typed: &str,
    ) -> Outcome {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the docker CLI can be run");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A command that does not want to read may be gone already: its outcome says why.
        let _ = stdin.write_all(typed.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it can be waited for");
        Outcome::new(&command, &output)
    }

    /// Runs a line of words split at spaces, as typed: no quoting.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Outcome {
        self.run(line.split_whitespace())
    }

    /// Runs a line that must succeed and returns its output without the last newline.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.sh(line).ok()
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    command: String,
    /// Exit code; 128 + n when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub(crate) fn new(command: &Command, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Self {
            command: format!("{command:?}"),
            code: output
                .status
                .code()
                .unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output, trimmed at its end.
    ///
    /// # Panics
    /// When the command failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout.trim_end().to_owned()
    }

    /// Standard error of a command that must fail with this code.
    ///
    /// # Panics
    /// When it ended with another code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert!(self.code == code, "expected exit code {code}: {self}");
        self.stderr.trim_end().to_owned()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ended with {}\nstdout:\n{}\nstderr:\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}
