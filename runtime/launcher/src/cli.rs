//! The command line, as runc's.

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    capabilities,
    cgroup::{freezer, update::bytes},
    create::{self, Created, Options, Started},
    error::{Context, Error, Result},
    events, exec,
    json::{Json, object},
    log::Log,
    mount_options,
    notify::Listener,
    seccomp,
    spec::{Process, read_json},
    state::{self, State, Status},
    sys,
    terminal::{Terminal, read_signal},
};

const USAGE: &str = "usage: oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND …

commands: create, start, run, exec, state, kill, delete, ps, list, update, pause, resume, events, features";

/// Runs one command; the exit code is runc's: the container's own for `run` and `exec`, 1 for an error.
pub fn main(arguments: &[String]) -> ExitCode {
    ExitCode::from(run_command_line(arguments))
}

/// The same for who is no `main`.
pub fn run_command_line(arguments: &[String]) -> u8 {
    let mut arguments = Arguments { rest: arguments.iter().cloned().collect() };
    let mut options = Options { root: state::DEFAULT_ROOT.into(), bundle: PathBuf::from("."), ..Options::default() };
    match run(&mut arguments, &mut options) {
        Ok(code) => code,
        Err(error) => fail(&options, &error, "", 1),
    }
}

/// Tells of an error as runc does, which scripts look for: `what` failed. The code is for the caller.
fn fail(options: &Options, error: &Error, what: &str, code: u8) -> u8 {
    let message = error.to_string();
    match options.report_fd {
        // The caller shows it; standard error is the container's.
        Some(fd) => {
            options.log.error(&message);
            drop(sys::send_with_fd(fd, format!("E{message}").as_bytes(), None));
        }
        None => {
            let message = if what.is_empty() { message } else { format!("{what} failed: {message}") };
            options.log.error(&message);
            match options.log.path {
                Some(_) => eprintln!("{message}"),
                None => eprintln!("{}", Log::text("error", &message)),
            }
        }
    }
    code
}

/// Arguments, taken from the front: options first, then operands.
struct Arguments {
    rest: VecDeque<String>,
}

/// An option with its value, if it was written with `=`.
struct Flag {
    name: String,
    value: Option<String>,
}

