//! Batches: many changes, applied as a whole or not at all.

use libc::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::constants as c;
use super::{
    BaseChain, ChainKind, DataType, Element, ElementValue, Expression, Family, Hook, MapsTo, Set,
};
use crate::Namespace;
use crate::codec::{Message, attributes, text};
use crate::error::NetlinkError;
use crate::socket::NetlinkSocket;

/// Elements per message: a list's length is 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// Changes to one family's tables, in order.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<(String, Message)>,
    sets: u32,
}

impl Batch {
    /// Changes to `table`, which need not exist yet.
    pub fn new(family: Family, table: &str) -> Self {
        Self {
            family,
            table: table.to_owned(),
            messages: Vec::new(),
            sets: 0,
        }
    }

    /// Makes the table if it is not there.
    pub fn add_table(&mut self) -> &mut Self {
        let mut message = self.message(c::NEW_TABLE, NLM_F_CREATE);
        message.text(c::table::NAME, &self.table);
        self.push("adding table", "", message)
    }

    /// Removes the table with all in it. It is an error if it is not there: [`Batch::add_table`]
    /// first makes it right in every case.
    pub fn delete_table(&mut self) -> &mut Self {
        let mut message = self.message(c::DELETE_TABLE, 0);
        message.text(c::table::NAME, &self.table);
        self.push("removing table", "", message)
    }

    /// Makes a chain if it is not there.
    pub fn add_chain(&mut self, name: &str, base: Option<BaseChain>) -> &mut Self {
        let mut message = self.message(c::NEW_CHAIN, NLM_F_CREATE);
        message
            .text(c::chain::TABLE, &self.table)
            .text(c::chain::NAME, name);
        if let Some(base) = base {
            message.nest(c::chain::HOOK, |hook| {
                hook.be32(c::hook::NUMBER, hook_number(base.hook))
                    .be32(c::hook::PRIORITY, base.priority as u32);
            });
            message.be32(c::chain::POLICY, u32::from(!base.drop_by_default));
            message.text(c::chain::TYPE, kind_name(base.kind));
        }
        self.push("adding chain", name, message)
    }

