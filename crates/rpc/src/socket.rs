//! Options of the connections between nodes.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Sent and not acknowledged for so long: the other end is gone.
const USER_TIMEOUT_MS: u32 = 10_000;
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Makes a connection notice that the other machine has vanished, and not wait with small messages.
/// A socket that does not take the options works without them.
pub(crate) fn tune(socket: &TcpStream) {
    let set = || {
        sockopt::set_tcp_nodelay(socket, true)?;
        sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT_MS)?;
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "cannot set a connection's options");
    }
}
