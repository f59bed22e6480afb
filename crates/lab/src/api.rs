//! The few calls of the Engine API that putting a swarm together needs.
//!
//! HTTP/1.0 on purpose: the answer ends where the connection ends, so nothing has to be framed.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::LabError;

/// A join may have to wait for a manager that votes.
const BOUND: Duration = Duration::from_secs(60);
const PING_BOUND: Duration = Duration::from_secs(2);

/// One daemon, spoken to over its socket.
#[derive(Debug, Clone)]
pub struct Api {
    node: String,
    socket: PathBuf,
}

impl Api {
    #[must_use]
    pub fn new(node: &str, socket: &Path) -> Self {
        Self {
            node: node.to_owned(),
            socket: socket.to_owned(),
        }
    }

    /// Whether the daemon serves requests.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.exchange("GET", "/_ping", Body::json(""), PING_BOUND)
            .is_ok_and(|(status, _)| status == 200)
    }

    /// A request that must succeed; `what` completes "could not …".
    pub fn call(
        &self,
        what: &'static str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, LabError> {
        let refused = |message| self.refused(what, message);
        let body = body.map(Value::to_string).unwrap_or_default();
        let body = Body::json(&body);
        let (status, answer) = self
            .exchange(method, path, body, BOUND)
            .map_err(|error| refused(error.to_string()))?;
        if (200..300).contains(&status) {
            return Ok(serde_json::from_str(&answer).unwrap_or(Value::Null));
        }
        let message = serde_json::from_str(&answer)
            .ok()
            .and_then(|answer: Value| Some(answer["message"].as_str()?.to_owned()));
        Err(refused(message.unwrap_or(answer)))
    }

    /// Loads a tarball of images.
    pub fn load(&self, tarball: &Path) -> Result<(), LabError> {
        let open = || -> std::io::Result<Body<File>> {
            let content = File::open(tarball)?;
            Ok(Body {
                kind: "application/x-tar",
                length: content.metadata()?.len(),
                content,
            })
        };
        let body = open().map_err(LabError::io(format!("read {}", tarball.display())))?;
        let refused = |message| self.refused("load an image", message);
        let (status, answer) = self
            .exchange("POST", "/images/load?quiet=1", body, BOUND)
            .map_err(|error| refused(error.to_string()))?;
        // A failure half-way comes as a line of the stream, below a good status.
        if status != 200 || answer.contains("\"error\"") {
            return Err(refused(answer));
        }
        Ok(())
    }

    fn refused(&self, what: &'static str, message: String) -> LabError {
        LabError::Refused {
            node: self.node.clone(),
            what,
            message,
        }
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        mut body: Body<impl Read>,
        bound: Duration,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.kind, body.length
        )?;
        std::io::copy(&mut body.content, &mut stream)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer is no HTTP")
        })
    }
}

/// What is sent with a request.
struct Body<T> {
    kind: &'static str,
    length: u64,
    content: T,
}

impl<'a> Body<&'a [u8]> {
    fn json(text: &'a str) -> Self {
        Self {
            kind: "application/json",
            length: text.len() as u64,
            content: text.as_bytes(),
        }
    }
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_and_body() {
        let (status, body) = parse("HTTP/1.0 503 Oh\r\nA: b\r\n\r\n{\"message\":\"no\"}").unwrap();
        assert_eq!((status, body.as_str()), (503, "{\"message\":\"no\"}"));
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_daemon_that_is_not_there_does_not_answer() {
        let api = Api::new("m1", Path::new("/does/not/exist"));
        assert!(!api.answers());
        let error = api.call("join", "GET", "/swarm", None).unwrap_err();
        assert!(
            error.to_string().starts_with("m1 could not join: "),
            "{error}"
        );
    }
}
