//! What a container is called in systemd, and what systemd is told of its limits.
//!
//! The group is made by systemd, and its limits are written by the launcher as ever. systemd knows those that it has a
//! property for as well, because it writes what it knows again whenever its configuration is loaded anew
//! (systemd.resource-control(5); runc, `libcontainer/cgroups/systemd`).

use super::bus::Value;
use crate::{
    cgroup::cpu::weight_of_shares,
    error::{Error, Result},
    json::{Json, object},
};

/// "No limit" of systemd's numbers.
const INFINITY: u64 = u64::MAX;

/// The unit that a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `PREFIX-NAME.scope`, or a slice.
    pub unit: String,
    /// The slice that it is in.
    pub slice: String,
}

impl Name {
    /// By `linux.cgroupsPath`, `SLICE:PREFIX:NAME` where systemd makes groups; each part may be missing but the name.
    pub fn of(cgroups_path: Option<&str>, id: &str) -> Result<Name> {
        let (slice, prefix, name) = match cgroups_path {
            None => ("", "runc", id),
            Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
                [slice, prefix, name] => (slice, prefix, name),
                _ => {
                    return Err(Error::new(format!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
                    )));
                }
            },
        };
        let unit = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice }.to_owned();
        // Of what systemd refuses, what could leave the group file system; it says the rest itself.
        if name.is_empty() || unit.contains('/') || unit.len() > 255 {
            return Err(Error::new(format!("invalid systemd unit name {unit:?}")));
        }
        expand(&slice)?;
        Ok(Name { unit, slice })
    }

    /// As it is kept with the container's state.
    pub fn keep(&self) -> Json {
        object([("unit", self.unit.as_str().into()), ("slice", self.slice.as_str().into())])
    }

    /// What [`Name::keep`] wrote, if anything.
    pub fn kept(json: &Json) -> Option<Name> {
        let text = |key: &str| json.get(key).str().map(str::to_owned);
        Some(Name { unit: text("unit")?, slice: text("slice")? })
    }

    pub fn is_slice(&self) -> bool {
        self.unit.ends_with(".slice")
    }

    /// The group's path below the mount.
    pub fn group(&self) -> Result<String> {
        let above = expand(&self.slice)?;
        match self.is_slice() {
            true => expand(&self.unit),
            false => Ok(format!("{above}/{}", self.unit)),
        }
    }
}

/// The group of a slice, whose name tells those it is in: `a-b.slice` is `/a.slice/a-b.slice` (systemd.slice(5)).
fn expand(slice: &str) -> Result<String> {
    let invalid = || Error::new(format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if name == "-" {
        return Ok(String::new());
    }
    if name.is_empty() || name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &name[..end])).collect())
}

/// What a unit is made with: `first` is its first process, which a slice has not.
pub fn made_with(name: &Name, id: &str, first: Option<i32>, annotations: &Json) -> Result<Vec<(String, Value)>> {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut out = vec![("Description".to_owned(), Value::Text(format!("libcontainer container {id}")))];
    match first {
        None => out.push(("Wants".into(), Value::Texts(vec![name.slice.clone()]))),
        Some(pid) => {
            out.push(("Slice".into(), text(&name.slice)));
            // What is below the group is the container's own.
            out.push(("Delegate".into(), Value::Bool(true)));
            out.push(("PIDs".into(), Value::Uint32s(vec![pid.cast_unsigned()])));
        }
    }
    for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        out.push((accounting.into(), Value::Bool(true)));
    }
    // It is not for systemd to end containers before the engine does, when the machine goes down.
    out.push(("DefaultDependencies".into(), Value::Bool(false)));
    out.extend(annotated(annotations)?);
    Ok(out)
}

/// `org.systemd.property.NAME` with a value as busctl(1) and GVariant write it; times `…Sec` become microseconds (runc,
/// `docs/systemd.md`).
fn annotated(annotations: &Json) -> Result<Vec<(String, Value)>> {
    let mut out = Vec::new();
    for (key, value) in annotations.members() {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let invalid = |why: &str| Error::new(format!("annotation {key}={}: {why}", value.str().unwrap_or_default()));
        if name.len() < 3 || !name.bytes().all(|letter| letter.is_ascii_alphabetic()) {
            return Err(invalid("invalid name: a property is at least three letters, and letters alone"));
        }
        let parsed = parse(value.str().unwrap_or_default().trim()).ok_or_else(|| {
            invalid("invalid value: known are true, 'text', 1, and uint32, int64 or uint64 before a number")
        })?;
        out.push(match (name.strip_suffix("Sec").filter(|name| !name.ends_with('U')), parsed) {
            (None, parsed) => (name.to_owned(), parsed),
            (Some(stem), parsed) => {
                let seconds = match parsed {
                    Value::Int32(seconds) => u64::try_from(seconds).ok(),
                    Value::Int64(seconds) => u64::try_from(seconds).ok(),
                    Value::Uint32(seconds) => Some(seconds.into()),
                    Value::Uint64(seconds) => Some(seconds),
                    _ => None,
                };
                let micros = seconds.and_then(|seconds| seconds.checked_mul(1_000_000));
                (format!("{stem}USec"), Value::Uint64(micros.ok_or_else(|| invalid("not a number of seconds"))?))
            }
        });
    }
    Ok(out)
}

