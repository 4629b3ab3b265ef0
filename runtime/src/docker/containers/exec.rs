//! Further processes in a running container.

use std::sync::Arc;

use coracle_shim::protocol::{Create, Kind, LogDriver, Reply, Request};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{
    super::{
        Docker,
        http::{Answer, Call, Problem, created, empty, ok},
        streams::{self, Duplex, End, Options},
    },
    Container, spec,
};
use crate::engine::{
    model::{Security, new_id},
    shim::Session,
};

/// Kept of a container at once, those that ended included; the oldest that ended go first.
const MAX_EXECS: usize = 4096;

/// A process as asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecConfig {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    pub console_size: Option<[u16; 2]>,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub detach_keys: String,
    pub env: Vec<String>,
    pub working_dir: String,
    pub cmd: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ExecState {
    pub started: bool,
    pub running: bool,
    pub pid: u32,
    pub code: Option<i32>,
}

pub struct Exec {
    pub id: String,
    pub container: Arc<Container>,
    pub config: ExecConfig,
    pub state: Mutex<ExecState>,
    number: u64,
}

impl Exec {
    /// What the shim calls it.
    pub fn shim_id(&self) -> String {
        format!("exec-{}", &self.id[..32])
    }

    fn set_ended(&self, code: i32) {
        let mut state = self.state.lock();
        state.running = false;
        state.code = Some(code);
    }
}

pub async fn create(mut call: Call) -> Answer {
    let config: ExecConfig = call.json().await?;
    let container = call.docker.container(call.name())?;
    if config.cmd.is_empty() {
        return Err(Problem::bad("no exec command specified"));
    }
    streams::detach_keys(&config.detach_keys)?;
    check_runs(&container)?;
    let exec = call.docker.add_exec(container, config);
    let action = format!("exec_create: {}", words(&exec.config.cmd));
    call.docker.tell_with(&exec.container, action, &[("execID", exec.id.clone())]);
    created(&json!({ "Id": exec.id }))
}

/// A command in an event: the program, a space, the arguments (moby `daemon/exec.go`).
fn words(command: &[String]) -> String {
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    format!("{program} {}", arguments.join(" "))
}

