//! In whose network a socket is opened.
//!
//! A socket belongs to the network namespace it was made in, for ever; binding and connecting may happen anywhere. So a
//! place only makes sockets, and the rest is ordinary asynchronous I/O.

use std::{
    io,
    net::{SocketAddr, UdpSocket as StdUdpSocket},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use crate::Netns;

/// Pending connections a listener keeps before the kernel refuses more.
const BACKLOG: u32 = 1024;

/// A peer that is gone without a word is noticed: a quiet connection is asked after it has been idle for a while, and
/// what is sent must be acknowledged within a bound. Otherwise the kernel goes on for a quarter of an hour.
const IDLE_SECONDS: u32 = 15;
const INTERVAL_SECONDS: u32 = 5;
const UNACKNOWLEDGED_MILLISECONDS: u32 = 30_000;

/// Where a dial or a listen happens.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// The namespace this process runs in.
    #[default]
    Current,
    /// Another namespace.
    Netns(Netns),
}

impl Place {
    /// Runs `work` in the place, on this thread; it must start no threads.
    pub fn run<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Current => work(),
            Self::Netns(netns) => netns.run(work),
        }
    }

    /// Listens for TCP connections. Port 0 takes a free one.
    pub fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.listen(address, false)
    }

    /// Listens for TCP connections at an address that other processes of the same user may listen at, too: the kernel
    /// gives each connection to one of them (SO_REUSEPORT in socket(7)).
    pub fn share_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.listen(address, true)
    }

    fn listen(&self, address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
        let socket = self.tcp_socket(address)?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// Connects to `address` within `limit`; Nagle's delay is off.
    pub async fn connect_tcp(&self, address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let socket = self.tcp_socket(address)?;
        let stream = timeout(limit, socket.connect(address)).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} within {limit:?}"))
        })??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A UDP socket bound to `address`.
    pub fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.run(|| StdUdpSocket::bind(address))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    /// What is set on a listener holds for the connections it accepts, too.
    fn tcp_socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = self.run(|| if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })?;
        setsockopt(&socket, sockopt::KeepAlive, &true)?;
        setsockopt(&socket, sockopt::TcpKeepIdle, &IDLE_SECONDS)?;
        setsockopt(&socket, sockopt::TcpKeepInterval, &INTERVAL_SECONDS)?;
        setsockopt(&socket, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MILLISECONDS)?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::Links;

    #[tokio::test]
    async fn a_listener_in_a_namespace_is_reached_from_there_and_not_from_here() {
        let place = Place::Netns(Netns::create().unwrap());
        Links::open(&place).unwrap().up("lo").await.unwrap();
        let listener = place.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let limit = Duration::from_secs(5);

        let (mut client, (mut server, _)) =
            tokio::try_join!(place.connect_tcp(address, limit), listener.accept()).unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");

        drop(listener);
        let error = place.connect_tcp(address, limit).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
