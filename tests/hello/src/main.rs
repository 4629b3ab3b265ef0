//! The one program of the test image: answers HTTP with who it is, and does what tests need done inside a container.
//!
//! ```text
//! hello [serve [PORT]]        HTTP on PORT (8080): version, pod and node; /healthz; /env/NAME
//! hello sleep [SECONDS]       sleep, for ever without a number
//! hello exit CODE             end at once
//! hello print TEXT…           write TEXT to standard output
//! hello eat MEBIBYTES         touch that much memory, then sleep
//! hello burn [SECONDS]        keep one CPU busy
//! hello cat FILE…             write files to standard output
//! hello tcp-echo PORT         send back what comes
//! hello udp-echo PORT         send back what comes
//! hello udp HOST:PORT TEXT    send TEXT, print the answer
//! hello dns NAME              look a name up, print its addresses
//! hello get URL               HTTP GET, print the body; exit 1 unless 2xx
//! ```
//!
//! As a container's first process it has no default signal actions, so it ends on SIGTERM and SIGINT by itself.

mod http;
mod net;

use std::{
    env, fs,
    hint::black_box,
    io::{self, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

fn main() -> ExitCode {
    end_on(&[libc::SIGTERM, libc::SIGINT]);
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<ExitCode, String> {
    match args {
        [] | ["serve"] => http::serve(8080)?,
        ["serve", port] => http::serve(number(port)?)?,
        ["sleep"] => sleep(None),
        ["sleep", seconds] => sleep(Some(number(seconds)?)),
        ["exit", code] => return Ok(ExitCode::from(number::<u8>(code)?)),
        ["print", text @ ..] => println!("{}", text.join(" ")),
        ["eat", mebibytes] => eat(number(mebibytes)?),
        ["burn"] => burn(None),
        ["burn", seconds] => burn(Some(Duration::from_secs(number(seconds)?))),
        ["cat", files @ ..] => cat(files)?,
        ["tcp-echo", port] => net::tcp_echo(number(port)?)?,
        ["udp-echo", port] => net::udp_echo(number(port)?)?,
        ["udp", address, text] => println!("{}", net::udp(address, text)?),
        ["dns", name] => net::addresses(name)?.iter().for_each(|address| println!("{address}")),
        ["get", url] => return http::get(url),
        _ => return Err(format!("unknown command: {}", args.join(" "))),
    }
    Ok(ExitCode::SUCCESS)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number in range: {text}"))
}

extern "C" fn end(signal: libc::c_int) {
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(if signal == libc::SIGTERM { 0 } else { 128 + signal }) }
}

fn end_on(signals: &[libc::c_int]) {
    for &signal in signals {
        // SAFETY: the handler only calls _exit.
        unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
    }
}

fn sleep(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => thread::sleep(Duration::from_secs(seconds)),
        None => loop {
            thread::park();
        },
    }
}

fn eat(mebibytes: usize) {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mebibytes {
        eaten.push(vec![1; 1 << 20]);
    }
    println!("ate {} MiB", black_box(&eaten).len());
    sleep(None);
}

fn burn(time: Option<Duration>) {
    let start = Instant::now();
    let mut value = 1_u64;
    while time.is_none_or(|time| start.elapsed() < time) {
        for _ in 0..1_000_000 {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

fn cat(files: &[&str]) -> Result<(), String> {
    let mut out = io::stdout().lock();
    for file in files {
        let content = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        out.write_all(&content).map_err(|error| format!("standard output: {error}"))?;
    }
    Ok(())
}
