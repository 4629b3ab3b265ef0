//! Changes that go to the kernel together.
//!
//! ```text
//! Batch { add_veth, up, add_address, … } ─ one sendmsg ─→ Socket ─→ the kernel makes them in order ─ one answer ─→
//! ```
//!
//! rtnetlink does what it is asked for in the thread that sends, one message after the other, and tells of every refusal;
//! of success only where it is asked to (netlink(7), NLM_F_ACK), which is the last message. So there is nothing to wait for
//! asynchronously, and a container's end of a wire costs two system calls.

use std::{
    io,
    net::IpAddr,
    num::NonZeroI32,
    os::fd::{AsRawFd, OwnedFd},
};

use ipnet::IpNet;
use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt},
        time::{TimeVal, TimeValLike},
    },
};
use rtnetlink::{
    AddressMessageBuilder, LinkBridgePort, LinkUnspec,
    packet_core::{
        ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily as Family, RouteNetlinkMessage,
        address::AddressHeaderFlags,
        link::{LinkAttribute, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
};

use crate::{Error, Mac, Place, Route, Veth};

/// The kernel has answered before the request has been sent; this only keeps a thread from waiting for ever.
const ANSWER_LIMIT_SECONDS: i64 = 10;
/// An answer holds at most the message that it refuses, and the kernel's words about it; the largest of ours, a pair of links,
/// has less than 400 bytes. So it fits the stack, and no batch has pages of the heap cleared for it.
const ANSWER_SIZE: usize = 8 << 10;

/// A netlink socket, which belongs to the namespace that it was opened in.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket in `place`.
    pub fn open(place: &Place) -> Result<Socket, Error> {
        let opened = place.run(|| {
            let protocol = SockProtocol::NetlinkRoute;
            let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_LIMIT_SECONDS))?;
            Ok(Socket(fd))
        });
        opened.map_err(Error::Open)
    }

    /// The index of the link called `name`; asked by ioctl(2) (SIOCGIFINDEX in netdevice(7)), for which the kernel does not
    /// wait until all who change links are done.
    pub fn index(&self, operation: &'static str, name: &str) -> Result<u32, Error> {
        let no_link = || Error::NoLink { operation, name: name.to_owned() };
        if name.len() >= libc::IFNAMSIZ {
            return Err(no_link());
        }
        // SAFETY: the request is plain data; the name fits and is terminated; the call fills in the index.
        let index = unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            match libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFINDEX, &mut request) {
                0 => Ok(request.ifr_ifru.ifru_ifindex),
                _ => Err(Errno::last()),
            }
        };
        match index {
            Ok(index) => u32::try_from(index).map_err(|_| no_link()),
            Err(Errno::ENODEV) => Err(no_link()),
            Err(errno) => Err(Error::Open(errno.into())),
        }
    }
}

/// Changes to be made in order. The kernel goes on behind one that it refuses.
#[derive(Debug, Default)]
pub struct Batch {
    messages: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    /// What each is, for the error.
    about: Vec<(&'static str, String)>,
}

impl Batch {
    fn push(&mut self, flags: u16, message: RouteNetlinkMessage, operation: &'static str, object: impl Into<String>) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        self.messages.push(message);
        self.about.push((operation, object.into()));
    }

    /// Makes a veth pair, both ends down.
    pub fn add_veth(&mut self, veth: &Veth<'_>) {
        let message = RouteNetlinkMessage::NewLink(veth.message());
        self.push(NLM_F_CREATE | NLM_F_EXCL, message, "make veth pair", veth.name);
    }

    /// Sets the link up.
    pub fn up(&mut self, name: &str) {
        let message = RouteNetlinkMessage::SetLink(LinkUnspec::new_with_name(name).up().build());
        self.push(0, message, "set up link", name);
    }

    /// Cuts a bridge's port off from the other isolated ports.
    pub fn isolate(&mut self, name: &str) {
        let mut message = LinkBridgePort::new(0).isolated(true).build();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.push(0, RouteNetlinkMessage::NewLink(message), "isolate bridge port", name);
    }

    /// Removes a link, which must be there.
    pub fn delete(&mut self, name: &str) {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.push(0, RouteNetlinkMessage::DelLink(message), "delete link", name);
    }

