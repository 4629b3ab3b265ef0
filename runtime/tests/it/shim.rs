//! The shim's protocol: terminals, several clients, attaching before the start.

use coracle_runtime::engine::shim::{Programs, Session, Shim, ShimEvent};
use coracle_shim::protocol::{self, Create, Exit, JsonFile, Kind, LogDriver, Reply, Request};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{isolation::isolated, launcher::Bundle};

/// Reads until the process ends; what it said, and how it ended.
async fn to_end(session: &mut Session) -> (String, Exit) {
    let mut out = Vec::new();
    loop {
        match session.next().await.unwrap() {
            Reply::Stdout { data } | Reply::Stderr { data } => out.extend(data),
            Reply::Exited { exit, .. } => return (String::from_utf8(out).unwrap(), exit),
            _ => {}
        }
    }
}

async fn until(session: &mut Session, words: &str) -> String {
    let mut out = String::new();
    while !out.contains(words) {
        match session.next().await.unwrap() {
            Reply::Stdout { data } | Reply::Stderr { data } => out.push_str(std::str::from_utf8(&data).unwrap()),
            Reply::Exited { exit, .. } => panic!("ended with {exit:?} after {out:?}"),
            _ => {}
        }
    }
    out
}

fn create(id: &str, bundle: &Bundle, terminal: bool) -> Create {
    let bundle = bundle.write().to_str().unwrap().to_owned();
    Create {
        id: id.into(),
        kind: Kind::Container { bundle },
        terminal,
        stdin: true,
        stdin_once: true,
        log: LogDriver::None,
        oom_file: String::new(),
    }
}

#[test]
fn clients_share_a_terminal() {
    const TEST: &str = "shim::clients_share_a_terminal";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "stty size; read line; echo got $line; stty size; [ -t 0 ] && exit 6");
        bundle.config["process"]["terminal"] = json!(true);
        bundle.config["process"]["consoleSize"] = json!({ "height": 24, "width": 80 });
        let programs = Programs::embedded().unwrap();
        let dir = bundle.dir.path().join(
            "a-directory-whose-name-is-too-long-for-a-socket-address-if-it-were-not-named-by-a-descriptor-instead/shim",
        );
        let (shim, mut events) = Shim::spawn(&programs, &dir, &bundle.dir.path().join("oci")).await.unwrap();
        let attach = |stdin| Request::Attach { id: "c".into(), stdin, output: true };
        let (mut first, mut second) = (shim.session().await.unwrap(), shim.session().await.unwrap());
        first.send(&[Request::Create(create("c", &bundle, true)), attach(true)]).await.unwrap();
        for _ in 0..3 {
            first.next().await.unwrap();
        }
        second.send(&[attach(false)]).await.unwrap();
        for _ in 0..2 {
            second.next().await.unwrap();
        }
        let (pid, _) = shim.start_process("c").await.unwrap();
        assert!(pid > 0);
        assert!(until(&mut first, "24 80").await.contains("24 80"));
        shim.call(&Request::Resize { id: "c".into(), rows: 10, columns: 20 }).await.unwrap();
        // Only a client that attached the input may write.
        second.send(&[Request::Stdin { data: b"wrong\n".to_vec() }]).await.unwrap();
        first.send(&[Request::Stdin { data: b"right\n".to_vec() }]).await.unwrap();
        let (said, exit) = to_end(&mut first).await;
        assert!(said.contains("got right\r\n10 20\r\n"), "{said}");
        assert_eq!(exit.code, 6);
        let (said, exit) = to_end(&mut second).await;
        assert!(said.contains("24 80") && said.contains("got right") && exit.code == 6, "{said}");
        let Some(ShimEvent::Exited { id, exit }) = events.recv().await else { panic!("the end is told") };
        assert_eq!((id.as_str(), exit.code), ("c", 6));
        assert_eq!(shim.state().await.unwrap()[0].exit.as_ref().unwrap().code, 6);
        end(&shim, &mut events, &bundle).await;
    });
}

async fn end(shim: &Shim, events: &mut tokio::sync::mpsc::Receiver<ShimEvent>, bundle: &Bundle) {
    shim.call(&Request::Delete { id: "c".into() }).await.unwrap();
    shim.call(&Request::Shutdown).await.unwrap();
    assert!(matches!(events.recv().await, Some(ShimEvent::Gone)));
    coracle_launcher::state::State::load(&bundle.dir.path().join("oci"), "c")
        .unwrap()
        .delete(true, &Default::default())
        .unwrap();
}

