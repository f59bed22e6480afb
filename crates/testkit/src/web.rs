//! HTTP for tests, by hand: servers that misbehave on purpose, and requests no client would send.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::Context as _;

use crate::Machine;

/// A request as it came, or an answer.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// `GET /v2/ HTTP/1.1`
    pub first: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Message {
    #[must_use]
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// The path with its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// Of an answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.path().parse().unwrap_or(0)
    }

    fn read(stream: &mut BufReader<TcpStream>, bodyless: bool) -> anyhow::Result<Option<Self>> {
        let mut message = Self::default();
        if stream.read_line(&mut message.first)? == 0 {
            return Ok(None);
        }
        message.first.truncate(message.first.trim_end().len());
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            message
                .headers
                .insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        if bodyless {
            return Ok(Some(message));
        }
        if message
            .headers
            .get("transfer-encoding")
            .is_some_and(|value| value == "chunked")
        {
            loop {
                let mut size = String::new();
                stream.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16)?;
                let mut chunk = vec![0; size + 2];
                stream.read_exact(&mut chunk)?;
                message.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = message.headers.get("content-length") {
            message.body = vec![0; length.parse()?];
            stream.read_exact(&mut message.body)?;
        }
        Ok(Some(message))
    }
}

/// Sends one request from inside the machine and reads the whole answer.
pub fn request(
    machine: &Machine,
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Message> {
    let mut stream = machine.connect(address)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.extend([*name, ": ", *value, "\r\n"]);
    }
    head.extend(["content-length: ", &body.len().to_string(), "\r\n\r\n"]);
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    Message::read(&mut BufReader::new(stream), method == "HEAD")?.context("no answer")
}

/// A server of the test's own: `answer` gets each request and writes whatever it likes.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
}

impl Web {
    /// Listens inside the machine until the process ends.
    pub fn start(
        machine: &Machine,
        address: &str,
        answer: impl Fn(&Message, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener: TcpListener = machine.listen(address.parse()?)?;
        let address = listener.local_addr()?;
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || {
                    let Ok(mut writer) = stream.try_clone() else {
                        return;
                    };
                    let mut reader = BufReader::new(stream);
                    while let Ok(Some(request)) = Message::read(&mut reader, false) {
                        if answer(&request, &mut writer).is_err() {
                            let _ = writer.shutdown(std::net::Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { address })
    }

    #[must_use]
    pub fn name(&self) -> String {
        self.address.to_string()
    }
}

/// Writes an ordinary answer.
pub fn answer(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        head.extend([*name, ": ", *value, "\r\n"]);
    }
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    {
        head.extend(["content-length: ", &body.len().to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
