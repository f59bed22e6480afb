use super::*;

fn interface(name: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name.into(),
        up: true,
        device: true,
        loopback: false,
        managed: false,
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
    }
}

fn lo() -> Interface {
    Interface {
        loopback: true,
        ..interface("lo", &["127.0.0.1", "::1"])
    }
}

fn ask(listen: &str, advertise: &str, interfaces: &[Interface]) -> Result<Addresses, String> {
    let request = AddressRequest {
        listen,
        advertise,
        ..AddressRequest::default()
    };
    resolve(&request, interfaces).map_err(|error| error.message)
}

#[test]
fn the_only_address_of_the_only_device_is_advertised() {
    let interfaces = [lo(), interface("eth0", &["192.168.1.5", "fe80::1"])];
    assert_eq!(
        ask("0.0.0.0:2377", "", &interfaces),
        Ok(Addresses {
            listen: "0.0.0.0:2377".into(),
            advertise: "192.168.1.5:2377".into(),
            local: "192.168.1.5".parse().unwrap(),
            data_path: None,
        })
    );
}

#[test]
fn two_addresses_of_a_family_cannot_be_chosen_between() {
    let interfaces = [lo(), interface("eth0", &["192.168.1.5", "10.0.0.5"])];
    assert_eq!(
        ask("0.0.0.0:2377", "", &interfaces).unwrap_err(),
        "could not choose an IP address to advertise since this system has multiple addresses on interface eth0 (192.168.1.5 and 10.0.0.5)"
    );
    let interfaces = [
        interface("eth0", &["192.168.1.5"]),
        interface("eth1", &["10.0.0.5"]),
    ];
    assert_eq!(
        ask("0.0.0.0:2377", "", &interfaces).unwrap_err(),
        "could not choose an IP address to advertise since this system has multiple addresses on different interfaces (192.168.1.5 on eth0 and 10.0.0.5 on eth1)"
    );
}

#[test]
fn one_address_of_each_family_means_the_older_one() {
    let interfaces = [interface("eth0", &["2001:db8::5", "192.168.1.5"])];
    assert_eq!(
        ask("0.0.0.0:2377", "", &interfaces).unwrap().advertise,
        "192.168.1.5:2377"
    );
}

#[test]
fn without_a_real_device_a_veth_will_do_but_not_dockers_own_bridge() {
    let veth = Interface {
        device: false,
        ..interface("eth0", &["10.9.0.2"])
    };
    let bridge = Interface {
        device: false,
        managed: true,
        ..interface("docker0", &["172.17.0.1"])
    };
    let interfaces = [lo(), veth, bridge];
    assert_eq!(
        ask("0.0.0.0:2377", "", &interfaces).unwrap().advertise,
        "10.9.0.2:2377"
    );
}

#[test]
fn a_machine_without_addresses_says_so() {
    let down = Interface {
        up: false,
        ..interface("eth0", &["192.168.1.5"])
    };
    assert_eq!(
        ask("0.0.0.0:2377", "", &[lo(), down]).unwrap_err(),
        "could not find the system's IP address"
    );
}

#[test]
fn an_advertise_address_is_an_interface_an_address_or_either_with_a_port() {
    let interfaces = [
        interface("eth0", &["192.168.1.5"]),
        interface("eth1", &["10.0.0.5"]),
    ];
    for (given, expected) in [
        ("eth1", "10.0.0.5:2377"),
        ("eth1:4000", "10.0.0.5:4000"),
        ("10.0.0.5", "10.0.0.5:2377"),
        ("10.0.0.5:4000", "10.0.0.5:4000"),
    ] {
        assert_eq!(
            ask("0.0.0.0:2377", given, &interfaces).unwrap().advertise,
            expected,
            "{given}"
        );
    }
    let v6 = [interface("eth0", &["2001:db8::5"])];
    for (given, expected) in [
        ("2001:db8::5", "[2001:db8::5]:2377"),
        ("[2001:db8::5]:40", "[2001:db8::5]:40"),
    ] {
        assert_eq!(
            ask("[::]:2377", given, &v6).unwrap().advertise,
            expected,
            "{given}"
        );
    }
}