fn check_runs(container: &Container) -> Result<(), Problem> {
    match container.status() {
        "running" => Ok(()),
        "paused" => Err(Problem::conflict(format!(
            "container {} is paused, unpause the container before exec",
            container.name()
        ))),
        "restarting" => Err(Problem::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(Problem::conflict(format!("container {} is not running", container.id))),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartConfig {
    detach: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
}

pub async fn start(mut call: Call) -> Answer {
    let start: StartConfig = call.json_or(Some(StartConfig::default())).await?;
    let exec = call.docker.exec(call.name())?;
    check_runs(&exec.container)?;
    {
        let mut state = exec.state.lock();
        if state.started {
            return Err(Problem::conflict(format!("exec command {} is already running", exec.id)));
        }
        state.started = true;
    }
    let size = start.console_size.or(exec.config.console_size);
    let docker = call.docker.clone();
    if start.detach {
        let work = async move {
            let session = docker.run_exec(&exec, size, false).await?;
            tokio::spawn(docker.follow_exec(exec, session));
            Ok::<_, Problem>(())
        };
        tokio::spawn(work).await.map_err(crate::Error::from)??;
        return empty(http::StatusCode::OK);
    }
    let tty = exec.config.tty || start.tty;
    let options = Options {
        tty,
        stdin: exec.config.attach_stdin,
        stdout: exec.config.attach_stdout,
        stderr: exec.config.attach_stderr,
        detach_keys: streams::detach_keys(&exec.config.detach_keys)?,
        // A terminal that is hung up is not the end of its input.
        close_stdin: !tty,
    };
    let (response, hijack) = streams::hijack(&mut call, !tty);
    tokio::spawn(async move {
        // The process starts though the client may be gone already, as with dockerd.
        let (session, connection) = tokio::join!(docker.run_exec(&exec, size, options.stdin), hijack.take());
        match (session, connection) {
            (Ok(session), Ok(connection)) => serve_exec(docker, exec, session, connection, &options).await,
            (Ok(session), Err(_)) => docker.follow_exec(exec, session).await,
            (Err(problem), Ok(mut connection)) => {
                let text = format!("{}\r\n", problem.message);
                let bytes = if tty { text.into_bytes().into() } else { streams::frame(false, text.as_bytes()) };
                // Whom it would be told to may be gone.
                let _ = connection.write.write_all(&bytes).await;
                let _ = connection.write.shutdown().await;
            }
            (Err(_), Err(_)) => {}
        }
    });
    Ok(response)
}

async fn serve_exec(docker: Arc<Docker>, exec: Arc<Exec>, session: Session, connection: Duplex, options: &Options) {
    // A client asks for the exit code as soon as its streams end.
    let record = |end| {
        if let End::Exited(code) = end {
            exec.set_ended(code);
        }
    };
    match streams::pump(connection, session, options, record).await {
        End::Exited(code) => docker.exec_ended(&exec, code).await,
        End::Detached => {
            docker.tell_with(&exec.container, "exec_detach", &[("execID", exec.id.clone())]);
            docker.follow_again(exec).await;
        }
        End::Lost => docker.follow_again(exec).await,
    }
}

pub async fn inspect(call: Call) -> Answer {
    let exec = call.docker.exec(call.name())?;
    let state = *exec.state.lock();
    let config = &exec.config;
    ok(&json!({
        "ID": exec.id,
        "Running": state.running,
        "ExitCode": state.code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": config.cmd.first(),
            "arguments": &config.cmd[1..],
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": state.code.is_some(),
        "ContainerID": exec.container.id,
        "DetachKeys": config.detach_keys,
        "Pid": state.pid,
    }))
}

pub async fn resize(call: Call) -> Answer {
    let exec = call.docker.exec(call.name())?;
    let (rows, columns) = super::attach::size(&call)?;
    if !exec.state.lock().running {
        return Err(Problem::conflict(format!("exec process is not started: {}", exec.id)));
    }
    let request = Request::Resize { id: exec.shim_id(), rows, columns };
    call.docker.engine.ask_shim(&exec.container.engine, &request).await?;
    empty(http::StatusCode::OK)
}

impl Docker {
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>, Problem> {
        self.execs.lock().get(id).cloned().ok_or_else(|| Problem::not_found(format!("No such exec instance: {id}")))
    }

    pub fn add_exec(&self, container: Arc<Container>, config: ExecConfig) -> Arc<Exec> {
        let mut execs = self.execs.lock();
        if execs.len() >= MAX_EXECS {
            let ended = |exec: &&Arc<Exec>| exec.state.lock().code.is_some();
            if let Some(oldest) =
                execs.values().filter(ended).min_by_key(|exec| exec.number).map(|exec| exec.id.clone())
            {
                execs.remove(&oldest);
            }
        }
        let number = self.next_exec.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let exec = Arc::new(Exec { id: new_id(), container, config, state: Mutex::default(), number });
        execs.insert(exec.id.clone(), exec.clone());
        exec
    }

    /// Forgets the processes of a container that is gone.
    pub fn drop_execs(&self, container: &str) {
        self.execs.lock().retain(|_, exec| exec.container.id != container);
    }

    /// The ids of a container's processes that run.
    pub fn execs_of(&self, container: &str) -> Vec<String> {
        let execs = self.execs.lock();
        let runs = execs.values().filter(|exec| exec.container.id == container && exec.state.lock().running);
        runs.map(|exec| exec.id.clone()).collect()
    }

    /// Starts the process; the session carries its streams and its end.
    pub async fn run_exec(&self, exec: &Arc<Exec>, size: Option<[u16; 2]>, stdin: bool) -> Result<Session, Problem> {
        let started = self.try_exec(exec, size, stdin).await;
        if let Err(problem) = &started {
            let mut state = exec.state.lock();
            state.code = Some(
                if ["permission denied", "is a directory", "unable to find user"]
                    .iter()
                    .any(|words| problem.message.contains(words))
                {
                    126
                } else {
                    127
                },
            );
        }
        started
    }

    async fn try_exec(&self, exec: &Arc<Exec>, size: Option<[u16; 2]>, stdin: bool) -> Result<Session, Problem> {
        let process = self.exec_process(exec, size)?;
        let id = exec.shim_id();
        let create = Create {
            id: id.clone(),
            kind: Kind::Exec { container: exec.container.id.clone(), process: process.to_string() },
            terminal: exec.config.tty,
            stdin,
            stdin_once: stdin && !exec.config.tty,
            log: LogDriver::None,
            oom_file: String::new(),
        };
        let output = exec.config.attach_stdout || exec.config.attach_stderr;
        let mut session = self.engine.session(&exec.container.engine).await?;
        session
            .send(&[Request::Create(create), Request::Attach { id: id.clone(), stdin, output }, Request::Start { id }])
            .await?;
        match session.wait_started().await {
            Ok((pid, _)) => {
                let mut state = exec.state.lock();
                state.pid = pid;
                state.running = true;
            }
            Err(error) => {
                let request = Request::Delete { id: exec.shim_id() };
                // It never ran; the shim need not remember it.
                let _ = self.engine.ask_shim(&exec.container.engine, &request).await;
                return Err(Problem::bad(format!(
                    "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
                    super::lifecycle::launcher_words(&error)
                )));
            }
        }
        let action = format!("exec_start: {}", words(&exec.config.cmd));
        self.tell_with(&exec.container, action, &[("execID", exec.id.clone())]);
        Ok(session)
    }

    /// The first process's configuration with what this one has of its own.
    fn exec_process(&self, exec: &Exec, size: Option<[u16; 2]>) -> Result<Value, Problem> {
        let config = &exec.config;
        let oci = self.engine.oci_config(&exec.container.engine)?;
        let mut process = crate::engine::spec::exec_process(&oci, &config.cmd, config.tty);
        let mut environment: Vec<String> = serde_json::from_value(process["env"].clone()).unwrap_or_default();
        let user = if config.user.is_empty() {
            exec.container.with(|record| record.config.user.clone())
        } else {
            config.user.clone()
        };
        if !exec.container.pod || !config.user.is_empty() {
            let groups = exec.container.with(|record| record.host.group_add.clone().unwrap_or_default());
            let user = self.resolve_user(&exec.container, &user, &groups)?;
            process["user"] = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups });
            let fixed = exec
                .container
                .with(|record| record.config.env.iter().flatten().any(|entry| entry.starts_with("HOME=")));
            if !fixed {
                spec::set_variable(&mut environment, &format!("HOME={}", user.home));
            }
            if user.uid != 0 && !config.privileged {
                for set in ["effective", "permitted", "inheritable", "ambient"] {
                    process["capabilities"][set] = json!([]);
                }
            } else {
                process["capabilities"]["effective"] = process["capabilities"]["bounding"].clone();
                process["capabilities"]["permitted"] = process["capabilities"]["bounding"].clone();
            }
        }
        if config.privileged {
            let all = crate::engine::spec::capabilities(&Security { privileged: true, ..Security::default() })?;
            for set in ["bounding", "effective", "permitted"] {
                process["capabilities"][set] = json!(all);
            }
        }
        for entry in &config.env {
            spec::set_variable(&mut environment, entry);
        }
        process["env"] = json!(environment);
        if !config.working_dir.is_empty() {
            if !config.working_dir.starts_with('/') {
                return Err(Problem::bad(format!(
                    "OCI runtime exec failed: exec failed: Cwd must be an absolute path: {}",
                    config.working_dir
                )));
            }
            process["cwd"] = json!(config.working_dir);
        }
        if let Some([height, width]) = size.filter(|_| config.tty) {
            process["consoleSize"] = json!({ "height": height, "width": width });
        }
        Ok(process)
    }

    /// Waits for the end of a process whose output nobody wants.
    pub async fn follow_exec(self: Arc<Docker>, exec: Arc<Exec>, mut session: Session) {
        let code = loop {
            match session.next().await {
                Ok(Reply::Exited { exit, .. }) => break exit.code as i32,
                Ok(_) => {}
                Err(_) => break 137,
            }
        };
        self.exec_ended(&exec, code).await;
    }

    /// The client is gone; the process goes on.
    async fn follow_again(self: Arc<Docker>, exec: Arc<Exec>) {
        match self.engine.session(&exec.container.engine).await {
            Ok(mut session) => {
                let attach = Request::Attach { id: exec.shim_id(), stdin: false, output: false };
                if session.send(&[attach]).await.is_ok() {
                    return self.follow_exec(exec, session).await;
                }
                self.exec_ended(&exec, 137).await;
            }
            // The container ended, and the process with it.
            Err(_) => self.exec_ended(&exec, 137).await,
        }
    }

    pub async fn exec_ended(&self, exec: &Arc<Exec>, code: i32) {
        exec.set_ended(code);
        let more = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
        self.tell_with(&exec.container, "exec_die", &more);
        let request = Request::Delete { id: exec.shim_id() };
        // With the container gone, so is this.
        let _ = self.engine.ask_shim(&exec.container.engine, &request).await;
    }
}
