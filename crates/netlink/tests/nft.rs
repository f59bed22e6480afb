//! What is written is read back with the `nft` program, in a namespace of each test's own.

#![allow(
    clippy::unwrap_used,
    clippy::unnecessary_wraps,
    reason = "a test that cannot go on panics"
)]

use std::process::Command;

use nix::errno::Errno;
use serde_json::{Value, json};
use skep_netlink::nft::rule::{self, Side};
use skep_netlink::nft::{
    BaseChain, Batch, ChainKind, DataType, Element, ElementValue, Expression, Family, Hook, MapsTo,
    MetaKey, NatKind, NftSocket, Register, Set, Verdict, concatenate, interface_name,
};
use skep_netlink::{Namespace, missing_capabilities};

struct Lab {
    namespace: Namespace,
    socket: NftSocket,
}

impl Lab {
    fn new() -> Self {
        let namespace = Namespace::create_unnamed().unwrap();
        let socket = NftSocket::open_in(&namespace).unwrap();
        Self { namespace, socket }
    }

    /// The objects of one kind, as `nft -j` shows them.
    fn read(&self, kind: &str) -> Vec<Value> {
        let output = self
            .namespace
            .run(|| {
                Command::new("nft")
                    .args(["-j", "list", "ruleset"])
                    .output()
                    .unwrap()
            })
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let objects = all["nftables"].as_array().unwrap().iter();
        objects
            .filter_map(|object| object.get(kind).cloned())
            .collect()
    }

