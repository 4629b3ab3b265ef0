//! The command line, as runc's.

mod arguments;
mod example;
mod exec;
mod features;
mod foreground;
mod help;
mod kill;
mod listing;
mod update;

use std::{fs, path::PathBuf, process::ExitCode};

pub use kill::signal_number;

use self::{
    arguments::{Arguments, Flag, unknown},
    foreground::{forwarded_signals, wait_forwarding},
};
use crate::{
    cgroup::freezer,
    create::{self, Created, Options},
    error::{Context, Error, Result},
    events,
    log::Log,
    notify::Listener,
    state::{self, State, Status},
    sys,
};

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
            "systemd-cgroup" => options.systemd = Arguments::boolean(&flag)?,
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
                print!("{}", help::overview());
                return Ok(0);
            }
            _ => return Err(unknown("oci", &flag)),
        }
    }
    let command = arguments.operand("a command")?;
    if let Some(text) = help::asked(&command, &arguments.rest)? {
        print!("{text}");
        return Ok(0);
    }
    match command.as_str() {
        "create" => create_command(arguments, options),
        "run" => run_command(arguments, options),
        "start" => with_state(arguments, options, |state| start(state, options)),
        "exec" => exec::exec_command(arguments, options),
        "state" => with_state(arguments, options, |state| {
            println!("{}", state.show());
            Ok(())
        }),
        "kill" => kill::kill_command(arguments, options),
        "delete" => delete_command(arguments, options),
        "ps" => listing::ps_command(arguments, options),
        "list" => listing::list_command(arguments, options),
        "update" => update::update_command(arguments, options),
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
            println!("{}", features::features());
            Ok(0)
        }
        "spec" => example::spec_command(arguments),
        "checkpoint" | "restore" => Err(Error::new(format!("{command} is not supported"))),
        command => Err(Error::new(format!("unknown command {command:?}\n{}", help::USAGE))),
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
        assert_eq!(run(&["--systemd-cgroup", "list"]), Ok(0));
        assert_eq!(run(&["--systemd-cgroup=false", "list"]), Ok(0));
        assert_eq!((run(&["help"]), run(&["create", "--help"]), run(&["exec", "-h"])), (Ok(0), Ok(0), Ok(0)));
    }
}
