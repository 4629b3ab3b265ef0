//! nf_tables over netlink: a table of ours replaced as a whole, in one transaction (linux/netfilter/nf_tables.h).
//!
//! ```text
//! Table { name, chains } ─ encode ─→ batch begin | add table | delete table | add table | chains | rules | batch end
//! ```
//!
//! Adding, deleting and adding again replaces what was there without a moment in which nothing is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use ipnet::IpNet;
use tokio::io::unix::AsyncFd;

/// A table and everything in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub name: String,
    pub chains: Vec<Chain>,
}

/// A base chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub name: &'static str,
    /// `filter` or `nat`
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
    pub rules: Vec<Vec<Expression>>,
}

/// NF_INET_*
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hook {
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a rule is made of: matches, then what happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    InputIs(String),
    OutputIs(String),
    OutputIsNot(String),
    Source(IpNet),
    Destination(Ipv4Addr),
    /// IPPROTO_*
    Protocol(u8),
    DestinationPort(u16),
    Established,
    Masquerade,
    DestinationNat(Ipv4Addr, u16),
    Accept,
    Drop,
}

const NFNL_SUBSYS: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Both families in one table.
const NFPROTO_INET: u8 = 1;
const NESTED: u16 = 0x8000;
const REGISTER: u32 = 1;
const SECOND: u32 = 2;

/// Replaces the table in the calling thread's network namespace; without chains it is removed.
pub fn replace(table: &Table) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.message(BATCH_BEGIN, false, |_| ());
    let name = |out: &mut Attributes| out.text(1, &table.name);
    batch.message(NEW_TABLE, true, name);
    batch.message(DELETE_TABLE, true, name);
    if !table.chains.is_empty() {
        batch.message(NEW_TABLE, true, name);
    }
    for chain in &table.chains {
        batch.message(NEW_CHAIN, true, |out| {
            out.text(1, &table.name);
            out.text(3, chain.name);
            out.nested(4, |hook| {
                hook.number(1, chain.hook as u32);
                hook.number(2, chain.priority as u32);
            });
            out.text(7, chain.kind);
        });
        for rule in &chain.rules {
            batch.message(NEW_RULE, true, |out| {
                out.text(1, &table.name);
                out.text(2, chain.name);
                out.nested(4, |list| rule.iter().for_each(|expression| expression.encode(list)));
            });
        }
    }
    batch.message(BATCH_END, false, |_| ());
    batch.send()
}

/// The rules of a table in the calling thread's network namespace; none where there is no table.
pub fn count_rules(table: &str) -> io::Result<usize> {
    const GET_RULE: u16 = 7;
    const REQUEST_DUMP: u16 = 1 | 0x300;
    let mut attributes = Attributes::default();
    attributes.text(1, table);
    let mut message = Vec::new();
    let kind = NFNL_SUBSYS << 8 | GET_RULE;
    Header { kind, flags: REQUEST_DUMP, sequence: 1, family: NFPROTO_INET, resource: 0 }.put(&attributes, &mut message);
    let socket = open()?;
    // SAFETY: the buffer is valid for its length.
    if unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = vec![0u8; 64 << 10];
    let mut rules = 0;
    loop {
        // SAFETY: the buffer is valid for its length.
        let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        for answer in Answers(&buffer[..count as usize]) {
            match answer {
                (libc::NLMSG_DONE, _) => return Ok(rules),
                (libc::NLMSG_ERROR, code) if code == -libc::ENOENT => return Ok(0),
                (libc::NLMSG_ERROR, code) => return Err(io::Error::from_raw_os_error(-code)),
                _ => rules += 1,
            }
        }
    }
}

