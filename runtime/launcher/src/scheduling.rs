//! How a process is scheduled: policy, processors, I/O priority, execution domain (config.md "Process", config-linux
//! "Personality").

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// What `process` and `linux.personality` say; nothing is changed that they do not name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheduling {
    io_priority: Option<u16>,
    scheduler: Option<sys::Scheduler>,
    /// `execCPUAffinity`: before and after the process is in its group.
    pub first_processors: Option<Vec<usize>>,
    pub processors: Option<Vec<usize>>,
}

impl Scheduling {
    pub fn parse(process: &Json) -> Result<Scheduling> {
        let affinity = process.get("execCPUAffinity");
        let list = |key: &str| affinity.get(key).str().filter(|list| !list.is_empty()).map(processors).transpose();
        Ok(Scheduling {
            io_priority: io_priority(process.get("ioPriority"))?,
            scheduler: scheduler(process.get("scheduler"))?,
            first_processors: list("initial")?,
            processors: list("final")?,
        })
    }

    /// Whom `execCPUAffinity` is not for: the container's first process (config.md "Linux Process").
    pub fn drop_processors(&mut self) {
        (self.first_processors, self.processors) = (None, None);
    }

    /// Applies it to this process, while it still has the rights.
    pub fn apply(&self) -> Result<()> {
        if let Some(priority) = self.io_priority {
            sys::ioprio_set(priority).context(|| "set process.ioPriority".into())?;
        }
        if let Some(scheduler) = &self.scheduler {
            sys::sched_setattr(scheduler).context(|| "set process.scheduler".into())?;
        }
        if let Some(processors) = &self.processors {
            sys::set_affinity(processors).context(|| "set process.execCPUAffinity.final".into())?;
        }
        Ok(())
    }
}

/// Class in the upper three bits, as ioprio_set(2) takes it.
fn io_priority(entry: &Json) -> Result<Option<u16>> {
    if entry.is_null() {
        return Ok(None);
    }
    let class = match entry.get("class").str().unwrap_or_default() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        class => return Err(Error::new(format!("process.ioPriority: unknown class {class:?}"))),
    };
    let priority = entry.get("priority").i64().unwrap_or(0);
    let level = u16::try_from(priority).ok().filter(|&level| level <= 7);
    let level = level.ok_or_else(|| Error::new(format!("process.ioPriority: priority {priority} is not 0 to 7")))?;
    Ok(Some(class << 13 | level))
}

fn scheduler(entry: &Json) -> Result<Option<sys::Scheduler>> {
    const POLICIES: [(&str, u32); 7] = [
        ("SCHED_OTHER", 0),
        ("SCHED_FIFO", 1),
        ("SCHED_RR", 2),
        ("SCHED_BATCH", 3),
        ("SCHED_ISO", 4),
        ("SCHED_IDLE", 5),
        ("SCHED_DEADLINE", 6),
    ];
    const FLAGS: [(&str, u64); 7] = [
        ("SCHED_FLAG_RESET_ON_FORK", 1),
        ("SCHED_FLAG_RECLAIM", 2),
        ("SCHED_FLAG_DL_OVERRUN", 4),
        ("SCHED_FLAG_KEEP_POLICY", 8),
        ("SCHED_FLAG_KEEP_PARAMS", 0x10),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ];
    if entry.is_null() {
        return Ok(None);
    }
    let name = entry.get("policy").str().unwrap_or_default();
    let policy = POLICIES.iter().find(|(known, _)| *known == name);
    let &(_, policy) = policy.ok_or_else(|| Error::new(format!("process.scheduler: unknown policy {name:?}")))?;
    let mut flags = 0;
    for name in entry.get("flags").strings() {
        let flag = FLAGS.iter().find(|(known, _)| *known == name);
        flags |= flag.ok_or_else(|| Error::new(format!("process.scheduler: unknown flag {name:?}")))?.1;
    }
    let nice = entry.get("nice").i64().unwrap_or(0);
    let nice = i32::try_from(nice).ok().filter(|nice| (-20..=19).contains(nice));
    Ok(Some(sys::Scheduler {
        policy,
        flags,
        nice: nice.ok_or_else(|| Error::new("process.scheduler: nice is not -20 to 19"))?,
        priority: entry.get("priority").u32().unwrap_or(0),
        runtime: entry.get("runtime").u64().unwrap_or(0),
        deadline: entry.get("deadline").u64().unwrap_or(0),
        period: entry.get("period").u64().unwrap_or(0),
    }))
}

/// A list of processors as in cpuset(7): `0-3,7`.
pub fn processors(list: &str) -> Result<Vec<usize>> {
    let bad = || Error::new(format!("process.execCPUAffinity: {list:?} is not a list of processors"));
    let mut out = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first > last || last >= sys::MAX_PROCESSORS {
            return Err(bad());
        }
        out.extend(first..=last);
    }
    Ok(out)
}

/// `linux.personality`: the execution domain for personality(2).
pub fn personality(entry: &Json) -> Result<Option<u64>> {
    if entry.is_null() {
        return Ok(None);
    }
    match entry.get("domain").str().unwrap_or_default() {
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        domain => Err(Error::new(format!("linux.personality: unknown domain {domain:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_numbers() {
        let parse = |text: &str| Scheduling::parse(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(parse("{}").unwrap(), Scheduling::default());
        let all = parse(
            r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4},"execCPUAffinity":{"final":"0-1,3"},
                "scheduler":{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_FLAG_RESET_ON_FORK"]}}"#,
        )
        .unwrap();
        assert_eq!((all.io_priority, all.processors), (Some(2 << 13 | 4), Some(vec![0, 1, 3])));
        assert_eq!(all.scheduler.map(|scheduler| (scheduler.policy, scheduler.nice, scheduler.flags)), Some((3, 5, 1)));
        for bad in [
            r#"{"ioPriority":{"class":"X"}}"#,
            r#"{"ioPriority":{"class":"IOPRIO_CLASS_RT","priority":8}}"#,
            r#"{"scheduler":{"policy":"SCHED_X"}}"#,
            r#"{"scheduler":{"policy":"SCHED_OTHER","nice":20}}"#,
            r#"{"execCPUAffinity":{"initial":"1-0"}}"#,
            r#"{"execCPUAffinity":{"final":"99999999"}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
