//! The embedded DNS server of one container: names of its networks answered here, the rest asked of others.
//!
//! It listens on 127.0.0.11 inside the container's network namespace, on a port of its own, and a rule there leads port 53
//! to it, so that a container may have a DNS server of its own. Questions go out from the daemon's network.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use coracle_link::Place;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use super::nft::{Chain, Expression, Hook, Table, replace};
use crate::error::{Context, Result};

/// Where containers ask.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "coracle-dns";
const TTL: u32 = 600;
const UPSTREAM_LIMIT: Duration = Duration::from_secs(3);
const MAX_MESSAGE: usize = 65_535;
/// Questions of one container that are asked of others at a time.
const MAX_FORWARDED: usize = 256;

/// What names stand for, as one container sees them.
pub trait Names: Send + Sync {
    /// The addresses of a name, in the order to give them; none if it is not one of ours.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;
    /// The name of an address of ours.
    fn name(&self, address: IpAddr) -> Option<String>;
}

/// A server that runs; it ends when this is dropped.
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// Starts the server in a container's network namespace.
    pub fn start(place: &Place, names: Arc<dyn Names>, upstreams: Vec<IpAddr>) -> Result<Server> {
        let udp = place.bind_udp((ADDRESS, 0).into()).context("listen for DNS")?;
        let tcp = place.listen_tcp((ADDRESS, 0).into()).context("listen for DNS")?;
        let port =
            |address: std::io::Result<SocketAddr>| address.map(|address| address.port()).context("listen for DNS");
        let table = redirect(port(udp.local_addr())?, port(tcp.local_addr())?);
        place.run(|| replace(&table)).context("lead DNS questions to the embedded server")?;
        let resolver = Arc::new(Resolver { names, upstreams, forwarding: Semaphore::new(MAX_FORWARDED) });
        Ok(Server {
            tasks: vec![
                tokio::spawn(serve_udp(Arc::new(udp), resolver.clone())),
                tokio::spawn(serve_tcp(tcp, resolver)),
            ],
        })
    }
}

fn redirect(udp: u16, tcp: u16) -> Table {
    let rule = |protocol: i32, port: u16| {
        vec![
            Expression::Destination(ADDRESS),
            Expression::Protocol(protocol as u8),
            Expression::DestinationPort(53),
            Expression::DestinationNat(ADDRESS, port),
        ]
    };
    Table {
        name: TABLE.into(),
        chains: vec![Chain {
            name: "output",
            kind: "nat",
            hook: Hook::Output,
            priority: -100,
            rules: vec![rule(libc::IPPROTO_UDP, udp), rule(libc::IPPROTO_TCP, tcp)],
        }],
    }
}

