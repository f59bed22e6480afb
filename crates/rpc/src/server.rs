//! The manager's port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use crate::backend::Backends;
use crate::gate::Gate;
use crate::identity::Peer;
use crate::{NodeSecurity, socket};

/// Who has not finished its handshake by then is not a node.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that does not answer for so long is gone: its streams would linger otherwise.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// After this, a stopping server waits no longer for calls to end by themselves.
const GRACE: Duration = Duration::from_secs(1);
/// Nodes without a certificate come to get one, and no longer than that.
const STRANGERS: Duration = Duration::from_secs(300);
const MAX_STREAMS: u32 = 4096;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// An open port. Dropping it closes it at once; [`Self::stop`] lets calls finish.
pub struct RpcServer {
    addr: SocketAddr,
    stop: CancellationToken,
    connections: TaskTracker,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl RpcServer {
    /// Serves `backends` with the certificate that `security` has when a client connects.
    pub fn start(
        listener: TcpListener,
        security: Arc<NodeSecurity>,
        backends: Backends,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let port = Port {
            gate: Arc::new(Gate::new(Arc::clone(&security), backends)),
            security,
            stop: stop.clone(),
        };
        let accepting = tokio::spawn(accept(listener, port, connections.clone()));
        Ok(Self {
            addr,
            stop,
            connections,
            accepting: Mutex::new(Some(accepting)),
        })
    }

    pub async fn bind(
        addr: SocketAddr,
        security: Arc<NodeSecurity>,
        backends: Backends,
    ) -> io::Result<Self> {
        Self::start(TcpListener::bind(addr).await?, security, backends)
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the port; returns when it can be bound again and no call is running.
    pub async fn stop(&self) {
        self.stop.cancel();
        let accepting = self.accepting.lock().take();
        if let Some(accepting) = accepting {
            // It ends by itself; how is of no interest.
            let _ = accepting.await;
        }
        self.connections.close();
        self.connections.wait().await;
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct Port {
    gate: Arc<Gate>,
    security: Arc<NodeSecurity>,
    stop: CancellationToken,
}

async fn accept(listener: TcpListener, port: Port, connections: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = port.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, addr)) => {
                let port = port.clone();
                connections.spawn(async move {
                    if let Err(error) = port.serve(socket, addr).await {
                        tracing::debug!(peer.addr = %addr, %error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                // No descriptors left, mostly: trying again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Port {
    async fn serve(self, socket: TcpStream, addr: SocketAddr) -> Result<(), BoxError> {
        socket::tune(&socket);
        let acceptor = TlsAcceptor::from(Arc::clone(self.security.current().server_config()));
        let tls = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            tls = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)) => tls??,
        };
        let peer = Arc::new(Peer::new(addr, tls.get_ref().1.peer_certificates())?);
        let leave_after = if peer.subject.is_some() {
            None
        } else {
            Some(STRANGERS)
        };
        let gate = self.gate;
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (gate, peer) = (Arc::clone(&gate), Arc::clone(&peer));
            async move {
                let response = gate.call(&peer, request.map(Body::new)).await;
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(tls), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return Ok(result?),
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
            () = expire(leave_after) => connection.as_mut().graceful_shutdown(),
        }
        // Streams of agents never end by themselves.
        match tokio::time::timeout(GRACE, connection).await {
            Ok(result) => Ok(result?),
            Err(_) => Ok(()),
        }
    }
}

async fn expire(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}