impl Arguments {
    fn flag(&mut self) -> Option<Flag> {
        if !self.rest.front().is_some_and(|word| word.len() > 1 && word.starts_with('-')) {
            return None;
        }
        let word = self.rest.pop_front()?;
        if word == "--" {
            return None;
        }
        let word = word.trim_start_matches('-');
        Some(match word.split_once('=') {
            Some((name, value)) => Flag { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Flag { name: word.to_owned(), value: None },
        })
    }

    fn value(&mut self, flag: Flag) -> Result<String> {
        let next = match flag.value {
            Some(value) => Some(value),
            None => self.rest.pop_front(),
        };
        next.ok_or_else(|| Error::new(format!("--{}: a value is missing", flag.name)))
    }

    /// A switch; the next word is never its value (Go's flag, which knows these words).
    fn boolean(flag: &Flag) -> Result<bool> {
        match flag.value.as_deref() {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(Error::new(format!("--{}: invalid boolean value {value:?}", flag.name))),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, flag: Flag) -> Result<T> {
        let name = flag.name.clone();
        let value = self.value(flag)?;
        value.parse().map_err(|_| Error::new(format!("--{name}: {value:?} is not a number")))
    }

    fn operand(&mut self, name: &str) -> Result<String> {
        self.rest.pop_front().ok_or_else(|| Error::new(format!("{name} is missing\n{USAGE}")))
    }

    fn end(&mut self) -> Result<()> {
        self.rest.pop_front().map_or(Ok(()), |word| Err(Error::new(format!("unexpected argument {word:?}"))))
    }
}

fn unknown(command: &str, flag: &Flag) -> Error {
    Error::new(format!("{command}: option --{} is not supported", flag.name))
}

fn run(arguments: &mut Arguments, options: &mut Options) -> Result<u8> {
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "root" => options.root = arguments.value(flag)?.into(),
            "log" => options.log.path = Some(arguments.value(flag)?.into()),
            "log-format" => {
                options.log.json = match arguments.value(flag)?.as_str() {
                    "json" => true,
                    "text" => false,
                    format => return Err(Error::new(format!("--log-format: unknown format {format:?}"))),
                }
            }
            "debug" => options.log.debug = Arguments::boolean(&flag)?,
            "systemd-cgroup" if !Arguments::boolean(&flag)? => {}
            "systemd-cgroup" => {
                return Err(Error::new("--systemd-cgroup is not supported: groups are made in the cgroup file system"));
            }
            "rootless" => match arguments.value(flag)?.as_str() {
                "auto" | "false" => {}
                "true" => {
                    return Err(Error::new("--rootless true is not supported: run as root, or in a user namespace"));
                }
                word => return Err(Error::new(format!("--rootless: {word:?} is not one of auto, true and false"))),
            },
            // As in runc 1.2, which knows it from its PATH.
            "criu" => {
                arguments.value(flag)?;
                options.log.warn("--criu is ignored");
            }
            "v" | "version" => {
                println!("coracle-oci version {}\nspec: 1.2.0", env!("CARGO_PKG_VERSION"));
                return Ok(0);
            }
            "h" | "help" => {
                println!("{USAGE}");
                return Ok(0);
            }
            _ => return Err(unknown("oci", &flag)),
        }
    }
    let command = arguments.operand("a command")?;
    if command == "help" || arguments.rest.front().is_some_and(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return Ok(0);
    }
    match command.as_str() {
        "create" => create_command(arguments, options),
        "run" => run_command(arguments, options),
        "start" => with_state(arguments, options, |state| start(state, options)),
        "exec" => exec_command(arguments, options),
        "state" => with_state(arguments, options, |state| {
            println!("{}", state.show());
            Ok(())
        }),
        "kill" => kill_command(arguments, options),
        "delete" => delete_command(arguments, options),
        "ps" => ps_command(arguments, options),
        "list" => list_command(arguments, options),
        "update" => update_command(arguments, options),
        "pause" => with_state(arguments, options, |state| match state.status() {
            Status::Running | Status::Created => freezer::set(&state.cgroup()?, true),
            _ => Err(Error::new("container not running")),
        }),
        "resume" => with_state(arguments, options, |state| match state.status() {
            Status::Paused => freezer::set(&state.cgroup()?, false),
            _ => Err(Error::new("container not paused")),
        }),
        "events" => events_command(arguments, options),
        "features" => {
            println!("{}", features());
            Ok(0)
        }
        "checkpoint" | "restore" | "spec" => Err(Error::new(format!("{command} is not supported"))),
        command => Err(Error::new(format!("unknown command {command:?}\n{USAGE}"))),
    }
}

fn with_state(arguments: &mut Arguments, options: &Options, body: impl FnOnce(&State) -> Result<()>) -> Result<u8> {
    if let Some(flag) = arguments.flag() {
        return Err(unknown("this command", &flag));
    }
    let id = arguments.operand("a container id")?;
    arguments.end()?;
    body(&State::load(&options.root, &id)?)?;
    Ok(0)
}

/// Options that create, run and exec have in common.
fn process_flag(arguments: &mut Arguments, options: &mut Options, flag: Flag, command: &str) -> Result<()> {
    match flag.name.as_str() {
        "b" | "bundle" => options.bundle = arguments.value(flag)?.into(),
        "pid-file" => options.pid_file = Some(arguments.value(flag)?.into()),
        "console-socket" => options.console_socket = Some(arguments.value(flag)?.into()),
        "preserve-fds" => options.preserve_fds = arguments.number(flag)?,
        "report-fd" => options.report_fd = Some(arguments.number(flag)?),
        "child-of-caller" => options.child_of_caller = Arguments::boolean(&flag)?,
        "no-new-keyring" => options.keep_keyring = Arguments::boolean(&flag)?,
        "no-pivot" => options.no_pivot = Arguments::boolean(&flag)?,
        "pidfd-socket" => options.pidfd_socket = Some(arguments.value(flag)?.into()),
        _ => return Err(unknown(command, &flag)),
    }
    Ok(())
}

fn find_bundle(options: &mut Options) -> Result<()> {
    options.bundle = sys::real_path(&options.bundle).context(|| format!("find the bundle {:?}", options.bundle))?;
    Ok(())
}

fn create_command(arguments: &mut Arguments, options: &mut Options) -> Result<u8> {
    while let Some(flag) = arguments.flag() {
        process_flag(arguments, options, flag, "create")?;
    }
    let id = arguments.operand("a container id")?;
    arguments.end()?;
    find_bundle(options)?;
    options.detach = true;
    options.listener = listener(options);
    let created = create::create(&id, options, true).and_then(|created| report_pid(options, created.state.pid));
    Ok(created.map_or_else(|error| fail(options, &error, "runc create", 1), |()| 0))
}