#[test]
fn input_and_much_output_go_through_pipes() {
    const TEST: &str = "shim::input_and_much_output_go_through_pipes";
    isolated(TEST, || async {
        let bundle = Bundle::new(TEST, "cat; echo done >&2; exit 3");
        let programs = Programs::embedded().unwrap();
        let (shim, mut events) =
            Shim::spawn(&programs, &bundle.dir.path().join("shim"), &bundle.dir.path().join("oci")).await.unwrap();
        let mut session = shim.session().await.unwrap();
        let start = [
            Request::Create(create("c", &bundle, false)),
            Request::Attach { id: "c".into(), stdin: true, output: true },
            Request::Start { id: "c".into() },
        ];
        session.send(&start).await.unwrap();
        // More than any pipe or buffer holds: what is not read holds the writer back, and nothing is lost.
        let line = "0123456789abcdef".repeat(64) + "\n";
        let mut expected = 0;
        let (mut writer, mut reader) = session.split();
        let write = async {
            for _ in 0..64 {
                let data = line.repeat(16).into_bytes();
                expected += data.len();
                writer.send(&[Request::Stdin { data }]).await.unwrap();
            }
            writer.send(&[Request::CloseStdin]).await.unwrap();
        };
        let mut received = 0;
        let read = async {
            loop {
                match reader.next().await.unwrap() {
                    Reply::Stdout { data } | Reply::Stderr { data } => received += data.len(),
                    Reply::Exited { exit, .. } => break exit,
                    _ => {}
                }
            }
        };
        let ((), exit) = tokio::join!(write, read);
        assert_eq!((received, exit.code), (expected + "done\n".len(), 3));
        assert!(matches!(events.recv().await, Some(ShimEvent::Exited { .. })));
        let mut late = shim.session().await.unwrap();
        late.send(&[Request::Attach { id: "c".into(), stdin: false, output: true }]).await.unwrap();
        assert_eq!(to_end(&mut late).await.1.code, 3);
        let mut wrong = shim.session().await.unwrap();
        wrong.send(&[Request::Start { id: "nothing".into() }]).await.unwrap();
        wrong.next().await.unwrap();
        assert!(wrong.next().await.unwrap_err().to_string().contains("does not exist"));
        end(&shim, &mut events, &bundle).await;
    });
}

#[test]
fn logs_without_end_take_little_room() {
    const TEST: &str = "shim::logs_without_end_take_little_room";
    isolated(TEST, || async {
        // No newline in it, and each byte takes six in the file: 0.4 GB.
        let bundle = Bundle::new(TEST, "read line; busybox dd if=/dev/zero bs=1048576 count=64 2>/dev/null");
        let programs = Programs::embedded().unwrap();
        let (shim, mut events) =
            Shim::spawn(&programs, &bundle.dir.path().join("shim"), &bundle.dir.path().join("oci")).await.unwrap();
        let path = bundle.dir.path().join("logs");
        std::fs::create_dir(&path).unwrap();
        let log = LogDriver::JsonFile(JsonFile {
            path: path.join("c.log").to_str().unwrap().to_owned(),
            max_size: 1 << 20,
            max_files: 3,
            ..JsonFile::default()
        });
        let mut session = shim.session().await.unwrap();
        let attach = Request::Attach { id: "c".into(), stdin: true, output: false };
        session.send(&[Request::Create(Create { log, ..create("c", &bundle, false) }), attach]).await.unwrap();
        for _ in 0..3 {
            session.next().await.unwrap();
        }
        let (pid, _) = shim.start_process("c").await.unwrap();
        let parent = field(pid, "PPid:");
        session.send(&[Request::Stdin { data: b"go\n".to_vec() }]).await.unwrap();
        assert_eq!(to_end(&mut session).await.1.code, 0);
        let sizes: Vec<u64> =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        // Each file ends with the line that made it full.
        assert!(sizes.len() == 3 && sizes.iter().all(|&size| size < (1 << 20) + (128 << 10)), "{sizes:?}");
        let most = field(u32::try_from(parent).unwrap(), "VmHWM:");
        assert!(most < 8 << 10, "the shim took {most} KiB");
        assert!(matches!(events.recv().await, Some(ShimEvent::Exited { .. })));
        end(&shim, &mut events, &bundle).await;
    });
}

