//! HTTP/1.1, one request a connection: as much as a probe, a test or a person with curl needs.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Connections answered at once; what comes above waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
const MAX_LINE: u64 = 8 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until the process is ended.
pub fn serve(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.map_err(|error| format!("listen on port {port}: {error}"))?;
    println!("hello {} listens on port {port}", version());
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            let _ = answer(&stream);
            continue;
        }
        let open = Arc::clone(&open);
        thread::spawn(move || {
            // A client that went away is its own matter.
            let _ = answer(&stream);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream.take(MAX_LINE * 16));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    println!("{}", request.trim_end());
    let (status, body) = route(path);
    let mut out = stream;
    write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn route(path: &str) -> (&'static str, String) {
    match path {
        "/" => ("200 OK", format!("version {}\npod {}\nnode {}\n", version(), pod(), node())),
        "/healthz" => ("200 OK", "ok\n".into()),
        _ => match path.strip_prefix("/env/").map(env::var) {
            Some(Ok(value)) => ("200 OK", format!("{value}\n")),
            _ => ("404 Not Found", "not found\n".into()),
        },
    }
}

fn version() -> String {
    env::var("HELLO_VERSION").unwrap_or_else(|_| "unknown".into())
}

fn pod() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

fn node() -> String {
    env::var("NODE_NAME").unwrap_or_else(|_| "unknown".into())
}

/// Prints the body of `url`; fails unless the answer is 2xx.
pub fn get(url: &str) -> Result<ExitCode, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("not an http:// address: {url}"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let mut stream = crate::net::connect(&address)?;
    let path = if path.is_empty() { "/" } else { path };
    let failed = |error: std::io::Error| format!("{url}: {error}");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).map_err(failed)?;
    let mut header = String::new();
    while reader.read_line(&mut header).map_err(failed)? > 2 {
        header.clear();
    }
    std::io::copy(&mut reader, &mut std::io::stdout().lock()).map_err(failed)?;
    let code = status.split(' ').nth(1).unwrap_or_default();
    if code.starts_with('2') {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!("{url}: {}", status.trim_end()))
}
