//! Numbers from `linux/netfilter/nf_tables.h` and `nfnetlink.h`.

pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const BATCH_BEGIN: u16 = 16;
pub(super) const BATCH_END: u16 = 17;

const fn message(number: u16) -> u16 {
    SUBSYSTEM << 8 | number
}
pub(super) const NEW_TABLE: u16 = message(0);
pub(super) const GET_TABLE: u16 = message(1);
pub(super) const DELETE_TABLE: u16 = message(2);
pub(super) const NEW_CHAIN: u16 = message(3);
pub(super) const GET_CHAIN: u16 = message(4);
pub(super) const DELETE_CHAIN: u16 = message(5);
pub(super) const NEW_RULE: u16 = message(6);
pub(super) const DELETE_RULE: u16 = message(8);
pub(super) const NEW_SET: u16 = message(9);
pub(super) const DELETE_SET: u16 = message(11);
pub(super) const NEW_ELEMENT: u16 = message(12);
pub(super) const DELETE_ELEMENT: u16 = message(14);

pub(super) const LIST_ELEMENT: u16 = 1;

pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
}
pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
}
pub(super) mod hook {
    pub(in super::super) const NUMBER: u16 = 1;
    pub(in super::super) const PRIORITY: u16 = 2;
}
pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
}
pub(super) mod expression {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
}
pub(super) mod set {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LENGTH: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const DATA_LENGTH: u16 = 7;
    pub(in super::super) const DESCRIPTION: u16 = 9;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const FLAG_MAP: u32 = 8;
    pub(in super::super) const FLAG_CONCATENATED: u32 = 0x80;
    pub(in super::super) const DESCRIPTION_CONCAT: u16 = 2;
    pub(in super::super) const FIELD_LENGTH: u16 = 1;
    /// `NFT_DATA_VERDICT`
    pub(in super::super) const VERDICT_TYPE: u32 = 0xffff_ff00;
}
pub(super) mod elements {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const SET: u16 = 2;
    pub(in super::super) const LIST: u16 = 3;
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const VALUE: u16 = 2;
}
pub(super) mod data {
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
}
