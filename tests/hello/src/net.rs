//! Echo servers, a UDP client and name look-up.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    thread,
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A TCP connection with a bound on every step.
pub fn connect(address: &str) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("connect to {address}: {error}");
    let mut last = format!("{address}: no address");
    for candidate in address.to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&candidate, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
                stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) => last = format!("connect to {candidate}: {error}"),
        }
    }
    Err(last)
}

pub fn tcp_echo(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(|error| format!("listen on port {port}: {error}"))?;
    for stream in listener.incoming().flatten() {
        thread::spawn(move || echo(stream));
    }
    Ok(())
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

pub fn udp_echo(port: u16) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("UDP port {port}: {error}");
    let socket = UdpSocket::bind(("0.0.0.0", port)).map_err(failed)?;
    let mut buffer = [0; 64 << 10];
    loop {
        let (count, from) = socket.recv_from(&mut buffer).map_err(failed)?;
        socket.send_to(&buffer[..count], from).map_err(failed)?;
    }
}

pub fn udp(address: &str, text: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    socket.send_to(text.as_bytes(), address).map_err(failed)?;
    let mut buffer = [0; 64 << 10];
    let (count, _) = socket.recv_from(&mut buffer).map_err(failed)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

pub fn addresses(name: &str) -> Result<BTreeSet<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| format!("{name}: {error}"))?;
    Ok(found.map(|address| address.ip()).collect())
}
