//! `list` and `ps`.

use std::{fs, io::Write};

use super::arguments::{Arguments, unknown};
use crate::{
    create::Options,
    error::{Context, Error, Result},
    json::Json,
    state::State,
};

pub fn ps_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
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

pub fn list_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
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
