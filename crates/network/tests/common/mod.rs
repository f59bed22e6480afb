//! A host of its own for each test: a namespace with an uplink to an `outside` namespace, and a
//! daemon's networks in it. Everything is gone when it is dropped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use skep_netlink::{Namespace, NewRoute, RouteSocket, VethPair};
use skep_network::{
    Endpoint, EndpointRequest, LocalNetworks, NetworkConfig, PortRequest, Protocol,
};
use tempfile::TempDir;

/// A connection or an answer takes longer than this only if it never comes.
pub const PATIENCE: Duration = Duration::from_secs(3);
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

pub struct Lab {
    pub directory: TempDir,
    pub host: Namespace,
    pub outside: Namespace,
}

impl Lab {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Namespace::create_unnamed().unwrap();
        let outside = Namespace::create_unnamed().unwrap();
        host.bind_at(&directory.path().join("host")).unwrap();
        let mut route = RouteSocket::open_in(&host).unwrap();
        route.set_up(1, true).unwrap();
        let pair = VethPair {
            name: "uplink",
            mtu: 1500,
            master: None,
            peer_name: "eth0",
            peer_namespace: &outside,
            peer_mac: None,
        };
        route.create_veth(&pair).unwrap();
        let uplink = route.link("uplink").unwrap().unwrap().index;
        route.add_address(uplink, HOST.into(), 24).unwrap();
        let everything = (Ipv4Addr::UNSPECIFIED.into(), 0);
        let out = NewRoute {
            destination: everything,
            gateway: Some(OUTSIDE.into()),
            link: uplink,
        };
        route.replace_route(&out).unwrap();
        let mut far = RouteSocket::open_in(&outside).unwrap();
        far.set_up(1, true).unwrap();
        let eth0 = far.link("eth0").unwrap().unwrap().index;
        far.add_address(eth0, OUTSIDE.into(), 24).unwrap();
        far.set_up(eth0, true).unwrap();
        Self {
            directory,
            host,
            outside,
        }
    }

    pub fn config(&self) -> NetworkConfig {
        let path = self.directory.path();
        let mut config = NetworkConfig::new(path.join("data"), path.join("exec"));
        config.host_namespace = Some(path.join("host"));
        config
    }

    pub async fn networks(&self) -> LocalNetworks {
        LocalNetworks::open(self.config()).await.unwrap()
    }

    /// Names of the host's interfaces of a kind.
    pub fn links(&self, kind: &str) -> Vec<String> {
        let links = RouteSocket::open_in(&self.host).unwrap().links().unwrap();
        links
            .into_iter()
            .filter(|link| link.kind == kind)
            .map(|link| link.name)
            .collect()
    }

    pub fn ruleset(&self) -> String {
        in_namespace(&self.host, || output("nft", &["list", "ruleset"]))
    }

    /// No interface, namespace or record of any container is left.
    pub fn assert_no_containers(&self) {
        // Interfaces are removed behind the back of whoever waits for the release.
        eventually("the interfaces go", || self.links("veth") == ["uplink"]);
        for directory in ["exec/netns", "exec/network"] {
            let entries = std::fs::read_dir(self.directory.path().join(directory)).unwrap();
            assert_eq!(entries.count(), 0, "{directory} is not empty");
        }
        assert!(
            !self.ruleset().contains("elements = { tcp"),
            "{}",
            self.ruleset()
        );
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let netns = self.directory.path().join("exec/netns");
        for entry in std::fs::read_dir(netns).into_iter().flatten().flatten() {
            let _ = Namespace::delete_at(&entry.path());
        }
        let _ = Namespace::delete_at(&self.directory.path().join("host"));
    }
}

pub fn id(number: u32) -> String {
    format!("{number:064x}").chars().rev().collect()
}

pub fn request(network: &str, name: &str) -> EndpointRequest {
    EndpointRequest {
        network: network.to_owned(),
        container_name: name.to_owned(),
        ..Default::default()
    }
}

pub fn port(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        container_port,
        protocol: Protocol::Tcp,
        host_ip: None,
        host_ports: (host_port, host_port),
    }
}

pub async fn start(networks: &LocalNetworks, number: u32, ports: &[PortRequest]) -> Endpoint {
    let mut wanted = request("bridge", &format!("c{number}"));
    wanted.ports = ports.to_vec();
    networks.connect(&id(number), &wanted).await.unwrap()
}

pub async fn namespace(networks: &LocalNetworks, number: u32) -> Namespace {
    Namespace::open(&networks.sandbox(&id(number)).await.unwrap()).unwrap()
}

pub fn in_namespace<T: Send>(namespace: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    namespace.run(work).unwrap()
}

pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub fn ping(namespace: &Namespace, target: impl Into<IpAddr>) -> bool {
    let target = target.into().to_string();
    in_namespace(namespace, || {
        let pinged = Command::new("busybox")
            .args(["ping", "-c1", "-W2", &target])
            .output()
            .unwrap();
        pinged.status.success()
    })
}

/// A server that tells each client the address it sees it under.
pub struct Server {
    pub address: SocketAddr,
    stop: mpsc::Sender<()>,
}

impl Server {
    pub fn start(namespace: &Namespace, port: u16) -> Self {
        Self::start_on(
            namespace,
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        )
    }

    pub fn start_on(namespace: &Namespace, address: SocketAddr) -> Self {
        let listener = in_namespace(namespace, || TcpListener::bind(address).unwrap());
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = mpsc::channel();
        thread::spawn(move || {
            listener.set_nonblocking(false).unwrap();
            for client in listener.incoming() {
                if stopped.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                    return;
                }
                let mut client = client.unwrap();
                let seen = client.peer_addr().unwrap().ip().to_string();
                let _ = client.write_all(seen.as_bytes());
            }
        });
        Self { address, stop }
    }
}

/// What the server says about us.
pub fn ask(namespace: &Namespace, target: impl Into<IpAddr>, port: u16) -> std::io::Result<String> {
    let target = SocketAddr::new(target.into(), port);
    in_namespace(namespace, || {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// One datagram there and back.
pub fn ask_udp(namespace: &Namespace, target: SocketAddr) -> std::io::Result<String> {
    in_namespace(namespace, || {
        let any: IpAddr = if target.is_ipv4() {
            [0; 4].into()
        } else {
            [0_u8; 16].into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"who am I")?;
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

pub fn serve_udp(namespace: &Namespace, port: u16) {
    let socket = in_namespace(namespace, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(client.ip().to_string().as_bytes(), client);
        }
    });
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

pub fn create(name: &str) -> bollard_stubs::models::NetworkCreateRequest {
    bollard_stubs::models::NetworkCreateRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}
