//! A real registry for tests: Debian's `docker-registry`, in a machine's network namespace.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::Machine;

const START_BOUND: Duration = Duration::from_secs(20);

/// A running `docker-registry`; killed on drop.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
}

/// How it serves.
#[derive(Debug, Default)]
pub struct RegistryOptions {
    /// Certificate and key, both PEM: with them it speaks TLS.
    pub tls: Option<(String, String)>,
    /// Lines of `user:bcrypt`.
    pub htpasswd: Option<String>,
    /// A token server's address and its certificate (PEM); issuer and service are `test`.
    pub token: Option<(String, String)>,
}

impl Registry {
    /// Starts it and waits until it listens.
    pub fn start(
        machine: &Machine,
        address: &str,
        options: &RegistryOptions,
    ) -> anyhow::Result<Self> {
        let address: SocketAddr = address.parse()?;
        let directory = tempfile::Builder::new().prefix("skep-reg-").tempdir()?;
        let config = directory.path().join("config.yml");
        std::fs::write(&config, configuration(directory.path(), address, options)?)?;
        let log = File::create(directory.path().join("log"))?;
        let child = machine
            .command(&program()?.display().to_string())
            .arg("serve")
            .arg(&config)
            // No spans: they would be printed between the lines.
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start docker-registry")?;
        let mut registry = Self {
            child,
            directory,
            address,
        };
        let started = Instant::now();
        while machine.connect(address).is_err() {
            if registry.child.try_wait()?.is_some() || started.elapsed() > START_BOUND {
                bail!("docker-registry does not listen:\n{}", registry.log());
            }
            // A pause between two looks at another process's state, not a wait for it.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// `host:port`, as it stands in image names.
    #[must_use]
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// What it wrote so far, requests among it.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Where it keeps its content.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the registry's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(
    directory: &Path,
    address: SocketAddr,
    options: &RegistryOptions,
) -> anyhow::Result<String> {
    use std::fmt::Write as _;
    let put = |name: &str, content: &str| -> anyhow::Result<String> {
        let path = directory.join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n  secret: test\n",
        directory.join("data").display()
    );
    if let Some((certificate, key)) = &options.tls {
        let (certificate, key) = (put("tls.crt", certificate)?, put("tls.key", key)?);
        write!(
            text,
            "  tls:\n    certificate: {certificate}\n    key: {key}\n"
        )?;
    }
    if let Some(users) = &options.htpasswd {
        let path = put("htpasswd", users)?;
        write!(
            text,
            "auth:\n  htpasswd:\n    realm: test\n    path: {path}\n"
        )?;
    }
    if let Some((realm, certificate)) = &options.token {
        let bundle = put("token.crt", certificate)?;
        write!(
            text,
            "auth:\n  token:\n    realm: {realm}\n    service: test\n    issuer: test\n    rootcertbundle: {bundle}\n"
        )?;
    }
    Ok(text)
}

/// `SKEP_REGISTRY`, or the one that is installed.
fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("SKEP_REGISTRY") {
        return Ok(path.into());
    }
    let installed = Path::new("/usr/bin/docker-registry");
    if installed.exists() {
        return Ok(installed.to_owned());
    }
    bail!("docker-registry is not there: run these tests with `cargo xtask test`")
}