#[test]
fn processes_begin_alike_whoever_launches_them() {
    const TEST: &str = "shim::processes_begin_alike_whoever_launches_them";
    isolated(TEST, || async {
        let script = "read line; ls /proc/self/fd; while read -r key rest; do case $key in Sig[BI]*|Umask:) echo $key $rest;; \
                      esac; done < /proc/self/status; pwd; echo environment: $(env | wc -l)";
        let bundle = Bundle::new(TEST, script);
        let programs = Programs::embedded().unwrap();
        let mut said = Vec::new();
        // A log that holds nobody back has a thread, beside which the shim makes no launcher of itself.
        for (name, buffer, threads) in [("alone", 0, 1), ("beside", 64 << 10, 2)] {
            let dir = bundle.dir.path().join(name);
            let (shim, mut events) = Shim::spawn(&programs, &dir, &bundle.dir.path().join("oci")).await.unwrap();
            let path = bundle.dir.path().join(format!("{name}.log")).to_str().unwrap().to_owned();
            let log = LogDriver::JsonFile(JsonFile { path, buffer, ..JsonFile::default() });
            let mut session = shim.session().await.unwrap();
            let attach = Request::Attach { id: "c".into(), stdin: true, output: true };
            session.send(&[Request::Create(Create { log, ..create("c", &bundle, false) }), attach]).await.unwrap();
            for _ in 0..3 {
                session.next().await.unwrap();
            }
            let (pid, _) = shim.start_process("c").await.unwrap();
            let parent = u32::try_from(field(pid, "PPid:")).unwrap();
            assert_eq!(field(parent, "Threads:"), threads);
            session.send(&[Request::Stdin { data: b"go\n".to_vec() }]).await.unwrap();
            let (out, exit) = to_end(&mut session).await;
            assert_eq!(exit.code, 0, "{out}");
            said.push(out);
            assert!(matches!(events.recv().await, Some(ShimEvent::Exited { .. })));
            end(&shim, &mut events, &bundle).await;
        }
        assert_eq!(said[0], said[1]);
        assert!(said[0].starts_with("0\n1\n2\n3\nUmask:"), "{}", said[0]);
        assert!(said[0].contains("SigBlk: 0000000000000000\n"), "{}", said[0]);
    });
}

/// A number in a process's status.
fn field(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A shim of the test's: one connection, and what came in each read of it.
struct Counted {
    socket: tokio::net::UnixStream,
}

impl Counted {
    async fn accept(listener: &tokio::net::UnixListener) -> Counted {
        Counted { socket: listener.accept().await.unwrap().0 }
    }

    /// The requests of one read, which is of one write: more is not sent before there are answers.
    async fn read(&mut self) -> Vec<(u32, Request)> {
        let mut bytes = vec![0; 64 << 10];
        let count = self.socket.read(&mut bytes).await.unwrap();
        let (mut rest, mut requests) = (&bytes[..count], Vec::new());
        while let Some((kind, number, body, used)) = protocol::split(rest).unwrap() {
            requests.push((number, Request::decode(kind, body).unwrap()));
            rest = &rest[used..];
        }
        assert!(rest.is_empty(), "half a request");
        requests
    }

    async fn answer(&mut self, replies: &[(u32, Reply)]) {
        let mut bytes = Vec::new();
        replies.iter().for_each(|(number, reply)| reply.encode(*number, &mut bytes));
        self.socket.write_all(&bytes).await.unwrap();
    }
}

#[tokio::test]
async fn a_start_is_one_message() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(dir.path().join("shim.sock")).unwrap();
    let failed = |message: &str| Reply::Failed { message: message.into() };
    let create = || Create {
        id: "c".into(),
        kind: Kind::Container { bundle: "/b".into() },
        terminal: false,
        stdin: false,
        stdin_once: false,
        log: LogDriver::None,
        oom_file: String::new(),
    };
    let wanted = [Request::Delete { id: "c".into() }, Request::Create(create()), Request::Start { id: "c".into() }];
    let shim = async {
        let mut shim = Counted::accept(&listener).await;
        let greeting = shim.read().await;
        assert_eq!(greeting, [(1, Request::Hello { version: protocol::VERSION }), (2, Request::Watch)]);
        shim.answer(&[(1, Reply::Hello { version: protocol::VERSION }), (2, Reply::Done)]).await;
        for outcome in 0..3 {
            let requests = shim.read().await;
            let numbers: Vec<u32> = requests.iter().map(|(number, _)| *number).collect();
            assert_eq!(requests.into_iter().map(|(_, request)| request).collect::<Vec<_>>(), wanted);
            // Answers may come in any order.
            let (created, started) = match outcome {
                0 => (Reply::Done, Reply::Started { pid: 7, at: 8 }),
                1 => (failed("no log"), failed("no process")),
                _ => (Reply::Done, failed("no program")),
            };
            shim.answer(&[(numbers[2], started), (numbers[0], failed("unknown")), (numbers[1], created)]).await;
        }
        let requests = shim.read().await;
        assert_eq!(requests.iter().map(|(_, request)| request).collect::<Vec<_>>(), [&wanted[0], &wanted[1]]);
        shim.answer(&[(requests[0].0, failed("unknown")), (requests[1].0, Reply::Done)]).await;
    };
    let daemon = async {
        let (shim, _events) = Shim::find(dir.path()).await.unwrap();
        assert!(!shim.is_ours());
        assert_eq!(shim.run_process(create()).await.unwrap(), (7, 8));
        // The first thing that went wrong is what is told, and what there was to forget is no matter.
        for said in ["no log", "no program"] {
            let error = shim.run_process(create()).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        shim.create_process(create()).await.unwrap();
    };
    tokio::join!(shim, daemon);
}