fn parse(text: &str) -> Option<Value> {
    let quoted = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote));
    if let Some(inner) = quoted('\'').or_else(|| quoted('"')) {
        return Some(Value::Text(inner.to_owned()));
    }
    match text.split_once(' ') {
        Some(("uint32", number)) => number.trim().parse().ok().map(Value::Uint32),
        Some(("uint64", number)) => number.trim().parse().ok().map(Value::Uint64),
        Some(("int64", number)) => number.trim().parse().ok().map(Value::Int64),
        Some(("int32", number)) => number.trim().parse().ok().map(Value::Int32),
        Some(_) => None,
        None if text == "true" || text == "false" => Some(Value::Bool(text == "true")),
        None => text.parse().ok().map(Value::Int32),
    }
}

/// The properties of `linux.resources`, as far as systemd has some for them.
pub fn limits(resources: &Json) -> Result<Vec<(String, Value)>> {
    let mut out: Vec<(String, Value)> = Vec::new();
    let mut set = |name: &str, value: Value| {
        // What is said later is meant.
        out.retain(|(had, _)| had != name);
        out.push((name.to_owned(), value));
    };
    let amount = |number: i64| Value::Uint64(u64::try_from(number).unwrap_or(INFINITY));
    let given = |part: &Json, key: &str| part.get(key).i64().filter(|&number| number != 0);
    let memory = resources.get("memory");
    let limit = given(memory, "limit");
    if let Some(limit) = limit {
        set("MemoryMax", amount(limit));
    }
    if let Some(reservation) = given(memory, "reservation") {
        set("MemoryLow", amount(reservation));
    }
    if let Some(swap) = given(memory, "swap") {
        // Requests count both together, groups of v2 swap alone.
        set("MemorySwapMax", amount(if swap < 0 { -1 } else { (swap - limit.unwrap_or(0).max(0)).max(0) }));
    }
    let cpu = resources.get("cpu");
    if let Some(shares) = cpu.get("shares").u64().filter(|&shares| shares > 0) {
        set("CPUWeight", Value::Uint64(weight_of_shares(shares)));
    }
    let period = cpu.get("period").u64().filter(|&period| period > 0);
    for (name, value) in time(given(cpu, "quota"), period) {
        set(name, value);
    }
    for (key, name) in [("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")] {
        if let Some(list) = cpu.get(key).str().filter(|list| !list.is_empty()) {
            set(name, Value::Bytes(bits(list)?));
        }
    }
    if let Some(limit) = given(resources.get("pids"), "limit") {
        set("TasksMax", amount(limit));
    }
    for (file, value) in resources.get("unified").members() {
        let value = value.str().unwrap_or_default();
        let number = || match value.trim() {
            "max" => Ok(INFINITY),
            number => number.parse().map_err(|_| Error::new(format!("linux.resources.unified: {file}: {value:?}"))),
        };
        match file.as_str() {
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let quota = words.next().map(|quota| quota.parse().unwrap_or(-1));
                let period = words.next().and_then(|period| period.parse().ok());
                for (name, value) in time(quota, period.or(Some(100_000))) {
                    set(name, value);
                }
            }
            "cpu.weight" => set("CPUWeight", Value::Uint64(number()?)),
            "cpuset.cpus" => set("AllowedCPUs", Value::Bytes(bits(value)?)),
            "cpuset.mems" => set("AllowedMemoryNodes", Value::Bytes(bits(value)?)),
            "memory.high" => set("MemoryHigh", Value::Uint64(number()?)),
            "memory.low" => set("MemoryLow", Value::Uint64(number()?)),
            "memory.min" => set("MemoryMin", Value::Uint64(number()?)),
            "memory.max" => set("MemoryMax", Value::Uint64(number()?)),
            "memory.swap.max" => set("MemorySwapMax", Value::Uint64(number()?)),
            "pids.max" => set("TasksMax", Value::Uint64(number()?)),
            // systemd has nothing for it; the file is written all the same.
            _ => {}
        }
    }
    Ok(out)
}

/// A quota of a period is time a second for systemd, in steps of ten milliseconds: rounded up, that nothing that is allowed be
/// taken (runc, `addCpuQuota`).
fn time(quota: Option<i64>, period: Option<u64>) -> Vec<(&'static str, Value)> {
    const STEP: u64 = 10_000;
    let mut out = Vec::new();
    if let Some(period) = period {
        out.push(("CPUQuotaPeriodUSec", Value::Uint64(period)));
    }
    if quota.is_some() || period.is_some() {
        let a_second = match quota.and_then(|quota| u64::try_from(quota).ok()).filter(|&quota| quota > 0) {
            None => INFINITY,
            Some(quota) => {
                let exact = u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(100_000));
                u64::try_from(exact).ok().and_then(|time| time.checked_next_multiple_of(STEP)).unwrap_or(INFINITY)
            }
        };
        out.push(("CPUQuotaPerSecUSec", Value::Uint64(a_second)));
    }
    out
}

