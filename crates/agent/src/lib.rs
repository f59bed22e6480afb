//! The agent: takes a node's tasks from the dispatcher, drives each to where the managers want it,
//! and reports how it fares.
//!
//! ```text
//!  DispatcherClient ──assignments──► Worker ──one driver per task──► Controller (the engine's)
//!         ▲                            │  next_step / conclude: pure       │
//!         └──────batched statuses──────┴───────────StatusBoard◄────────────┘
//! ```
//!
//! Tasks and their last states are also on disk, so that after a restart of the daemon they go on
//! before any manager has answered. The seams are traits declared here: [`Executor`] and
//! [`Controller`], which the engine implements, [`DispatcherClient`] and [`LogBrokerClient`], which
//! lead to a manager in this process or across the network, with the same messages.
//!
//! Deliberately not here: what a container is; which manager to connect to and with which
//! certificate; what is to become of a failed task (the orchestrator makes another one).

mod agent;
mod assignments;
mod client;
mod controller;
mod dependencies;
mod endpoints;
mod executor;
mod log_subscription;
mod session;
mod status_board;
mod step;
mod task_driver;
mod task_store;
mod worker;

pub use agent::{Agent, AgentConfig, AgentError, AgentState};
pub use client::{DispatcherClient, LogBrokerClient, ResponseStream};
pub use controller::{Controller, ControllerError, LogStream};
pub use dependencies::Dependencies;
pub use executor::Executor;
pub use step::{Conclusion, Observation, Operation, Outcome, Step, conclude, next_step, resolve};
pub use task_store::TaskStoreError;
