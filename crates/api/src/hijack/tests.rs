use bytes::Bytes;
use futures::stream;
use skep_engine::Frame;
use tokio::io::{DuplexStream, duplex};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::call::{Call, HandlerFuture};
use crate::dispatch::{Identity, router};
use crate::route::{Action, Route};
use crate::serve::serve_connection;

/// A process that gives back on stdout what it gets on stdin, then says "bye" on stderr.
fn cat(tty: bool) -> Attach {
    let (input, output) = duplex(64);
    let echoed = ReaderStream::new(output).map(|chunk| Frame {
        stream: StdStream::Stdout,
        bytes: chunk.unwrap(),
    });
    let bye = Frame {
        stream: StdStream::Stderr,
        bytes: Bytes::from_static(b"bye"),
    };
    Attach {
        tty,
        input: Some(Box::pin(input)),
        output: Box::pin(echoed.chain(stream::iter([bye]))),
    }
}

fn attach(mut call: Call<bool>) -> HandlerFuture {
    Box::pin(async move {
        let hijack = Hijack::new(&call.headers, &mut call.extensions)?;
        Ok(hijack.join(cat(call.state), call.version).await)
    })
}

fn connect(tty: bool) -> DuplexStream {
    let (client, server) = duplex(1024);
    let identity = Identity {
        version: "1".to_owned(),
        experimental: false,
    };
    let route = Route {
        method: "POST",
        path: "/attach",
        since: None,
        action: Action::Works(attach, ""),
    };
    let router = router(tty, identity, vec![route]);
    tokio::spawn(serve_connection(
        Box::new(server),
        router,
        CancellationToken::new(),
    ));
    client
}

async fn read_head(client: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn read_rest(client: &mut DuplexStream) -> Vec<u8> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    rest
}

const UPGRADE: &str = "Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_carries_stdin_and_framed_output_and_then_closes() {
    let mut client = connect(false);
    client
        .write_all(format!("POST /v1.43/attach HTTP/1.1\r\n{UPGRADE}").as_bytes())
        .await
        .unwrap();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: application/vnd.docker.multiplexed-stream\r\n"),
        "{head}"
    );
    assert!(head.contains("Upgrade: tcp\r\n"), "{head}");
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(
        read_rest(&mut client).await,
        b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\x03bye"
    );
}

#[tokio::test]
async fn a_terminal_and_an_old_client_get_a_raw_stream() {
    for (tty, version) in [(true, "1.43"), (false, "1.41")] {
        let mut client = connect(tty);
        client
            .write_all(format!("POST /v{version}/attach HTTP/1.1\r\n{UPGRADE}").as_bytes())
            .await
            .unwrap();
        let head = read_head(&mut client).await;
        assert!(
            head.contains("Content-Type: application/vnd.docker.raw-stream\r\n"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn without_upgrade_the_connection_becomes_raw_after_a_bare_200() {
    let mut client = connect(true);
    client
        .write_all(b"POST /attach HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    let head = read_head(&mut client).await;
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    );
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"hellobye");
}

#[tokio::test]
async fn the_connection_closes_when_the_output_ends_though_stdin_is_open() {
    let mut client = connect(false);
    client
        .write_all(format!("POST /attach HTTP/1.1\r\n{UPGRADE}").as_bytes())
        .await
        .unwrap();
    read_head(&mut client).await;
    // `cat` ends with its input only; the client half-closes and still reads everything.
    client.write_all(b"x").await.unwrap();
    let mut frame = [0; 9];
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x01x");
    client.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"\x02\0\0\0\0\0\0\x03bye");
}

/// Whether `exec` has started its process.
static STARTED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn exec(mut call: Call<()>) -> HandlerFuture {
    Box::pin(async move {
        let hijack = Hijack::new(&call.headers, &mut call.extensions)?;
        let start = async {
            STARTED.store(true, std::sync::atomic::Ordering::SeqCst);
            cat(true)
        };
        Ok(hijack.join_after_head(true, call.version, start).await)
    })
}

#[tokio::test]
async fn nothing_is_started_before_the_whole_head_has_left() {
    // Room for a part of the head only.
    let (mut client, server) = duplex(32);
    let identity = Identity {
        version: "1".to_owned(),
        experimental: false,
    };
    let route = Route {
        method: "POST",
        path: "/exec",
        since: None,
        action: Action::Works(exec, ""),
    };
    let router = router((), identity, vec![route]);
    tokio::spawn(serve_connection(
        Box::new(server),
        router,
        CancellationToken::new(),
    ));
    client
        .write_all(format!("POST /exec HTTP/1.1\r\n{UPGRADE}").as_bytes())
        .await
        .unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'H');
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!STARTED.load(std::sync::atomic::Ordering::SeqCst));
    read_head(&mut client).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"hellobye");
}