/// `0-3,5` as a mask of bits, lowest byte first.
fn bits(list: &str) -> Result<Vec<u8>> {
    // More than any kernel counts.
    const MOST: usize = 1 << 13;
    let invalid = || Error::new(format!("invalid list of processors or memory nodes {list:?}"));
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&number| number < MOST).ok_or_else(invalid);
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(invalid());
        }
        for bit in first..=last {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    if mask.is_empty() { Err(invalid()) } else { Ok(mask) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn units_are_named_as_engines_name_them() {
        let group = |path: Option<&str>| Name::of(path, "box").and_then(|name| name.group()).map_err(|e| e.to_string());
        for (path, expected) in [
            (None, "/system.slice/runc-box.scope"),
            (Some("::box"), "/system.slice/box.scope"),
            (Some("machine.slice:libpod:1f"), "/machine.slice/libpod-1f.scope"),
            (
                Some("kubepods-besteffort-pod1.slice:cri-containerd:a-b"),
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-a-b.scope",
            ),
            (Some("-.slice:docker:c"), "/docker-c.scope"),
            (Some("a.slice:x:a-b.slice"), "/a.slice/a-b.slice"),
        ] {
            assert_eq!(group(path).as_deref(), Ok(expected), "{path:?}");
        }
        for (path, expected) in [
            (
                "/a/b",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead",
            ),
            ("a:b:c", "invalid slice name: a"),
            ("a/b.slice:x:y", "invalid slice name: a/b.slice"),
            ("a--b.slice:x:y", "invalid slice name: a--b.slice"),
            ("-a.slice:x:y", "invalid slice name: -a.slice"),
            (":x:../../y", "invalid systemd unit name \"x-../../y.scope\""),
            (":x:", "invalid systemd unit name \"x-.scope\""),
        ] {
            assert_eq!(group(Some(path)), Err(expected.to_owned()));
        }
    }

    #[test]
    fn limits_become_properties() {
        let shown = |text: &str| {
            let text = limits(&json(text)).map_err(|error| error.to_string())?;
            Ok::<_, String>(
                text.into_iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(" "),
            )
        };
        for (resources, expected) in [
            (
                r#"{"memory":{"limit":4096,"swap":8192,"reservation":-1}}"#,
                "MemoryMax=Uint64(4096) MemoryLow=Uint64(18446744073709551615) MemorySwapMax=Uint64(4096)",
            ),
            (
                r#"{"cpu":{"shares":1024,"quota":33333,"period":100000}}"#,
                "CPUWeight=Uint64(100) CPUQuotaPeriodUSec=Uint64(100000) CPUQuotaPerSecUSec=Uint64(340000)",
            ),
            (r#"{"cpu":{"quota":-1}}"#, "CPUQuotaPerSecUSec=Uint64(18446744073709551615)"),
            (r#"{"cpu":{"cpus":"0-1,9","mems":"0"}}"#, "AllowedCPUs=Bytes([3, 2]) AllowedMemoryNodes=Bytes([1])"),
            (r#"{"pids":{"limit":7}}"#, "TasksMax=Uint64(7)"),
            (r#"{"pids":{"limit":-1}}"#, "TasksMax=Uint64(18446744073709551615)"),
            (
                r#"{"pids":{"limit":7},"unified":{"pids.max":"9","memory.oom.group":"1","cpu.max":"max 50000"}}"#,
                "TasksMax=Uint64(9) CPUQuotaPeriodUSec=Uint64(50000) CPUQuotaPerSecUSec=Uint64(18446744073709551615)",
            ),
            (r#"{}"#, ""),
        ] {
            assert_eq!(shown(resources).as_deref(), Ok(expected), "{resources}");
        }
        for cpus in ["3-1", "x", ",", "0-99999999"] {
            assert!(shown(&format!(r#"{{"cpu":{{"cpus":"{cpus}"}}}}"#)).is_err(), "{cpus}");
        }
    }

    #[test]
    fn annotations_are_properties() {
        let shown = |key: &str, value: &str| {
            annotated(&json(&format!("{{\"org.systemd.property.{key}\":\"{value}\",\"other\":\"x\"}}")))
                .map_err(|error| error.to_string())
        };
        let one = |name: &str, value: Value| Ok(vec![(name.to_owned(), value)]);
        assert_eq!(shown("TimeoutStopUSec", "uint64 123456789"), one("TimeoutStopUSec", Value::Uint64(123_456_789)));
        assert_eq!(shown("TimeoutStopSec", "60"), one("TimeoutStopUSec", Value::Uint64(60_000_000)));
        assert_eq!(
            shown("CollectMode", "'inactive-or-failed'"),
            one("CollectMode", Value::Text("inactive-or-failed".into()))
        );
        assert_eq!(shown("SendSIGHUP", "true"), one("SendSIGHUP", Value::Bool(true)));
        for (key, value) in [("ab", "1"), ("a1b", "1"), ("Who", "nobody"), ("TimeoutStopSec", "-1"), ("Abc", "[1]")] {
            assert!(shown(key, value).unwrap_err().contains(&format!("org.systemd.property.{key}={value}")));
        }
    }
}
