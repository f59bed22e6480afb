//! The Health service: a manager that joins is dialled back and asked whether its raft is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skep_proto as proto;
use skep_proto::health_check_response::ServingStatus;
use tonic::{Request, Response, Status};

/// What this manager says of itself. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    raft: Arc<AtomicBool>,
}

impl Health {
    /// From the moment the port is open until the manager goes.
    pub fn set_serving(&self, serving: bool) {
        self.raft.store(serving, Ordering::Release);
    }

    fn status(&self, service: &str) -> Result<ServingStatus, Status> {
        match service {
            "" => Ok(ServingStatus::Serving),
            "Raft" if self.raft.load(Ordering::Acquire) => Ok(ServingStatus::Serving),
            "Raft" => Ok(ServingStatus::NotServing),
            _ => Err(Status::not_found("unknown service")),
        }
    }
}

#[async_trait::async_trait]
impl proto::health_server::Health for Health {
    async fn check(
        &self,
        request: Request<proto::HealthCheckRequest>,
    ) -> Result<Response<proto::HealthCheckResponse>, Status> {
        let status = self.status(&request.get_ref().service)?;
        Ok(Response::new(proto::HealthCheckResponse {
            status: status.into(),
        }))
    }
}
