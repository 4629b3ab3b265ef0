//! `exec`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    arguments::Arguments,
    fail,
    foreground::{forwarded_signals, wait_forwarding},
    process_flag, report_pid,
};
use crate::{
    capabilities,
    create::{Options, Started},
    error::{Context, Error, Result},
    exec,
    json::Json,
    spec::{Process, read_json},
    state::State,
};

/// What goes wrong before the program runs is 255, which no shell gives it for not being found.
pub fn exec_command(arguments: &mut Arguments, options: &mut Options) -> Result<u8> {
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
            // As old callers say it to runc; nobody is left to be reaped here.
            "no-subreaper" => drop(Arguments::boolean(&flag)?),
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
pub fn read_process(path: &Path) -> Result<Json> {
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
