//! Docker's Engine REST API over skep's engine and cluster: paths, versions, parsing, validation,
//! status codes, error texts, streaming and hijacking, as moby has them and its clients expect.
//!
//! Not here: what the calls do (`skep-engine`, `skep-swarm`), binding of sockets (the binary),
//! gRPC and BuildKit sessions (`/grpc` and `/session` answer 501).
//!
//! ```text
//! listener ─▶ serve (hyper, takeover) ─▶ dispatch (version, route table) ─▶ handlers ─▶ Engine, Cluster
//!                                            ▲                                  │
//!                                            └── headers, errors ◀── gojson in, shapes out
//! ```

mod call;
mod dispatch;
mod error;
mod gojson;
mod handlers;
mod hijack;
mod query;
mod reply;
mod route;
mod serve;
mod shape;
mod state;
mod stdcopy;
mod swarm;
mod table;
mod takeover;
mod timestamp;
mod version;

pub use error::{ApiError, ApiResult};
pub use serve::{Listener, serve};
pub use state::ApiState;
pub use version::{ApiVersion, MAX_API_VERSION, MIN_API_VERSION};

/// The whole API as a service, for [`serve`].
pub fn router(state: ApiState) -> axum::Router {
    let identity = dispatch::Identity {
        version: skep_engine::SERVER_VERSION.to_owned(),
        experimental: state.experimental,
    };
    dispatch::router(state, identity, table::routes())
}