#[test]
fn what_is_neither_an_interface_nor_an_address_is_refused() {
    let interfaces = [interface("eth0", &["192.168.1.5"])];
    for bad in ["0.0.0.0", "nowhere", "0.0.0.0:2377", "eth9:2377"] {
        assert_eq!(
            ask("0.0.0.0:2377", bad, &interfaces).unwrap_err(),
            BAD_ADVERTISE,
            "{bad}"
        );
    }
    assert_eq!(ask("nowhere", "", &interfaces).unwrap_err(), BAD_LISTEN);
    assert_eq!(
        ask("::1", "", &interfaces).unwrap_err(),
        "could not parse listen address ::1"
    );
    assert_eq!(
        ask("", "", &interfaces).unwrap_err(),
        "invalid ListenAddr \"\": invalid empty address"
    );
    let request = AddressRequest {
        listen: "0.0.0.0",
        data_path: "0.0.0.0",
        ..AddressRequest::default()
    };
    assert_eq!(
        resolve(&request, &interfaces).unwrap_err().message,
        BAD_DATA_PATH
    );
}

#[test]
fn an_interface_must_have_one_address_of_a_family() {
    let interfaces = [
        interface("eth0", &["192.168.1.5", "10.0.0.5"]),
        interface("eth1", &[]),
    ];
    assert_eq!(
        ask("0.0.0.0:2377", "eth0", &interfaces).unwrap_err(),
        "interface eth0 has more than one IPv4 address (192.168.1.5 and 10.0.0.5)"
    );
    assert_eq!(
        ask("0.0.0.0:2377", "eth1", &interfaces).unwrap_err(),
        "interface eth1 has no usable IPv4 or IPv6 address"
    );
}

#[test]
fn a_listen_address_may_leave_out_host_or_port() {
    let interfaces = [interface("eth0", &["192.168.1.5"])];
    for (given, expected) in [
        ("0.0.0.0", "0.0.0.0:2377"),
        (":4000", "0.0.0.0:4000"),
        ("eth0", "192.168.1.5:2377"),
        ("eth0:4000", "192.168.1.5:4000"),
        ("tcp://192.168.1.5:4000", "192.168.1.5:4000"),
    ] {
        assert_eq!(
            ask(given, "", &interfaces).unwrap().listen,
            expected,
            "{given}"
        );
    }
}

#[test]
fn behind_nat_the_local_address_is_not_the_advertised_one() {
    let one = [interface("eth0", &["192.168.1.5"])];
    let addresses = ask("0.0.0.0:2377", "203.0.113.9", &one).unwrap();
    assert_eq!(addresses.advertise, "203.0.113.9:2377");
    assert_eq!(addresses.local, "192.168.1.5".parse::<IpAddr>().unwrap());
    let two = [
        interface("eth0", &["192.168.1.5"]),
        interface("eth1", &["10.0.0.5"]),
    ];
    assert_eq!(
        ask("0.0.0.0:2377", "203.0.113.9", &two).unwrap_err(),
        MUST_SPECIFY_LISTEN
    );
    assert!(ask("eth0:2377", "203.0.113.9", &two).is_ok());
}

#[test]
fn the_daemons_default_is_used_when_the_user_says_nothing() {
    let two = [
        interface("eth0", &["192.168.1.5"]),
        interface("eth1", &["10.0.0.5"]),
    ];
    let request = |default| AddressRequest {
        listen: "0.0.0.0:2377",
        default_advertise: default,
        ..AddressRequest::default()
    };
    assert_eq!(
        resolve(&request("eth1"), &two).unwrap().advertise,
        "10.0.0.5:2377"
    );
    assert_eq!(
        resolve(&request("10.0.0.5:2377"), &two)
            .unwrap_err()
            .message,
        BAD_DEFAULT_ADVERTISE
    );
}