    fn rules(&self) -> Vec<Value> {
        self.read("rule")
            .iter()
            .map(|rule| rule["expr"].clone())
            .collect()
    }
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<BaseChain> {
    Some(BaseChain {
        kind,
        hook,
        priority,
        drop_by_default: false,
    })
}

fn inet() -> Batch {
    let mut batch = Batch::new(Family::Ipv4, "test");
    batch.add_table();
    batch
}

#[test]
fn base_chains_have_their_hook_priority_and_policy() {
    let mut lab = Lab::new();
    let mut batch = inet();
    let dropping = BaseChain {
        drop_by_default: true,
        ..base(ChainKind::Filter, Hook::Forward, 5).unwrap()
    };
    batch
        .add_chain("in", base(ChainKind::Nat, Hook::Prerouting, -100))
        .add_chain("over", Some(dropping))
        .add_chain("plain", None);
    lab.socket.apply(batch).unwrap();
    let chains = lab.read("chain");
    assert_eq!(chains[0]["type"], "nat");
    assert_eq!(
        (&chains[0]["hook"], &chains[0]["prio"]),
        (&json!("prerouting"), &json!(-100))
    );
    assert_eq!(
        (&chains[1]["policy"], &chains[1]["prio"]),
        (&json!("drop"), &json!(5))
    );
    assert!(chains[2].get("hook").is_none());
    assert_eq!(
        lab.socket.dropping_chains(Hook::Forward).unwrap(),
        ["ip test over"]
    );
    assert!(lab.socket.dropping_chains(Hook::Input).unwrap().is_empty());
    assert_eq!(lab.socket.tables(Family::Ipv4).unwrap(), ["test"]);
    assert!(lab.socket.tables(Family::Ipv6).unwrap().is_empty());
}

#[test]
fn rules_read_back_as_they_were_meant() {
    let mut lab = Lab::new();
    let mut batch = inet();
    batch.add_chain("post", base(ChainKind::Nat, Hook::Postrouting, 100));
    let outbound = [
        rule::address_in(Side::Source, "172.17.0.0".parse().unwrap(), 12, true),
        rule::output_interface("docker0", false),
        vec![Expression::Counter, Expression::Masquerade],
    ];
    batch.add_rule("post", &outbound.concat());
    let back = [
        rule::address_in(Side::Destination, "10.0.0.7".parse().unwrap(), 32, true),
        rule::is_destination_translated(),
        vec![Expression::Masquerade],
    ];
    batch.add_rule("post", &back.concat());
    batch.add_chain("filter", base(ChainKind::Filter, Hook::Forward, 0));
    for (condition, verdict) in [
        (rule::is_established(), Verdict::Accept),
        (rule::is_invalid(), Verdict::Drop),
        (rule::destination_is_local(), Verdict::Return),
        (
            rule::input_interface("eth0", true),
            Verdict::Jump("other".to_owned()),
        ),
        (vec![], Verdict::Goto("other".to_owned())),
    ] {
        batch.add_chain("other", None);
        batch.add_rule("filter", &[condition, rule::verdict(verdict)].concat());
    }
    lab.socket.apply(batch).unwrap();
    let rules = lab.rules();
    let matches = |op: &str, left: Value, right: Value| json!({"match": {"op": op, "left": left, "right": right}});
    let payload = |field: &str| json!({"payload": {"protocol": "ip", "field": field}});
    assert_eq!(
        rules[0][0],
        matches(
            "==",
            payload("saddr"),
            json!({"prefix": {"addr": "172.16.0.0", "len": 12}})
        )
    );
    assert_eq!(
        rules[0][1],
        matches("!=", json!({"meta": {"key": "oifname"}}), json!("docker0"))
    );
    assert_eq!(rules[0][2], json!({"counter": {"packets": 0, "bytes": 0}}));
    assert_eq!(rules[0][3], json!({"masquerade": null}));
    assert_eq!(
        rules[1][0],
        matches("==", payload("daddr"), json!("10.0.0.7"))
    );
    assert_eq!(
        rules[1][1],
        matches("in", json!({"ct": {"key": "status"}}), json!("dnat"))
    );
    let state = json!({"ct": {"key": "state"}});
    assert_eq!(
        rules[2],
        json!([matches("in", state.clone(), json!(["established", "related"])), {"accept": null}])
    );
    assert_eq!(
        rules[3],
        json!([matches("in", state, json!("invalid")), {"drop": null}])
    );
    let fib = json!({"fib": {"result": "type", "flags": ["daddr"]}});
    assert_eq!(
        rules[4],
        json!([matches("==", fib, json!("local")), {"return": null}])
    );
    assert_eq!(rules[5][1], json!({"jump": {"target": "other"}}));
    assert_eq!(rules[6], json!([{"goto": {"target": "other"}}]));
}

#[test]
fn maps_of_ports_translate_with_address_and_port() {
    let mut lab = Lab::new();
    let mut batch = inet();
    let target: &'static [DataType] = &[DataType::Ipv4Address, DataType::InetService];
    batch
        .add_chain("pre", base(ChainKind::Nat, Hook::Prerouting, -100))
        .add_set(&Set {
            name: "ports".to_owned(),
            key: &[
                DataType::Ipv4Address,
                DataType::InetProtocol,
                DataType::InetService,
            ],
            value: MapsTo::Data(target),
        });
    let element = |port: u16| Element {
        key: concatenate(&[&[10, 0, 0, 1], &[6], &port.to_be_bytes()]),
        value: ElementValue::Data(concatenate(&[&[172, 17, 0, 2], &80_u16.to_be_bytes()])),
    };
    let translate = [
        rule::load_port_key(Family::Ipv4, true),
        rule::translate_by_map(Family::Ipv4, "ports"),
    ];
    batch
        .add_rule("pre", &translate.concat())
        .add_elements("ports", &[element(8080), element(8081)]);
    lab.socket.apply(batch).unwrap();
    let mut change = Batch::new(Family::Ipv4, "test");
    change.delete_elements("ports", &[element(8081)]);
    lab.socket.apply(change).unwrap();
    assert_eq!(
        lab.read("map")[0]["elem"],
        json!([[{"concat": ["10.0.0.1", "tcp", 8080]}, {"concat": ["172.17.0.2", 80]}]])
    );
    let rules = lab.rules();
    assert_eq!(rules[0][0]["dnat"]["addr"]["map"]["data"], "@ports");
    // Adding what is there is no error, removing what is not is one.
    let mut again = Batch::new(Family::Ipv4, "test");
    again.add_elements("ports", &[element(8080)]);
    lab.socket.apply(again).unwrap();
    let mut missing = Batch::new(Family::Ipv4, "test");
    missing.delete_elements("ports", &[element(9)]);
    assert!(lab.socket.apply(missing).unwrap_err().is_missing());
}

#[test]
fn verdict_maps_and_round_robin_maps_make_a_balancer() {
    let mut lab = Lab::new();
    let mut batch = inet();
    batch
        .add_chain("out", base(ChainKind::Nat, Hook::Output, -100))
        .add_chain("web", None)
        .add_set(&Set {
            name: "vips".to_owned(),
            key: &[DataType::Ipv4Address],
            value: MapsTo::Verdict,
        })
        .add_set(&Set {
            name: "web-tasks".to_owned(),
            key: &[DataType::Integer],
            value: MapsTo::Data(&[DataType::Ipv4Address]),
        })
        .add_set(&Set {
            name: "ours".to_owned(),
            key: &[DataType::InterfaceName],
            value: MapsTo::Nothing,
        })
        .add_elements(
            "vips",
            &[Element {
                key: vec![10, 0, 0, 5],
                value: ElementValue::Verdict(Verdict::Goto("web".to_owned())),
            }],
        )
        .add_elements(
            "ours",
            &[Element {
                key: interface_name("eth0").to_vec(),
                value: ElementValue::None,
            }],
        );
    for task in 0..2_u8 {
        batch.add_elements(
            "web-tasks",
            &[Element {
                key: u32::from(task).to_ne_bytes().to_vec(),
                value: ElementValue::Data(vec![10, 0, 0, 10 + task]),
            }],
        );
    }
    let first = Register::FIRST;
    batch.add_rule(
        "out",
        &[
            Expression::Meta {
                key: MetaKey::OutputName,
                into: first,
            },
            Expression::Member {
                set: "ours".to_owned(),
                register: first,
            },
            Expression::Payload {
                base: skep_netlink::nft::Payload::Network,
                offset: 16,
                length: 4,
                into: first,
            },
            Expression::VerdictMap {
                map: "vips".to_owned(),
                register: first,
            },
        ],
    );
    batch.add_rule(
        "web",
        &[
            Expression::RoundRobin {
                modulus: 2,
                into: first,
            },
            Expression::LookUp {
                map: "web-tasks".to_owned(),
                register: first,
                into: first,
            },
            Expression::Nat {
                kind: NatKind::Destination,
                family: Family::Ipv4,
                address: first,
                port: None,
            },
        ],
    );
    lab.socket.apply(batch).unwrap();
    let rules = lab.rules();
    assert_eq!(rules[0][1]["vmap"]["data"], "@vips");
    let map = &rules[1][0]["dnat"]["addr"]["map"];
    assert_eq!(
        map["key"]["numgen"],
        json!({"mode": "inc", "mod": 2, "offset": 0})
    );
}

#[test]
fn a_batch_is_applied_whole_or_not_at_all_and_says_what_was_refused() {
    let mut lab = Lab::new();
    let mut batch = inet();
    batch
        .add_chain("one", None)
        .add_rule("nowhere", &rule::verdict(Verdict::Accept));
    let error = lab.socket.apply(batch).unwrap_err();
    assert_eq!(error.kernel_errno(), Some(Errno::ENOENT));
    let text = error.to_string();
    assert!(
        text.starts_with("nftables: adding a rule to chain nowhere of table test: "),
        "{text}"
    );
    assert!(lab.socket.tables(Family::Ipv4).unwrap().is_empty());
    // The socket is as good as before.
    lab.socket.apply(inet()).unwrap();
    let mut nothing = Batch::new(Family::Ipv4, "absent");
    nothing.delete_table();
    assert!(lab.socket.apply(nothing).unwrap_err().is_missing());
    assert!(lab.socket.apply(Batch::new(Family::Ipv4, "empty")).is_ok());
}

#[test]
fn replacing_a_table_is_one_transaction_and_flushing_empties_it() {
    let mut lab = Lab::new();
    for chain in ["old", "new"] {
        let mut batch = inet();
        batch.delete_table().add_table().add_chain(chain, None);
        batch.add_rule(chain, &rule::verdict(Verdict::Accept));
        lab.socket.apply(batch).unwrap();
    }
    assert_eq!(lab.read("chain").len(), 1);
    assert_eq!(lab.read("chain")[0]["name"], "new");
    let mut flush = Batch::new(Family::Ipv4, "test");
    flush.flush_rules(None);
    lab.socket.apply(flush).unwrap();
    assert!(lab.rules().is_empty());
    let mut remove = Batch::new(Family::Ipv4, "test");
    remove.delete_chain("new").delete_table();
    lab.socket.apply(remove).unwrap();
    assert!(lab.read("table").is_empty());
}

#[test]
fn ten_thousand_elements_go_into_one_batch() {
    let mut lab = Lab::new();
    let mut batch = inet();
    batch.add_set(&Set {
        name: "many".to_owned(),
        key: &[DataType::Ipv4Address],
        value: MapsTo::Nothing,
    });
    let elements: Vec<Element> = (0..10_000_u32)
        .map(|number| Element {
            key: number.to_be_bytes().to_vec(),
            value: ElementValue::None,
        })
        .collect();
    batch.add_elements("many", &elements);
    lab.socket.apply(batch).unwrap();
    assert_eq!(lab.read("set")[0]["elem"].as_array().unwrap().len(), 10_000);
    let mut flush = Batch::new(Family::Ipv4, "test");
    flush.flush_set("many");
    lab.socket.apply(flush).unwrap();
    assert!(lab.read("set")[0].get("elem").is_none());
}

#[test]
fn ipv6_tables_keep_apart_from_ipv4_ones() {
    let mut lab = Lab::new();
    let mut batch = Batch::new(Family::Ipv6, "test");
    batch
        .add_table()
        .add_chain("post", base(ChainKind::Nat, Hook::Postrouting, 100));
    let outbound = rule::address_in(Side::Source, "fd00:1::".parse().unwrap(), 57, true);
    batch.add_rule("post", &[outbound, vec![Expression::Masquerade]].concat());
    lab.socket.apply_all(vec![inet(), batch]).unwrap();
    let prefix = json!({"prefix": {"addr": "fd00:1::", "len": 57}});
    assert_eq!(lab.rules()[0][0]["match"]["right"], prefix);
    assert_eq!(lab.read("table").len(), 2);
}

#[test]
fn this_kernel_has_everything() {
    assert_eq!(missing_capabilities().unwrap(), []);
}
