//! Placement constraints: `node.role==manager`, `node.labels.zone!=b`, `node.ip==10.0.0.0/8`.
//!
//! As in SwarmKit, a key that is not one of the known ones parses and then matches no node.

use std::net::IpAddr;

use skep_proto as proto;

const NODE_LABEL: &str = "node.labels.";
const ENGINE_LABEL: &str = "engine.labels.";

/// One parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: Key,
    negated: bool,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Hostname,
    Ip(Option<Subnet>),
    Role,
    Os,
    Arch,
    NodeLabel(String),
    EngineLabel(String),
    Unknown,
}

/// Why an expression is no constraint, in SwarmKit's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("constraint expected one operator from ==, !=")]
    NoOperator,
    #[error("key '{0}' is invalid")]
    Key(String),
    #[error("value '{0}' is invalid")]
    Value(String),
}

/// Parses each expression of a placement's list.
pub fn parse<S: AsRef<str>>(expressions: &[S]) -> Result<Vec<Constraint>, ConstraintError> {
    expressions
        .iter()
        .map(|expression| Constraint::parse(expression.as_ref()))
        .collect()
}

/// Whether the node satisfies all of them.
pub fn matches_all(constraints: &[Constraint], node: &proto::Node) -> bool {
    constraints
        .iter()
        .all(|constraint| constraint.matches(node))
}

impl Constraint {
    fn parse(expression: &str) -> Result<Self, ConstraintError> {
        // `==` wins wherever both occur, because SwarmKit looks for it first.
        let (key, value, negated) = if let Some((key, value)) = expression.split_once("==") {
            (key.trim(), value.trim(), false)
        } else if let Some((key, value)) = expression.split_once("!=") {
            (key.trim(), value.trim(), true)
        } else {
            return Err(ConstraintError::NoOperator);
        };
        if !is_key(key) {
            return Err(ConstraintError::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        Ok(Self {
            key: Key::parse(key, value),
            negated,
            value: value.to_owned(),
        })
    }

    pub fn matches(&self, node: &proto::Node) -> bool {
        let description = node.description.as_ref();
        let platform = description.and_then(|d| d.platform.as_ref());
        let matched = match &self.key {
            Key::Unknown | Key::Ip(None) => return false,
            Key::Ip(Some(subnet)) => {
                let address = node
                    .status
                    .as_ref()
                    .and_then(|status| status.addr.parse().ok());
                address.is_some_and(|address| subnet.contains(address))
            }
            Key::Id => self.is(&node.id),
            Key::Hostname => self.is(description.map_or("", |d| &d.hostname)),
            Key::Role => self.is(match node.role() {
                proto::NodeRole::Manager => "manager",
                proto::NodeRole::Worker => "worker",
            }),
            Key::Os => self.is(platform.map_or("", |p| &p.os)),
            Key::Arch => self.is(platform.map_or("", |p| &p.architecture)),
            Key::NodeLabel(label) => self.is(node_label(node, label)),
            Key::EngineLabel(label) => self.is(engine_label(node, label)),
        };
        matched != self.negated
    }

    fn is(&self, actual: &str) -> bool {
        self.value.eq_ignore_ascii_case(actual)
    }
}

impl Key {
    fn parse(key: &str, value: &str) -> Self {
        if let Some(label) = strip_prefix_ignoring_case(key, NODE_LABEL) {
            return Self::NodeLabel(label.to_owned());
        }
        if let Some(label) = strip_prefix_ignoring_case(key, ENGINE_LABEL) {
            return Self::EngineLabel(label.to_owned());
        }
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip(Subnet::parse(value)),
            "node.role" => Self::Role,
            "node.platform.os" => Self::Os,
            "node.platform.arch" => Self::Arch,
            _ => Self::Unknown,
        }
    }
}

/// An address or a network in CIDR notation; an address is a network of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().ok()?;
        // An address alone may be written as IPv4 inside IPv6; a network keeps its family.
        let address = if prefix.is_none() {
            address.to_canonical()
        } else {
            address
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        (prefix <= bits).then_some(Self { address, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        let shift = |bits: u32| bits - u32::from(self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(host)) => {
                let difference = net.to_bits() ^ host.to_bits();
                difference.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(host)) => {
                let difference = net.to_bits() ^ host.to_bits();
                difference.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The value of a node's label, empty if it has none.
pub(crate) fn node_label<'a>(node: &'a proto::Node, label: &str) -> &'a str {
    let annotations = node
        .spec
        .as_ref()
        .and_then(|spec| spec.annotations.as_ref());
    annotations
        .and_then(|a| a.labels.get(label))
        .map_or("", String::as_str)
}

/// The value of an engine's label, empty if it has none.
pub(crate) fn engine_label<'a>(node: &'a proto::Node, label: &str) -> &'a str {
    let engine = node.description.as_ref().and_then(|d| d.engine.as_ref());
    engine
        .and_then(|e| e.labels.get(label))
        .map_or("", String::as_str)
}

/// The label named by a descriptor such as `node.labels.zone`, read from the node; `None` if the
/// descriptor is of no known form.
pub(crate) fn label_by_descriptor<'a>(node: &'a proto::Node, descriptor: &str) -> Option<&'a str> {
    if let Some(label) = strip_prefix_ignoring_case(descriptor, NODE_LABEL) {
        return Some(node_label(node, label));
    }
    strip_prefix_ignoring_case(descriptor, ENGINE_LABEL).map(|label| engine_label(node, label))
}

