//! Telling who started this that it is ready: a line on standard output, and sd_notify(3).

use std::{
    env,
    io::Write,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Says `line` on standard output and READY to the service manager.
pub fn ready(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be listening any more; the component goes on all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    notify("READY=1");
}

/// Tells the service manager why this ends.
pub fn failed(why: &str) {
    notify(&format!("STATUS={}\nERRNO=1", why.replace('\n', " ")));
}

fn notify(message: &str) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    // A name that begins with '@' is in the abstract name space (sd_notify(3)).
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager was not told");
    }
}