/// Tells of changes to any rules in the network namespace in which it was opened.
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    pub fn open() -> io::Result<Changes> {
        const NFNLGRP_NFTABLES: libc::c_int = 7;
        const NETLINK_ADD_MEMBERSHIP: libc::c_int = 1;
        let socket = open()?;
        // SAFETY: plain numbers, an address (all zeros: the kernel chooses) and an option of their own types and sizes.
        let joined = unsafe {
            let mut own: libc::sockaddr_nl = std::mem::zeroed();
            own.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            let length = std::mem::size_of_val(&own) as libc::socklen_t;
            let group = std::ptr::from_ref(&NFNLGRP_NFTABLES).cast();
            // Before it has an address a socket hears nothing.
            libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&own).cast(), length) == 0
                && libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) == 0
                && libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group, 4) == 0
        };
        if !joined {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is owned by what is registered, and stays open and the same for as long.
        Ok(Changes(unsafe { AsyncFd::register(socket) }?))
    }

    /// Waits for the next change; several at once count as one, and so do those that were lost (ENOBUFS).
    pub async fn next(&self) -> io::Result<()> {
        let mut buffer = vec![0u8; 64 << 10];
        let mut ready = self.0.readable().await?;
        loop {
            // SAFETY: the buffer is valid for its length.
            let count = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                _ if count >= 0 => {}
                Some(libc::EAGAIN) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Some(libc::ENOBUFS | libc::EINTR) => {}
                _ => return Err(error),
            }
        }
    }
}

/// What stands before a message's attributes (netlink(7), `struct nfgenmsg`).
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
}

impl Header {
    fn put(&self, attributes: &Attributes, out: &mut Vec<u8>) {
        out.extend_from_slice(&((16 + 4 + attributes.0.len()) as u32).to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&self.flags.to_ne_bytes());
        out.extend_from_slice(&self.sequence.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&[self.family, 0]);
        out.extend_from_slice(&self.resource.to_be_bytes());
        out.extend_from_slice(&attributes.0);
    }
}

/// The messages of an answer: each one's type, and the error number of those that have one.
struct Answers<'a>(&'a [u8]);

impl Iterator for Answers<'_> {
    type Item = (libc::c_int, i32);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let kind = rest.first_chunk::<2>()?;
        let code = self.0.get(16..20)?.first_chunk::<4>()?;
        let length = u32::from_ne_bytes(*length) as usize;
        let answer = (i32::from(u16::from_ne_bytes(*kind)), i32::from_ne_bytes(*code));
        self.0 = self.0.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
        Some(answer)
    }
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    acknowledged: usize,
}

impl Batch {
    fn message(&mut self, kind: u16, of_tables: bool, fill: impl FnOnce(&mut Attributes)) {
        const REQUEST: u16 = 1;
        const ACK: u16 = 4;
        const CREATE_APPEND: u16 = 0x400 | 0x800;
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let (kind, flags) = if of_tables {
            self.acknowledged += 1;
            let create = if kind == DELETE_TABLE { 0 } else { CREATE_APPEND };
            (NFNL_SUBSYS << 8 | kind, REQUEST | ACK | create)
        } else {
            (kind, REQUEST)
        };
        self.sequence += 1;
        let family = if of_tables { NFPROTO_INET } else { 0 };
        let resource = if of_tables { 0 } else { NFNL_SUBSYS };
        Header { kind, flags, sequence: self.sequence, family, resource }.put(&attributes, &mut self.bytes);
    }

    /// Sends all of it and reads the kernel's answers; the first refusal is the error.
    fn send(&self) -> io::Result<()> {
        let socket = open()?;
        // SAFETY: the buffer is valid for its length.
        let sent = unsafe { libc::send(socket.as_raw_fd(), self.bytes.as_ptr().cast(), self.bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut left = self.acknowledged;
        let mut buffer = vec![0u8; 64 << 10];
        while left > 0 {
            // SAFETY: the buffer is valid for its length.
            let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if count < 0 {
                return Err(io::Error::last_os_error());
            }
            for (_, code) in Answers(&buffer[..count as usize]).filter(|(kind, _)| *kind == libc::NLMSG_ERROR) {
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                left = left.saturating_sub(1);
            }
        }
        Ok(())
    }
}

fn open() -> io::Result<OwnedFd> {
    const NETLINK_NETFILTER: i32 = 12;
    // SAFETY: plain numbers; the descriptor is checked before it is owned.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_NETFILTER);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let limit = libc::timeval { tv_sec: 5, tv_usec: 0 };
    // A large batch needs room on both ways; that the kernel grants less shows when it is sent.
    let size: libc::c_int = 4 << 20;
    // SAFETY: each option is given its own type and size.
    unsafe {
        let pointer = std::ptr::from_ref(&limit).cast();
        let length = std::mem::size_of_val(&limit) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, pointer, length);
        for option in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(&size).cast(), 4);
        }
    }
    Ok(socket)
}

