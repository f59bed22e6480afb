//! The sockets inside a container's namespace, and the tasks that serve them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use skep_netlink::Namespace;
use skep_netlink::nft::rule::{self, Side};
use skep_netlink::nft::{
    BaseChain, Batch, ChainKind, Expression, Family, Hook, MetaKey, NatKind, NftSocket, Payload,
    Register,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::forward::Forwarder;
use super::message::{Reaction, failed, react};
use super::{Names, RESOLVER_ADDRESS, ResolverSettings};
use crate::inner::Inner;
use crate::{NetworkError, Protocol};

const TABLE: &str = "skep-dns";
const DNS: u16 = 53;
/// Questions of one container that may be on their way upstream at a time.
const IN_FLIGHT: usize = 1024;
/// Connections of one container at a time, and how long one may say nothing.
const CONNECTIONS: usize = 128;
const IDLE: Duration = Duration::from_secs(10);

/// One container's resolver; ends when dropped.
#[derive(Debug)]
pub(crate) struct Resolver {
    serving: JoinHandle<()>,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Resolver {
    /// Opens the sockets, leads port 53 to them and serves. `redirect`: by nf_tables; else the
    /// port itself is taken.
    pub(crate) fn start(
        inner: &Arc<Inner>,
        container_id: &str,
        namespace: &Path,
        settings: &ResolverSettings,
        redirect: bool,
    ) -> Result<Self, NetworkError> {
        let sockets = Namespace::open(namespace)?
            .run(|| open(redirect))?
            .map_err(|error| match error {
                Opening::Socket(source) => NetworkError::io(format!(
                    "opening the resolver's sockets of container {container_id}"
                ))(source),
                Opening::Rules(error) => error.into(),
            })?;
        let server = Arc::new(Server {
            names: Names::new(Arc::downgrade(inner), container_id),
            inner: Arc::downgrade(inner),
            container_id: container_id.to_owned(),
            forwarder: Forwarder {
                namespace: namespace.to_owned(),
                host: Arc::clone(&inner.host),
                servers: settings.upstream.clone(),
            },
            ndots: settings.ndots,
            in_flight: Semaphore::new(IN_FLIGHT),
        });
        let serving = spawn(&inner.runtime, sockets, server)
            .map_err(NetworkError::io("serving a resolver's sockets"))?;
        Ok(Self { serving })
    }
}

enum Opening {
    Socket(io::Error),
    Rules(skep_netlink::NetlinkError),
}

/// Runs in the container's namespace.
fn open(redirect: bool) -> Result<Sockets, Opening> {
    let port = if redirect { 0 } else { DNS };
    let bind = || -> io::Result<Sockets> {
        let udp = std::net::UdpSocket::bind((RESOLVER_ADDRESS, port))?;
        let tcp = std::net::TcpListener::bind((RESOLVER_ADDRESS, port))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Sockets { udp, tcp })
    };
    let sockets = bind().map_err(Opening::Socket)?;
    if redirect {
        let port = |address: io::Result<SocketAddr>| {
            address
                .map(|address| address.port())
                .map_err(Opening::Socket)
        };
        let batch = rules(
            port(sockets.udp.local_addr())?,
            port(sockets.tcp.local_addr())?,
        );
        let applied = NftSocket::open().and_then(|mut socket| socket.apply(batch));
        applied.map_err(Opening::Rules)?;
    }
    Ok(sockets)
}

/// Port 53 of the resolver's address leads to the sockets. Replies are translated back by
/// connection tracking.
fn rules(udp: u16, tcp: u16) -> Batch {
    let mut batch = Batch::new(Family::Ipv4, TABLE);
    batch.add_table().delete_table().add_table();
    let base = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Output,
        priority: -100,
        drop_by_default: false,
    };
    batch.add_chain("output", Some(base));
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        let mut rule = rule::address_in(Side::Destination, IpAddr::V4(RESOLVER_ADDRESS), 32, true);
        let compare = |value: Vec<u8>| Expression::Compare {
            register: Register::FIRST,
            equal: true,
            value,
        };
        rule.extend([
            Expression::Meta {
                key: MetaKey::L4Protocol,
                into: Register::FIRST,
            },
            compare(vec![protocol.number()]),
            Expression::Payload {
                base: Payload::Transport,
                offset: 2,
                length: 2,
                into: Register::FIRST,
            },
            compare(DNS.to_be_bytes().to_vec()),
            Expression::Load {
                value: RESOLVER_ADDRESS.octets().to_vec(),
                into: Register::FIRST,
            },
            Expression::Load {
                value: port.to_be_bytes().to_vec(),
                into: Register::after(1),
            },
            Expression::Nat {
                kind: NatKind::Destination,
                family: Family::Ipv4,
                address: Register::FIRST,
                port: Some(Register::after(1)),
            },
        ]);
        batch.add_rule("output", &rule);
    }
    batch
}

struct Server {
    names: Names,
    inner: Weak<Inner>,
    container_id: String,
    forwarder: Forwarder,
    ndots: u32,
    in_flight: Semaphore,
}

fn spawn(runtime: &Handle, sockets: Sockets, server: Arc<Server>) -> io::Result<JoinHandle<()>> {
    let _inside = runtime.enter();
    let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
    let tcp = TcpListener::from_std(sockets.tcp)?;
    Ok(runtime.spawn(async move {
        tokio::join!(serve_udp(udp, Arc::clone(&server)), serve_tcp(tcp, server));
    }))
}

async fn serve_udp(socket: Arc<UdpSocket>, server: Arc<Server>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut asked = JoinSet::new();
    loop {
        // An error is an earlier reply's refusal; the next question may come.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let query = &buffer[..length];
        match react(query, &server.names, true) {
            Reaction::Ignore => {}
            Reaction::Reply(reply) => {
                let _ = socket.send_to(&reply, client).await;
            }
            Reaction::Forward { name } => {
                let (socket, server, query) = (socket.clone(), server.clone(), query.to_vec());
                asked.spawn(async move {
                    if let Some(reply) = server.forward(&name, &query, true).await {
                        let _ = socket.send_to(&reply, client).await;
                    }
                });
            }
        }
        while asked.try_join_next().is_some() {}
    }
}

async fn serve_tcp(listener: TcpListener, server: Arc<Server>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) if connections.len() < CONNECTIONS => {
                let server = Arc::clone(&server);
                connections.spawn(async move {
                    // A client that hangs up in the middle is no concern of ours.
                    let _ = converse(stream, &server).await;
                });
            }
            Ok(_) => {}
            // Out of file descriptors: connections that end will free some.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        let reply = match react(&query, &server.names, false) {
            Reaction::Ignore => return Ok(()),
            Reaction::Reply(reply) => Some(reply),
            Reaction::Forward { name } => server.forward(&name, &query, false).await,
        };
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&reply).await?;
    }
}

impl Server {
    /// Asks upstream, if that may be.
    async fn forward(&self, name: &str, query: &[u8], datagram: bool) -> Option<Vec<u8>> {
        // As dockerd: with ndots set, a name without dots is the client's to complete.
        if self.ndots > 0 && !name.contains('.') {
            return failed(query, ResponseCode::NXDomain);
        }
        let way_out = self
            .inner
            .upgrade()
            .is_some_and(|inner| inner.has_way_out(&self.container_id));
        let permit = self.in_flight.try_acquire();
        if !way_out || permit.is_err() {
            return failed(query, ResponseCode::ServFail);
        }
        let reply = self.forwarder.ask(query, datagram).await;
        reply.or_else(|| failed(query, ResponseCode::ServFail))
    }
}
