//! Keeps the node's certificate fresh, and changes it when the node's role changes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skep_ca::{CaError, NodeCertificate, NodeRole, RootCa};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::NodeSecurity;
use crate::bootstrap::BootstrapError;
use crate::uplink::Uplink;

/// The machine may sleep, and its clock be set: the wall clock is looked at again so often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// SwarmKit's pace of attempts that fail.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(3600);
/// After a change of role: the leader needs a moment to make it.
const ROLE_RETRY: Duration = Duration::from_millis(500);

/// Keeps a new certificate: it must be on the disk before it is used.
pub type Keep = Box<dyn Fn(&NodeCertificate) -> Result<(), CaError> + Send + Sync>;

pub struct Renewer {
    security: Arc<NodeSecurity>,
    uplink: Arc<Uplink>,
    keep: Keep,
    wanted: Mutex<Wanted>,
    wake: Notify,
}

#[derive(Default)]
struct Wanted {
    now: bool,
    role: Option<NodeRole>,
}

impl Renewer {
    pub fn new(security: Arc<NodeSecurity>, uplink: Arc<Uplink>, keep: Keep) -> Self {
        Self {
            security,
            uplink,
            keep,
            wanted: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Asks for a new certificate now, and until it has this role: the session said that the node's
    /// role has changed.
    pub fn expect_role(&self, role: NodeRole) {
        if self.security.current().identity().role == role {
            self.wanted.lock().role = None;
            return;
        }
        self.wanted.lock().role = Some(role);
        self.wake.notify_one();
    }

    /// Asks for a new certificate now: the cluster rotates its root.
    pub fn renew_now(&self) {
        self.wanted.lock().now = true;
        self.wake.notify_one();
    }

    /// Until `stopped`. The result of each renewal is seen at [`NodeSecurity::subscribe`].
    pub async fn run(&self, stopped: CancellationToken) {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = self.keep_fresh() => {}
        }
    }

    async fn keep_fresh(&self) {
        let mut retry = FIRST_RETRY;
        let mut role_retry = ROLE_RETRY;
        loop {
            self.due().await;
            let wants_role = self.wanted.lock().role.is_some();
            match self.renew().await {
                Ok(()) if self.settled() => {
                    (retry, role_retry) = (FIRST_RETRY, ROLE_RETRY);
                    continue;
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(error = %crate::connect::chain(&error), "cannot renew the certificate");
                }
            }
            // A change of role is waited for by somebody; a renewal has weeks.
            let pause = if wants_role {
                &mut role_retry
            } else {
                &mut retry
            };
            tokio::select! {
                () = sleep(*pause) => {}
                () = self.wake.notified() => {}
            }
            *pause = (*pause * 2).min(LAST_RETRY);
        }
    }

    /// Waits until the certificate is to be renewed.
    async fn due(&self) {
        let chosen: f64 = rand::random();
        loop {
            {
                let wanted = self.wanted.lock();
                if wanted.now || wanted.role.is_some() {
                    return;
                }
            }
            let left = self.security.current().info().renew_at(chosen) - OffsetDateTime::now_utc();
            let Some(left) = Duration::try_from(left).ok().filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::select! {
                () = sleep(left.min(LOOK_AGAIN)) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    async fn renew(&self) -> Result<(), BootstrapError> {
        let root = RootCa::from_pem(self.security.current().root_pem(), None)?;
        let certificate = self.uplink.renew(&root).await?;
        (self.keep)(&certificate)?;
        self.security.renew(certificate)?;
        let credentials = self.security.current();
        tracing::info!(
            node.id = credentials.identity().node_id,
            role = ?credentials.identity().role,
            "renewed the node's certificate"
        );
        Ok(())
    }

    /// Whether the new certificate is what was wanted.
    fn settled(&self) -> bool {
        let role = self.security.current().identity().role;
        let mut wanted = self.wanted.lock();
        wanted.now = false;
        if wanted.role == Some(role) {
            wanted.role = None;
        }
        wanted.role.is_none()
    }
}