/// Who wants to hear that the container is ready; a caller that is told all the rest hears it otherwise.
fn listener(options: &Options) -> Option<Listener> {
    Listener::from_environment().filter(|_| options.report_fd.is_none())
}

fn start(state: &State, options: &Options) -> Result<()> {
    // Before it can say anything.
    let relay = listener(options).map(|listener| listener.open(state.dir())).transpose()?.flatten();
    state.start()?;
    state.run_hooks("poststart", Status::Running, &options.log);
    if let Some(relay) = relay {
        relay.wait(state.pid, state.pid.unsigned_abs(), &options.log);
    }
    Ok(())
}

fn report_pid(options: &Options, pid: i32) -> Result<()> {
    let Some(fd) = options.report_fd else { return Ok(()) };
    sys::send_with_fd(fd, format!("P{pid}").as_bytes(), None).context(|| "report the pid".into())
}

fn run_command(arguments: &mut Arguments, options: &mut Options) -> Result<u8> {
    let mut keep = false;
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "d" | "detach" => options.detach = Arguments::boolean(&flag)?,
            "keep" => keep = Arguments::boolean(&flag)?,
            "no-subreaper" => drop(Arguments::boolean(&flag)?),
            _ => process_flag(arguments, options, flag, "run")?,
        }
    }
    let id = arguments.operand("a container id")?;
    arguments.end()?;
    find_bundle(options)?;
    options.listener = listener(options);
    Ok(run_container(&id, options, keep).unwrap_or_else(|error| fail(options, &error, "runc run", 1)))
}

fn run_container(id: &str, options: &Options, keep: bool) -> Result<u8> {
    let signals = if options.detach { None } else { Some(forwarded_signals()?) };
    let Created { state, terminal, relay } = create::create(id, options, false)?;
    report_pid(options, state.pid)?;
    state.run_hooks("poststart", Status::Running, &options.log);
    let (pid, log) = (state.pid, options.log.clone());
    let Some(signals) = signals else {
        if let Some(relay) = relay {
            relay.wait(pid, pid.unsigned_abs(), &log);
        }
        return Ok(0);
    };
    // Whom to watch is this process, which ends with the container's.
    let telling = relay.map(|relay| std::thread::spawn(move || relay.wait(pid, std::process::id(), &log)));
    let code = wait_forwarding(pid, &signals, terminal)?;
    if let Some(telling) = telling {
        let _ = telling.join();
    }
    if !keep {
        state.clean(&options.log)?;
    }
    Ok(code)
}

/// What goes wrong before the program runs is 255, which no shell gives it for not being found.
fn exec_command(arguments: &mut Arguments, options: &mut Options) -> Result<u8> {
    Ok(exec_process(arguments, options).unwrap_or_else(|error| fail(options, &error, "exec", 255)))
}

