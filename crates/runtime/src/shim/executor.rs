//! The last steps inside the container: find the program, drop what was lent, filter, become it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::Spec;

use super::sys;
use crate::protocol::{CapabilityMasks, Security};
use crate::seccomp::Program;

/// Frames the texts that users see in whatever libcontainer wraps around them.
pub(super) const MARK: &str = "\u{1}skep\u{1}";

/// What libcontainer runs in the container's process.
#[derive(Clone, Default)]
pub(super) struct ShimExecutor {
    pub program: Option<Rc<Program>>,
    pub capabilities: Option<CapabilityMasks>,
    found: Rc<RefCell<Found>>,
}

#[derive(Default)]
struct Found {
    path: PathBuf,
    /// What libcontainer puts in for a process that has none.
    home: Option<String>,
}

impl ShimExecutor {
    pub(super) fn new(program: Option<Program>, security: &Security) -> Self {
        Self {
            program: program.map(Rc::new),
            capabilities: security.capabilities,
            found: Rc::default(),
        }
    }
}

impl Executor for ShimExecutor {
    /// Runs before the container counts as created: a program that is not there fails the creation.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let refuse = |text: String| {
            Err(ExecutorValidationError::ArgValidationError(format!(
                "{MARK}{text}{MARK}"
            )))
        };
        let Some(process) = spec.process() else {
            return refuse("no process in the spec".to_owned());
        };
        let Some(name) = process.args().as_ref().and_then(|args| args.first()) else {
            return refuse("no arguments in the spec".to_owned());
        };
        let env = process.env().clone().unwrap_or_default();
        let search = env
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or("");
        match look_up(name, search) {
            Ok(path) => {
                self.found.borrow_mut().path = path;
                Ok(())
            }
            Err(reason) => refuse(format!("exec: {}: {reason}", go_quoted(name))),
        }
    }

    /// The order of the variables and those that occur twice would be lost in this map: they are taken
    /// from the spec later.
    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        self.found.borrow_mut().home = envs.get("HOME").cloned();
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let error = self.become_program(spec);
        // Whoever started the container was told that it runs; all that is left is its own output.
        let path = self.found.borrow().path.display().to_string();
        let _ = writeln!(io::stderr(), "exec {path}: {}", go_error(&error));
        sys::exit_now(255)
    }
}

impl ShimExecutor {
    fn become_program(&self, spec: &Spec) -> io::Error {
        let Some(process) = spec.process() else {
            return io::Error::from(io::ErrorKind::InvalidInput);
        };
        let found = self.found.borrow();
        let mut env = process.env().clone().unwrap_or_default();
        if let (Some(home), false) = (
            &found.home,
            env.iter().any(|entry| entry.starts_with("HOME=")),
        ) {
            env.push(format!("HOME={home}"));
        }
        let args = process.args().clone().unwrap_or_default();
        let prepared = c_strings(&args).and_then(|args| {
            Ok((
                args,
                c_strings(&env)?,
                CString::new(found.path.as_os_str().as_bytes())?,
            ))
        });
        let (args, env, path) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return error.into(),
        };
        if process.user().umask().is_none() {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        }
        sys::default_signals();
        let no_new_privileges = process.no_new_privileges() == Some(true);
        if let Err(error) = self.confine(no_new_privileges) {
            return error;
        }
        sys::execute(&path, &args, &env)
    }

    /// With `no_new_privs` the filter comes last, so that it need not allow the dropping; without, it
    /// cannot come last.
    fn confine(&self, no_new_privileges: bool) -> io::Result<()> {
        if no_new_privileges {
            self.drop_capabilities()?;
            self.install_filter()
        } else {
            self.install_filter()?;
            self.drop_capabilities()
        }
    }

    fn install_filter(&self) -> io::Result<()> {
        self.program
            .as_ref()
            .map_or(Ok(()), |program| sys::install_seccomp(program))
    }

    fn drop_capabilities(&self) -> io::Result<()> {
        use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
        let Some(masks) = &self.capabilities else {
            return Ok(());
        };
        let sets = CapabilitySets {
            effective: CapabilitySet::from_bits_retain(masks.effective),
            permitted: CapabilitySet::from_bits_retain(masks.permitted),
            inheritable: CapabilitySet::from_bits_retain(masks.inheritable),
        };
        Ok(set_capabilities(None, sets)?)
    }
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    texts
        .iter()
        .map(|text| CString::new(text.as_bytes()))
        .collect()
}

/// Go's `exec.LookPath`, whose answers and texts are runc's and so Docker's.
fn look_up(name: &str, search: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        let path = Path::new(name);
        return executable(path)
            .map(|()| path.to_owned())
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    format!("stat {name}: {}", go_error(&error))
                }
                _ => go_error(&error),
            });
    }
    for directory in search.split(':') {
        // An empty element is the working directory.
        let path = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        if executable(&path).is_ok() {
            if !path.is_absolute() {
                return Err("cannot run executable found relative to current directory".to_owned());
            }
            return Ok(path);
        }
    }
    Err("executable file not found in $PATH".to_owned())
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        // Old kernels cannot check for the effective ids.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM)
            if metadata.permissions().mode() & 0o111 != 0 =>
        {
            Ok(())
        }
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            Err(io::Error::from_raw_os_error(libc::EACCES))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// The error's text as Go has it: lower case and without a number.
pub(crate) fn go_error(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        Some(libc::ELOOP) => "too many levels of symbolic links".to_owned(),
        Some(number) => {
            let text = nix::errno::Errno::from_raw(number).desc();
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| {
                // "I/O error" and the like are written as they are.
                let lower = !text.starts_with("I/O");
                let first = if lower {
                    first.to_ascii_lowercase()
                } else {
                    first
                };
                first.to_string() + letters.as_str()
            })
        }
        None => error.to_string(),
    }
}

/// Go's `%q`, for names of programs.
fn go_quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            control if control.is_control() => {
                quoted.extend(format!("\\x{:02x}", control as u32).chars());
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_as_go_does_it() {
        assert_eq!(
            look_up("sh", "/nowhere:/bin").unwrap(),
            Path::new("/bin/sh")
        );
        assert_eq!(
            look_up("nope", "/bin").unwrap_err(),
            "executable file not found in $PATH"
        );
        assert_eq!(
            look_up("/nope", "").unwrap_err(),
            "stat /nope: no such file or directory"
        );
        assert_eq!(look_up("/etc", "").unwrap_err(), "is a directory");
        assert_eq!(look_up("/etc/passwd", "").unwrap_err(), "permission denied");
        assert_eq!(go_quoted("a \"b\"\n"), r#""a \"b\"\n""#);
    }
}
