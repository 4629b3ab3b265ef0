//! The cluster's state as a file, and back.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use coracle_tests::{Output, binary, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

struct Server(Child);

impl Server {
    fn start(dir: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = Command::new(binary("coracle"));
        command.args(["server", "--bind", &address, "--data-dir"]).arg(dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let server = Self(child);
        assert!(lines.any(|line| line.unwrap().starts_with("ready ")), "the server starts");
        server
    }

    fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_backup_is_taken_while_the_server_runs_and_put_back() {
    let home = tempfile::tempdir().unwrap();
    let (dir, file) = (home.path().join("data"), home.path().join("backup"));
    let chore = |what: &str| -> Output {
        let mut command = Command::new(binary("coracle"));
        command.args(["server", what]).arg(&file).arg("--data-dir").arg(&dir);
        run(&mut command, "")
    };
    let kubectl = |arguments: &str| -> Output {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(dir.join("admin.kubeconfig")).args(arguments.split(' '));
        run(&mut command, "")
    };
    assert!(chore("backup").fails().contains("is no data directory of a server"));
    let server = Server::start(&dir);
    kubectl("create configmap before --from-literal=a=1").ok();
    let said = chore("backup").ok();
    assert!(said.contains("keys at revision"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    kubectl("create configmap after --from-literal=a=1").ok();
    let seen = kubectl("get configmap after -o jsonpath={.metadata.resourceVersion}").ok();
    assert!(chore("restore").fails().contains("is in use: stop the server first"));
    server.stop();

    // Half a backup changes nothing.
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(chore("restore").fails().contains("the backup is cut short"));
    fs::write(&file, &whole).unwrap();
    chore("restore").ok();
    assert!(dir.join("store.redb.before-restore").exists());
    let server = Server::start(&dir);
    kubectl("get configmap before").ok();
    assert!(kubectl("get configmap after").fails().contains("NotFound"));
    // What was seen after the backup never happened: nobody goes on from there.
    let watch = format!("get --raw /api/v1/configmaps?watch=1&timeoutSeconds=5&resourceVersion={seen}");
    let watched = kubectl(&watch);
    let told = format!("{}{}", watched.stdout, watched.stderr);
    assert!(told.contains("\"code\":410") || told.contains("Expired"), "{told}");
    kubectl("create configmap later").ok();
    server.stop();

    // And of a server that does not run.
    chore("backup").ok();
    let mut command = Command::new(binary("coracle"));
    let said = run(command.args(["server", "defragment", "--data-dir"]).arg(&dir), "").ok();
    assert!(said.contains("bytes before"), "{said}");
    Server::start(&dir).stop();

    // And of one that was killed: what it acknowledged last is in its journal alone.
    let killed = Server::start(&dir);
    kubectl("create configmap newest").ok();
    drop(killed);
    chore("backup").ok();
    let killed = Server::start(&dir);
    kubectl("delete configmap newest").ok();
    drop(killed);
    chore("restore").ok();
    assert!(dir.join("store.redb.before-restore.journal-0").exists(), "what was there is kept whole");
    let server = Server::start(&dir);
    kubectl("get configmap newest").ok();
    server.stop();
}