fn exec_process(arguments: &mut Arguments, options: &mut Options) -> Result<u8> {
    let mut process_file: Option<PathBuf> = None;
    let (mut terminal, mut cwd, mut env, mut user, mut caps) = (false, None, Vec::new(), None, Vec::new());
    let (mut groups, mut no_new_privileges) = (Vec::new(), None);
    let (mut apparmor, mut selinux, mut sub_groups) = (None, None, Vec::new());
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "d" | "detach" => options.detach = Arguments::boolean(&flag)?,
            "p" | "process" => process_file = Some(arguments.value(flag)?.into()),
            "t" | "tty" => terminal = Arguments::boolean(&flag)?,
            "cwd" => cwd = Some(arguments.value(flag)?),
            "e" | "env" => env.push(arguments.value(flag)?),
            "u" | "user" => user = Some(arguments.value(flag)?),
            "c" | "cap" => caps.push(arguments.value(flag)?),
            "g" | "additional-gids" => groups.push(arguments.number::<u32>(flag)?),
            "no-new-privs" => no_new_privileges = Some(Arguments::boolean(&flag)?),
            "apparmor" => apparmor = Some(arguments.value(flag)?),
            "process-label" => selinux = Some(arguments.value(flag)?),
            "ignore-paused" => options.ignore_paused = Arguments::boolean(&flag)?,
            "cgroup" => sub_groups.push(arguments.value(flag)?),
            _ => process_flag(arguments, options, flag, "exec")?,
        }
    }
    options.sub_groups = parse_sub_groups(&sub_groups)?;
    let id = arguments.operand("a container id")?;
    let state = State::load(&options.root, &id)?;
    let process = match process_file {
        Some(path) => {
            arguments.end()?;
            exec::process_of_file(&state, read_process(&path)?)?
        }
        None => exec::process_of_container(&state, |process| {
            process.args = arguments.rest.drain(..).collect();
            if process.args.is_empty() {
                return Err(Error::new("exec: a command is missing"));
            }
            process.terminal = terminal;
            process.cwd = cwd.unwrap_or_else(|| process.cwd.clone());
            process.env.extend(env);
            process.groups.extend(groups);
            process.no_new_privileges = no_new_privileges.unwrap_or(process.no_new_privileges);
            if let Some(user) = user {
                set_user(process, &user)?;
            }
            process.labels.apparmor = apparmor.or(process.labels.apparmor.take());
            process.labels.selinux = selinux.or(process.labels.selinux.take());
            process.labels.check()?;
            for cap in caps {
                let bit =
                    capabilities::bit(&cap).ok_or_else(|| Error::new(format!("exec: unknown capability {cap:?}")))?;
                let sets = &mut process.capabilities;
                for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                    *set |= bit & capabilities::held();
                }
            }
            Ok(())
        })?,
    };
    let signals = if options.detach { None } else { Some(forwarded_signals()?) };
    let Started { pid, terminal } = exec::exec(&state, process, options)?;
    report_pid(options, pid)?;
    match signals {
        Some(signals) => wait_forwarding(pid, &signals, terminal),
        None => Ok(0),
    }
}

/// `PATH`, once, or `CONTROLLER[,CONTROLLER…]:PATH` (runc `exec.go`, getSubCgroupPaths).
fn parse_sub_groups(given: &[String]) -> Result<Vec<(String, String)>> {
    let mut out: Vec<(String, String)> = Vec::new();
    for text in given {
        let refused = |why: &str| Err(Error::new(format!("invalid --cgroup argument: {text} ({why})")));
        let Some((controllers, path)) = text.split_once(':') else {
            if given.len() > 1 {
                return refused("missing <controller>: prefix");
            }
            return Ok(vec![(String::new(), text.clone())]);
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return refused("empty <controller> prefix");
            }
            if out.iter().any(|(known, _)| known == controller) {
                return refused(&format!("controller {controller} specified multiple times"));
            }
            out.push((controller.to_owned(), path.to_owned()));
        }
    }
    Ok(out)
}

/// A process file, or standard input for `-`.
fn read_process(path: &Path) -> Result<Json> {
    if path != Path::new("-") {
        return read_json(path);
    }
    let mut text = Vec::new();
    std::io::stdin().take(16 << 20).read_to_end(&mut text).context(|| "read the process from standard input".into())?;
    Json::parse(&text).map_err(|error| Error::new(format!("parse the process: {error}")))
}

fn set_user(process: &mut Process, user: &str) -> Result<()> {
    let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    let number =
        |text: &str| text.parse::<u32>().map_err(|_| Error::new(format!("exec: {text:?} is not a numeric id")));
    process.uid = number(uid)?;
    if let Some(gid) = gid {
        process.gid = number(gid)?;
    }
    Ok(())
}

/// Signals that a foreground process passes on to the container.
fn forwarded_signals() -> Result<std::os::fd::OwnedFd> {
    let signals = [
        libc::SIGCHLD,
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
        libc::SIGCONT,
        libc::SIGTSTP,
    ];
    sys::signalfd(&signals).context(|| "open a signal descriptor".into())
}

/// Waits for the process, passing signals on; 128 + N if it died of signal N.
fn wait_forwarding(pid: i32, signals: &std::os::fd::OwnedFd, terminal: Option<Terminal>) -> Result<u8> {
    let turn = |signal: Option<i32>| {
        if let Some(signal) = signal.filter(|&signal| signal != libc::SIGCHLD) {
            // It may have ended just now, which is found out next; nobody else has waited for it.
            let _ = sys::kill(pid, signal);
        }
        Ok(sys::try_wait(pid).context(|| format!("wait for process {pid}"))?.map(exit_code))
    };
    if let Some(terminal) = terminal {
        return terminal.relay(signals, turn);
    }
    let mut file = fs::File::from(signals.try_clone().context(|| "duplicate a descriptor".into())?);
    let mut ended = turn(None)?;
    loop {
        if let Some(code) = ended {
            return Ok(code);
        }
        ended = turn(Some(read_signal(&mut file)?))?;
    }
}

