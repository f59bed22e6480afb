use super::*;
use prost::Message as _;

/// The bytes etcd's generated code writes for this message: proto2 with every scalar present.
const ETCD_APPEND: &[u8] = &[
    0x08, 3, // type MsgApp
    0x10, 2, // to
    0x18, 1, // from
    0x20, 5, // term
    0x28, 4, // log term
    0x30, 9, // index
    0x3a, 11, 0x08, 0, 0x10, 5, 0x18, 10, 0x22, 3, b'a', b'b', b'c', // a normal entry
    0x3a, 8, 0x08, 1, 0x10, 5, 0x18, 11, 0x22, 0, // a configuration change
    0x40, 8, // commit
    0x4a, 8, 0x12, 6, 0x0a, 0, 0x10, 0, 0x18, 0, // the empty snapshot that etcd always writes
    0x50, 0, // reject
    0x58, 0, // reject hint
];

fn append() -> etcd::Message {
    etcd::Message::decode(ETCD_APPEND).unwrap()
}

#[test]
fn reads_the_bytes_of_an_etcd_append() {
    let message = message_from_wire(append()).unwrap();
    assert_eq!(message.get_msg_type(), tikv::MessageType::MsgAppend);
    assert_eq!((message.to, message.from, message.term), (2, 1, 5));
    assert_eq!((message.log_term, message.index, message.commit), (4, 9, 8));
    assert_eq!(message.entries.len(), 2);
    assert_eq!((message.entries[0].term, message.entries[0].index), (5, 10));
    assert_eq!(&message.entries[0].data[..], b"abc");
    assert_eq!(
        message.entries[1].get_entry_type(),
        tikv::EntryType::EntryConfChange
    );
    // raft takes a message with a snapshot of index 0 for one with a snapshot: there must be none.
    assert!(message.snapshot.is_none());
}

#[test]
fn writes_what_it_read() {
    let message = message_from_wire(append()).unwrap();
    let again = message_to_wire(message).unwrap();
    let expected = etcd::Message {
        snapshot: None,
        ..append()
    };
    assert_eq!(again, expected);
    // Zeros are left out, which etcd reads as zeros.
    let bytes: &[u8] = &[
        0x08, 3, 0x10, 2, 0x18, 1, 0x20, 5, 0x28, 4, 0x30, 9, //
        0x3a, 9, 0x10, 5, 0x18, 10, 0x22, 3, b'a', b'b', b'c', //
        0x3a, 6, 0x08, 1, 0x10, 5, 0x18, 11, //
        0x40, 8,
    ];
    assert_eq!(again.encode_to_vec(), bytes);
}

#[test]
fn carries_a_snapshot_with_its_members_unpacked() {
    let snapshot = etcd::Snapshot {
        data: b"state".to_vec(),
        metadata: Some(etcd::SnapshotMetadata {
            conf_state: Some(etcd::ConfState {
                voters: vec![1, 2, 3],
                ..Default::default()
            }),
            index: 100,
            term: 7,
        }),
    };
    let message = etcd::Message {
        r#type: etcd::MessageType::MsgSnap.into(),
        to: 2,
        from: 1,
        term: 7,
        snapshot: Some(snapshot),
        ..Default::default()
    };
    let core = message_from_wire(message.clone()).unwrap();
    assert_eq!(
        core.get_snapshot().get_metadata().get_conf_state().voters,
        [1, 2, 3]
    );
    assert_eq!(message_to_wire(core).unwrap(), message);
    let voters: &[u8] = &[0x08, 1, 0x08, 2, 0x08, 3];
    assert!(
        message
            .encode_to_vec()
            .windows(voters.len())
            .any(|window| window == voters)
    );
}

#[test]
fn every_field_of_an_answer_crosses_both_ways() {
    let message = etcd::Message {
        r#type: etcd::MessageType::MsgAppResp.into(),
        to: 1,
        from: 2,
        term: 3,
        log_term: 4,
        index: 5,
        commit: 6,
        reject: true,
        reject_hint: 8,
        context: b"ctx".to_vec(),
        ..Default::default()
    };
    let core = message_from_wire(message.clone()).unwrap();
    assert_eq!(message_to_wire(core).unwrap(), message);
}

#[test]
fn fields_that_only_tikv_has_do_not_leave() {
    let mut core = tikv::Message::default();
    core.set_msg_type(tikv::MessageType::MsgRequestVote);
    core.commit_term = 9;
    core.priority = 3;
    core.deprecated_priority = 3;
    core.request_snapshot = 4;
    let wire = message_to_wire(core).unwrap();
    assert_eq!(wire.encode_to_vec(), [0x08, 5]);
}

#[test]
fn what_only_a_node_may_tell_itself_is_refused_from_peers() {
    use etcd::MessageType as E;
    for kind in [
        E::MsgHup,
        E::MsgBeat,
        E::MsgProp,
        E::MsgUnreachable,
        E::MsgSnapStatus,
        E::MsgCheckQuorum,
        E::MsgStorageAppend,
        E::MsgStorageApplyResp,
        E::MsgForgetLeader,
    ] {
        let message = etcd::Message {
            r#type: kind.into(),
            ..Default::default()
        };
        message_from_wire(message).unwrap_err();
    }
    let unknown = etcd::Message {
        r#type: 99,
        ..Default::default()
    };
    assert_eq!(
        message_from_wire(unknown).unwrap_err().to_string(),
        "raft message type 99 is not accepted from a peer"
    );
}

#[test]
fn message_types_keep_their_numbers() {
    for number in 0..=18 {
        if let Ok(core) = type_from_wire(number) {
            assert_eq!(core as i32, number);
            assert_eq!(i32::from(type_to_wire(core).unwrap()), number);
        }
    }
}

#[test]
fn an_address_update_is_not_taken_for_a_learner() {
    let change = |kind: etcd::ConfChangeType| etcd::ConfChange {
        r#type: kind.into(),
        node_id: 3,
        id: 8,
        context: vec![],
    };
    use etcd::ConfChangeType as E;
    assert_eq!(
        conf_change_from_wire(&change(E::ConfChangeUpdateNode)),
        Ok(None)
    );
    assert_eq!(
        conf_change_from_wire(&change(E::ConfChangeAddLearnerNode)),
        Err(3)
    );
    let add = conf_change_from_wire(&change(E::ConfChangeAddNode))
        .unwrap()
        .unwrap();
    assert_eq!(add.get_change_type(), tikv::ConfChangeType::AddNode);
    assert_eq!((add.node_id, add.id), (3, 8));
    let remove = conf_change_from_wire(&change(E::ConfChangeRemoveNode))
        .unwrap()
        .unwrap();
    assert_eq!(remove.get_change_type(), tikv::ConfChangeType::RemoveNode);
}
