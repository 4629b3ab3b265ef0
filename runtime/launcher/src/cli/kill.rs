//! `kill`, and the names of signals.

use super::arguments::{Arguments, unknown};
use crate::{
    create::Options,
    error::{Error, Result},
    state::State,
    sys,
};

pub fn kill_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