fn exit_code(status: i32) -> u8 {
    if libc::WIFSIGNALED(status) {
        128u8.wrapping_add(libc::WTERMSIG(status) as u8)
    } else {
        libc::WEXITSTATUS(status) as u8
    }
}

fn kill_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
    let mut all = false;
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "a" | "all" => all = Arguments::boolean(&flag)?,
            _ => return Err(unknown("kill", &flag)),
        }
    }
    let id = arguments.operand("a container id")?;
    let signal = signal_number(&arguments.rest.pop_front().unwrap_or_else(|| "SIGTERM".into()))?;
    arguments.end()?;
    let state = State::load(&options.root, &id)?;
    if !all {
        return state.kill(signal).map(|()| 0);
    }
    let group = state.cgroup()?;
    if !state.holds(&group) {
        return Err(Error::new("container not running"));
    }
    if signal == libc::SIGKILL {
        return group.kill().map(|()| 0);
    }
    for pid in group.processes() {
        let _ = sys::kill(pid, signal);
    }
    Ok(0)
}

/// `15`, `TERM` or `SIGTERM`.
pub fn signal_number(name: &str) -> Result<i32> {
    const NAMES: [(&str, i32); 31] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STKFLT", 16),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("URG", 23),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
        ("WINCH", 28),
        ("IO", 29),
        ("PWR", 30),
        ("SYS", 31),
    ];
    if let Ok(number) = name.parse::<i32>()
        && (0..=64).contains(&number)
    {
        return Ok(number);
    }
    let upper = name.to_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == short) {
        return Ok(*number);
    }
    // RTMIN is 34 where the C library keeps two for itself, and images name them that way.
    let real_time = match short.split_once(['+', '-']) {
        None if short == "RTMIN" => Some(34),
        None if short == "RTMAX" => Some(64),
        Some(("RTMIN", offset)) => offset.parse::<i32>().ok().map(|offset| 34 + offset),
        Some(("RTMAX", offset)) => offset.parse::<i32>().ok().map(|offset| 64 - offset),
        _ => None,
    };
    real_time.filter(|number| (34..=64).contains(number)).ok_or_else(|| Error::new(format!("unknown signal {name:?}")))
}

fn delete_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
    let mut force = false;
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "f" | "force" => force = Arguments::boolean(&flag)?,
            _ => return Err(unknown("delete", &flag)),
        }
    }
    let id = arguments.operand("a container id")?;
    arguments.end()?;
    match State::load(&options.root, &id) {
        Ok(state) => state.delete(force, &options.log)?,
        // Made and never finished: nothing but the directory.
        Err(_) if force => match state::check_id(&id)
            .and_then(|()| fs::remove_dir_all(options.root.join(&id)).context(|| format!("remove {id}")))
        {
            Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        },
        Err(error) => return Err(error),
    }
    Ok(0)
}

fn ps_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
    let mut json = false;
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "f" | "format" => json = is_json(&arguments.value(flag)?)?,
            _ => return Err(unknown("ps", &flag)),
        }
    }
    let id = arguments.operand("a container id")?;
    let state = State::load(&options.root, &id)?;
    let group = state.cgroup()?;
    let pids = if state.holds(&group) { group.processes() } else { Vec::new() };
    if json {
        println!("{}", Json::Arr(pids.into_iter().map(Json::from).collect()));
        return Ok(0);
    }
    let given: Vec<String> = arguments.rest.drain(..).collect();
    let given = if given.is_empty() { vec!["-ef".to_owned()] } else { given };
    let output = std::process::Command::new("ps").args(&given).output().context(|| "exec: \"ps\"".into())?;
    if !output.status.success() {
        return Err(Error::new(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let head = text.lines().next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Error::new("couldn't find PID field in ps output"))?;
    println!("{head}");
    for line in text.lines().skip(1) {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(0)
}

fn is_json(format: &str) -> Result<bool> {
    match format {
        "json" => Ok(true),
        "table" => Ok(false),
        _ => Err(Error::new("invalid format option")),
    }
}

fn list_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
    let (mut json, mut quiet) = (false, false);
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "f" | "format" => json = is_json(&arguments.value(flag)?)?,
            "q" | "quiet" => quiet = Arguments::boolean(&flag)?,
            _ => return Err(unknown("list", &flag)),
        }
    }
    arguments.end()?;
    let entries = fs::read_dir(&options.root).into_iter().flatten().flatten();
    let mut states: Vec<State> =
        entries.filter_map(|entry| State::load(&options.root, entry.file_name().to_str()?).ok()).collect();
    states.sort_by(|a, b| a.id.cmp(&b.id));
    if quiet {
        states.iter().for_each(|state| println!("{}", state.id));
    } else if json {
        println!("{}", Json::Arr(states.iter().map(State::show).collect()));
    } else {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{:<24} {:<8} {:<8} {:<40} {:<20} OWNER", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
        for state in &states {
            let _ = writeln!(
                out,
                "{:<24} {:<8} {:<8} {:<40} {:<20} {}",
                state.id,
                state.pid,
                state.status().name(),
                state.bundle.display(),
                state.created,
                state.owner()
            );
        }
    }
    Ok(0)
}

