//! How a process ended, on disk for a daemon that was not there: `DIR/ID.exit`, one line of `key=value`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::protocol::Exit;

/// A record of a process that ran and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    pub pid: u32,
    /// Nanoseconds since 1970.
    pub started_at: u64,
    pub exit: Exit,
}

/// Where the record of a process lies.
pub fn path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.exit"))
}

/// Writes a record; a reader sees all of it or nothing.
pub fn write(dir: &Path, id: &str, record: &ExitRecord) -> io::Result<()> {
    let ExitRecord { pid, started_at, exit } = record;
    let text =
        format!("code={} oom={} at={} pid={pid} started={started_at}\n", exit.code, u8::from(exit.oom_killed), exit.at);
    let part = dir.join(format!("{id}.exit.part"));
    fs::write(&part, text)?;
    fs::rename(part, path(dir, id))
}

/// Reads a record; none if there is none or it is not whole.
pub fn read(dir: &Path, id: &str) -> Option<ExitRecord> {
    let text = fs::read_to_string(path(dir, id)).ok()?;
    let field = |name: &str| {
        let word = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|value| value.parse::<u64>().ok())
    };
    Some(ExitRecord {
        pid: u32::try_from(field("pid")?).ok()?,
        started_at: field("started")?,
        exit: Exit { code: u32::try_from(field("code")?).ok()?, oom_killed: field("oom")? != 0, at: field("at")? },
    })
}