/// Netlink attributes; numbers are big-endian in nf_tables.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn raw(&mut self, kind: u16, value: &[u8]) {
        self.0.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.raw(kind, &bytes);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut inner = Attributes::default();
        fill(&mut inner);
        self.raw(kind | NESTED, &inner.0);
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attributes)) {
        self.nested(1, |element| {
            element.text(1, name);
            element.nested(2, fill);
        });
    }

    /// Compares the register; `equal` or not.
    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.expression("cmp", |out| {
            out.number(1, REGISTER);
            out.number(2, u32::from(!equal));
            out.nested(3, |data| data.raw(1, value));
        });
    }

    fn meta(&mut self, key: u32) {
        self.expression("meta", |out| {
            out.number(1, REGISTER);
            out.number(2, key);
        });
    }

    /// What follows is for packets of this address's family.
    fn family(&mut self, address: IpAddr) {
        const META_NFPROTO: u32 = 15;
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        self.meta(META_NFPROTO);
        self.compare(true, &[family as u8]);
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.expression("payload", |out| {
            out.number(1, REGISTER);
            out.number(2, base);
            out.number(3, offset);
            out.number(4, length);
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        self.expression("bitwise", |out| {
            out.number(1, REGISTER);
            out.number(2, REGISTER);
            out.number(3, mask.len() as u32);
            out.nested(4, |data| data.raw(1, mask));
            out.nested(5, |data| data.raw(1, &vec![0; mask.len()]));
        });
    }

    fn load(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |out| {
            out.number(1, register);
            out.nested(2, |data| data.raw(1, value));
        });
    }

    fn verdict(&mut self, code: u32) {
        self.expression("immediate", |out| {
            out.number(1, 0);
            out.nested(2, |data| data.nested(2, |verdict| verdict.number(1, code)));
        });
    }
}

