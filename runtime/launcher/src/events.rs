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

use crate::{
    cgroup::{Cgroup, memory, read_key, read_number},
    error::{Context, Error, Result},
    json::{Json, object},
    process_fd::ProcessFd,
    rdt::Class,
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

/// The `stats` event.
pub fn stats(state: &State) -> Result<Json> {
    let group = state.cgroup()?;
    let limits = |controller: &str, v1: &str, v2: &str| {
        let file = if group.is_v2() { v2 } else { v1 };
        Json::from(group.dir(controller).and_then(|dir| read_number(dir, file)).unwrap_or(0))
    };
    let data = object([
        ("cpu", cpu(&group)),
        ("memory", memory_stats(&group)),
        (
            "pids",
            object([
                ("current", limits("pids", "pids.current", "pids.current")),
                ("limit", limits("pids", "pids.max", "pids.max")),
            ]),
        ),
        ("blkio", blkio(&group)),
        ("hugetlb", huge_pages(&group)),
        ("intel_rdt", state.class.as_ref().map_or_else(|| object([]), Class::stats)),
        ("network_interfaces", Json::Null),
    ]);
    Ok(event("stats", &state.id, Some(data)))
}

fn cpu(group: &Cgroup) -> Json {
    let dir = group.dir("cpu");
    let stat = |key: &str| dir.and_then(|dir| read_key(dir, "cpu.stat", key)).unwrap_or(0);
    let mut each = Vec::new();
    let (usage, throttling) = if group.is_v2() {
        let times = [stat("usage_usec"), stat("system_usec"), stat("user_usec")].map(|time| time * 1000);
        (times, stat("throttled_usec") * 1000)
    } else {
        let accounts = group.dir("cpuacct");
        let total = |file: &str| accounts.and_then(|dir| read_number(dir, file)).unwrap_or(0);
        let text =
            accounts.and_then(|dir| fs::read_to_string(dir.join("cpuacct.usage_percpu")).ok()).unwrap_or_default();
        each.extend(text.split_whitespace().filter_map(|time| time.parse::<u64>().ok()).map(Json::from));
        let times = [total("cpuacct.usage"), total("cpuacct.usage_sys"), total("cpuacct.usage_user")];
        (times, stat("throttled_time"))
    };
    let [total, kernel, user] = usage;
    let mut usage = vec![("total", total.into()), ("kernel", kernel.into()), ("user", user.into())];
    if !each.is_empty() {
        usage.push(("percpu", Json::Arr(each)));
    }
    let usage = object(usage);
    object([
        ("usage", usage),
        (
            "throttling",
            object([
                ("periods", stat("nr_periods").into()),
                ("throttledPeriods", stat("nr_throttled").into()),
                ("throttledTime", throttling.into()),
            ]),
        ),
    ])
}

fn memory_stats(group: &Cgroup) -> Json {
    let Some(dir) = group.dir("memory") else { return object([]) };
    let number = |file: &str| Json::from(read_number(dir, file).unwrap_or(0));
    let entry = |usage: &str, limit: &str, max: &str, fails: u64| {
        object([("limit", number(limit)), ("usage", number(usage)), ("max", number(max)), ("failcnt", fails.into())])
    };
    let fails = |file: &str| read_number(dir, file).unwrap_or(0);
    let raw = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let raw: Vec<(String, Json)> = raw
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), Json::from(value.parse::<u64>().ok()?)))
        })
        .collect();
    let cache = raw.iter().find(|(key, _)| key == if group.is_v2() { "file" } else { "cache" });
    let cache = cache.map_or(Json::from(0u64), |(_, value)| value.clone());
    let usage = if group.is_v2() {
        let events = read_key(dir, "memory.events", "max").unwrap_or(0);
        vec![("usage", entry("memory.current", "memory.max", "memory.peak", events)), ("swap", memory_and_swap(dir))]
    } else {
        let v1 = |prefix: &str| {
            entry(
                &format!("{prefix}.usage_in_bytes"),
                &format!("{prefix}.limit_in_bytes"),
                &format!("{prefix}.max_usage_in_bytes"),
                fails(&format!("{prefix}.failcnt")),
            )
        };
        vec![
            ("usage", v1("memory")),
            ("swap", v1("memory.memsw")),
            ("kernel", v1("memory.kmem")),
            ("kernelTCP", v1("memory.kmem.tcp")),
        ]
    };
    let mut members = vec![("cache", cache)];
    members.extend(usage);
    members.push(("raw", Json::Obj(raw)));
    members.push(("oomKills", memory::oom_kills(dir, group.is_v2()).into()));
    Json::Obj(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Both together, as v1 counts them, of the group of v2 that counts them apart; of the most there is no sum (runc, cgroups
/// `fs2/memory.go`).
fn memory_and_swap(dir: &Path) -> Json {
    let sum = |files: [&str; 2]| {
        let [memory, swap] = files.map(|file| read_number(dir, file).unwrap_or(0));
        if swap == u64::MAX { swap } else { memory.saturating_add(swap) }
    };
    object([
        ("limit", sum(["memory.max", "memory.swap.max"]).into()),
        ("usage", sum(["memory.current", "memory.swap.current"]).into()),
        ("max", 0u64.into()),
        ("failcnt", 0u64.into()),
    ])
}

/// Huge pages by their size, which files are named after: `hugetlb.2MB.current`.
fn huge_pages(group: &Cgroup) -> Json {
    let Some(dir) = group.dir("hugetlb") else { return object([]) };
    let usage = if group.is_v2() { ".current" } else { ".usage_in_bytes" };
    let names =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let size = |name: String| Some(name.strip_prefix("hugetlb.")?.strip_suffix(usage)?.to_owned());
    // Reservations are accounted beside.
    let mut sizes: Vec<String> = names.filter_map(size).filter(|size| !size.contains('.')).collect();
    sizes.sort_unstable();
    let of_size = |size: &String| {
        let number = |end: &str| read_number(dir, &format!("hugetlb.{size}{end}")).unwrap_or(0);
        let (most, fails) = if group.is_v2() {
            (0, read_key(dir, &format!("hugetlb.{size}.events"), "max").unwrap_or(0))
        } else {
            (number(".max_usage_in_bytes"), number(".failcnt"))
        };
        let entry = object([("usage", number(usage).into()), ("max", most.into()), ("failcnt", fails.into())]);
        (size.clone(), entry)
    };
    Json::Obj(sizes.iter().map(of_size).collect())
}

/// Bytes and operations by device.
fn blkio(group: &Cgroup) -> Json {
    let Some(dir) = group.dir("blkio") else { return object([]) };
    let entry = |device: &str, op: &str, value: u64| {
        let (major, minor) = device.split_once(':')?;
        Some(object([
            ("major", major.parse::<u64>().ok()?.into()),
            ("minor", minor.parse::<u64>().ok()?.into()),
            ("op", op.into()),
            ("value", value.into()),
        ]))
    };
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    if group.is_v2() {
        for line in fs::read_to_string(dir.join("io.stat")).unwrap_or_default().lines() {
            let Some((device, counts)) = line.split_once(' ') else { continue };
            for (key, op, list) in
                [("rbytes", "Read", 0), ("wbytes", "Write", 0), ("rios", "Read", 1), ("wios", "Write", 1)]
            {
                let count = counts.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
                let entry = count.and_then(|count| entry(device, op, count));
                (if list == 0 { &mut bytes } else { &mut operations }).extend(entry);
            }
        }
    } else {
        let read = |file: &str| -> Vec<Json> {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            let line = |line: &str| {
                let mut words = line.split(' ');
                entry(words.next()?, words.next()?, words.next()?.parse().ok()?)
            };
            text.lines().filter_map(line).collect()
        };
        bytes = read("blkio.throttle.io_service_bytes_recursive");
        operations = read("blkio.throttle.io_serviced_recursive");
    }
    object([("ioServiceBytesRecursive", Json::Arr(bytes)), ("ioServicedRecursive", Json::Arr(operations))])
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
    use crate::cgroup::{Hierarchy, Mount};

    #[test]
    fn memory_and_huge_pages_of_v2_are_shown_as_v1_counts_them() {
        let dir = std::env::temp_dir().join(format!("events-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        for (file, text) in [
            ("memory.current", "100"),
            ("memory.max", "300"),
            ("memory.swap.current", "20"),
            ("memory.swap.max", "50"),
            ("hugetlb.2MB.current", "4096"),
            ("hugetlb.2MB.rsvd.current", "1"),
            ("hugetlb.2MB.events", "max 3\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        let mount = Mount { controllers: vec![], point: dir.clone(), root: "/".into() };
        let group = Hierarchy::V2 { mount }.group("/").unwrap();
        let memory = memory_stats(&group);
        assert_eq!((memory.at("swap.usage").u64(), memory.at("swap.limit").u64()), (Some(120), Some(350)));
        assert_eq!((memory.at("usage.usage").u64(), memory.at("usage.limit").u64()), (Some(100), Some(300)));
        assert_eq!(huge_pages(&group).to_string(), r#"{"2MB":{"usage":4096,"max":0,"failcnt":3}}"#);
        fs::remove_dir_all(&dir).unwrap();
    }

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
