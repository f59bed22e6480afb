//! Starting a daemon.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::files::Record;
use crate::process::Process;
use crate::{Api, LabError, LabFiles, Node, Runtime};

const BOUND: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
/// Lines of a log that are shown with an error.
const LOG_LINES: usize = 12;

/// The command line of a node's daemon.
pub(crate) fn command(files: &LabFiles, record: &Record, node: &Node) -> Command {
    let name = &node.name;
    let mut command = match &node.runtime {
        Runtime::Skep => {
            let mut command = Command::new(&record.program);
            command.arg("daemon").arg("--config-file=/dev/null");
            command
        }
        Runtime::Dockerd(tree) => dockerd(files, name, tree),
    };
    command
        .arg(format!("--host=unix://{}", files.socket(name).display()))
        .arg(flag("--data-root", &files.data_root(name)))
        .arg(flag("--exec-root", &files.exec_root(name)))
        .arg(flag("--pidfile", &files.pidfile(name)))
        .arg(format!("--cgroup-parent={}", files.node_cgroup(name)))
        .args(&record.flags);
    command
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push("=");
    flag.push(path);
    flag
}

/// Debian's dockerd finds its programs and libraries in the tree it was unpacked to.
fn dockerd(files: &LabFiles, name: &str, tree: &Path) -> Command {
    let join = |parts: &[&str]| {
        let paths: Vec<String> = parts
            .iter()
            .map(|part| tree.join(part).display().to_string())
            .collect();
        paths.join(":")
    };
    let own = join(&["usr/bin", "usr/sbin", "usr/libexec/docker"]);
    let mut command = Command::new(tree.join("usr/sbin/dockerd"));
    command
        .env(
            "PATH",
            format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        )
        .env(
            "LD_LIBRARY_PATH",
            join(&["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]),
        )
        .arg(flag("--config-file", &dockerd_config(files, name)));
    command
}

/// dockerd wants a file, and valid JSON in it.
pub(crate) fn dockerd_config(files: &LabFiles, name: &str) -> std::path::PathBuf {
    files.node(name).join("daemon.json")
}

/// Starts a command in the calling thread's namespaces, without a terminal, its output appended to
/// `log`, out of reach of the terminal's signals.
pub(crate) fn spawn(command: &mut Command, log: &Path, what: &str) -> Result<Process, LabError> {
    let open = || -> std::io::Result<(File, File)> {
        let log = File::options().create(true).append(true).open(log)?;
        Ok((log.try_clone()?, log))
    };
    let (out, err) = open().map_err(LabError::io(format!("open {}", log.display())))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(LabError::io(format!("start {what}")))?;
    let pid = child.id().cast_signed();
    // It is this process's child and not waited for, so that its number can not be another's yet.
    Process::of(pid).ok_or_else(|| LabError::Ended {
        node: what.to_owned(),
        log: tail(log),
    })
}

/// Waits until the daemon answers.
pub(crate) fn wait(files: &LabFiles, node: &Node, process: Process) -> Result<(), LabError> {
    let started = Instant::now();
    let api = Api::new(&node.name, &files.socket(&node.name));
    loop {
        if api.answers() {
            return Ok(());
        }
        if !process.is_alive() {
            return Err(LabError::Ended {
                node: node.name.clone(),
                log: tail(&files.log(&node.name)),
            });
        }
        if started.elapsed() > BOUND {
            return Err(LabError::Silent {
                node: node.name.clone(),
                seconds: BOUND.as_secs(),
                log: tail(&files.log(&node.name)),
            });
        }
        std::thread::sleep(PAUSE);
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{LabSpec, Role};

    fn words(runtime: Runtime) -> Vec<String> {
        let spec =
            LabSpec::new("lab", PathBuf::from("/bin/skep")).with_node("m1", Role::Manager, runtime);
        let files = LabFiles::new(Path::new("/labs"), "lab").unwrap();
        let record = Record {
            program: spec.program,
            flags: vec!["--debug".into()],
            nodes: spec.nodes.clone(),
        };
        let command = command(&files, &record, &spec.nodes[0]);
        std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_node_has_nothing_in_common_with_another_daemon() {
        let words = words(Runtime::Skep);
        assert_eq!(words[..2], ["/bin/skep", "daemon"]);
        for word in [
            "--host=unix:///labs/lab/m1/docker.sock",
            "--data-root=/labs/lab/m1/data",
            "--exec-root=/labs/lab/m1/run",
            "--pidfile=/labs/lab/m1/docker.pid",
            "--config-file=/dev/null",
            "--debug",
        ] {
            assert!(words.iter().any(|given| given == word), "{words:?}");
        }
        assert!(words.iter().any(|word| {
            word.starts_with("--cgroup-parent=/skep-lab-lab-") && word.ends_with("/m1")
        }));
    }

    #[test]
    fn a_dockerd_runs_from_the_tree_it_was_unpacked_to() {
        let words = words(Runtime::Dockerd("/peer".into()));
        assert_eq!(words[0], "/peer/usr/sbin/dockerd");
        assert_eq!(words[1], "--config-file=/labs/lab/m1/daemon.json");
    }
}
