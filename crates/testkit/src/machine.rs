//! A machine for a daemon: a network namespace, here joined to a router that plays the outside.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};

/// Two joined namespaces: the machine itself and its router. Removed on drop.
#[derive(Debug)]
pub struct Machine {
    name: String,
    router: String,
}

impl Machine {
    /// The machine's own address.
    pub const ADDRESS: &str = "10.231.0.2";
    /// The router's address on the machine's link: the machine's default gateway.
    pub const ROUTER: &str = "10.231.0.1";
    /// An address behind the router: reached only through a default route and, for containers, NAT.
    pub const OUTSIDE: &str = "198.51.100.1";

    /// Makes both namespaces; needs root.
    pub fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("skep-t{}-{number}", std::process::id());
        let machine = Self {
            router: format!("{name}-r"),
            name,
        };
        machine
            .build()
            .context("can't make the test's network namespaces (this needs root)")?;
        Ok(machine)
    }

    fn build(&self) -> anyhow::Result<()> {
        let (own, router) = (self.name.as_str(), self.router.as_str());
        ip(&["netns", "add", own])?;
        ip(&["netns", "add", router])?;
        ip(&["-n", own, "link", "set", "lo", "up"])?;
        ip(&["-n", router, "link", "set", "lo", "up"])?;
        ip(&[
            "-n", own, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns",
            router,
        ])?;
        ip(&[
            "-n",
            own,
            "address",
            "add",
            &format!("{}/24", Self::ADDRESS),
            "dev",
            "eth0",
        ])?;
        ip(&[
            "-n",
            router,
            "address",
            "add",
            &format!("{}/24", Self::ROUTER),
            "dev",
            "eth0",
        ])?;
        ip(&[
            "-n",
            router,
            "address",
            "add",
            &format!("{}/32", Self::OUTSIDE),
            "dev",
            "lo",
        ])?;
        ip(&["-n", own, "link", "set", "eth0", "up"])?;
        ip(&["-n", router, "link", "set", "eth0", "up"])?;
        ip(&["-n", own, "route", "add", "default", "via", Self::ROUTER])
    }

    /// A command that will run inside the machine's network namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        inside(&self.name, program)
    }

    /// A command that will run on the router.
    #[must_use]
    pub fn outside(&self, program: &str) -> Command {
        inside(&self.router, program)
    }

    /// The machine's links, by name.
    pub fn links(&self) -> anyhow::Result<Vec<String>> {
        let output = Command::new("ip")
            .args(["-n", &self.name, "-o", "link"])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text
            .lines()
            .filter_map(|line| line.split(": ").nth(1))
            .map(|name| name.split('@').next().unwrap_or(name).to_owned())
            .collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for name in [&self.name, &self.router] {
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("can't delete the namespace {name}: {error:#}");
            }
        }
    }
}

fn inside(namespace: &str, program: &str) -> Command {
    // Not `ip netns exec`: it mounts a fresh /sys, which hides the cgroup mounts.
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--")
        .arg(program);
    command
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).output()?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