    /// Gives the link an address; one that it has already is no error. As [`crate::Links::add_address`].
    pub fn add_address(&mut self, link: u32, address: IpNet) {
        let message = match address {
            IpNet::V4(net) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(link)
                .address(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => {
                let builder = AddressMessageBuilder::<std::net::Ipv6Addr>::new().index(link);
                let mut message = builder.address(net.addr(), net.prefix_len()).build();
                message.header.flags |= AddressHeaderFlags::Nodad;
                message
            }
        };
        let message = RouteNetlinkMessage::NewAddress(message);
        self.push(NLM_F_CREATE | NLM_F_REPLACE, message, "add address", address.to_string());
    }

    /// Adds the route, or puts it in the place of one to the same destination.
    pub fn set_route(&mut self, route: &Route) {
        let message = RouteNetlinkMessage::NewRoute(route.message());
        self.push(NLM_F_CREATE | NLM_F_REPLACE, message, "set route to", route.destination.to_string());
    }

    /// Makes the neighbour entry of `address` on the link permanent, so that nobody has to ask for it.
    pub fn set_neighbour(&mut self, link: u32, address: IpAddr, mac: Mac) {
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() { Family::Inet } else { Family::Inet6 };
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.push(NLM_F_CREATE | NLM_F_REPLACE, message, "set neighbour", address.to_string());
    }

    /// Has the changes made where the socket lives. The first refusal is the error.
    pub fn send(mut self, socket: &Socket) -> Result<(), Error> {
        let Some(last) = self.messages.last_mut() else { return Ok(()) };
        last.header.flags |= NLM_F_ACK;
        let mut bytes = Vec::new();
        for (sequence, message) in (1..).zip(&mut self.messages) {
            message.header.sequence_number = sequence;
            message.finalize();
            let start = bytes.len();
            bytes.resize((start + message.buffer_len()).next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        send(socket.0.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(|errno| Error::Open(errno.into()))?;
        self.read_answers(socket)
    }

    fn read_answers(&self, socket: &Socket) -> Result<(), Error> {
        let mut first: Option<Error> = None;
        let mut buffer = [0; ANSWER_SIZE];
        loop {
            let count = match recv(socket.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) => return Err(Error::Open(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::Open(errno.into())),
            };
            for (sequence, code) in answers(&buffer[..count])? {
                let about = usize::try_from(sequence).ok().and_then(|number| self.about.get(number.checked_sub(1)?));
                // An answer to something else: not of this batch.
                let Some((operation, object)) = about else { continue };
                if let Some(code) = NonZeroI32::new(code) {
                    let mut message = ErrorMessage::default();
                    message.code = Some(code);
                    let source = rtnetlink::Error::NetlinkError(message);
                    first.get_or_insert(Error::Refused { operation, object: object.clone(), source });
                }
                if sequence as usize == self.messages.len() {
                    return first.map_or(Ok(()), Err);
                }
            }
        }
    }
}

/// Sequence numbers and codes of the answers in a datagram.
fn answers(mut bytes: &[u8]) -> Result<Vec<(u32, i32)>, Error> {
    let malformed = |what: &dyn std::fmt::Display| Error::Open(io::Error::other(format!("malformed answer: {what}")));
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map_err(|error| malformed(&error))?;
        if let NetlinkPayload::Error(error) = &message.payload {
            out.push((message.header.sequence_number, error.raw_code()));
        }
        let length = (message.header.length as usize).next_multiple_of(4);
        if length == 0 {
            return Err(malformed(&"no length"));
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Links, Netns};

    const MAC: Mac = [0x0e, 0, 0, 0, 0, 1];

    #[tokio::test]
    async fn a_wire_is_made_in_two_batches() {
        let (here, there) = (Place::Netns(Netns::create().unwrap()), Netns::create().unwrap());
        let links = Links::open(&here).unwrap();
        links.add_bridge("br", MAC).await.unwrap();
        let outside = Socket::open(&here).unwrap();
        let mut batch = Batch::default();
        batch.add_veth(&Veth {
            name: "a",
            peer: "b",
            peer_mac: Some(MAC),
            peer_netns: Some(&there),
            bridge: Some(outside.index("test", "br").unwrap()),
            ..Veth::default()
        });
        batch.isolate("a");
        batch.up("a");
        batch.send(&outside).unwrap();
        assert!(links.find("a").await.unwrap().unwrap().up);

        let inside = Socket::open(&Place::Netns(there.clone())).unwrap();
        let index = inside.index("test", "b").unwrap();
        let mut batch = Batch::default();
        batch.up("b");
        batch.add_address(index, "10.9.0.2/24".parse().unwrap());
        batch.add_address(index, "fd00::2/64".parse().unwrap());
        batch.set_neighbour(index, "10.9.0.7".parse().unwrap(), MAC);
        let route = |destination: &str, gateway: &str| Route {
            destination: destination.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
            link: None,
            onlink: false,
            protocol: 99,
        };
        batch.set_route(&route("0.0.0.0/0", "10.9.0.1"));
        batch.set_route(&route("::/0", "fd00::1"));
        batch.send(&inside).unwrap();
        let far = Links::open(&Place::Netns(there)).unwrap();
        let end = far.find("b").await.unwrap().unwrap();
        assert_eq!((end.mac, end.up, end.index), (Some(MAC), true, index));
        let addresses = far.addresses("b").await.unwrap();
        assert!(["10.9.0.2/24", "fd00::2/64"].iter().all(|wanted| addresses.contains(&wanted.parse().unwrap())));
        assert_eq!(far.routes(99).await.unwrap().len(), 1);

        let mut batch = Batch::default();
        batch.delete("a");
        batch.send(&outside).unwrap();
        assert_eq!(far.find("b").await.unwrap(), None);
        assert_eq!(inside.index("look for", "b").unwrap_err().to_string(), "look for: there is no link b");
    }

    #[test]
    fn the_first_refusal_is_told_and_the_rest_is_made() {
        let place = Place::Netns(Netns::create().unwrap());
        let socket = Socket::open(&place).unwrap();
        let mut batch = Batch::default();
        batch.up("lo");
        batch.delete("nobody");
        batch.up("nobody else");
        batch.add_veth(&Veth { name: "a", peer: "b", ..Veth::default() });
        let error = batch.send(&socket).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENODEV));
        assert!(error.to_string().starts_with("delete link nobody: "), "{error}");
        assert!(socket.index("test", "a").is_ok());
        Batch::default().send(&socket).unwrap();
        let name = "a name that is too long for a link";
        assert!(socket.index("test", name).is_err());
    }
}
