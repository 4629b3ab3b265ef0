//! `update`: what a request leaves out is as the group has it (runc `update.go`: "some parameters are inter-dependent").

use std::{fs, path::Path};

use super::{Cgroup, Journal, read_number};
use crate::{
    error::{Error, Result},
    json::Json,
};

impl Cgroup {
    /// Changes the limits that are named, and those that follow from them: all, or none (runc `container_linux.go`, Set). What
    /// was set, and by what it can be taken back.
    pub fn update(&self, resources: &Json) -> Result<(Json, Journal)> {
        let mut resources = resources.clone();
        if let Json::Obj(members) = &mut resources {
            // A device that somebody else has given the container would be lost (runc's rule).
            members.retain(|(key, _)| key != "devices");
        }
        let dir = self.dir("").filter(|_| self.is_v2());
        if let Some(dir) = dir {
            check_usage(dir, resources.get("memory"))?;
            complete(&mut resources, "cpu", |cpu| missing_time(dir, cpu));
        }
        complete(&mut resources, "memory", |memory| missing_memory(dir, memory));
        let journal = Journal::default();
        match self.limit(&resources, Some(&journal)) {
            Ok(()) => Ok((resources, journal)),
            Err(error) => Err(journal.failed(error)),
        }
    }
}

/// Adds to a member of an object.
fn complete(resources: &mut Json, key: &str, missing: impl FnOnce(&Json) -> Vec<(&'static str, i64)>) {
    let Json::Obj(members) = resources else { return };
    let Some((_, part)) = members.iter_mut().rev().find(|(name, _)| name == key) else { return };
    let missing = missing(part);
    if let Json::Obj(members) = part {
        members.extend(missing.into_iter().map(|(key, value)| (key.to_owned(), value.into())));
    }
}

/// A number that says something; 0 is left out.
fn number(object: &Json, key: &str) -> Option<i64> {
    object.get(key).i64().filter(|&value| value != 0)
}

/// `cpu.max` is `QUOTA PERIOD`, set together.
fn missing_time(dir: &Path, cpu: &Json) -> Vec<(&'static str, i64)> {
    if number(cpu, "quota").is_some() == number(cpu, "period").is_some() {
        return Vec::new();
    }
    let text = fs::read_to_string(dir.join("cpu.max")).unwrap_or_default();
    let mut words = text.split_whitespace();
    let quota = words.next().map(|quota| quota.parse().unwrap_or(-1));
    let had = if number(cpu, "quota").is_some() {
        ("period", words.next().and_then(|period| period.parse().ok()))
    } else {
        ("quota", quota)
    };
    had.1.map(|value| (had.0, value)).into_iter().collect()
}

/// `dir` is the group of v2, which counts swap alone, where requests (as v1) count memory and swap together.
fn missing_memory(dir: Option<&Path>, memory: &Json) -> Vec<(&'static str, i64)> {
    let limited = |dir: &Path, file: &str| read_number(dir, file).and_then(|limit| i64::try_from(limit).ok());
    match (number(memory, "limit"), number(memory, "swap"), dir) {
        // Both or none: without a limit, swap that has one makes no sense.
        (Some(-1), None, _) => vec![("swap", -1)],
        (Some(1..), None, Some(dir)) => {
            let both = limited(dir, "memory.max").zip(limited(dir, "memory.swap.max"));
            both.map(|(limit, swap)| ("swap", limit.saturating_add(swap))).into_iter().collect()
        }
        (None, Some(1..), Some(dir)) => limited(dir, "memory.max").map(|limit| ("limit", limit)).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// `memory.checkBeforeUpdate`: what is used already is no limit (config-linux "Memory").
fn check_usage(dir: &Path, memory: &Json) -> Result<()> {
    // Best effort: without a number nothing is refused.
    let Some(usage) =
        read_number(dir, "memory.current").filter(|_| memory.get("checkBeforeUpdate").bool() == Some(true))
    else {
        return Ok(());
    };
    for (key, what) in [("swap", "memory+swap"), ("limit", "memory")] {
        if let Some(limit) = memory.get(key).u64().filter(|&limit| limit > 0 && limit <= usage) {
            return Err(Error::new(format!("rejecting {what} limit {limit} <= usage {usage}")));
        }
    }
    Ok(())
}

/// An amount of memory: bytes, or with a unit of 1024s (`512M`, `1.5 GiB`; docker/go-units, RAMInBytes); -1 is no limit.
pub fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(lower.len());
    let (amount, unit) = lower.split_at(digits);
    let amount: f64 = amount.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (power, rest) = match unit.chars().next().and_then(|letter| "kmgtp".find(letter)) {
        Some(index) => (index as i32 + 1, &unit[1..]),
        None => (0, unit),
    };
    matches!(rest, "" | "b" | "i" | "ib").then(|| (amount * 1024_f64.powi(power)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Hierarchy, Mount};

    /// Updates a directory that looks like a group of v2; the files after that.
    fn updated(before: &[(&str, &str)], request: &str) -> Result<Vec<String>> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("update-{}-{count}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        before.iter().for_each(|(file, text)| fs::write(dir.join(file), text).unwrap());
        let mount = Mount { controllers: vec![], point: dir.clone(), root: "/".into() };
        let group = Hierarchy::V2 { mount }.group("/").unwrap();
        let result = group.update(&Json::parse(request.as_bytes()).unwrap()).map(drop);
        let read = |(file, _): &(&str, &str)| {
            // Where a control file takes a value whole, this one keeps the end of a longer one: tests write none.
            fs::read_to_string(dir.join(file)).unwrap().trim_end().to_owned()
        };
        let after = before.iter().map(read).collect();
        fs::remove_dir_all(&dir).unwrap();
        result.map(|_| after)
    }

    #[test]
    fn what_is_not_named_stays_as_the_group_has_it() {
        let time = |has: &str, request: &str| updated(&[("cpu.max", has)], request).unwrap().remove(0);
        assert_eq!(time("50000 100000\n", r#"{"cpu":{"period":200000}}"#), "50000 200000");
        assert_eq!(time("50000 200000\n", r#"{"cpu":{"quota":70000}}"#), "70000 200000");
        assert_eq!(time("max 100000\n", r#"{"cpu":{"period":200000}}"#), "max 200000");
        assert_eq!(time("500 200000\n", r#"{"cpu":{"quota":-1,"period":0}}"#), "max 200000");
        let memory = |limit: &str, swap: &str, request: &str| {
            let after = updated(&[("memory.max", limit), ("memory.swap.max", swap)], request)?;
            Ok::<_, Error>(after.join("+"))
        };
        assert_eq!(memory("300\n", "100\n", r#"{"memory":{"limit":200}}"#).unwrap(), "200+200");
        assert_eq!(memory("300\n", "max\n", r#"{"memory":{"limit":200}}"#).unwrap(), "200+max");
        assert_eq!(memory("300\n", "100\n", r#"{"memory":{"swap":500}}"#).unwrap(), "300+200");
        assert_eq!(memory("300\n", "100\n", r#"{"memory":{"limit":-1}}"#).unwrap(), "max+max");
        let error = memory("max\n", "max\n", r#"{"memory":{"swap":500}}"#).unwrap_err().to_string();
        assert!(error.contains("without memory limit"), "{error}");
        let error = memory("300\n", "0\n", r#"{"memory":{"limit":400}}"#).unwrap_err().to_string();
        assert!(error.contains("should be >= memory limit"), "{error}");
    }

    #[test]
    fn what_is_in_use_is_no_limit_if_one_asks() {
        let limit = |request: &str| updated(&[("memory.current", "250\n"), ("memory.max", "300\n")], request);
        let error = limit(r#"{"memory":{"limit":200,"checkBeforeUpdate":true}}"#).unwrap_err().to_string();
        assert_eq!(error, "rejecting memory limit 200 <= usage 250");
        assert_eq!(limit(r#"{"memory":{"limit":200}}"#).unwrap()[1], "200");
    }

    #[test]
    fn devices_are_left_alone() {
        let request = r#"{"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":7}}"#;
        assert_eq!(updated(&[("pids.max", "9\n")], request).unwrap(), ["7"]);
    }

    #[test]
    fn amounts_have_units() {
        for (text, number) in [
            ("0", 0),
            ("-1", -1),
            ("512", 512),
            ("32kb", 32 << 10),
            ("512M", 512 << 20),
            ("1.5 GiB", 3 << 29),
            ("2t", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for bad in ["", "M", "-2", "1x", "1mm", "1.2.3", " 1"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
