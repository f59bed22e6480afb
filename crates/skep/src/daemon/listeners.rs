//! The sockets the API listens on: `unix://`, `tcp://` (with TLS when asked) and `fd://` for
//! systemd's socket activation.

use std::fs::Permissions;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::settings::Settings;

/// dockerd's default, so that containers that mount it find it.
pub(crate) const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const DEFAULT_TCP_PORT: u16 = 2375;
const DEFAULT_TLS_PORT: u16 = 2376;
/// systemd hands its sockets over from this descriptor on.
const FIRST_ACTIVATED_FD: i32 = 3;

/// A bound socket, ready to accept.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp {
        socket: std::net::TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
    },
}

/// What `--host` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    Unix(PathBuf),
    Tcp(String),
    Activated(String),
}

/// All listeners, and the socket files to remove when the daemon ends.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) sockets: Vec<Listener>,
    files: Vec<PathBuf>,
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for file in &self.files {
            if let Err(error) = std::fs::remove_file(file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %file.display(), %error, "can not remove the API socket");
            }
        }
    }
}

/// Binds every `--host`; none given means the default socket.
pub(crate) fn bind(settings: &Settings) -> anyhow::Result<Listeners> {
    let tls = tls_config(settings)?;
    let mut hosts = settings.list("host");
    if hosts.is_empty() {
        hosts.push(format!("unix://{DEFAULT_SOCKET}"));
    }
    let mut listeners = Listeners::default();
    for host in hosts {
        match parse(&host, tls.is_some())? {
            Host::Unix(path) => {
                listeners
                    .sockets
                    .push(Listener::Unix(bind_unix(&path, &settings.text("group"))?));
                listeners.files.push(path);
            }
            Host::Tcp(address) => bind_tcp(&host, &address, tls.as_ref(), &mut listeners)?,
            Host::Activated(which) => {
                for fd in activated(&which)? {
                    listeners.sockets.push(from_fd(fd, tls.as_ref())?);
                }
            }
        }
    }
    Ok(listeners)
}

fn parse(host: &str, tls: bool) -> anyhow::Result<Host> {
    let port = if tls {
        DEFAULT_TLS_PORT
    } else {
        DEFAULT_TCP_PORT
    };
    let (scheme, rest) = host.split_once("://").unwrap_or(("tcp", host));
    Ok(match scheme {
        "unix" if rest.is_empty() => Host::Unix(PathBuf::from(DEFAULT_SOCKET)),
        "unix" => Host::Unix(PathBuf::from(rest)),
        "fd" => Host::Activated(rest.to_owned()),
        "tcp" => {
            let rest = rest.trim_end_matches('/');
            let (name, given) = match rest.rsplit_once(':') {
                Some((name, digits)) if !digits.ends_with(']') => {
                    let given = if digits.is_empty() {
                        port
                    } else {
                        digits.parse().with_context(|| {
                            format!("invalid bind address ({host}): invalid port: {digits}")
                        })?
                    };
                    (name, given)
                }
                _ => (rest, port),
            };
            let name = if name.is_empty() { "localhost" } else { name };
            Host::Tcp(format!("{name}:{given}"))
        }
        _ => bail!("invalid bind address format: {host}"),
    })
}

fn bind_unix(path: &Path, group: &str) -> anyhow::Result<UnixListener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            bail!(
                "can't create unix socket {}: a file of that name is in the way",
                path.display()
            );
        }
        if UnixStream::connect(path).is_ok() {
            bail!(
                "another daemon already answers on {path}: stop it, or give this one a socket of its \
                 own with --host unix:///path/to.sock (and its own --data-root, --exec-root and --pidfile)",
                path = path.display()
            );
        }
        std::fs::remove_file(path)
            .with_context(|| format!("can't remove the stale socket {}", path.display()))?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // The socket must not be open to others between its creation and its chmod.
    let previous = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    let bound = UnixListener::bind(path);
    rustix::process::umask(previous);
    let socket = bound.with_context(|| format!("can't create unix socket {}", path.display()))?;
    if let Some(gid) = group_id(group)? {
        std::os::unix::fs::chown(path, None, Some(gid))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok(socket)
}

/// The group's id. The default group need not exist; one that was asked for by number always does.
fn group_id(group: &str) -> anyhow::Result<Option<u32>> {
    if let Ok(gid) = group.parse() {
        return Ok(Some(gid));
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    });
    if found.is_none() && group != "docker" && !group.is_empty() {
        bail!("group {group} not found");
    }
    if found.is_none() {
        tracing::warn!(
            group,
            "the group of the API socket does not exist: only root can use it"
        );
    }
    Ok(found)
}

fn bind_tcp(
    host: &str,
    address: &str,
    tls: Option<&Arc<rustls::ServerConfig>>,
    listeners: &mut Listeners,
) -> anyhow::Result<()> {
    if tls.is_none() {
        tracing::warn!(
            host,
            "the API is open without TLS: whoever reaches this address is root on this machine"
        );
    }
    let addresses: Vec<SocketAddr> = address
        .to_socket_addrs()
        .with_context(|| format!("can't resolve {address}"))?
        .collect();
    // `localhost` may mean 127.0.0.1 and ::1; dockerd binds the first that works.
    let socket = std::net::TcpListener::bind(addresses.as_slice())
        .with_context(|| format!("listen tcp {address}"))?;
    listeners.sockets.push(Listener::Tcp {
        socket,
        tls: tls.cloned(),
    });
    Ok(())
}