/// An interface's name as the kernel compares it.
fn interface(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let length = name.len().min(15);
    out[..length].copy_from_slice(&name.as_bytes()[..length]);
    out
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl Expression {
    fn encode(&self, out: &mut Attributes) {
        const META_INPUT: u32 = 6;
        const META_OUTPUT: u32 = 7;
        const META_PROTOCOL: u32 = 16;
        const NETWORK_HEADER: u32 = 1;
        const TRANSPORT_HEADER: u32 = 2;
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        match self {
            Expression::InputIs(name) => {
                out.meta(META_INPUT);
                out.compare(true, &interface(name));
            }
            Expression::OutputIs(name) => {
                out.meta(META_OUTPUT);
                out.compare(true, &interface(name));
            }
            Expression::OutputIsNot(name) => {
                out.meta(META_OUTPUT);
                out.compare(false, &interface(name));
            }
            Expression::Source(net) => {
                // Where the source stands in the header (RFC 791, RFC 8200).
                let offset = if net.addr().is_ipv4() { 12 } else { 8 };
                let (mask, network) = (octets(net.netmask()), octets(net.network()));
                out.family(net.addr());
                out.payload(NETWORK_HEADER, offset, mask.len() as u32);
                out.mask(&mask);
                out.compare(true, &network);
            }
            Expression::Destination(address) => {
                out.family(IpAddr::V4(*address));
                out.payload(NETWORK_HEADER, 16, 4);
                out.compare(true, &address.octets());
            }
            Expression::Protocol(number) => {
                out.meta(META_PROTOCOL);
                out.compare(true, &[*number]);
            }
            Expression::DestinationPort(port) => {
                out.payload(TRANSPORT_HEADER, 2, 2);
                out.compare(true, &port.to_be_bytes());
            }
            Expression::Established => {
                out.expression("ct", |ct| {
                    ct.number(1, REGISTER);
                    ct.number(2, 0);
                });
                out.mask(&ESTABLISHED_OR_RELATED.to_ne_bytes());
                out.compare(false, &[0; 4]);
            }
            Expression::Masquerade => out.expression("masq", |_| ()),
            Expression::DestinationNat(address, port) => {
                out.load(REGISTER, &address.octets());
                out.load(SECOND, &port.to_be_bytes());
                out.expression("nat", |nat| {
                    nat.number(1, 1);
                    nat.number(2, libc::AF_INET as u32);
                    nat.number(3, REGISTER);
                    nat.number(5, SECOND);
                });
            }
            Expression::Accept => out.verdict(1),
            Expression::Drop => out.verdict(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_of_others_are_told() {
        let netns = coracle_link::Netns::create().unwrap();
        let runtime = tokio::runtime::Handle::current();
        let changes = netns
            .run(|| {
                let _entered = runtime.enter();
                Changes::open()
            })
            .unwrap();
        let chain = Chain { name: "x", kind: "filter", hook: Hook::Forward, priority: 0, rules: vec![] };
        netns.run(|| replace(&Table { name: "coracle-test".into(), chains: vec![chain] })).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), changes.next()).await.unwrap().unwrap();
    }

    #[test]
    fn the_kernel_takes_every_expression_and_replaces_the_table() {
        let netns = coracle_link::Netns::create().unwrap();
        let net: IpNet = "172.17.0.0/16".parse().unwrap();
        let net6: IpNet = "fd00:1::/64".parse().unwrap();
        let br = || "br0".to_owned();
        let table = Table {
            name: "coracle-test".into(),
            chains: vec![
                Chain {
                    name: "forward",
                    kind: "filter",
                    hook: Hook::Forward,
                    priority: 0,
                    rules: vec![
                        vec![Expression::InputIs(br()), Expression::OutputIs(br()), Expression::Accept],
                        vec![Expression::OutputIs(br()), Expression::Established, Expression::Accept],
                        vec![Expression::OutputIs(br()), Expression::Drop],
                    ],
                },
                Chain {
                    name: "postrouting",
                    kind: "nat",
                    hook: Hook::Postrouting,
                    priority: 100,
                    rules: vec![
                        vec![Expression::Source(net), Expression::OutputIsNot(br()), Expression::Masquerade],
                        vec![Expression::Source(net6), Expression::OutputIsNot(br()), Expression::Masquerade],
                    ],
                },
                Chain {
                    name: "output",
                    kind: "nat",
                    hook: Hook::Output,
                    priority: -100,
                    rules: vec![vec![
                        Expression::Destination([127, 0, 0, 11].into()),
                        Expression::Protocol(17),
                        Expression::DestinationPort(53),
                        Expression::DestinationNat([127, 0, 0, 11].into(), 4444),
                    ]],
                },
            ],
        };
        netns.run(|| replace(&table)).unwrap();
        netns.run(|| replace(&table)).unwrap();
        assert_eq!(netns.run(|| count_rules("coracle-test")).unwrap(), 6);
        netns.run(|| replace(&Table { name: "coracle-test".into(), chains: vec![] })).unwrap();
        assert_eq!(netns.run(|| count_rules("coracle-test")).unwrap(), 0);
        let bad = Table {
            name: "coracle-test".into(),
            chains: vec![Chain { name: "x", kind: "carpet", hook: Hook::Output, priority: 0, rules: vec![] }],
        };
        assert!(netns.run(|| replace(&bad)).is_err());
    }
}