struct Resolver {
    names: Arc<dyn Names>,
    upstreams: Vec<IpAddr>,
    forwarding: Semaphore,
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut questions = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((count, client)) = received else { continue };
                let message = buffer[..count].to_vec();
                if let Some(answer) = resolver.own_answer(&message) {
                    let _ = socket.send_to(&answer, client).await;
                    continue;
                }
                let (socket, resolver) = (socket.clone(), resolver.clone());
                questions.spawn(async move {
                    if let Some(answer) = resolver.forward(&message, false).await {
                        // A client that is gone needs no answer.
                        let _ = socket.send_to(&answer, client).await;
                    }
                });
            }
            Some(_) = questions.join_next() => {}
        }
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let mut clients = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                if clients.len() < MAX_FORWARDED {
                    clients.spawn(serve_stream(stream, resolver.clone()));
                }
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn serve_stream(mut stream: TcpStream, resolver: Arc<Resolver>) {
    const IDLE: Duration = Duration::from_secs(30);
    loop {
        let Ok(Ok(length)) = timeout(IDLE, stream.read_u16()).await else { return };
        let mut message = vec![0; usize::from(length)];
        if !matches!(timeout(IDLE, stream.read_exact(&mut message)).await, Ok(Ok(_))) {
            return;
        }
        let answer = match resolver.own_answer(&message) {
            Some(answer) => Some(answer),
            None => resolver.forward(&message, true).await,
        };
        let Some(answer) = answer else { return };
        let mut bytes = (answer.len() as u16).to_be_bytes().to_vec();
        bytes.extend_from_slice(&answer);
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

impl Resolver {
    /// An answer from what is known here; none if others must be asked.
    fn own_answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let question = Question::parse(message)?;
        match question.kind {
            PTR => {
                let address = reverse(&question.name)?;
                let name = self.names.name(address)?;
                Some(question.answer(message, &[encode_name(&name)?]))
            }
            A | AAAA => {
                let addresses = self.names.addresses(&question.name)?;
                let data: Vec<Vec<u8>> = addresses
                    .iter()
                    .filter_map(|address| match (address, question.kind) {
                        (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
                        (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
                        _ => None,
                    })
                    .collect();
                Some(question.answer(message, &data))
            }
            _ => {
                // A name of ours has nothing else, and it is nobody else's business.
                self.names.addresses(&question.name)?;
                Some(question.answer(message, &[]))
            }
        }
    }

    /// Asks the upstream servers in turn; a server failure if none answers.
    async fn forward(&self, message: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let failure = Question::parse(message).map(|question| question.failure(message));
        let Ok(_permit) = self.forwarding.try_acquire() else { return failure };
        for upstream in &self.upstreams {
            let server = SocketAddr::new(*upstream, 53);
            let asked = async { if tcp { ask_tcp(server, message).await } else { ask_udp(server, message).await } };
            if let Ok(Ok(answer)) = timeout(UPSTREAM_LIMIT, asked).await {
                return Some(answer);
            }
        }
        failure
    }
}

async fn ask_udp(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        "[::]:0".parse().map_err(std::io::Error::other)?
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let count = socket.recv(&mut buffer).await?;
        // An answer to another question is somebody's guess.
        if count >= 12 && buffer[..2] == message[..2] {
            buffer.truncate(count);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;

/// The one question of a query (RFC 1035, 4.1).
#[derive(Debug, PartialEq)]
struct Question {
    /// Lower case, without the last dot.
    name: String,
    kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

impl Question {
    fn parse(message: &[u8]) -> Option<Question> {
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        let is_query = message.get(2)? & 0xf8 == 0;
        if !is_query || word(4)? != 1 {
            return None;
        }
        let mut name = String::new();
        let mut at = 12;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // Compression has no place in a question.
            if length > 63 || name.len() > 255 {
                return None;
            }
            let label = message.get(at..at + length)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&String::from_utf8_lossy(label).to_lowercase());
            at += length;
        }
        let (kind, class) = (word(at)?, word(at + 2)?);
        (class == INTERNET).then_some(Question { name, kind, end: at + 4 })
    }

    fn head(&self, message: &[u8], code: u8, answers: u16) -> Vec<u8> {
        let mut out = message[..self.end].to_vec();
        out[2] = 0x80 | message[2] & 0x01;
        out[3] = 0x80 | code;
        out[6..8].copy_from_slice(&answers.to_be_bytes());
        out[8..12].fill(0);
        out
    }

    fn answer(&self, message: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
        let mut out = self.head(message, 0, data.len() as u16);
        for record in data {
            // The name is the question's.
            out.extend_from_slice(&[0xc0, 12]);
            out.extend_from_slice(&self.kind.to_be_bytes());
            out.extend_from_slice(&INTERNET.to_be_bytes());
            out.extend_from_slice(&TTL.to_be_bytes());
            out.extend_from_slice(&(record.len() as u16).to_be_bytes());
            out.extend_from_slice(record);
        }
        out
    }

    fn failure(&self, message: &[u8]) -> Vec<u8> {
        self.head(message, 2, 0)
    }
}

fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).ok().filter(|&length| length < 64)?);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    Some(out)
}

/// `4.3.2.1.in-addr.arpa`
fn reverse(name: &str) -> Option<IpAddr> {
    let labels: Vec<u8> =
        name.strip_suffix(".in-addr.arpa")?.split('.').map(|label| label.parse().ok()).collect::<Option<_>>()?;
    match labels[..] {
        [d, c, b, a] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        out.extend(encode_name(name).unwrap());
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&INTERNET.to_be_bytes());
        out
    }

    struct Fixed;
    impl Names for Fixed {
        fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
            (name == "db").then(|| vec!["172.18.0.2".parse().unwrap(), "172.18.0.3".parse().unwrap()])
        }
        fn name(&self, address: IpAddr) -> Option<String> {
            (address == IpAddr::from([172, 18, 0, 2])).then(|| "db.net".into())
        }
    }

    #[test]
    fn own_names_are_answered_and_others_are_not() {
        let resolver = Resolver { names: Arc::new(Fixed), upstreams: vec![], forwarding: Semaphore::new(1) };
        let answer = resolver.own_answer(&query("DB", A)).unwrap();
        assert_eq!(&answer[..4], [0xab, 0xcd, 0x81, 0x80]);
        assert_eq!(answer[7], 2);
        assert!(answer.ends_with(&[172, 18, 0, 3]));
        assert_eq!(resolver.own_answer(&query("db", AAAA)).unwrap()[7], 0);
        assert!(resolver.own_answer(&query("elsewhere", A)).is_none());
        let pointer = resolver.own_answer(&query("2.0.18.172.in-addr.arpa", PTR)).unwrap();
        assert!(pointer.ends_with(b"\x02db\x03net\0"));
        for length in 0..20 {
            // Whatever comes, nothing breaks.
            assert!(resolver.own_answer(&query("db", A)[..length]).is_none());
        }
    }
}
