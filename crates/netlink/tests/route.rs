//! Links, addresses, routes and namespaces, in namespaces of each test's own.

use std::net::{IpAddr, Ipv4Addr};

use skep_netlink::{
    BridgePort, Namespace, NamespaceThread, NewRoute, RouteSocket, VethPair, sysctl,
};

fn pair(peer_namespace: &Namespace, master: Option<u32>) -> VethPair<'_> {
    VethPair {
        name: "veth1234567",
        mtu: 1400,
        master,
        peer_name: "eth0",
        peer_namespace,
        peer_mac: Some([2, 0x42, 10, 0, 0, 2]),
    }
}

#[test]
fn a_veth_pair_appears_on_the_bridge_and_straight_in_the_other_namespace() {
    let (host, container) = (
        Namespace::create_unnamed().unwrap(),
        Namespace::create_unnamed().unwrap(),
    );
    let mut near = RouteSocket::open_in(&host).unwrap();
    let mac = [2, 0x42, 1, 2, 3, 4];
    near.create_bridge("br0", 1400, Some(mac)).unwrap();
    let bridge = near.link("br0").unwrap().unwrap();
    assert_eq!(
        (bridge.kind.as_str(), bridge.mac, bridge.up),
        ("bridge", Some(mac), false)
    );
    near.create_veth(&pair(&container, Some(bridge.index)))
        .unwrap();
    let veth = near.link("veth1234567").unwrap().unwrap();
    assert_eq!(
        (veth.master, veth.up, veth.mtu),
        (Some(bridge.index), true, 1400)
    );
    near.set_bridge_port(
        veth.index,
        BridgePort {
            hairpin: true,
            isolated: true,
        },
    )
    .unwrap();
    let mut far = RouteSocket::open_in(&container).unwrap();
    let eth0 = far.link("eth0").unwrap().unwrap();
    assert_eq!(
        (eth0.mac, eth0.up, eth0.mtu),
        (Some([2, 0x42, 10, 0, 0, 2]), false, 1400)
    );
    assert!(near.link("eth0").unwrap().is_none());
    assert!(
        near.create_veth(&pair(&container, None))
            .unwrap_err()
            .is_present()
    );
    near.delete_link("veth1234567").unwrap();
    assert!(near.delete_link("veth1234567").unwrap_err().is_missing());
    assert!(far.link("eth0").unwrap().is_none());
}

#[test]
fn addresses_and_routes_come_and_go() {
    let namespace = Namespace::create_unnamed().unwrap();
    let mut route = RouteSocket::open_in(&namespace).unwrap();
    route.create_bridge("br0", 1500, None).unwrap();
    let link = route.link("br0").unwrap().unwrap().index;
    route.set_up(link, true).unwrap();
    let (four, six): (IpAddr, IpAddr) = ("10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap());
    route.add_address(link, four, 24).unwrap();
    route.add_address(link, six, 64).unwrap();
    assert!(route.add_address(link, four, 24).unwrap_err().is_present());
    let found: Vec<_> = route
        .addresses()
        .unwrap()
        .into_iter()
        .map(|one| (one.address, one.prefix))
        .collect();
    assert!(
        found.contains(&(four, 24)) && found.contains(&(six, 64)),
        "{found:?}"
    );
    let everything = (Ipv4Addr::UNSPECIFIED.into(), 0);
    let first = NewRoute {
        destination: everything,
        gateway: Some("10.1.2.1".parse().unwrap()),
        link,
    };
    route.replace_route(&first).unwrap();
    let second = NewRoute {
        gateway: Some("10.1.2.2".parse().unwrap()),
        ..first
    };
    route.replace_route(&second).unwrap();
    let defaults: Vec<_> = route
        .routes()
        .unwrap()
        .into_iter()
        .filter(|one| one.destination == everything)
        .collect();
    assert_eq!(defaults.len(), 1);
    assert_eq!(
        (defaults[0].gateway, defaults[0].link),
        (second.gateway, Some(link))
    );
    assert!(
        route
            .routes()
            .unwrap()
            .iter()
            .any(|one| one.destination == ("10.1.2.0".parse().unwrap(), 24))
    );
    route.delete_route(&second).unwrap();
    assert!(route.delete_route(&second).unwrap_err().is_missing());
    route.delete_address(link, four, 24).unwrap();
    route.set_mtu(link, 1300).unwrap();
    route.set_mac(link, [2, 0, 0, 0, 0, 9]).unwrap();
    let changed = route.link("br0").unwrap().unwrap();
    assert_eq!((changed.mtu, changed.mac), (1300, Some([2, 0, 0, 0, 0, 9])));
    let unreachable = NewRoute {
        gateway: Some("192.0.2.1".parse().unwrap()),
        ..first
    };
    let text = route.replace_route(&unreachable).unwrap_err().to_string();
    assert!(
        text.contains("adding a route to 0.0.0.0/0: ") && text.contains("gateway"),
        "{text}"
    );
}

#[test]
fn a_named_namespace_lives_until_its_name_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let before = Namespace::current().unwrap();
    let (namespace, value) = Namespace::create_at(&path, || Ok(7)).unwrap();
    assert_eq!(value, 7);
    assert!(Namespace::open(&path).unwrap().is_same(&namespace).unwrap());
    assert!(
        before.is_same(&Namespace::current().unwrap()).unwrap(),
        "this thread has stayed"
    );
    assert!(!before.is_same(&namespace).unwrap());
    assert!(
        Namespace::create_at(&path, || Ok(())).is_err(),
        "the name is taken"
    );
    assert!(path.exists());
    Namespace::delete_at(&path).unwrap();
    Namespace::delete_at(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_failed_setup_leaves_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ns");
    let failed = Namespace::create_at(&path, || sysctl::set("net/ipv4/no_such_thing", "1"));
    assert!(failed.is_err());
    assert!(!path.exists());
}

#[test]
fn settings_belong_to_the_namespace_they_are_made_in() {
    let namespace = Namespace::create_unnamed().unwrap();
    let other = Namespace::create_unnamed().unwrap();
    namespace
        .run(|| sysctl::set("net/ipv4/ip_forward", "1"))
        .unwrap()
        .unwrap();
    assert_eq!(
        namespace
            .run(|| sysctl::get("net/ipv4/ip_forward"))
            .unwrap()
            .unwrap(),
        "1"
    );
    assert_eq!(
        other
            .run(|| sysctl::get("net/ipv4/ip_forward"))
            .unwrap()
            .unwrap(),
        "0"
    );
}

#[test]
fn a_namespace_thread_outlives_a_panic_in_its_work() {
    let namespace = Namespace::create_unnamed().unwrap();
    let thread = NamespaceThread::start(namespace).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        thread.call(|| panic!("on purpose"))
    }));
    assert!(panicked.is_err());
    let links = thread
        .call(|| RouteSocket::open().unwrap().links().unwrap())
        .unwrap();
    assert!(links.iter().any(|link| link.name == "lo" && !link.up));
}
