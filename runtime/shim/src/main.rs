//! The shim's program: `coracle-shim --dir DIR --root OCI_ROOT`, standard input being its listening socket and
//! standard output the launcher's program.

mod connection;
mod log_file;
mod log_ring;
mod os;
mod pod_init;
mod process;
mod server;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let (mut dir, mut root) = (None, None);
    while let Some(flag) = arguments.next() {
        match flag.to_str() {
            Some("--dir") => dir = arguments.next(),
            Some("--root") => root = arguments.next(),
            _ => return fail("usage: coracle-shim --dir DIR --root DIR"),
        }
    }
    let (Some(dir), Some(root)) = (dir, root) else { return fail("usage: coracle-shim --dir DIR --root DIR") };
    match server::Server::open(dir.into(), root.into()) {
        Ok(mut server) => server.run(),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) {
    eprintln!("coracle-shim: {message}");
    std::process::exit(1);
}
