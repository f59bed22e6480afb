//! Connections to managers: HTTP/2 over TLS, made with the certificate of the moment.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::NodeSecurity;
use crate::socket;

/// SwarmKit's limit for making a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Assignments of a node with many tasks come in one message.
pub(crate) const MAX_RESPONSE: usize = i32::MAX as usize;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The name that every manager's certificate has.
const MANAGER: &str = "swarm-manager";
/// The name by which a node that has no certificate yet asks for one.
const CERTIFICATE_AUTHORITY: &str = "swarm-ca";

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0:?} is not an address of a manager")]
    Address(String),
    /// In grpc-go's words, which users of Docker see when a manager cannot be reached.
    #[error("connection error: desc = \"transport: Error while dialing: {reason}\"")]
    Dial { addr: String, reason: String },
}

impl From<ConnectError> for Status {
    fn from(error: ConnectError) -> Self {
        let code = match error {
            ConnectError::Address(_) => Code::InvalidArgument,
            ConnectError::Dial { .. } => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// Connects to managers as this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector(Trust);

#[derive(Clone)]
enum Trust {
    Node(Arc<NodeSecurity>),
    Fixed(Arc<ClientConfig>),
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Node(_) => "Node",
            Self::Fixed(_) => "Fixed",
        })
    }
}

impl Trust {
    fn config(&self) -> Arc<ClientConfig> {
        match self {
            Self::Node(security) => Arc::clone(security.current().client_config()),
            Self::Fixed(config) => Arc::clone(config),
        }
    }

    fn server_name(&self) -> ServerName<'static> {
        let name = match self {
            Self::Node(_) => MANAGER,
            Self::Fixed(_) => CERTIFICATE_AUTHORITY,
        };
        ServerName::try_from(name).expect("a constant that is a DNS name")
    }
}

impl Connector {
    /// With this node's certificate: each new connection uses the one of that moment.
    pub fn new(security: Arc<NodeSecurity>) -> Self {
        Self(Trust::Node(security))
    }

    /// For a node that has no certificate yet.
    pub(crate) fn bootstrap(config: ClientConfig) -> Self {
        Self(Trust::Fixed(Arc::new(config)))
    }

    /// A channel that connects when it is used, and again after its connection broke.
    pub fn lazy(&self, addr: &str) -> Result<Channel, ConnectError> {
        let endpoint = endpoint(addr)?;
        let (trust, addr) = (self.0.clone(), addr.to_owned());
        Ok(
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let (trust, addr) = (trust.clone(), addr.clone());
                async move { dial(&trust, &addr).await.map(TokioIo::new) }
            })),
        )
    }

    /// A channel that is connected; it connects again after its connection broke.
    pub async fn connect(&self, addr: &str) -> Result<Channel, ConnectError> {
        let endpoint = endpoint(addr)?;
        let mut first = Some(dial(&self.0, addr).await?);
        let (trust, again) = (self.0.clone(), addr.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (trust, addr, first) = (trust.clone(), again.clone(), first.take());
            async move {
                match first {
                    Some(connection) => Ok(TokioIo::new(connection)),
                    None => dial(&trust, &addr).await.map(TokioIo::new),
                }
            }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| ConnectError::Dial {
            addr: addr.to_owned(),
            reason: chain(&error),
        })
    }
}

fn endpoint(addr: &str) -> Result<Endpoint, ConnectError> {
    let bad = || ConnectError::Address(addr.to_owned());
    // The scheme is for tonic, which would otherwise want to do TLS itself.
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|_| bad())?;
    let origin: Uri = format!("https://{addr}").parse().map_err(|_| bad())?;
    if origin.port().is_none() {
        return Err(bad());
    }
    // No HTTP/2 pings: grpc-go closes connections of clients that ping more often than every five
    // minutes. TCP notices dead peers.
    Ok(endpoint
        .origin(origin)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .buffer_size(1024))
}

async fn dial(trust: &Trust, addr: &str) -> Result<TlsStream<TcpStream>, ConnectError> {
    let failed = |reason: String| ConnectError::Dial {
        addr: addr.to_owned(),
        reason,
    };
    let dialing = async {
        let tcp = TcpStream::connect(addr)
            .await
            .map_err(|error| failed(format!("dial tcp {addr}: {}", reason(&error))))?;
        socket::tune(&tcp);
        let tls = TlsConnector::from(trust.config());
        tls.connect(trust.server_name(), tcp)
            .await
            .map_err(|error| failed(format!("authentication handshake failed: {error}")))
    };
    tokio::time::timeout(CONNECT, dialing)
        .await
        .unwrap_or_else(|_| Err(failed(format!("dial tcp {addr}: i/o timeout"))))
}

/// Go prints system errors without their number.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
