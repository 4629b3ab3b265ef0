//! Published ports: sockets in the daemon's own network, carried to the container's address.
//!
//! A port is a socket that listens on the host, so the host's own firewall decides who reaches it (its input chain sees
//! the packets), it is reached from loopback as from elsewhere, and nothing is rewritten in the kernel.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

use super::sctp;

const BACKLOG: u32 = 1024;
/// A container on the same machine answers at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A flow without a connection is over when nothing was said for this long (docker-proxy's UDPConnTrackTimeout).
const UDP_IDLE: Duration = Duration::from_secs(90);
const MAX_FLOWS: usize = 4096;
const MAX_DATAGRAM: usize = 65_535;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// `80`, `80/tcp`, `53/udp`, `3868/sctp`.
pub fn parse_port(text: &str) -> Result<(u16, Protocol), String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number =
        number.parse().ok().filter(|&number| number > 0).ok_or_else(|| format!("Invalid containerPort: {number}"))?;
    match protocol.to_lowercase().as_str() {
        "tcp" => Ok((number, Protocol::Tcp)),
        "udp" => Ok((number, Protocol::Udp)),
        "sctp" => Ok((number, Protocol::Sctp)),
        other => Err(format!("Invalid proto: {other}")),
    }
}

/// `8080`, `8000-8010` or nothing for any.
pub fn parse_range(text: &str) -> Result<(u16, u16), String> {
    if text.is_empty() {
        return Ok((0, 0));
    }
    let bad = || format!("invalid port specification: \"{text}\"");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first > last { Err(bad()) } else { Ok((first, last)) }
}

/// A port that is open; it closes when this is dropped.
pub struct Published {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Published {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Socket {
    Connections(Listener),
    Udp(UdpSocket),
}

enum Listener {
    Tcp(TcpListener),
    Sctp(sctp::Socket),
}

enum Connection {
    Tcp(TcpStream),
    Sctp(sctp::Socket),
}

fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    match protocol {
        Protocol::Tcp => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            if address.is_ipv6() {
                setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            }
            socket.bind(address)?;
            Ok(Socket::Connections(Listener::Tcp(socket.listen(BACKLOG)?)))
        }
        Protocol::Sctp => Ok(Socket::Connections(Listener::Sctp(sctp::Socket::listen(address)?))),
        Protocol::Udp => {
            let domain = if address.is_ipv4() {
                nix::sys::socket::AddressFamily::Inet
            } else {
                nix::sys::socket::AddressFamily::Inet6
            };
            let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC | nix::sys::socket::SockFlag::SOCK_NONBLOCK;
            let socket = nix::sys::socket::socket(domain, nix::sys::socket::SockType::Datagram, flags, None)?;
            if address.is_ipv6() {
                setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            }
            let storage = nix::sys::socket::SockaddrStorage::from(address);
            nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &storage)?;
            Ok(Socket::Udp(UdpSocket::from_std(socket.into())?))
        }
    }
}

impl Socket {
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Connections(Listener::Tcp(listener)) => listener.local_addr(),
            Socket::Connections(Listener::Sctp(listener)) => listener.address(),
            Socket::Udp(socket) => socket.local_addr(),
        }
    }
}

