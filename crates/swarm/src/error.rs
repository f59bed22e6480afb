use std::fmt;

/// How the REST layer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400
    InvalidParameter,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 500
    System,
    /// 501
    NotImplemented,
    /// 503
    Unavailable,
}

impl ErrorKind {
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidParameter => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::System => 500,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
        }
    }
}

/// What the user is told. The texts are moby's wherever moby has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterError {
    pub kind: ErrorKind,
    pub message: String,
}

impl std::error::Error for ClusterError {}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ClusterError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Something below failed that the user did not cause: the whole chain, as nobody above can
    /// look deeper.
    pub(crate) fn system(what: &str, error: &dyn std::error::Error) -> Self {
        Self::new(ErrorKind::System, format!("{what}: {}", chain(error)))
    }

    pub(crate) fn not_in_swarm() -> Self {
        Self::unavailable("This node is not part of a swarm")
    }

    pub(crate) fn already_in_swarm() -> Self {
        Self::unavailable(
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
        )
    }

    pub(crate) fn locked() -> Self {
        Self::unavailable(
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.",
        )
    }

    pub(crate) fn locked_leave() -> Self {
        Self::unavailable(
            "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
        )
    }

    pub(crate) fn no_manager() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )
    }

    /// This node is in a swarm, but broke down: with a full disk, say. moby says [`Self::no_manager`]
    /// here, whose advice to begin a new swarm would cost the user the one there is.
    pub(crate) fn node_down(reason: &str) -> Self {
        Self::unavailable(format!(
            "This node is part of a swarm but cannot take part in it at the moment; it keeps trying. {reason}"
        ))
    }

    pub(crate) fn manager_not_ready() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.",
        )
    }

    pub(crate) fn last_manager() -> Self {
        Self::unavailable(
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
        )
    }

    /// With how many managers can be reached and how many cannot, if that is known.
    pub(crate) fn manager_leaves(managers: Option<(usize, usize)>) -> Self {
        let risk = match managers {
            None => "Doing so may lose the consensus of your cluster. ".to_owned(),
            Some((reachable, unreachable)) if reachable <= unreachable + 2 => format!(
                "Removing this node leaves {} managers out of {}. Without a Raft quorum your swarm will be inaccessible. ",
                reachable.saturating_sub(1),
                reachable + unreachable
            ),
            Some(_) => String::new(),
        };
        Self::unavailable(format!(
            "You are attempting to leave the swarm on a node that is participating as a manager. {risk}The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message."
        ))
    }

    pub(crate) fn worker() -> Self {
        Self::unavailable(
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.",
        )
    }

    pub(crate) fn join_timeout() -> Self {
        Self::unavailable(
            "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node.",
        )
    }

    pub(crate) fn not_locked() -> Self {
        Self::new(ErrorKind::Conflict, "swarm is not locked")
    }

    pub(crate) fn wrong_unlock_key() -> Self {
        Self::new(
            ErrorKind::Unauthorized,
            "swarm could not be unlocked: invalid key provided",
        )
    }

    pub(crate) fn live_restore() -> Self {
        Self::new(
            ErrorKind::System,
            "--live-restore daemon configuration is incompatible with swarm mode",
        )
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// The control API speaks in gRPC's codes; dockerd shows its errors with the code's name.
impl From<tonic::Status> for ClusterError {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let kind = match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
                ErrorKind::InvalidParameter
            }
            Code::NotFound => ErrorKind::NotFound,
            Code::AlreadyExists => ErrorKind::Conflict,
            Code::PermissionDenied => ErrorKind::Forbidden,
            Code::Unauthenticated => ErrorKind::Unauthorized,
            Code::Unimplemented => ErrorKind::NotImplemented,
            Code::Unavailable => ErrorKind::Unavailable,
            _ => ErrorKind::System,
        };
        let code = format!("{:?}", status.code());
        Self::new(
            kind,
            format!("rpc error: code = {code} desc = {}", status.message()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_the_control_api_keeps_dockerds_wording() {
        let error = ClusterError::from(tonic::Status::not_found("service web not found"));
        assert_eq!(
            (error.kind.status(), error.message.as_str()),
            (
                404,
                "rpc error: code = NotFound desc = service web not found"
            )
        );
    }
}
