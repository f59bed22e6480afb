//! The requests about the swarm itself that need more than `bollard_stubs` has.

use serde::Deserialize;

/// `POST /swarm/unlock`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct UnlockRequest {
    pub(crate) unlock_key: String,
}
