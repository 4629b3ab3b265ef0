//! Readiness told from within a container (sd_notify(3)).

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use crate::bundle::{Bundle, isolated, until};

/// Starts the launcher with somebody who wants to hear of it.
fn start(bundle: &Bundle, arguments: &[&str], listener: &Path) -> Child {
    let mut command = bundle.command(arguments);
    command.env("NOTIFY_SOCKET", listener).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Says from a container what a program in it would; its number is in a file.
fn say(pid_file: &Path, text: &str) -> i32 {
    let mut pid = 0;
    let mut socket = PathBuf::new();
    until("a socket in the container", || {
        pid = fs::read_to_string(pid_file).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        // What the container's program has in its environment.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let path = environment.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(b"NOTIFY_SOCKET="));
        let path = path.map(|path| String::from_utf8(path.to_vec()).unwrap()).unwrap_or_default();
        socket = PathBuf::from(format!("/proc/{pid}/root{path}"));
        !path.is_empty() && socket.exists()
    });
    let from = UnixDatagram::unbound().unwrap();
    from.send_to(text.as_bytes(), socket).unwrap();
    pid
}

fn hear(listener: &UnixDatagram) -> String {
    let mut buffer = [0; 100];
    let count = listener.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

#[test]
fn who_started_it_hears_that_a_container_is_ready() {
    const TEST: &str = "readiness::who_started_it_hears_that_a_container_is_ready";
    isolated(TEST, || {
        let bundle = Bundle::new(TEST, "sleep 1000");
        let path = bundle.dir.path().join("listener");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let pid_file = bundle.dir.path().join("pid");
        let said = "STATUS=nearly\nREADY=1\n";

        let mut run = start(&bundle, &["run", "-d", "--pid-file", "pid", "c"], &path);
        let pid = say(&pid_file, "STATUS=soon");
        say(&pid_file, said);
        let heard = [(); 3].map(|()| hear(&listener));
        assert_eq!(heard, ["READY=1\n".to_owned(), format!("MAINPID={pid}\n"), "BARRIER=1".to_owned()]);
        assert!(run.wait().unwrap().success());
        bundle.ok(&["delete", "--force", "c"]);
        fs::remove_file(&pid_file).unwrap();

        // Made for somebody, and started by somebody.
        assert!(start(&bundle, &["create", "--pid-file", "pid", "c"], &path).wait().unwrap().success());
        let mut started = start(&bundle, &["start", "c"], &path);
        let pid = say(&pid_file, said);
        assert_eq!([(); 2].map(|()| hear(&listener)), ["READY=1\n".to_owned(), format!("MAINPID={pid}\n")]);
        hear(&listener);
        assert!(started.wait().unwrap().success());
        bundle.ok(&["delete", "--force", "c"]);
        fs::remove_file(&pid_file).unwrap();

        // In the foreground the launcher is whom to watch.
        let mut run = start(&bundle, &["run", "--pid-file", "pid", "c"], &path);
        say(&pid_file, said);
        let heard = [(); 3].map(|()| hear(&listener));
        assert_eq!(heard[1], format!("MAINPID={}\n", run.id()));
        bundle.ok(&["kill", "c", "KILL"]);
        assert_eq!(run.wait().unwrap().code(), Some(137));
        fs::remove_file(&pid_file).unwrap();

        // One that never says so is not waited for when it has ended.
        let mut run = start(&bundle, &["run", "-d", "--pid-file", "pid", "c"], &path);
        say(&pid_file, "STATUS=never");
        bundle.ok(&["kill", "c", "KILL"]);
        assert!(run.wait().unwrap().success());
        bundle.ok(&["delete", "c"]);
    });
}
