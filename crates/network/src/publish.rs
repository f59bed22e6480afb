//! Published ports at work: the socket that holds each, and the proxy where one is needed.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::firewall::PortRule;
use crate::host::Host;
use crate::ports::HeldPort;
use crate::{NetworkError, proxy};

/// One published port.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) rule: PortRule,
    held: Option<HeldPort>,
    proxy: Option<JoinHandle<()>>,
}

impl Publication {
    /// A port of a running container whose socket is not held yet.
    pub(crate) fn recorded(rule: PortRule) -> Self {
        Self {
            rule,
            held: None,
            proxy: None,
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some() || self.proxy.is_some()
    }

    /// Listens, and copies if NAT does not do it. Call it when the rules are in place.
    pub(crate) fn serve(
        &mut self,
        held: HeldPort,
        with_proxy: bool,
        host: &Arc<Host>,
        runtime: &Handle,
    ) -> Result<(), NetworkError> {
        held.listen()?;
        let (port, socket) = match (with_proxy, held) {
            (
                true,
                HeldPort {
                    port,
                    socket: Some(socket),
                },
            ) => (port, socket),
            (_, held) => {
                self.held = Some(held);
                return Ok(());
            }
        };
        let target = SocketAddr::new(self.rule.target, port.container_port);
        let serving = proxy::serve(socket, port.protocol, target, Arc::clone(host));
        self.proxy = Some(runtime.spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%target, %error, "proxy of a published port ended");
            }
        }));
        Ok(())
    }

    /// Frees the port; when this returns somebody else can bind it.
    pub(crate) fn stop(&mut self, runtime: &Handle) {
        self.held = None;
        if let Some(proxy) = self.proxy.take() {
            proxy.abort();
            // The socket is closed when the task is gone, not when it is told to go.
            let _ = runtime.block_on(proxy);
        }
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if let Some(proxy) = &self.proxy {
            proxy.abort();
        }
    }
}
