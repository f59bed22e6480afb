//! Published ports served by copying, where no NAT rule can: from IPv6 to an IPv4 container,
//! `[::1]`, and everything when `--iptables=false`. Tasks of the daemon, not processes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use std::collections::HashMap;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::Protocol;
use crate::host::Host;

/// A client that says nothing for so long is forgotten, as in Docker's proxy.
const UDP_IDLE: Duration = Duration::from_secs(90);
const UDP_DATAGRAM: usize = 65_507;
/// Beyond this many clients a UDP port takes no new ones.
const UDP_CLIENTS: usize = 4096;

/// Serves one port until dropped. Everything of it ends with this future.
pub(crate) async fn serve(
    socket: OwnedFd,
    protocol: Protocol,
    target: SocketAddr,
    host: Arc<Host>,
) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            serve_tcp(TcpListener::from_std(listener)?, target, host).await
        }
        Protocol::Udp => {
            let socket = std::net::UdpSocket::from(socket);
            socket.set_nonblocking(true)?;
            serve_udp(UdpSocket::from_std(socket)?, target, host).await
        }
        // Multi-homed associations cannot be copied; NAT is the only way.
        Protocol::Sctp => Ok(()),
    }
}

async fn serve_tcp(listener: TcpListener, target: SocketAddr, host: Arc<Host>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let host = Arc::clone(&host);
                connections.spawn(async move {
                    if let Err(error) = copy(client, target, host).await {
                        tracing::debug!(%target, %error, "proxied connection ended");
                    }
                });
            }
            // Out of file descriptors: connections that end will free some.
            Err(error) => {
                tracing::debug!(%target, %error, "could not accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn copy(mut client: TcpStream, target: SocketAddr, host: Arc<Host>) -> io::Result<()> {
    let socket = in_host(host, move || {
        if target.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
    })
    .await?;
    let mut server = socket.connect(target).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn serve_udp(socket: UdpSocket, target: SocketAddr, host: Arc<Host>) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut replies: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; UDP_DATAGRAM];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else { continue };
                let server = match clients.get(&client) {
                    Some(server) => Arc::clone(server),
                    None if clients.len() >= UDP_CLIENTS => continue,
                    None => match connect_udp(target, Arc::clone(&host)).await {
                        Ok(server) => {
                            let server = Arc::new(server);
                            clients.insert(client, Arc::clone(&server));
                            replies.spawn(reply(Arc::clone(&socket), Arc::clone(&server), client));
                            server
                        }
                        Err(error) => {
                            tracing::debug!(%target, %error, "could not reach a container");
                            continue;
                        }
                    },
                };
                // A refused datagram is the protocol's own affair.
                let _ = server.send(&buffer[..length]).await;
            }
            Some(ended) = replies.join_next() => {
                if let Ok(client) = ended {
                    clients.remove(&client);
                }
            }
        }
    }
}

/// Carries answers back until there are none for a while.
async fn reply(socket: Arc<UdpSocket>, server: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut buffer = vec![0; UDP_DATAGRAM];
    while let Ok(received) = timeout(UDP_IDLE, server.recv(&mut buffer)).await {
        // An error is an earlier datagram's refusal; the next one may arrive.
        if let Ok(length) = received {
            let _ = socket.send_to(&buffer[..length], client).await;
        }
    }
    client
}

async fn connect_udp(target: SocketAddr, host: Arc<Host>) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let socket = in_host(host, move || std::net::UdpSocket::bind((any, 0))).await?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(target).await?;
    Ok(socket)
}

/// A socket belongs to the namespace it is opened in.
async fn in_host<T: Send + 'static>(
    host: Arc<Host>,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let opened = spawn_blocking(move || host.call(open))
        .await
        .map_err(io::Error::other)?;
    opened.map_err(io::Error::other)?
}