/// The rest of `text`, if there is one: a bare `node.labels.` names no label.
fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    (head.eq_ignore_ascii_case(prefix) && text.len() > prefix.len()).then(|| &text[prefix.len()..])
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && key.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_value(value: &str) -> bool {
    let allowed = |b: u8| {
        b.is_ascii_alphanumeric()
            || b" \t\n\x0c\r".contains(&b)
            || br":-_.*()?+[]\^$|/".contains(&b)
    };
    !value.is_empty() && value.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> proto::Node {
        let labels = [("zone".to_owned(), "a".to_owned())];
        proto::Node {
            id: "node-1".into(),
            role: proto::NodeRole::Manager.into(),
            spec: Some(proto::NodeSpec {
                annotations: Some(proto::Annotations {
                    labels: labels.clone().into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            status: Some(proto::NodeStatus {
                addr: "10.1.2.3".into(),
                ..Default::default()
            }),
            description: Some(proto::NodeDescription {
                hostname: "alpha".into(),
                platform: Some(proto::Platform {
                    os: "linux".into(),
                    architecture: "x86_64".into(),
                }),
                engine: Some(proto::EngineDescription {
                    labels: [("disk".to_owned(), "SSD".to_owned())].into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn holds(expression: &str) -> bool {
        matches_all(&parse(&[expression]).unwrap(), &node())
    }

    #[test]
    fn each_key_is_compared_without_regard_to_case() {
        for expression in [
            "node.id==NODE-1",
            "Node.Hostname == Alpha",
            "node.role==manager",
            "node.role!=worker",
            "node.platform.os==Linux",
            "node.platform.arch==x86_64",
            "node.labels.zone==A",
            "NODE.LABELS.zone==a",
            "engine.labels.disk==ssd",
            "node.labels.missing!=x",
        ] {
            assert!(holds(expression), "{expression}");
        }
    }

    #[test]
    fn label_names_keep_their_case_and_missing_labels_equal_nothing() {
        assert!(!holds("node.labels.ZONE==a"));
        assert!(!holds("node.labels.missing==x"));
        assert!(!holds("engine.labels.disk!=ssd"));
    }

    #[test]
    fn addresses_match_alone_and_by_network() {
        for expression in [
            "node.ip==10.1.2.3",
            "node.ip==10.0.0.0/8",
            "node.ip!=192.168.0.0/16",
            "node.ip==::ffff:10.1.2.3",
            "node.ip==0.0.0.0/0",
        ] {
            assert!(holds(expression), "{expression}");
        }
        assert!(!holds("node.ip==10.2.0.0/16"));
        assert!(!holds("node.ip!=10.1.2.3"));
        assert!(
            !holds("node.ip!=nonsense"),
            "a malformed address matches no node"
        );
        assert!(!holds("node.ip==10.0.0.0/40"));
    }

    #[test]
    fn an_unknown_key_matches_no_node_either_way() {
        assert!(!holds("node.colour==red"));
        assert!(!holds("node.colour!=red"));
        assert!(!holds("node.labels.==a"), "a label needs a name");
    }

    #[test]
    fn what_is_not_a_constraint_is_refused_in_swarmkits_words() {
        let error = |text: &str| parse(&[text]).unwrap_err().to_string();
        assert_eq!(
            error("node.role"),
            "constraint expected one operator from ==, !="
        );
        assert_eq!(
            error("node.role=manager"),
            "constraint expected one operator from ==, !="
        );
        assert_eq!(error("=="), "key '' is invalid");
        assert_eq!(error("1node==x"), "key '1node' is invalid");
        assert_eq!(error("node.role=="), "value '' is invalid");
        assert_eq!(error("node.role==a>b"), "value 'a>b' is invalid");
        assert_eq!(error("node.role===manager"), "value '=manager' is invalid");
    }
}
