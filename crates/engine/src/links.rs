//! `--link`: names (and variables) of other containers on the default bridge, which has no DNS.
//!
//! A container remembers the ids of those it is linked to. Their addresses go into its
//! `/etc/hosts` when it starts, and again whenever one of them starts anew with another address.
//! On networks of the user's a link is an alias, which is the network's affair.

mod variables;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use bollard_stubs::models as m;

use crate::container::{Container, Record};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};

/// The network whose containers can be linked.
const DEFAULT_NETWORK: &str = "bridge";

/// Another container that this one knows by an alias.
pub(crate) struct Linked {
    alias: String,
    record: Record,
}

impl Engine {
    /// Looks up what `HostConfig.Links` names: container ids by alias. The list itself is emptied,
    /// since it shows what is linked at the moment.
    pub(crate) fn resolve_links(
        &self,
        host: &mut m::HostConfig,
    ) -> Result<BTreeMap<String, String>> {
        let mode = host.network_mode.as_deref().unwrap_or_default();
        if !matches!(mode, "" | "default" | "bridge" | "none") {
            return Ok(BTreeMap::new());
        }
        let mut links = BTreeMap::new();
        for link in host.links.iter().flatten() {
            let (name, alias) = parse(link)?;
            let child = self.container_of_network(name)?;
            if child.record().network_mode() == "host" {
                return Err(EngineError::invalid(
                    "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
                ));
            }
            links.insert(alias.to_owned(), child.id.clone());
        }
        host.links = None;
        Ok(links)
    }

    /// The container, or the one whose network it uses.
    fn container_of_network(&self, name: &str) -> Result<Arc<Container>> {
        let mut name = name.to_owned();
        loop {
            let container = self.containers.get(&name).map_err(|mut error| {
                // As "not found" the client would take the image to be missing.
                error.kind = ErrorKind::InvalidParameter;
                error.context(format!("could not get container for {name}"))
            })?;
            let other = container
                .record()
                .network_mode()
                .strip_prefix("container:")
                .map(str::to_owned);
            match other {
                Some(other) => name = other,
                None => return Ok(container),
            }
        }
    }

