//! The orchestrators' rules as scenarios in a small world of nodes and agents.

mod global;
mod jobs;
mod properties;
mod reaping;
mod rebalancing;
mod restarts;
mod scaling;
mod updates;
mod world;
