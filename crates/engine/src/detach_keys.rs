//! Leaving a terminal without ending what runs in it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use crate::error::{EngineError, Result};
use crate::types::Input;

/// ctrl-p, ctrl-q.
const DEFAULT: &[u8] = &[16, 17];

/// Docker's notation: single characters and `ctrl-x`, separated by commas. Empty is the default.
pub(crate) fn parse(keys: Option<&str>) -> Result<Vec<u8>> {
    let Some(keys) = keys.filter(|keys| !keys.is_empty()) else {
        return Ok(DEFAULT.to_vec());
    };
    keys.split(',')
        .map(|key| match key.as_bytes() {
            [single] => Ok(*single),
            [b'c', b't', b'r', b'l', b'-', letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
            [b'c', b't', b'r', b'l', b'-', b'@'] => Ok(0),
            [b'c', b't', b'r', b'l', b'-', b'['] => Ok(27),
            [b'c', b't', b'r', b'l', b'-', b'\\'] => Ok(28),
            [b'c', b't', b'r', b'l', b'-', b']'] => Ok(29),
            [b'c', b't', b'r', b'l', b'-', b'^'] => Ok(30),
            [b'c', b't', b'r', b'l', b'-', b'_'] => Ok(31),
            _ => Err(EngineError::invalid(format!("Unknown character: '{key}'"))),
        })
        .collect()
}

/// Finds the keys in what is typed, across writes.
#[derive(Debug)]
struct Matcher {
    keys: Vec<u8>,
    matched: usize,
}

impl Matcher {
    /// What to pass on of the input; true if the keys were complete, and what follows is dropped.
    fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for &byte in input {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (passed, true);
                }
                continue;
            }
            // Held back keys were ordinary input after all.
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0] && self.keys.len() > 1);
            if self.matched == 0 {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

/// An input that watches for the detach keys.
pub(crate) struct Escapable {
    inner: Input,
    matcher: Matcher,
    /// Passed on by the matcher and not written yet.
    pending: Vec<u8>,
    detached: CancellationToken,
}

impl Escapable {
    pub(crate) fn new(inner: Input, keys: Vec<u8>, detached: CancellationToken) -> Self {
        Self {
            inner,
            matcher: Matcher { keys, matched: 0 },
            pending: Vec::new(),
            detached,
        }
    }

    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match self.inner.as_mut().poll_write(context, &self.pending) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.pending.drain(..written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Escapable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.detached.is_cancelled() {
            // What is typed after the keys is nobody's.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match self.poll_pending(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let (passed, complete) = self.matcher.feed(bytes);
        self.pending = passed;
        // Tried at once; what does not fit is written by the next call or flush.
        let tried = self.poll_pending(context);
        if complete {
            self.detached.cancel();
        }
        match tried {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_pending(context) {
            Poll::Ready(Ok(())) => self.inner.as_mut().poll_flush(context),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.detached.is_cancelled() {
            // Leaving is not the end of the process' input.
            return Poll::Ready(Ok(()));
        }
        match self.poll_pending(context) {
            Poll::Ready(Ok(())) => self.inner.as_mut().poll_shutdown(context),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_dockers() {
        assert_eq!(parse(None).unwrap(), [16, 17]);
        assert_eq!(parse(Some("ctrl-a,d")).unwrap(), [1, b'd']);
        assert_eq!(parse(Some("ctrl-@,ctrl-_")).unwrap(), [0, 31]);
        assert_eq!(
            parse(Some("ctrl-1")).unwrap_err().message,
            "Unknown character: 'ctrl-1'"
        );
        assert!(parse(Some("a,,b")).is_err());
    }

    #[test]
    fn keys_are_found_across_writes_and_others_pass() {
        let mut matcher = Matcher {
            keys: vec![16, 17],
            matched: 0,
        };
        assert_eq!(matcher.feed(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(matcher.feed(&[16]), (vec![], false));
        assert_eq!(matcher.feed(b"x"), (vec![16, b'x'], false));
        assert_eq!(matcher.feed(&[16, 16]), (vec![16], false));
        assert_eq!(matcher.feed(&[17, b'y']), (vec![], true));
    }
}
