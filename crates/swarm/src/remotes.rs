//! `state.json`: the managers that this node knows, so that it finds them again after a restart.
//! Name and shape are SwarmKit's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_rpc::{Remote, Remotes};
use tokio_util::sync::CancellationToken;

use crate::persisted;

const FILE: &str = "state.json";

/// As Go writes it: empty members are left out.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Peer {
    #[serde(skip_serializing_if = "String::is_empty")]
    node_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    addr: String,
}

pub(crate) fn load(directory: &Path) -> io::Result<Vec<Remote>> {
    let Some(bytes) = persisted::read(directory, FILE)? else {
        return Ok(Vec::new());
    };
    let peers: Vec<Peer> = serde_json::from_slice(&bytes)?;
    let remote = |peer: Peer| Remote {
        node_id: peer.node_id,
        addr: peer.addr,
    };
    Ok(peers.into_iter().map(remote).collect())
}

fn save(directory: &Path, remotes: &Remotes) -> io::Result<()> {
    let peer = |remote: Remote| Peer {
        node_id: remote.node_id,
        addr: remote.addr,
    };
    let peers: Vec<Peer> = remotes.list().into_iter().map(peer).collect();
    persisted::write(directory, FILE, &serde_json::to_vec(&peers)?)
}

/// Keeps the file in step with what the managers tell.
pub(crate) async fn keep(directory: PathBuf, remotes: Arc<Remotes>, stop: CancellationToken) {
    let mut changed = remotes.subscribe();
    loop {
        changed.mark_unchanged();
        if let Err(error) = save(&directory, &remotes) {
            tracing::warn!(%error, "cannot keep the managers' addresses");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_dockerd_is_understood_and_written_alike() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), []);
        let text = r#"[{"node_id":"abc","addr":"10.0.0.1:2377"},{"addr":"10.0.0.2:2377"}]"#;
        std::fs::write(directory.path().join(FILE), text).unwrap();
        let mut known = load(directory.path()).unwrap();
        assert_eq!(known[0].node_id, "abc");
        known.sort();
        save(directory.path(), &Remotes::new(known.clone())).unwrap();
        let mut again = load(directory.path()).unwrap();
        again.sort();
        assert_eq!(again, known);
    }
}
