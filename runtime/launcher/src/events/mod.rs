//! `events`: what a container uses, now and then, and when the kernel kills in it for want of memory.
//!
//! Numbers have the names and nesting of runc's (`types/events.go`), which monitoring tools read.

use std::{
    fs,
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

mod stats;

pub use stats::stats;

use crate::{
    cgroup::memory,
    error::{Context, Error, Result},
    json::{Json, object},
    process_fd::ProcessFd,
    state::{State, Status},
    sys,
};

/// One line.
fn event(kind: &str, id: &str, data: Option<Json>) -> Json {
    let mut out = object([("type", kind.into()), ("id", id.into())]);
    if let (Json::Obj(members), Some(data)) = (&mut out, data) {
        members.push(("data".into(), data));
    }
    out
}

/// Prints stats every `interval`, and `oom` events, until the container ends.
pub fn follow(state: &State, interval: Duration) -> Result<()> {
    let process = ProcessFd::open(state.pid).context(|| format!("find process {}", state.pid))?;
    if state.status() == Status::Stopped {
        return Err(Error::new(format!("container with id {} is not running", state.id)));
    }
    let group = state.cgroup()?;
    let dir = group.dir("memory");
    let watch = dir.map(|dir| OomWatch::open(dir, group.is_v2())).transpose()?;
    let kills = || dir.map_or(0, |dir| memory::oom_kills(dir, group.is_v2()));
    let mut seen = kills();
    let mut next = Instant::now() + interval;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        let milliseconds = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX).max(1);
        let ready = process.poll(watch.as_ref().map(|watch| &watch.fd), milliseconds);
        if ready.1 {
            if let Some(watch) = &watch {
                watch.reset(group.is_v2());
            }
            let now = kills();
            if now != seen || !group.is_v2() {
                print(&event("oom", &state.id, None))?;
            }
            seen = now;
        }
        if ready.0 {
            return Ok(());
        }
        if Instant::now() >= next {
            print(&stats(state)?)?;
            next += interval;
        }
    }
}

fn print(line: &Json) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context(|| "write an event".into())
}

/// A descriptor that is ready when the kernel ran out of memory in a group: on v1 an eventfd told to
/// `cgroup.event_control`, on v2 `memory.events` itself (cgroup-v1/memcg "OOM Control", cgroup-v2 "memory.events").
struct OomWatch {
    fd: OwnedFd,
    #[expect(dead_code, reason = "the registration ends with it")]
    control: Option<OwnedFd>,
}

impl OomWatch {
    fn open(dir: &Path, v2: bool) -> Result<OomWatch> {
        let what = || format!("watch {}", dir.display());
        if v2 {
            let fd = sys::open(dir.join("memory.events"), libc::O_RDONLY, 0).context(what)?;
            return Ok(OomWatch { fd, control: None });
        }
        let control = sys::open(dir.join("memory.oom_control"), libc::O_RDONLY, 0).context(what)?;
        let fd = sys::eventfd().context(what)?;
        let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        fs::write(dir.join("cgroup.event_control"), line).context(what)?;
        Ok(OomWatch { fd, control: Some(control) })
    }

    fn reset(&self, v2: bool) {
        let mut buffer = [0; 4096];
        // An eventfd is ready until it is read, the file until it is read from its beginning.
        let _ = if v2 { sys::read_at(&self.fd, &mut buffer) } else { sys::read(&self.fd, &mut buffer) };
    }
}

/// A duration as Go writes it: `5s`, `1m30s`, `250ms`.
pub fn duration(text: &str) -> Result<Duration> {
    let bad = || Error::new(format!("{text:?} is not a duration"));
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit = rest[digits..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        total += number
            * match &rest[digits..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &rest[unit..];
    }
    match Duration::try_from_secs_f64(total) {
        Ok(duration) if duration >= Duration::from_millis(1) => Ok(duration),
        _ => Err(Error::new("duration interval must be greater than 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in [("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("1.5s", 1500), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for bad in ["", "5", "s", "0s", "5 s", "5d", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
