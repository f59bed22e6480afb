//! Whole Ethernet frames of one interface, in and out, below any protocol.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket};

use crate::error::NetlinkError;

/// Not in libc for every target.
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const BUFFER: usize = 8 << 20;

/// A packet socket bound to an interface, for carrying what arrives there to somewhere else.
///
/// Each frame is preceded by a `virtio_net_hdr`, which says what the kernel has left undone
/// (checksums, cutting into segments). Passed on unread to another such socket, it costs nothing and
/// keeps frames right that a plain packet socket would deliver with wrong checksums.
#[derive(Debug)]
pub struct PacketSocket {
    file: File,
}

impl PacketSocket {
    /// The longest frame with its header.
    pub const LONGEST: usize = 68 * 1024;

    /// Opens it on interface `link` of the calling thread's namespace.
    pub fn open(link: u32) -> Result<Self, NetlinkError> {
        let what = || format!("opening a packet socket on interface {link}");
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )
        .map_err(NetlinkError::errno(what()))?;
        set(&socket, PACKET_VNET_HDR).map_err(NetlinkError::io(what()))?;
        set(&socket, PACKET_IGNORE_OUTGOING).map_err(NetlinkError::io(what()))?;
        bind(&socket, link).map_err(NetlinkError::io(what()))?;
        // Best effort: the defaults lose frames of a burst, which the network may do.
        let _ = setsockopt(&socket, RcvBufForce, &BUFFER);
        let _ = setsockopt(&socket, SndBufForce, &BUFFER);
        Ok(Self {
            file: File::from(socket),
        })
    }

    /// The next frame with its header; `WouldBlock` if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Sends a frame that another socket received.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(drop)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn set(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    #[expect(unsafe_code, reason = "no safe wrapper knows packet sockets' options")]
    // SAFETY: the pointer and length are those of a local that outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn bind(socket: &OwnedFd, link: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: link as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    #[expect(unsafe_code, reason = "no safe wrapper builds a link-layer address")]
    // SAFETY: the pointer and length are those of a local that outlives the call.
    let outcome = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