    /// Removes an empty chain that nothing refers to.
    pub fn delete_chain(&mut self, name: &str) -> &mut Self {
        let mut message = self.message(c::DELETE_CHAIN, 0);
        message
            .text(c::chain::TABLE, &self.table)
            .text(c::chain::NAME, name);
        self.push("removing chain", name, message)
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression]) -> &mut Self {
        let mut message = self.message(c::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
        message
            .text(c::rule::TABLE, &self.table)
            .text(c::rule::CHAIN, chain);
        message.nest(c::rule::EXPRESSIONS, |list| {
            for expression in expressions {
                expression.encode(list);
            }
        });
        self.push("adding a rule to chain", chain, message)
    }

    /// Removes all rules of a chain, or of the whole table.
    pub fn flush_rules(&mut self, chain: Option<&str>) -> &mut Self {
        let mut message = self.message(c::DELETE_RULE, 0);
        message.text(c::rule::TABLE, &self.table);
        if let Some(chain) = chain {
            message.text(c::rule::CHAIN, chain);
        }
        self.push("removing the rules of chain", chain.unwrap_or("*"), message)
    }

    /// Makes a named set or map if it is not there.
    pub fn add_set(&mut self, set: &Set) -> &mut Self {
        let message = self.set_message(&set.name, set.key, set.value);
        self.push("adding set", &set.name, message)
    }

    /// Removes a set that no rule refers to.
    pub fn delete_set(&mut self, name: &str) -> &mut Self {
        let mut message = self.message(c::DELETE_SET, 0);
        message
            .text(c::set::TABLE, &self.table)
            .text(c::set::NAME, name);
        self.push("removing set", name, message)
    }

    /// Adds elements. One that is there already with the same value is no error.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(c::NEW_ELEMENT, NLM_F_CREATE, "adding to set", set, elements)
    }

    /// Removes elements; one that is not there fails the batch.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(c::DELETE_ELEMENT, 0, "removing from set", set, elements)
    }

    /// Removes all elements of a set.
    pub fn flush_set(&mut self, set: &str) -> &mut Self {
        let mut message = self.message(c::DELETE_ELEMENT, 0);
        message
            .text(c::elements::TABLE, &self.table)
            .text(c::elements::SET, set);
        self.push("emptying set", set, message)
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: i32,
        operation: &str,
        set: &str,
        elements: &[Element],
    ) -> &mut Self {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut message = self.message(kind, flags);
            message
                .text(c::elements::TABLE, &self.table)
                .text(c::elements::SET, set);
            message.nest(c::elements::LIST, |list| {
                for element in some {
                    list.nest(c::LIST_ELEMENT, |nest| encode_element(nest, element));
                }
            });
            self.push(operation, set, message);
        }
        self
    }

    fn set_message(&mut self, name: &str, key: &[DataType], value: MapsTo) -> Message {
        self.sets += 1;
        let mut flags = 0;
        if value != MapsTo::Nothing {
            flags |= c::set::FLAG_MAP;
        }
        if key.len() > 1 {
            flags |= c::set::FLAG_CONCATENATED;
        }
        let mut message = self.message(c::NEW_SET, NLM_F_CREATE);
        message
            .text(c::set::TABLE, &self.table)
            .text(c::set::NAME, name);
        message.be32(c::set::FLAGS, flags);
        message
            .be32(c::set::KEY_TYPE, type_number(key))
            .be32(c::set::KEY_LENGTH, length(key));
        match value {
            MapsTo::Nothing => {}
            MapsTo::Data(parts) => {
                message.be32(c::set::DATA_TYPE, type_number(parts));
                message.be32(c::set::DATA_LENGTH, length(parts));
            }
            MapsTo::Verdict => {
                message.be32(c::set::DATA_TYPE, c::set::VERDICT_TYPE);
            }
        }
        message.be32(c::set::ID, self.sets);
        if key.len() > 1 {
            message.nest(c::set::DESCRIPTION, |description| {
                description.nest(c::set::DESCRIPTION_CONCAT, |fields| {
                    for part in key {
                        fields.nest(c::LIST_ELEMENT, |field| {
                            field.be32(c::set::FIELD_LENGTH, part.length());
                        });
                    }
                });
            });
        }
        message
    }

    fn message(&self, kind: u16, flags: i32) -> Message {
        Message::new(
            kind,
            NLM_F_REQUEST | flags,
            &[self.family.number(), 0, 0, 0],
        )
    }

    fn push(&mut self, operation: &str, object: &str, message: Message) -> &mut Self {
        let what = if object.is_empty() {
            format!("nftables: {operation} {}", self.table)
        } else {
            format!("nftables: {operation} {object} of table {}", self.table)
        };
        self.messages.push((what, message));
        self
    }
}

/// An nf_tables socket of one namespace.
#[derive(Debug)]
pub struct NftSocket {
    socket: NetlinkSocket,
}