fn activated(which: &str) -> anyhow::Result<Vec<OwnedFd>> {
    let ours = std::env::var("LISTEN_PID")
        .ok()
        .and_then(|pid| pid.parse().ok())
        == Some(std::process::id());
    let count: i32 = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    if !ours || count == 0 {
        bail!(
            "no sockets found via socket activation: make sure the service was started by systemd"
        );
    }
    let chosen = match which {
        "" | "*" => FIRST_ACTIVATED_FD..FIRST_ACTIVATED_FD + count,
        number => {
            let fd: i32 = number
                .parse()
                .with_context(|| format!("invalid descriptor fd://{number}"))?;
            if !(FIRST_ACTIVATED_FD..FIRST_ACTIVATED_FD + count).contains(&fd) {
                bail!("failed to match fd://{number} with an activated socket");
            }
            fd..fd + 1
        }
    };
    Ok(chosen
        .map(|fd| {
            #[expect(
                unsafe_code,
                reason = "descriptors handed over by systemd arrive as numbers"
            )]
            // SAFETY: LISTEN_PID names this process, so systemd gave it these descriptors and
            // nothing else owns them; each is taken once, at start.
            unsafe {
                OwnedFd::from_raw_fd(fd)
            }
        })
        .collect())
}

fn from_fd(fd: OwnedFd, tls: Option<&Arc<rustls::ServerConfig>>) -> anyhow::Result<Listener> {
    match rustix::net::sockopt::socket_domain(&fd)? {
        rustix::net::AddressFamily::UNIX => Ok(Listener::Unix(UnixListener::from(fd))),
        _ => Ok(Listener::Tcp {
            socket: fd.into(),
            tls: tls.cloned(),
        }),
    }
}

/// `--tls` encrypts; `--tlsverify` also demands a client certificate of `--tlscacert`.
fn tls_config(settings: &Settings) -> anyhow::Result<Option<Arc<rustls::ServerConfig>>> {
    let verify = settings.bool("tlsverify");
    if !(verify || settings.bool("tls")) {
        return Ok(None);
    }
    let directory = std::env::var_os("DOCKER_CERT_PATH").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
        PathBuf::from,
    );
    let file = |option: &'static str, default: &str| {
        settings
            .optional(option)
            .map_or_else(|| directory.join(default), PathBuf::from)
    };
    let (certificate, key) = (file("tlscert", "cert.pem"), file("tlskey", "key.pem"));
    let chain = certificates(&certificate)?;
    let key_bytes = std::fs::read(&key)
        .with_context(|| format!("could not read the TLS key {}", key.display()))?;
    let private = rustls_pemfile::private_key(&mut key_bytes.as_slice())?
        .with_context(|| format!("no private key in {}", key.display()))?;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if verify {
        let authority = file("tlscacert", "ca.pem");
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&authority)? {
            roots.add(certificate)?;
        }
        builder.with_client_cert_verifier(
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()?,
        )
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .with_context(|| format!("invalid TLS configuration: {}", certificate.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<rustls::pki_types::CertificateDer<'static>>> {
    let bytes = std::fs::read(path).with_context(|| {
        format!(
            "could not load X509 key pair: can't read {}",
            path.display()
        )
    })?;
    let found = rustls_pemfile::certs(&mut bytes.as_slice()).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        bail!("no certificate in {}", path.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        parse(text, false).unwrap()
    }

    #[test]
    fn hosts_take_dockers_forms() {
        assert_eq!(host("unix://"), Host::Unix(DEFAULT_SOCKET.into()));
        assert_eq!(host("unix:///run/x.sock"), Host::Unix("/run/x.sock".into()));
        assert_eq!(host("tcp://"), Host::Tcp("localhost:2375".into()));
        assert_eq!(host("tcp://0.0.0.0:99"), Host::Tcp("0.0.0.0:99".into()));
        assert_eq!(host("tcp://[::1]:99"), Host::Tcp("[::1]:99".into()));
        assert_eq!(host("tcp://[::1]"), Host::Tcp("[::1]:2375".into()));
        assert_eq!(host("127.0.0.1:1234"), Host::Tcp("127.0.0.1:1234".into()));
        assert_eq!(host("fd://"), Host::Activated(String::new()));
        assert_eq!(
            parse("tcp://", true).unwrap(),
            Host::Tcp("localhost:2376".into())
        );
        assert!(parse("ftp://x", false).is_err());
        assert!(parse("tcp://x:port", false).is_err());
    }

    #[test]
    fn a_socket_that_nobody_answers_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let first = bind_unix(&path, "docker").unwrap();
        let error = bind_unix(&path, "docker").unwrap_err().to_string();
        assert!(error.contains("--host"), "{error}");
        drop(first);
        let _second = bind_unix(&path, "docker").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    }

    #[test]
    fn an_unknown_group_that_was_asked_for_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = bind_unix(&dir.path().join("s"), "no-such-group")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "group no-such-group not found");
    }
}
