//! A netlink socket that sends messages and collects what the kernel says to each.

use std::io;

use libc::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use crate::codec::{Answer, Message, answers, attributes, read_u32, text};
use crate::error::NetlinkError;

const DONE: u16 = libc::NLMSG_DONE as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const RECEIVE: usize = 1 << 16;
const INTERRUPTED: u16 = 0x10;
const ACK_HAS_ATTRIBUTES: u16 = 0x200;
const ERROR_MESSAGE: u16 = 1;

#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
}

/// What the kernel said to one message of a request.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Index of the message in the request; `None` for the request as a whole.
    pub(crate) index: Option<usize>,
    pub(crate) errno: Errno,
    pub(crate) detail: Option<String>,
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Explanations in words with refusals, and no copy of the request in them.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(NetlinkError::io("opening a netlink socket"))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends `messages` as one datagram and returns every refusal.
    ///
    /// The kernel has worked off all of them when `send` returns, and its answers are queued, so
    /// reading until the queue is empty can neither hang nor miss one.
    pub(crate) fn send(
        &mut self,
        operation: &str,
        messages: Vec<Message>,
    ) -> Result<Vec<Refusal>, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            datagram.extend(message.finish(self.sequence));
        }
        let last = self.sequence;
        self.socket
            .send(&datagram, 0)
            .map_err(NetlinkError::io(operation))?;
        let mut refusals = Vec::new();
        let mut acknowledged = false;
        while let Some(received) = self.receive(libc::MSG_DONTWAIT, operation)? {
            for answer in answers(&received).filter(|answer| answer.kind == ERROR) {
                let offset = answer.sequence.wrapping_sub(first);
                if offset > last.wrapping_sub(first) {
                    continue; // An answer to an older request that was given up.
                }
                acknowledged = true;
                if let Some((errno, detail)) = refusal(&answer) {
                    refusals.push(Refusal {
                        index: Some(offset as usize),
                        errno,
                        detail,
                    });
                }
            }
        }
        if acknowledged {
            Ok(refusals)
        } else {
            Err(NetlinkError::Protocol {
                operation: operation.to_owned(),
            })
        }
    }

    /// Sends `messages`, each acknowledged, and fails with the first refusal.
    pub(crate) fn request(
        &mut self,
        operation: &str,
        mut messages: Vec<Message>,
    ) -> Result<(), NetlinkError> {
        for message in &mut messages {
            message.add_flags(NLM_F_REQUEST | NLM_F_ACK);
        }
        match self.send(operation, messages)?.into_iter().next() {
            None => Ok(()),
            Some(Refusal { errno, detail, .. }) => Err(NetlinkError::Refused {
                operation: operation.to_owned(),
                errno,
                detail,
            }),
        }
    }

    /// Asks for one object; `None` if there is no such device.
    pub(crate) fn query(
        &mut self,
        operation: &str,
        mut message: Message,
    ) -> Result<Option<Vec<u8>>, NetlinkError> {
        message.add_flags(NLM_F_REQUEST | NLM_F_ACK);
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.socket
            .send(&message.finish(sequence), 0)
            .map_err(NetlinkError::io(operation))?;
        let mut found = None;
        while let Some(received) = self.receive(libc::MSG_DONTWAIT, operation)? {
            for answer in answers(&received).filter(|answer| answer.sequence == sequence) {
                match (answer.kind, refusal(&answer)) {
                    (ERROR, Some((Errno::ENODEV | Errno::ENOENT, _))) => return Ok(None),
                    (ERROR, Some((errno, detail))) => {
                        let operation = operation.to_owned();
                        return Err(NetlinkError::Refused {
                            operation,
                            errno,
                            detail,
                        });
                    }
                    (ERROR, None) => {}
                    _ => found = Some(answer.body.to_vec()),
                }
            }
        }
        Ok(found)
    }

    /// Asks for a list, and hands each answer's body to `each`.
    pub(crate) fn dump(
        &mut self,
        operation: &str,
        mut message: Message,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        message.add_flags(NLM_F_REQUEST | NLM_F_DUMP);
        // A dump that raced with a change may have holes: the kernel says so, and we ask again.
        for _ in 0..16 {
            let mut bodies = Vec::new();
            if self.dump_once(operation, message.clone(), &mut bodies)? {
                for body in &bodies {
                    each(body);
                }
                return Ok(());
            }
        }
        Err(NetlinkError::Refused {
            operation: operation.to_owned(),
            errno: Errno::EINTR,
            detail: None,
        })
    }

    /// Whether the list is consistent.
    fn dump_once(
        &mut self,
        operation: &str,
        message: Message,
        bodies: &mut Vec<Vec<u8>>,
    ) -> Result<bool, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket
            .send(&message.finish(self.sequence), 0)
            .map_err(NetlinkError::io(operation))?;
        let mut consistent = true;
        loop {
            let Some(received) = self.receive(0, operation)? else {
                return Err(NetlinkError::Protocol {
                    operation: operation.to_owned(),
                });
            };
            for answer in answers(&received).filter(|answer| answer.sequence == self.sequence) {
                consistent &= answer.flags & INTERRUPTED == 0;
                match answer.kind {
                    DONE => return Ok(consistent),
                    ERROR => {
                        if let Some((errno, detail)) = refusal(&answer) {
                            return Err(NetlinkError::Refused {
                                operation: operation.to_owned(),
                                errno,
                                detail,
                            });
                        }
                        return Ok(consistent);
                    }
                    _ => bodies.push(answer.body.to_vec()),
                }
            }
        }
    }

    /// The next datagram; `None` when nothing is queued and the call may not wait.
    fn receive(&self, flags: i32, operation: &str) -> Result<Option<Vec<u8>>, NetlinkError> {
        loop {
            let mut buffer = Vec::with_capacity(RECEIVE);
            match self.socket.recv(&mut buffer, flags) {
                Ok(_) => return Ok(Some(buffer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::io(operation)(error)),
            }
        }
    }
}

/// The error in an acknowledgement; `None` if it says success.
fn refusal(answer: &Answer<'_>) -> Option<(Errno, Option<String>)> {
    let code = read_u32(answer.body, 0)? as i32;
    if code == 0 {
        return None;
    }
    let detail = (answer.flags & ACK_HAS_ATTRIBUTES != 0)
        .then(|| {
            // After the code comes the header of the refused message, alone thanks to CAP_ACK.
            let mut found = attributes(answer.body.get(20..).unwrap_or_default());
            found
                .find(|(kind, _)| *kind == ERROR_MESSAGE)
                .map(|(_, payload)| text(payload))
        })
        .flatten();
    Some((Errno::from_raw(-code), detail))
}
