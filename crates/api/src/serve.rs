//! Accept loops: unix sockets, TCP, TCP with TLS, one hyper connection each.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::takeover::{Io, Takeover};

/// How long connections may go on after the shutdown began: followers of logs and events never
/// end by themselves, and the daemon has to be gone within seconds.
const GRACE: Duration = Duration::from_secs(2);
/// How long a peer may take for the TLS handshake and for a request's head.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Put into every request, for the handlers whose answers are endless.
#[derive(Clone)]
pub(crate) struct Shutdown(pub(crate) CancellationToken);

/// Where clients connect.
pub enum Listener {
    /// A unix socket, already bound, with its mode and group set.
    Unix(UnixListener),
    /// Plain TCP.
    Tcp(TcpListener),
    /// TCP with TLS; client certificates are checked if the configuration says so.
    Tls(TcpListener, Arc<ServerConfig>),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => listener
                .accept()
                .await
                .map(|(io, _)| Accepted::Plain(Box::new(io))),
            Self::Tcp(listener) => {
                let (io, _) = listener.accept().await?;
                io.set_nodelay(true)?;
                Ok(Accepted::Plain(Box::new(io)))
            }
            Self::Tls(listener, config) => {
                let (io, _) = listener.accept().await?;
                io.set_nodelay(true)?;
                Ok(Accepted::Tls(io, TlsAcceptor::from(Arc::clone(config))))
            }
        }
    }
}

enum Accepted {
    Plain(Box<dyn Io>),
    Tls(tokio::net::TcpStream, TlsAcceptor),
}

/// Serves all listeners until the token is cancelled, then lets running requests finish for a
/// moment and closes what is left.
pub async fn serve(listeners: Vec<Listener>, router: Router, shutdown: CancellationToken) {
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept_loop(listener, router.clone(), shutdown.clone()));
    }
    while loops.join_next().await.is_some() {}
}

async fn accept_loop(listener: Listener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(accepted) => {
                    connections.spawn(connection(accepted, router.clone(), shutdown.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: the loop must not spin, nor end.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::debug!("closing connections that did not end by themselves");
    }
}

async fn connection(accepted: Accepted, router: Router, shutdown: CancellationToken) {
    let io: Box<dyn Io> = match accepted {
        Accepted::Plain(io) => io,
        Accepted::Tls(io, acceptor) => {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(io)).await {
                Ok(Ok(io)) => Box::new(io),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return;
                }
                Err(_) => return,
            }
        }
    };
    serve_connection(io, router, shutdown).await;
}

/// One connection, for as many requests as the client makes on it.
pub(crate) async fn serve_connection(io: Box<dyn Io>, router: Router, shutdown: CancellationToken) {
    let takeover = Takeover::new(io);
    let service = service_fn({
        let takeover = takeover.clone();
        let shutdown = Shutdown(shutdown.clone());
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(takeover.clone());
            request.extensions_mut().insert(shutdown.clone());
            let mut router = router.clone();
            async move { Ok::<_, Infallible>(answer(&mut router, request).await) }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .title_case_headers(true)
        .serve_connection(TokioIo::new(takeover), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn answer(router: &mut Router, request: Request<Incoming>) -> axum::response::Response {
    match router.call(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests;