/// Opens a port on `host` (none: every address of both families) and carries what comes to `target`.
pub fn publish(
    protocol: Protocol,
    host: Option<IpAddr>,
    range: (u16, u16),
    target: SocketAddr,
) -> io::Result<Vec<Published>> {
    let mut last = None;
    for port in range.0..=range.1 {
        match publish_at(protocol, host, port, target) {
            Ok(published) => return Ok(published),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn publish_at(protocol: Protocol, host: Option<IpAddr>, port: u16, target: SocketAddr) -> io::Result<Vec<Published>> {
    let start = |socket: Socket| -> io::Result<Published> {
        Ok(Published { address: socket.address()?, task: carry(socket, target) })
    };
    let Some(host) = host else {
        // The kernel chooses a port for the one family; it must be free in the other.
        for _ in 0..16 {
            let first = bind(protocol, (Ipv4Addr::UNSPECIFIED, port).into())?;
            let chosen = first.address()?.port();
            match bind(protocol, (Ipv6Addr::UNSPECIFIED, chosen).into()) {
                Ok(second) => return Ok(vec![start(first)?, start(second)?]),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && port == 0 => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                // A host without IPv6.
                Err(_) => return Ok(vec![start(first)?]),
            }
        }
        return Err(io::ErrorKind::AddrInUse.into());
    };
    Ok(vec![start(bind(protocol, (host, port).into())?)?])
}

fn carry(socket: Socket, target: SocketAddr) -> JoinHandle<()> {
    match socket {
        Socket::Connections(listener) => tokio::spawn(carry_connections(listener, target)),
        Socket::Udp(socket) => tokio::spawn(carry_udp(Arc::new(socket), target)),
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Listener::Tcp(listener) => Connection::Tcp(listener.accept().await?.0),
            Listener::Sctp(listener) => Connection::Sctp(listener.accept().await?),
        })
    }
}

async fn carry_connections(listener: Listener, target: SocketAddr) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(client) => drop(connections.spawn(carry_connection(client, target))),
                Err(error) => {
                    // Out of descriptors: those that end give theirs back.
                    tracing::debug!(%error, "a connection to a published port could not be accepted");
                    if connections.join_next().await.is_none() {
                        tokio::task::yield_now().await;
                    }
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry_connection(client: Connection, target: SocketAddr) {
    let mut client = match client {
        Connection::Tcp(client) => client,
        Connection::Sctp(client) => {
            let Ok(Ok(container)) = timeout(CONNECT_LIMIT, sctp::Socket::connect(target)).await else { return };
            return sctp::carry(&client, &container).await;
        }
    };
    let Ok(Ok(mut container)) = timeout(CONNECT_LIMIT, TcpStream::connect(target)).await else { return };
    let _ = client.set_nodelay(true);
    let _ = container.set_nodelay(true);
    // Either side's end or error ends both.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut container).await;
}

type Flows = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

async fn carry_udp(socket: Arc<UdpSocket>, target: SocketAddr) {
    let flows: Flows = Flows::default();
    let mut answers = tokio::task::JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error is the ICMP answer to something sent; the socket goes on.
                let Ok((count, client)) = received else { continue };
                let known = flows.lock().get(&client).cloned();
                let flow = match known {
                    Some(flow) => flow,
                    None => {
                        let Some(flow) = open_flow(&flows, client, target).await else { continue };
                        answers.spawn(answer(socket.clone(), flow.clone(), flows.clone(), client));
                        flow
                    }
                };
                let _ = flow.send(&buffer[..count]).await;
            }
            Some(_) = answers.join_next() => {}
        }
    }
}

async fn open_flow(flows: &Flows, client: SocketAddr, target: SocketAddr) -> Option<Arc<UdpSocket>> {
    if flows.lock().len() >= MAX_FLOWS {
        return None;
    }
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let flow = UdpSocket::bind((any, 0)).await.ok()?;
    flow.connect(target).await.ok()?;
    let flow = Arc::new(flow);
    flows.lock().insert(client, flow.clone());
    Some(flow)
}

async fn answer(socket: Arc<UdpSocket>, flow: Arc<UdpSocket>, flows: Flows, client: SocketAddr) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    // Refused or quiet for long: the flow is over.
    while let Ok(Ok(count)) = timeout(UDP_IDLE, flow.recv(&mut buffer)).await {
        if socket.send_to(&buffer[..count], client).await.is_err() {
            break;
        }
    }
    flows.lock().remove(&client);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn ports_and_ranges_are_read() {
        assert_eq!(parse_port("80").unwrap(), (80, Protocol::Tcp));
        assert_eq!(parse_port("53/udp").unwrap(), (53, Protocol::Udp));
        assert_eq!(parse_port("1/SCTP").unwrap(), (1, Protocol::Sctp));
        assert!(parse_port("1/dccp").unwrap_err().contains("dccp"));
        assert!(parse_port("0").is_err() && parse_port("x").is_err());
        assert_eq!(parse_range("80-90").unwrap(), (80, 90));
        assert_eq!(parse_range("").unwrap(), (0, 0));
        assert!(parse_range("90-80").is_err());
    }

    #[tokio::test]
    async fn a_published_port_carries_both_ways_and_closes_with_its_owner() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        let published = publish(Protocol::Tcp, Some(Ipv4Addr::LOCALHOST.into()), (0, 0), target).unwrap();
        let address = published[0].address;
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut inside, _) = server.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        inside.read_exact(&mut buffer).await.unwrap();
        inside.write_all(b"pong").await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"pong");
        let taken = publish(Protocol::Tcp, Some(Ipv4Addr::LOCALHOST.into()), (address.port(), address.port()), target);
        assert_eq!(taken.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        drop(published);
        // The task's end closes the socket; a connection that was carried ends with it.
        assert_eq!(client.read(&mut buffer).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn datagrams_find_their_way_back() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let published =
            publish(Protocol::Udp, Some(Ipv4Addr::LOCALHOST.into()), (0, 0), server.local_addr().unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"ping", published[0].address).await.unwrap();
        let mut buffer = [0; 16];
        let (count, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"ping");
        server.send_to(b"pong", from).await.unwrap();
        let (count, _) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"pong");
    }
}
