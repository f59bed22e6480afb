//! What `skep lab` prints.

use std::fmt::Write as _;

use skep_lab::{LabSpec, NodeStatus, Slowness};

/// A row a node.
pub(crate) fn nodes(nodes: &[NodeStatus]) -> String {
    let mut text = format!(
        "{:<13} {:<8} {:<15} {:<22} {:>8}  SOCKET",
        "NODE", "ROLE", "ADDRESS", "STATE", "PID"
    );
    for status in nodes {
        let pid = status.pid.map_or_else(|| "-".into(), |pid| pid.to_string());
        let _ = write!(
            text,
            "\n{:<13} {:<8} {:<15} {:<22} {pid:>8}  unix://{}",
            status.node.name,
            status.node.role,
            status.node.address,
            state(status),
            status.socket.display()
        );
    }
    text
}

fn state(status: &NodeStatus) -> String {
    match status.slowness {
        Some(slow) => format!("{}, {}", status.state, slowness(slow)),
        None => status.state.to_string(),
    }
}

/// `50ms late, 5% lost`
pub(crate) fn slowness(slowness: Slowness) -> String {
    let late = (!slowness.delay.is_zero()).then(|| format!("{:?} late", slowness.delay));
    let lost = (slowness.loss > 0.0).then(|| format!("{}% lost", slowness.loss * 100.0));
    late.into_iter().chain(lost).collect::<Vec<_>>().join(", ")
}

/// What a user can do with a lab that has just come up.
pub(crate) fn welcome(spec: &LabSpec, nodes: &[NodeStatus], seconds: f64) -> String {
    let mut text = String::new();
    for status in nodes {
        let _ = writeln!(
            text,
            "docker -H unix://{}  # {}, {}, {}",
            status.socket.display(),
            status.node.name,
            status.node.role,
            status.node.address
        );
    }
    let count = nodes.len();
    let plural = if count == 1 { "node" } else { "nodes" };
    let _ = write!(
        text,
        "\n{count} {plural} in {seconds:.1} s; `skep lab ls{0}` lists them, `skep lab down{0}` removes them",
        place(spec)
    );
    text
}

/// The flags that later commands need to find this lab.
fn place(spec: &LabSpec) -> String {
    let mut flags = String::new();
    if spec.name != "lab" {
        let _ = write!(flags, " --name {}", spec.name);
    }
    if spec.parent.as_os_str() != LabSpec::PARENT {
        let _ = write!(flags, " --dir {}", spec.parent.display());
    }
    flags
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use skep_lab::NodeState;

    use super::*;

    fn status() -> NodeStatus {
        let spec = LabSpec::new("lab", PathBuf::new()).with(1, 0);
        NodeStatus {
            node: spec.nodes[0].clone(),
            pid: Some(42),
            state: NodeState::Running,
            slowness: None,
            socket: PathBuf::from("/labs/lab/m1/docker.sock"),
        }
    }

    #[test]
    fn a_row_says_who_where_how_and_by_which_socket() {
        let mut slow = status();
        slow.slowness = Some(Slowness {
            delay: Duration::from_millis(50),
            loss: 0.05,
        });
        let dead = NodeStatus {
            pid: None,
            state: NodeState::Dead,
            ..status()
        };
        assert_eq!(
            nodes(&[slow, dead]),
            "\
NODE          ROLE     ADDRESS         STATE                       PID  SOCKET
m1            manager  10.231.0.2      running, 50ms late, 5% lost       42  unix:///labs/lab/m1/docker.sock
m1            manager  10.231.0.2      dead                          -  unix:///labs/lab/m1/docker.sock"
        );
    }

    #[test]
    fn the_welcome_says_how_to_find_the_lab_again() {
        let mut spec = LabSpec::new("blue", PathBuf::new());
        spec.parent = PathBuf::from("/tmp/x");
        let text = welcome(&spec, &[status()], 1.23);
        assert!(
            text.starts_with(
                "docker -H unix:///labs/lab/m1/docker.sock  # m1, manager, 10.231.0.2\n"
            ),
            "{text}"
        );
        assert!(
            text.ends_with(
                "1 node in 1.2 s; `skep lab ls --name blue --dir /tmp/x` lists them, \
                 `skep lab down --name blue --dir /tmp/x` removes them"
            ),
            "{text}"
        );
    }
}
