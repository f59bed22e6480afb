use axum::routing::get;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;

async fn ask(io: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> String {
    io.write_all(b"GET /hello HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

fn app() -> Router {
    Router::new().route("/hello", get(async || "hello")).route(
        "/forever",
        get(async || {
            Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, Infallible>>())
        }),
    )
}

#[tokio::test]
async fn unix_and_tcp_clients_are_served_until_the_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(serve(
        vec![Listener::Unix(unix), Listener::Tcp(tcp)],
        app(),
        shutdown.clone(),
    ));

    let answer = ask(&mut UnixStream::connect(&path).await.unwrap()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"),
        "{answer}"
    );
    let answer = ask(&mut TcpStream::connect(address).await.unwrap()).await;
    assert!(answer.ends_with("hello"), "{answer}");

    shutdown.cancel();
    served.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_leaves_does_not_hold_up_the_shutdown() {
    let shutdown = CancellationToken::new();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let served = tokio::spawn(serve(vec![Listener::Tcp(tcp)], app(), shutdown.clone()));
    let mut follower = TcpStream::connect(address).await.unwrap();
    follower
        .write_all(b"GET /forever HTTP/1.1\r\nHost: d\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 15];
    follower.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .expect("it ends by itself")
        .unwrap();
}

#[tokio::test]
async fn a_stream_is_dropped_when_its_client_goes_away() {
    let dropped = CancellationToken::new();
    let guard = Arc::new(std::sync::Mutex::new(Some(dropped.clone().drop_guard())));
    let app = Router::new().route(
        "/follow",
        get(move || {
            let guard = guard.lock().unwrap().take();
            async move {
                let endless = futures::stream::pending::<Result<bytes::Bytes, Infallible>>();
                Body::from_stream(endless.map(move |item| {
                    let _held = &guard;
                    item
                }))
            }
        }),
    );
    let (mut client, server) = tokio::io::duplex(1024);
    tokio::spawn(serve_connection(
        Box::new(server),
        app,
        CancellationToken::new(),
    ));
    client
        .write_all(b"GET /follow HTTP/1.1\r\nHost: d\r\n\r\n")
        .await
        .unwrap();
    client.read_u8().await.unwrap();
    drop(client);
    dropped.cancelled().await;
}
