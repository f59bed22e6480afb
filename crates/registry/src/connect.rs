//! Opens connections: direct or through a proxy, in the clear or with TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::host_name;
use crate::proxy::{Proxy, ProxyConfig};
use crate::tls;

/// Go's, as dockerd sets them.
const DIAL: Duration = Duration::from_secs(30);
const HANDSHAKE: Duration = Duration::from_secs(10);
const PROXY_ANSWER_MAX: usize = 16 << 10;

/// Why there is no connection, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConnectFailure(pub(crate) String);

/// Makes connections for one HTTP client.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) proxy: ProxyConfig,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.open(&uri).await.map(TokioIo::new) })
    }
}

impl Connector {
    async fn open(&self, uri: &Uri) -> Result<Stream, ConnectFailure> {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let name = host_name(host);
        let scheme = if secure { "https" } else { "http" };
        let proxy = self
            .proxy
            .choose(scheme, host, port)
            .map_err(ConnectFailure)?;
        let Some(proxy) = proxy else {
            let socket = dial(name, port).await?;
            return if secure {
                self.handshake(name, socket).await
            } else {
                Ok(Stream::new(Box::new(socket), false))
            };
        };
        let mut socket = dial(&proxy.host, proxy.port)
            .await
            .map_err(|failure| ConnectFailure(format!("proxyconnect tcp: {}", failure.0)))?;
        if !secure {
            return Ok(Stream::new(Box::new(socket), true));
        }
        let target = if name.contains(':') {
            format!("[{name}]:{port}")
        } else {
            format!("{name}:{port}")
        };
        timeout(HANDSHAKE, tunnel(&mut socket, &target, &proxy))
            .await
            .map_err(|_| ConnectFailure("proxyconnect tcp: i/o timeout".to_owned()))??;
        self.handshake(name, socket).await
    }

    async fn handshake(&self, name: &str, socket: TcpStream) -> Result<Stream, ConnectFailure> {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| ConnectFailure(format!("tls: invalid server name {name:?}")))?;
        let connect = TlsConnector::from(self.tls.clone()).connect(server, socket);
        match timeout(HANDSHAKE, connect).await {
            Err(_) => Err(ConnectFailure("net/http: TLS handshake timeout".to_owned())),
            Ok(Err(error)) => Err(ConnectFailure(tls::go_text(&error))),
            Ok(Ok(stream)) => Ok(Stream::new(Box::new(stream), false)),
        }
    }
}

async fn dial(name: &str, port: u16) -> Result<TcpStream, ConnectFailure> {
    let found = timeout(DIAL, tokio::net::lookup_host((name, port))).await;
    let addresses = match found {
        Err(_) => {
            return Err(ConnectFailure(format!(
                "dial tcp: lookup {name}: i/o timeout"
            )));
        }
        Ok(Err(error)) => return Err(ConnectFailure(lookup_text(name, &error))),
        Ok(Ok(addresses)) => addresses,
    };
    let mut last = format!("dial tcp: lookup {name}: no such host");
    for address in addresses {
        match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                // Requests are small and answers are waited for.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Ok(Err(error)) => last = format!("dial tcp {address}: connect: {}", os_text(&error)),
            Err(_) => last = format!("dial tcp {address}: i/o timeout"),
        }
    }
    Err(ConnectFailure(last))
}

/// The resolver's errors have no codes in std; its texts do not change.
fn lookup_text(name: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let reason = if text.contains("Temporary failure") {
        "Temporary failure in name resolution"
    } else {
        "no such host"
    };
    format!("dial tcp: lookup {name}: {reason}")
}

/// `Connection refused (os error 111)` as Go prints it.
pub(crate) fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

async fn tunnel(socket: &mut TcpStream, target: &str, proxy: &Proxy) -> Result<(), ConnectFailure> {
    let failed =
        |error: io::Error| ConnectFailure(format!("proxyconnect tcp: {}", os_text(&error)));
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str("Proxy-Authorization: ");
        request.push_str(authorization);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).await.map_err(failed)?;
    // Byte by byte, so that nothing of what follows the answer is taken.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() > PROXY_ANSWER_MAX {
            return Err(ConnectFailure(
                "proxyconnect tcp: answer too large".to_owned(),
            ));
        }
        answer.push(socket.read_u8().await.map_err(failed)?);
    }
    let first = String::from_utf8_lossy(&answer);
    let status = first
        .lines()
        .next()
        .and_then(|line| line.split_once(' '))
        .map(|(_, status)| status.trim().to_owned())
        .unwrap_or_default();
    if status.starts_with('2') {
        return Ok(());
    }
    let reason = status
        .split_once(' ')
        .map_or(status.as_str(), |(_, text)| text);
    Err(ConnectFailure(reason.to_owned()))
}

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A connection that a request can be sent over.
pub(crate) struct Stream {
    io: Box<dyn Both>,
    /// To a proxy that wants whole addresses in requests.
    proxied: bool,
}

impl Stream {
    fn new(io: Box<dyn Both>, proxied: bool) -> Self {
        Self { io, proxied }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
