//! nf_tables: chains and rules, put into the kernel in one transaction.
//!
//! Only what the rules of this crate need. A rule is a list of conditions, all of which have to hold, and a verdict.

use std::{ffi::CString, net::Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_bindings::nftables::{
    self as nf, CmpOps, CtKeys, FibFlags, MetaKeys, Nfgenmsg, PayloadBase, PushExprListAttrs,
    RangeOps, Registers, VerdictCode,
};
use netlink_bindings::traits::Pusher;

use super::netlink::{Error, Family, Messages, Netlink};

const INET: u8 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE` of linux/netfilter/nf_tables.h; the bindings count from the wrong end.
const FIB_ADDRESS_TYPE: u32 = 3;
/// `NFNL_SUBSYS_NFTABLES` of linux/netfilter/nfnetlink.h.
const SUBSYSTEM: u16 = 10;
/// `NFT_NAT_SNAT`, `NFT_NAT_DNAT`, `NFT_REJECT_ICMP_UNREACH` of linux/netfilter/nf_tables.h.
const SOURCE_NAT: u32 = 0;
const DESTINATION_NAT: u32 = 1;
const REJECT_BY_ICMP: u32 = 0;
/// `ICMP_PKT_FILTERED` of linux/icmp.h: "administratively prohibited".
const PROHIBITED: u8 = 13;
const REGISTER: u32 = Registers::Reg1 as u32;
/// Interface names fill a register of this size.
const NAME_LEN: usize = libc::IFNAMSIZ;

/// Where in the kernel a chain is called, and when among others there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    kind: &'static str,
    number: i32,
    priority: i32,
    drops: bool,
}

impl Hook {
    /// Before connections are tracked.
    pub(super) const RAW: Self = Self::filter(libc::NF_INET_PRE_ROUTING, -300);
    /// After they are, before addresses are translated.
    pub(super) const MANGLE: Self = Self::filter(libc::NF_INET_PRE_ROUTING, -150);
    pub(super) const INPUT: Self = Self::filter(libc::NF_INET_LOCAL_IN, 0);
    pub(super) const FORWARD: Self = Self::filter(libc::NF_INET_FORWARD, 0);
    pub(super) const OUTPUT: Self = Self::filter(libc::NF_INET_LOCAL_OUT, 0);
    pub(super) const DESTINATION_NAT: Self = Self::nat(libc::NF_INET_PRE_ROUTING, -100);
    pub(super) const SOURCE_NAT: Self = Self::nat(libc::NF_INET_POST_ROUTING, 100);

    const fn filter(number: i32, priority: i32) -> Self {
        Self { kind: "filter", number, priority, drops: false }
    }

    const fn nat(number: i32, priority: i32) -> Self {
        Self { kind: "nat", number, priority, drops: false }
    }

    /// What no rule decides is dropped.
    pub(super) const fn or_drop(self) -> Self {
        Self { drops: true, ..self }
    }
}

/// A condition on a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum When<'a> {
    /// It came in by this interface; `*` at the end stands for anything.
    Input(&'a str),
    /// It came in by another one.
    NotInput(&'a str),
    /// It goes out by this interface.
    Output(&'a str),
    /// It goes out by another one.
    NotOutput(&'a str),
    /// Its sender.
    Source(Ipv4Net),
    /// Its sender is another one.
    NotSource(Ipv4Net),
    /// Its receiver.
    Destination(Ipv4Net),
    /// Its receiver is not a host somewhere else: it is this host, a broadcast, or nowhere.
    NotElsewhere,
    /// It belongs to, or is about, a connection that is known.
    Established,
    /// It fits no connection.
    Invalid,
    /// TCP, UDP, …, as in /etc/protocols.
    Protocol(u8),
    /// The first and the last destination port. Needs a protocol that has some.
    Ports(u16, u16),
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then<'a> {
    Accept,
    Drop,
    /// Its sender is told.
    Reject,
    /// Another chain decides, and if it does not, the next rule.
    Jump(&'a str),
    /// It goes to another receiver.
    ToDestination(Ipv4Addr),
    /// It gets another sender.
    FromSource(Ipv4Addr),
    /// Its sender becomes whatever address it leaves by.
    Masquerade,
}

/// Changes that become true together. They belong to one table.
#[derive(Debug)]
pub(super) struct Transaction {
    table: CString,
    messages: Messages,
}

impl Transaction {
    /// Changes of a table.
    pub(super) fn of(table: &str) -> Self {
        let mut messages = Messages::default();
        let begin = nf::Request::new().op_batch_begin_do(&bracket());
        messages.push_silent("begin a transaction of rules", &begin);
        Self { table: name(table), messages }
    }

    /// Puts them into the namespace of the calling thread.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        let end = nf::Request::new().op_batch_end_do(&bracket());
        self.messages.push_silent("end a transaction of rules", &end);
        Netlink::open(Family::Netfilter)?.send(&self.messages)
    }

    /// Makes the table, unless it is there.
    pub(super) fn table(&mut self) -> &mut Self {
        let mut request = nf::Request::new().set_create().op_newtable_do(&header());
        request.encode().push_name(&self.table);
        self.messages.push("make a table of rules", &request);
        self
    }

    /// Removes the table, which has to be there, with all that is in it.
    pub(super) fn remove_table(&mut self) -> &mut Self {
        let mut request = nf::Request::new().op_deltable_do(&header());
        request.encode().push_name(&self.table);
        self.messages.push("remove a table of rules", &request);
        self
    }

    /// Adds a chain; one without a hook is only jumped to.
    pub(super) fn chain(&mut self, chain: &str, hook: Option<Hook>) -> &mut Self {
        let mut request = nf::Request::new().set_create().op_newchain_do(&header());
        let attributes = request.encode().push_table(&self.table).push_name(&name(chain));
        if let Some(hook) = hook {
            let policy = if hook.drops { VerdictCode::Drop } else { VerdictCode::Accept };
            attributes
                .nested_hook()
                .push_num(hook.number.cast_unsigned())
                .push_priority(hook.priority)
                .end_nested()
                .push_policy(policy as u32)
                .push_type(&name(hook.kind));
        } else {
            drop(attributes);
        }
        self.messages.push("make a chain of rules", &request);
        self
    }

    /// Adds a rule to the end of a chain.
    pub(super) fn rule(&mut self, chain: &str, when: &[When<'_>], then: Then<'_>) -> &mut Self {
        let mut request = nf::Request::new().set_create().set_append().op_newrule_do(&header());
        let mut list =
            request.encode().push_table(&self.table).push_chain(&name(chain)).nested_expressions();
        for condition in when {
            list = condition.encode(list);
        }
        then.encode(list);
        self.messages.push("add a rule", &request);
        self
    }
}

/// Whether a chain is there, in the namespace of the calling thread.
pub(super) fn chain_exists(table: &str, chain: &str) -> Result<bool, Error> {
    let mut request = nf::Request::new().op_getchain_do(&header());
    request.encode().push_table(&name(table)).push_name(&name(chain));
    match Netlink::open(Family::Netfilter)?.request("look for a chain of rules", &request) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absence() => Ok(false),
        Err(error) => Err(error),
    }
}

fn header() -> Nfgenmsg {
    Nfgenmsg { nfgen_family: INET, ..Nfgenmsg::new() }
}

fn bracket() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.set_res_id(SUBSYSTEM);
    header
}

fn name(text: &str) -> CString {
    CString::new(text).expect("names of tables and chains are made here")
}

type List<P> = PushExprListAttrs<P>;

impl When<'_> {
    fn encode<P: Pusher>(self, list: List<P>) -> List<P> {
        use CmpOps::{Eq, Neq};
        match self {
            Self::Input(name) => compare(meta(list, MetaKeys::Iifname), Eq, &interface(name)),
            Self::NotInput(name) => compare(meta(list, MetaKeys::Iifname), Neq, &interface(name)),
            Self::Output(name) => compare(meta(list, MetaKeys::Oifname), Eq, &interface(name)),
            Self::NotOutput(name) => compare(meta(list, MetaKeys::Oifname), Neq, &interface(name)),
            Self::Source(net) => in_net(list, SOURCE_OFFSET, net, Eq),
            Self::NotSource(net) => in_net(list, SOURCE_OFFSET, net, Neq),
            Self::Destination(net) => in_net(list, DESTINATION_OFFSET, net, Eq),
            Self::NotElsewhere => {
                let list = list
                    .nested_elem()
                    .nested_data_fib()
                    .push_dreg(REGISTER)
                    .push_result(FIB_ADDRESS_TYPE)
                    .push_flags(FibFlags::Daddr as u32)
                    .end_nested()
                    .end_nested();
                compare(list, Neq, &u32::from(libc::RTN_UNICAST).to_ne_bytes())
            }
            Self::Established => state(list, STATE_ESTABLISHED | STATE_RELATED),
            Self::Invalid => state(list, STATE_INVALID),
            Self::Protocol(number) => compare(meta(list, MetaKeys::L4Proto), Eq, &[number]),
            Self::Ports(first, last) if first == last => {
                let port = first.to_be_bytes();
                compare(load(list, PayloadBase::TransportHeader, PORT_OFFSET, 2), Eq, &port)
            }
            Self::Ports(first, last) => load(list, PayloadBase::TransportHeader, PORT_OFFSET, 2)
                .nested_elem()
                .nested_data_range()
                .push_sreg(REGISTER)
                .push_op(RangeOps::Eq as u32)
                .nested_from_data()
                .push_value(&first.to_be_bytes())
                .end_nested()
                .nested_to_data()
                .push_value(&last.to_be_bytes())
                .end_nested()
                .end_nested()
                .end_nested(),
        }
    }
}

/// Of an IPv4 header, and of a TCP or UDP header.
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
const PORT_OFFSET: u32 = 2;
/// Bits of `ct state`: linux/netfilter/nf_conntrack_common.h.
const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;

/// The whole register, or what stands before the star.
fn interface(name: &str) -> Vec<u8> {
    match name.strip_suffix('*') {
        Some(start) => start.as_bytes().to_vec(),
        None => {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(NAME_LEN, 0);
            bytes
        }
    }
}

fn meta<P: Pusher>(list: List<P>, key: MetaKeys) -> List<P> {
    list.nested_elem()
        .nested_data_meta()
        .push_dreg(REGISTER)
        .push_key(key as u32)
        .end_nested()
        .end_nested()
}

fn load<P: Pusher>(list: List<P>, base: PayloadBase, offset: u32, length: u32) -> List<P> {
    list.nested_elem()
        .nested_data_payload()
        .push_dreg(REGISTER)
        .push_base(base as u32)
        .push_offset(offset)
        .push_len(length)
        .end_nested()
        .end_nested()
}

fn mask<P: Pusher>(list: List<P>, mask: [u8; 4]) -> List<P> {
    list.nested_elem()
        .nested_data_bitwise()
        .push_sreg(REGISTER)
        .push_dreg(REGISTER)
        .push_len(4)
        .nested_mask()
        .push_value(&mask)
        .end_nested()
        .nested_xor()
        .push_value(&[0; 4])
        .end_nested()
        .end_nested()
        .end_nested()
}

fn compare<P: Pusher>(list: List<P>, operator: CmpOps, value: &[u8]) -> List<P> {
    list.nested_elem()
        .nested_data_cmp()
        .push_sreg(REGISTER)
        .push_op(operator as u32)
        .nested_data()
        .push_value(value)
        .end_nested()
        .end_nested()
        .end_nested()
}

fn in_net<P: Pusher>(list: List<P>, offset: u32, net: Ipv4Net, operator: CmpOps) -> List<P> {
    let mut list = load(list, PayloadBase::NetworkHeader, offset, 4);
    if net.prefix_len() < 32 {
        list = mask(list, net.netmask().octets());
    }
    compare(list, operator, &net.network().octets())
}

fn state<P: Pusher>(list: List<P>, bits: u32) -> List<P> {
    let list = list
        .nested_elem()
        .nested_data_ct()
        .push_dreg(REGISTER)
        .push_key(CtKeys::State as u32)
        .end_nested()
        .end_nested();
    compare(mask(list, bits.to_ne_bytes()), CmpOps::Neq, &[0; 4])
}

impl Then<'_> {
    fn encode<P: Pusher>(self, list: List<P>) {
        match self {
            Self::Accept => verdict(list, VerdictCode::Accept, None),
            Self::Drop => verdict(list, VerdictCode::Drop, None),
            Self::Jump(chain) => verdict(list, VerdictCode::Jump, Some(chain)),
            Self::Reject => {
                list.nested_elem()
                    .nested_data_reject()
                    .push_type(REJECT_BY_ICMP)
                    .push_icmp_code(PROHIBITED);
            }
            Self::ToDestination(address) => translate(list, DESTINATION_NAT, address),
            Self::FromSource(address) => translate(list, SOURCE_NAT, address),
            Self::Masquerade => {
                list.nested_elem().push_name(c"masq");
            }
        }
    }
}

fn verdict<P: Pusher>(list: List<P>, code: VerdictCode, chain: Option<&str>) {
    let verdict = list
        .nested_elem()
        .nested_data_immediate()
        .push_dreg(Registers::RegVerdict as u32)
        .nested_data()
        .nested_verdict()
        .push_code(code as u32);
    if let Some(chain) = chain {
        verdict.push_chain(&name(chain));
    }
}

fn translate<P: Pusher>(list: List<P>, kind: u32, to: Ipv4Addr) {
    list.nested_elem()
        .nested_data_immediate()
        .push_dreg(REGISTER)
        .nested_data()
        .push_value(&to.octets())
        .end_nested()
        .end_nested()
        .end_nested()
        .nested_elem()
        .nested_data_nat()
        .push_type(kind)
        .push_family(u32::from(INET))
        .push_reg_addr_min(REGISTER);
}