impl NftSocket {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: NetlinkSocket::open(NETLINK_NETFILTER)?,
        })
    }

    /// Opens it in `namespace`.
    pub fn open_in(namespace: &Namespace) -> Result<Self, NetlinkError> {
        namespace.run(Self::open)?
    }

    /// Applies all changes, or none and says which one the kernel refused.
    pub fn apply(&mut self, batch: Batch) -> Result<(), NetlinkError> {
        self.apply_all(vec![batch])
    }

    /// Applies several batches as one.
    pub fn apply_all(&mut self, batches: Vec<Batch>) -> Result<(), NetlinkError> {
        let (mut operations, mut messages) = (vec![String::new()], vec![marker(c::BATCH_BEGIN)]);
        for (operation, message) in batches.into_iter().flat_map(|batch| batch.messages) {
            operations.push(operation);
            messages.push(message);
        }
        let Some(last) = messages.get_mut(1..).and_then(<[_]>::last_mut) else {
            return Ok(());
        };
        // One acknowledgement for the whole: thousands would overflow the receive queue.
        last.add_flags(NLM_F_ACK);
        messages.push(marker(c::BATCH_END));
        let Some(refusal) = self
            .socket
            .send("nftables: batch", messages)?
            .into_iter()
            .next()
        else {
            return Ok(());
        };
        let operation = refusal
            .index
            .and_then(|index| operations.get(index))
            .filter(|o| !o.is_empty());
        Err(NetlinkError::Refused {
            operation: operation
                .cloned()
                .unwrap_or_else(|| "nftables: batch".to_owned()),
            errno: refusal.errno,
            detail: refusal.detail,
        })
    }

    /// Base chains at `hook` that drop what no rule decides, as `family table chain`.
    pub fn dropping_chains(&mut self, hook: Hook) -> Result<Vec<String>, NetlinkError> {
        let mut names = Vec::new();
        for (family, name) in [
            (Family::Inet, "inet"),
            (Family::Ipv4, "ip"),
            (Family::Ipv6, "ip6"),
        ] {
            let message = Message::new(c::GET_CHAIN, NLM_F_REQUEST, &[family.number(), 0, 0, 0]);
            self.socket
                .dump("nftables: listing chains", message, |body| {
                    names.extend(dropping_chain(body, hook).map(|chain| format!("{name} {chain}")));
                })?;
        }
        Ok(names)
    }

    /// The names of a family's tables.
    pub fn tables(&mut self, family: Family) -> Result<Vec<String>, NetlinkError> {
        let mut names = Vec::new();
        let message = Message::new(c::GET_TABLE, NLM_F_REQUEST, &[family.number(), 0, 0, 0]);
        self.socket
            .dump("nftables: listing tables", message, |body| {
                let mut all = attributes(body.get(4..).unwrap_or_default());
                names.extend(
                    all.find(|(kind, _)| *kind == c::table::NAME)
                        .map(|(_, name)| text(name)),
                );
            })?;
        Ok(names)
    }
}

/// `table chain`, if that is what it is.
fn dropping_chain(body: &[u8], hook: Hook) -> Option<String> {
    let (mut table, mut name, mut policy, mut number) = (None, None, None, None);
    let be32 = |payload: &[u8]| Some(u32::from_be_bytes(payload.get(..4)?.try_into().ok()?));
    for (kind, payload) in attributes(body.get(4..)?) {
        match kind {
            c::chain::TABLE => table = Some(text(payload)),
            c::chain::NAME => name = Some(text(payload)),
            c::chain::POLICY => policy = be32(payload),
            c::chain::HOOK => {
                let mut hooks = attributes(payload);
                number = hooks
                    .find(|(kind, _)| *kind == c::hook::NUMBER)
                    .and_then(|(_, n)| be32(n));
            }
            _ => {}
        }
    }
    let drops = policy == Some(0) && number == Some(hook_number(hook));
    drops
        .then(|| Some(format!("{} {}", table?, name?)))
        .flatten()
}

fn marker(kind: u16) -> Message {
    let [high, low] = c::SUBSYSTEM.to_be_bytes();
    Message::new(kind, NLM_F_REQUEST, &[0, 0, high, low])
}

fn encode_element(nest: &mut Message, element: &Element) {
    nest.nest(c::elements::KEY, |key| {
        key.bytes(c::data::VALUE, &element.key);
    });
    match &element.value {
        ElementValue::None => {}
        ElementValue::Data(value) => {
            nest.nest(c::elements::VALUE, |nest| {
                nest.bytes(c::data::VALUE, value);
            });
        }
        ElementValue::Verdict(verdict) => {
            nest.nest(c::elements::VALUE, |nest| verdict.encode(nest));
        }
    }
}

/// Six bits a part, first part highest: how `nft` remembers a concatenation's types.
fn type_number(parts: &[DataType]) -> u32 {
    parts
        .iter()
        .fold(0, |number, part| number << 6 | part.number())
}

fn length(parts: &[DataType]) -> u32 {
    match parts {
        [single] => single.length(),
        several => several
            .iter()
            .map(|part| part.length().next_multiple_of(4))
            .sum(),
    }
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}
