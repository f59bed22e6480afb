//! Asking upstream servers: up to three, one after the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use skep_netlink::Namespace;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Upstream;
use super::message::is_worth_another_server;
use crate::host::Host;

const SERVERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(4);
const DNS: u16 = 53;

/// How questions leave.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) namespace: PathBuf,
    pub(super) host: Arc<Host>,
    pub(super) servers: Vec<Upstream>,
}

impl Forwarder {
    /// The first usable reply; else the last unusable one; `None` if nobody answered.
    pub(super) async fn ask(&self, query: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let mut last = None;
        for server in self.servers.iter().take(SERVERS) {
            let asking = async {
                if datagram {
                    self.ask_udp(*server, query).await
                } else {
                    self.ask_tcp(*server, query).await
                }
            };
            match timeout(PATIENCE, asking).await {
                Ok(Ok(reply)) if !is_worth_another_server(&reply) => return Some(reply),
                Ok(Ok(reply)) => last = Some(reply),
                Ok(Err(error)) => {
                    tracing::debug!(server = %server.address, %error, "a name server could not be asked");
                }
                Err(_) => tracing::debug!(server = %server.address, "a name server did not answer"),
            }
        }
        last
    }

    async fn ask_udp(&self, server: Upstream, query: &[u8]) -> io::Result<Vec<u8>> {
        let target = SocketAddr::new(server.address, DNS);
        let socket = self
            .open(server.from_host, move || {
                let any: IpAddr = if target.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                std::net::UdpSocket::bind((any, 0))
            })
            .await?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        socket.connect(target).await?;
        socket.send(query).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // A socket of its own for each question, and the identifier: what else comes is forged.
            if length >= 12 && buffer.get(..2) == query.get(..2) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    async fn ask_tcp(&self, server: Upstream, query: &[u8]) -> io::Result<Vec<u8>> {
        let target = SocketAddr::new(server.address, DNS);
        let socket = self
            .open(server.from_host, move || {
                if target.is_ipv4() {
                    TcpSocket::new_v4()
                } else {
                    TcpSocket::new_v6()
                }
            })
            .await?;
        let mut stream = socket.connect(target).await?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(query).await?;
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        Ok(reply)
    }

    /// A socket belongs to the namespace it is opened in.
    async fn open<T: Send + 'static>(
        &self,
        from_host: bool,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (host, path) = (Arc::clone(&self.host), self.namespace.clone());
        // Within the runtime: tokio's own sockets ask for it when they are made.
        let runtime = tokio::runtime::Handle::current();
        let opened = spawn_blocking(move || {
            let open = move || {
                let _inside = runtime.enter();
                open()
            };
            if from_host {
                host.call(open)
            } else {
                Namespace::open(&path)?.run(open)
            }
        });
        opened
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?
    }
}
