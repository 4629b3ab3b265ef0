//! SCTP for published ports: one association a socket, messages carried with what their sender said of them (RFC 6458).
//!
//! tokio and nix know neither the protocol's messages nor what comes beside them.

use std::{
    io,
    mem::size_of,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, accept4, bind, connect, getsockname,
    getsockopt, listen, setsockopt, socket, sockopt,
};
use tokio::io::{Interest, unix::AsyncFd};

const BACKLOG: i32 = 1024;
/// The kernel's own senders are refused more than their buffer, which is smaller.
const MAX_MESSAGE: usize = 1 << 20;
const READ: usize = 64 << 10;
/// Streams each way, of which the other end may accept fewer: what Linux accepts (sctp(7), `sinit_max_instreams`).
const STREAMS: u16 = 2048;

/// What a sender says of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct About {
    stream: u16,
    unordered: bool,
    /// What the payload is, in the network's order already.
    protocol: u32,
}

/// Listens, or is one association.
pub struct Socket(AsyncFd<OwnedFd>);

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let opened = socket(family, SockType::Stream, flags, SockProtocol::Sctp).map_err(|errno| match errno {
        nix::Error::EPROTONOSUPPORT | nix::Error::ESOCKTNOSUPPORT => {
            io::Error::new(io::ErrorKind::Unsupported, "protocol not supported: the kernel of this host has no SCTP")
        }
        errno => errno.into(),
    })?;
    let streams = libc::sctp_initmsg {
        sinit_num_ostreams: STREAMS,
        sinit_max_instreams: STREAMS,
        sinit_max_attempts: 0,
        sinit_max_init_timeo: 0,
    };
    set(opened.as_raw_fd(), libc::SCTP_INITMSG, &streams)?;
    set(opened.as_raw_fd(), libc::SCTP_RECVRCVINFO, &1i32)?;
    Ok(opened)
}

fn set<T: Copy>(socket: RawFd, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is read only, and its length is told.
    let outcome =
        unsafe { libc::setsockopt(socket, libc::IPPROTO_SCTP, option, std::ptr::from_ref(value).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn watched(opened: OwnedFd) -> io::Result<Socket> {
    // SAFETY: the descriptor is owned by what watches it and stays the same.
    Ok(Socket(unsafe { AsyncFd::register(opened) }?))
}

impl Socket {
    pub fn listen(address: SocketAddr) -> io::Result<Socket> {
        let opened = open(address)?;
        if address.is_ipv6() {
            setsockopt(&opened, sockopt::Ipv6V6Only, &true)?;
        }
        bind(opened.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&opened, Backlog::new(BACKLOG)?)?;
        watched(opened)
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        let storage: SockaddrStorage = getsockname(self.0.as_raw_fd())?;
        let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
        let address = v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())));
        address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    pub async fn accept(&self) -> io::Result<Socket> {
        let accept = |listener: &OwnedFd| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = accept4(listener.as_raw_fd(), flags)?;
            // SAFETY: the descriptor is new and nobody else's.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let accepted = self.0.async_io(Interest::READABLE, accept).await?;
        watched(accepted)
    }

    pub async fn connect(to: SocketAddr) -> io::Result<Socket> {
        let opened = open(to)?;
        match connect(opened.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let socket = watched(opened)?;
        drop(socket.0.writable().await?);
        match getsockopt(socket.0.get_ref(), sockopt::SocketError)? {
            0 => Ok(socket),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The next message, whole; none when the other end sends no more.
    async fn receive(&self, message: &mut Vec<u8>) -> io::Result<Option<About>> {
        message.clear();
        loop {
            let begin = message.len();
            if begin > MAX_MESSAGE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
            }
            message.resize(begin + READ, 0);
            let (count, about, ends) =
                self.0.async_io(Interest::READABLE, |fd| receive(fd.as_raw_fd(), &mut message[begin..])).await?;
            message.truncate(begin + count);
            if count == 0 {
                return Ok(None);
            }
            if ends {
                return Ok(Some(about));
            }
        }
    }

    async fn send(&self, message: &[u8], about: About) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, |fd| send(fd.as_raw_fd(), message, about)).await
    }
}

/// Room for what stands beside a message, aligned as its head wants it.
type Beside = [u64; 16];

fn header(part: &mut libc::iovec, beside: &mut Beside) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is an empty one.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header.msg_control = beside.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Beside>() as _;
    header
}

/// A message or the beginning of one: bytes, what is said of it, whether it ends here.
fn receive(socket: RawFd, into: &mut [u8]) -> io::Result<(usize, About, bool)> {
    let mut beside = Beside::default();
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut header = header(&mut part, &mut beside);
    // SAFETY: the header describes buffers that live as long as the call.
    let count = unsafe { libc::recvmsg(socket, &mut header, 0) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let mut about = About::default();
    // SAFETY: the kernel has filled in the header and what it leads to; each part is read where it says that it is.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&header);
        while let Some(head) = next.as_ref() {
            if (head.cmsg_level, head.cmsg_type) == (libc::IPPROTO_SCTP, libc::SCTP_RCVINFO) {
                let info = libc::CMSG_DATA(head).cast::<libc::sctp_rcvinfo>().read_unaligned();
                about = About {
                    stream: info.rcv_sid,
                    unordered: i32::from(info.rcv_flags) & libc::SCTP_UNORDERED != 0,
                    protocol: info.rcv_ppid,
                };
            }
            next = libc::CMSG_NXTHDR(&header, head);
        }
    }
    Ok((count, about, header.msg_flags & libc::MSG_EOR != 0))
}

fn send(socket: RawFd, message: &[u8], about: About) -> io::Result<()> {
    let mut beside = Beside::default();
    let mut part = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    let mut header = header(&mut part, &mut beside);
    let length = size_of::<libc::sctp_sndinfo>() as u32;
    let info = libc::sctp_sndinfo {
        snd_sid: about.stream,
        snd_flags: if about.unordered { libc::SCTP_UNORDERED as u16 } else { 0 },
        snd_ppid: about.protocol,
        snd_context: 0,
        snd_assoc_id: 0,
    };
    // SAFETY: there is room for a head and the info behind it; the message is read only.
    let sent = unsafe {
        header.msg_controllen = libc::CMSG_SPACE(length) as _;
        let head = libc::CMSG_FIRSTHDR(&header);
        (*head).cmsg_level = libc::IPPROTO_SCTP;
        (*head).cmsg_type = libc::SCTP_SNDINFO;
        (*head).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(head).cast::<libc::sctp_sndinfo>().write_unaligned(info);
        libc::sendmsg(socket, &header, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Carries messages both ways until either end is done: an association has no half that stays open (RFC 9260, 9.2).
pub async fn carry(client: &Socket, container: &Socket) {
    tokio::select! {
        _ = one_way(client, container) => {}
        _ = one_way(container, client) => {}
    }
}

async fn one_way(from: &Socket, to: &Socket) -> io::Result<()> {
    let mut message = Vec::new();
    while let Some(about) = from.receive(&mut message).await? {
        to.send(&message, about).await?;
    }
    Ok(())
}