    /// Whom a container is linked to. All of them have to run when it starts.
    pub(crate) fn linked(&self, record: &Record) -> Result<Vec<Linked>> {
        if record.links.is_empty() || !record.networks.contains_key(DEFAULT_NETWORK) {
            return Ok(Vec::new());
        }
        let linked: Vec<_> = self.linked_now(record).collect();
        for Linked {
            alias,
            record: other,
        } in &linked
        {
            if !other.state.is_running() {
                return Err(EngineError::system(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name, record.name
                )));
            }
            if !other.endpoints.contains_key(DEFAULT_NETWORK) {
                return Err(EngineError::system(format!(
                    "Cannot link to /{}, as it does not belong to the default network",
                    other.name
                )));
            }
        }
        Ok(linked)
    }

    fn linked_now<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = Linked> + 'a {
        record.links.iter().filter_map(|(alias, id)| {
            let record = self.containers.get(id).ok()?.record().clone();
            Some(Linked {
                alias: alias.clone(),
                record,
            })
        })
    }

    /// The variables that execs get too; of containers that have ended meanwhile there are none.
    pub(crate) fn link_variables(&self, record: &Record) -> Vec<String> {
        let linked: Vec<_> = self
            .linked_now(record)
            .filter(|linked| linked.record.state.is_running())
            .collect();
        variables::of(&record.name, &linked)
    }

    /// Links as `docker inspect` shows them.
    pub(crate) fn shown_links(&self, record: &Record) -> Option<Vec<String>> {
        if record.links.is_empty() {
            return record.host_config.links.clone();
        }
        let show =
            |linked: Linked| format!("/{}:/{}/{}", linked.record.name, record.name, linked.alias);
        Some(self.linked_now(record).map(show).collect())
    }

    /// The names that containers have for those they are linked to, by the latters' ids:
    /// `/parent/alias`.
    pub(crate) fn link_names(&self) -> HashMap<String, Vec<String>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for parent in self.containers.all() {
            let record = parent.record();
            for (alias, child) in &record.links {
                let name = format!("/{}/{alias}", record.name);
                names.entry(child.clone()).or_default().push(name);
            }
        }
        names
    }

    fn linking_to<'a>(&self, id: &'a str) -> impl Iterator<Item = Arc<Container>> + 'a {
        self.containers
            .all()
            .into_iter()
            .filter(move |other| other.record().links.values().any(|child| child == id))
    }

    /// Brings the hosts files of running containers up to date that are linked to this one.
    pub(crate) fn tell_linking(&self, id: &str) {
        for parent in self.linking_to(id) {
            if let Err(error) = self.rewrite_links(&parent) {
                tracing::warn!(container.id = %parent.id, %error, "hosts file not brought up to date");
            }
        }
    }

    fn rewrite_links(&self, parent: &Container) -> std::io::Result<()> {
        let record = parent.record().clone();
        if !record.state.is_up() {
            return Ok(());
        }
        let linked: Vec<_> = self.linked_now(&record).collect();
        let path = parent.dir.join("hosts");
        let text = std::fs::read_to_string(&path)?;
        // In place: the container has this very file mounted.
        std::fs::write(&path, replace_lines(&text, &hosts(&linked)))
    }

    /// `docker rm --link parent/alias`.
    pub(crate) fn remove_link(&self, name: &str) -> Result<()> {
        let trimmed = name.strip_prefix('/').unwrap_or(name);
        let Some((parent, alias)) = trimmed.rsplit_once('/') else {
            self.containers.get(name)?;
            return Err(EngineError::conflict(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let no_such = || EngineError::not_found(format!("No such container: {name}"));
        let parent = self.containers.get(parent).map_err(|_| no_such())?;
        let child = parent.record().links.remove(alias).ok_or_else(no_such)?;
        parent.save()?;
        if let Ok(child) = self.containers.get(&child) {
            let gone = Linked {
                alias: alias.to_owned(),
                record: child.record().clone(),
            };
            forget_line(&parent, &gone);
        }
        Ok(())
    }
}

/// "name:alias", "name" alone, or "/name:/parent/alias" as inspect shows it.
fn parse(link: &str) -> Result<(&str, &str)> {
    if link.is_empty() {
        return Err(EngineError::invalid("empty string specified for links"));
    }
    match link.split_once(':') {
        None => Ok((link, link)),
        Some((_, rest)) if rest.contains(':') => Err(EngineError::invalid(format!(
            "bad format for links: {link}"
        ))),
        Some((name, alias)) => match name.strip_prefix('/') {
            Some(name) => Ok((name, alias.rsplit('/').next().unwrap_or(alias))),
            None => Ok((name, alias)),
        },
    }
}

/// Lines for `/etc/hosts`: alias, host name, and the name if it is another.
pub(crate) fn hosts(linked: &[Linked]) -> Vec<(IpAddr, String)> {
    let mut lines = Vec::new();
    for one in linked {
        let Some(endpoint) = one.record.endpoints.get(DEFAULT_NETWORK) else {
            continue;
        };
        let ipv4 = endpoint.ipv4.map(IpAddr::V4);
        for address in ipv4.into_iter().chain(endpoint.ipv6.map(IpAddr::V6)) {
            lines.push((address, one.names()));
        }
    }
    lines
}

/// The variables of a container that starts.
pub(crate) fn environment(record: &Record, linked: &[Linked]) -> Vec<String> {
    variables::of(&record.name, linked)
}

impl Linked {
    fn names(&self) -> String {
        let hostname = self.record.config.hostname.as_deref().unwrap_or_default();
        let mut names = format!("{} {hostname}", self.alias);
        if self.record.name != self.alias {
            names = format!("{names} {}", self.record.name);
        }
        names
    }
}

/// Takes the old lines of the same names out and puts the new ones at the end. What the container
/// itself has written stays.
fn replace_lines(text: &str, lines: &[(IpAddr, String)]) -> String {
    let mut kept: String = text
        .lines()
        .filter(|line| {
            let names = line.split_once('\t').map_or("", |(_, names)| names);
            !lines.iter().any(|(_, new)| new == names)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    for (address, names) in lines {
        let _ = writeln!(kept, "{address}\t{names}");
    }
    kept
}

fn forget_line(parent: &Container, gone: &Linked) {
    let path = parent.dir.join("hosts");
    let Ok(text) = std::fs::read_to_string(&path) else {
        // It never ran.
        return;
    };
    let names = gone.names();
    let kept: String = text
        .lines()
        .filter(|line| line.split_once('\t').is_none_or(|(_, have)| have != names))
        .flat_map(|line| [line, "\n"])
        .collect();
    if let Err(error) = std::fs::write(&path, kept) {
        tracing::warn!(container.id = %parent.id, %error, "hosts file not brought up to date");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_an_alias_or_are_their_own() {
        assert_eq!(parse("db:store").unwrap(), ("db", "store"));
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        assert_eq!(parse("/db:/web/store").unwrap(), ("db", "store"));
        assert_eq!(
            parse("a:b:c").unwrap_err().message,
            "bad format for links: a:b:c"
        );
        assert_eq!(
            parse("").unwrap_err().message,
            "empty string specified for links"
        );
    }

    #[test]
    fn a_new_address_takes_the_place_of_the_old_one() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tstore abc db\n10.0.0.9\tmine\n";
        let new = [("10.0.0.5".parse().unwrap(), "store abc db".to_owned())];
        assert_eq!(
            replace_lines(text, &new),
            "127.0.0.1\tlocalhost\n10.0.0.9\tmine\n10.0.0.5\tstore abc db\n"
        );
    }
}
