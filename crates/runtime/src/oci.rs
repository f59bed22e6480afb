//! A `runc`-compatible command line, as `--add-runtime` names it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::Deserialize;

use crate::error::RuntimeError;

/// Calls the runtime for one container.
#[derive(Debug, Clone)]
pub(crate) struct OciClient {
    path: PathBuf,
    args: Vec<String>,
    root: PathBuf,
    log: PathBuf,
    id: String,
}

impl OciClient {
    pub(crate) fn new(path: &Path, args: &[String], directory: &Path, id: &str) -> Self {
        Self {
            path: path.to_owned(),
            args: args.to_owned(),
            root: directory.join("oci"),
            log: directory.join("oci.log"),
            id: id.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The command line for a verb; the container's id comes last unless `after` says more.
    pub(crate) fn arguments<S: AsRef<std::ffi::OsStr>>(
        &self,
        verb: &[S],
        after: &[&str],
    ) -> Vec<OsString> {
        let mut line: Vec<OsString> = self.args.iter().map(OsString::from).collect();
        line.extend(["--root".into(), self.root.clone().into_os_string()]);
        line.extend(["--log".into(), self.log.clone().into_os_string()]);
        line.extend(["--log-format".into(), "json".into()]);
        line.extend(verb.iter().map(|word| word.as_ref().to_owned()));
        line.push(OsString::from(&self.id));
        line.extend(after.iter().map(OsString::from));
        line
    }

    pub(crate) async fn run(&self, verb: &[&str], after: &[&str]) -> Result<(), RuntimeError> {
        let output = tokio::process::Command::new(&self.path)
            .args(self.arguments(verb, after))
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .map_err(|source| RuntimeError::Spawn {
                shim: self.path.clone(),
                source,
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(RuntimeError::OciRuntime(self.last_error().unwrap_or_else(
            || String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )))
    }

    /// Limits go through standard input as the runtimes' `update` reads them.
    pub(crate) async fn update(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let file = self.root.join("resources.json");
        let bytes = serde_json::to_vec(resources)
            .map_err(|error| RuntimeError::io("encode", &file)(error.into()))?;
        std::fs::write(&file, bytes).map_err(RuntimeError::io("write", &file))?;
        let path = file.to_string_lossy().into_owned();
        self.run(&["update", "--resources", &path], &[]).await
    }

    pub(crate) async fn delete_async(&self) -> Result<(), RuntimeError> {
        self.run(&["delete", "--force"], &[]).await
    }

    /// In the shim, which may wait. The container is over; that the runtime does not know it any more
    /// is as good as a deletion.
    pub(crate) fn delete_blocking(&self) {
        let _ = std::process::Command::new(&self.path)
            .args(self.arguments(&["delete", "--force"], &[]))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .status();
    }

    /// The last error in the runtime's JSON log, which is where the text that users know is.
    pub(crate) fn last_error(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Line {
            level: String,
            msg: String,
        }
        let text = std::fs::read_to_string(&self.log).ok()?;
        text.lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok())
            .find(|line| matches!(line.level.as_str(), "error" | "fatal"))
            .map(|line| line.msg)
    }
}
