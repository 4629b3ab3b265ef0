//! Running commands, with a bound on their time.

use std::{
    env,
    ffi::OsStr,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use wait_timeout::ChildExt;

/// No command of a test takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{} failed: {}\n{}{}", self.command, self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of a command that must fail with exit code 1.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_eq!(self.status.code(), Some(1), "{} should have failed\n{}{}", self.command, self.stdout, self.stderr);
        self.stderr
    }
}

/// A binary of this workspace, built in the profile of this test, or of the directory that `CORACLE_BINARIES` names, from
/// the workspace's root on.
pub fn binary(name: &str) -> PathBuf {
    if let Some(dir) = env::var_os("CORACLE_BINARIES") {
        return Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dir).join(name);
    }
    let test = env::current_exe().expect("a test knows its program");
    // `<target>/<profile>/deps/<test>`
    let path = test.ancestors().nth(2).expect("tests are in a directory of their profile").join(name);
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build --workspace`, or run `cargo xtask e2e`",
        path.display()
    );
    path
}

/// Runs `command`, feeding it `input`.
pub fn run(command: &mut Command, input: &str) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy);
    let line = words.collect::<Vec<_>>().join(" ");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut stdin = child.stdin.take().expect("it was asked for");
    let input = input.to_owned();
    let feeder = thread::spawn(move || {
        // A command that does not read is not wrong.
        let _ = stdin.write_all(input.as_bytes());
    });
    let stdout = collect(child.stdout.take().expect("it was asked for"));
    let stderr = collect(child.stderr.take().expect("it was asked for"));
    let Some(status) = child.wait_timeout(LIMIT).expect("wait for a child") else {
        child.kill().expect("kill a child");
        let _ = child.wait();
        panic!("{line} did not end within {LIMIT:?}\n{}{}", stdout.join().unwrap(), stderr.join().unwrap());
    };
    feeder.join().unwrap();
    Output { command: line, status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is worth showing.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