fn update_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
    let mut resources: Option<Json> = None;
    let (mut cpu, mut memory, mut pids, mut io) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut cache, mut bandwidth) = (None, None);
    while let Some(flag) = arguments.flag() {
        let integer = |arguments: &mut Arguments, flag| arguments.number::<i64>(flag).map(Json::from);
        let amount = |arguments: &mut Arguments, flag: Flag| {
            let name = flag.name.clone();
            let value = arguments.value(flag)?;
            let bytes =
                bytes(&value).ok_or_else(|| Error::new(format!("--{name}: {value:?} is not an amount of memory")));
            bytes.map(Json::from)
        };
        match flag.name.as_str() {
            "r" | "resources" => resources = Some(read_process(Path::new(&arguments.value(flag)?))?),
            "cpu-share" | "cpu-shares" => cpu.push(("shares".to_owned(), integer(arguments, flag)?)),
            "cpu-quota" => cpu.push(("quota".to_owned(), integer(arguments, flag)?)),
            "cpu-period" => cpu.push(("period".to_owned(), integer(arguments, flag)?)),
            "cpuset-cpus" => cpu.push(("cpus".to_owned(), arguments.value(flag)?.into())),
            "cpuset-mems" => cpu.push(("mems".to_owned(), arguments.value(flag)?.into())),
            "memory" => memory.push(("limit".to_owned(), amount(arguments, flag)?)),
            "memory-swap" => memory.push(("swap".to_owned(), amount(arguments, flag)?)),
            "memory-reservation" => memory.push(("reservation".to_owned(), amount(arguments, flag)?)),
            "pids-limit" => pids.push(("limit".to_owned(), integer(arguments, flag)?)),
            "cpu-burst" => cpu.push(("burst".to_owned(), integer(arguments, flag)?)),
            "cpu-idle" => cpu.push(("idle".to_owned(), integer(arguments, flag)?)),
            "cpu-rt-period" => cpu.push(("realtimePeriod".to_owned(), integer(arguments, flag)?)),
            "cpu-rt-runtime" => cpu.push(("realtimeRuntime".to_owned(), integer(arguments, flag)?)),
            "l3-cache-schema" => cache = Some(arguments.value(flag)?),
            "mem-bw-schema" => bandwidth = Some(arguments.value(flag)?),
            "blkio-weight" => io.push(("weight".to_owned(), integer(arguments, flag)?)),
            // Kernel memory has had no limit of its own since 5.4; runc takes and ignores these too.
            "kernel-memory" | "kernel-memory-tcp" => drop(arguments.value(flag)?),
            _ => return Err(unknown("update", &flag)),
        }
    }
    let id = arguments.operand("a container id")?;
    arguments.end()?;
    let resources = resources.unwrap_or_else(|| {
        let parts = [("cpu", cpu), ("memory", memory), ("pids", pids), ("blockIO", io)];
        object(parts.map(|(key, members)| (key, Json::Obj(members))))
    });
    let state = State::load(&options.root, &id)?;
    if state.status() == Status::Stopped {
        return Err(Error::new("container not running"));
    }
    let schemata: Vec<String> = cache.into_iter().chain(bandwidth).collect();
    if state.class.is_none() && !schemata.is_empty() {
        return Err(Error::new(format!("container {id} has no linux.intelRdt, whose schemata could be changed")));
    }
    let journal = state.cgroup()?.update(&resources)?;
    match state.class.as_ref().map_or(Ok(()), |class| class.write_schemata(&schemata)) {
        Ok(()) => Ok(0),
        Err(error) => Err(journal.failed(error)),
    }
}

