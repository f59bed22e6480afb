//! `/swarm`, `/nodes`, `/services`, `/tasks`, `/secrets`, `/configs`: Docker's JSON over the
//! cluster's control API.

mod compat;
mod control;
mod convert;
mod filters;
pub(crate) mod logs;
mod lookup;
pub(crate) mod membership;
mod names;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod secrets;
pub(crate) mod services;
pub(crate) mod tasks;
mod types;
