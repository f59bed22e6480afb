use sha2::{Digest as _, Sha256};
use skep_reference::Digest;

/// The chain ids of a stack of layers, lowest first: `chain(n) = sha256(chain(n-1) " " diff(n))`.
/// A chain id names a layer's content *and* all below it, so equal ids can share one directory.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(chain_id(chains.last(), diff_id));
    }
    chains
}

pub(crate) fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => diff_id.clone(),
        Some(parent) => digest_of(format!("{parent} {diff_id}").as_bytes()),
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(&Sha256::digest(bytes).into())
}