fn events_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
    let (mut once, mut interval) = (false, std::time::Duration::from_secs(5));
    while let Some(flag) = arguments.flag() {
        match flag.name.as_str() {
            "stats" => once = Arguments::boolean(&flag)?,
            "interval" => interval = events::duration(&arguments.value(flag)?)?,
            _ => return Err(unknown("events", &flag)),
        }
    }
    let id = arguments.operand("a container id")?;
    arguments.end()?;
    let state = State::load(&options.root, &id)?;
    if once {
        println!("{}", events::stats(&state)?);
    } else {
        events::follow(&state, interval)?;
    }
    Ok(0)
}

/// What this launcher can (OCI runtime specification, features.md).
fn features() -> Json {
    let list = |words: &[&str]| Json::Arr(words.iter().map(|word| Json::from(*word)).collect());
    let flag = |enabled: bool| object([("enabled", enabled.into())]);
    let capabilities = Json::Arr(capabilities::names().map(Json::from).collect());
    let options = Json::Arr(mount_options::words().map(Json::from).collect());
    let cgroup = object([
        ("v1", true.into()),
        ("v2", true.into()),
        ("systemd", false.into()),
        ("systemdUser", false.into()),
        ("rdma", true.into()),
    ]);
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    let linux = object([
        ("namespaces", list(&namespaces)),
        ("capabilities", capabilities),
        ("cgroup", cgroup),
        ("seccomp", seccomp::features()),
        ("apparmor", flag(true)),
        ("selinux", flag(true)),
        ("intelRdt", flag(true)),
        ("mountExtensions", object([("idmap", flag(true))])),
    ]);
    object([
        ("ociVersionMin", "1.0.0".into()),
        ("ociVersionMax", "1.2.0".into()),
        ("hooks", list(&hooks)),
        ("mountOptions", options),
        ("linux", linux),
        ("potentiallyUnsafeConfigAnnotations", list(&[])),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_as_go_reads_them() {
        let boolean = |word: &str| {
            let mut arguments = Arguments { rest: [word.to_owned(), "false".to_owned()].into() };
            Arguments::boolean(&arguments.flag().unwrap())
        };
        assert!(boolean("--detach").unwrap() && boolean("-d=T").unwrap() && boolean("--all=1").unwrap());
        assert!(!boolean("--detach=false").unwrap() && !boolean("--all=F").unwrap());
        assert!(boolean("--tty=maybe").is_err() && boolean("--tty=").is_err());
    }

    #[test]
    fn options_before_the_command_are_runcs() {
        let run = |words: &[&str]| {
            let mut arguments = Arguments { rest: words.iter().map(|word| (*word).to_owned()).collect() };
            let mut options = Options { root: "/nowhere".into(), ..Options::default() };
            super::run(&mut arguments, &mut options).map_err(|error| error.to_string())
        };
        for words in [&["--rootless", "auto"][..], &["--rootless=false"], &["--criu", "/bin/criu"], &["--debug=false"]]
        {
            assert_eq!(run(&[words, &["list"]].concat()), Ok(0), "{words:?}");
        }
        assert!(run(&["--rootless", "maybe", "list"]).unwrap_err().contains("maybe"));
        assert!(run(&["--rootless=true", "list"]).unwrap_err().contains("not supported"));
        assert!(run(&["--systemd-cgroup", "list"]).unwrap_err().contains("--systemd-cgroup"));
        assert_eq!(run(&["--systemd-cgroup=false", "list"]), Ok(0));
        assert_eq!((run(&["help"]), run(&["create", "--help"]), run(&["exec", "-h"])), (Ok(0), Ok(0), Ok(0)));
    }

    #[test]
    fn signals_have_numbers_and_names() {
        for (name, number) in
            [("15", 15), ("TERM", 15), ("SIGKILL", 9), ("sigusr1", 10), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(signal_number(name).unwrap(), number, "{name}");
        }
        assert!(signal_number("SIGNONE").is_err());
        assert!(signal_number("99").is_err());
    }
}
