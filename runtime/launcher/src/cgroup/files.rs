//! The control files of a group, and how what was written to them is taken back.

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::error::{Context, Error, Result};

/// The directory of a group, for those who write limits.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    pub dir: &'a Path,
    journal: Option<&'a Journal>,
}

impl<'a> Files<'a> {
    /// With a journal, what is written can be taken back.
    pub fn new(dir: &'a Path, journal: Option<&'a Journal>) -> Files<'a> {
        Files { dir, journal }
    }

    /// Writes one control file.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        let before = self.journal.map(|_| fs::read_to_string(self.dir.join(file)).unwrap_or_default());
        write(self.dir, file, value)?;
        if let (Some(journal), Some(before)) = (self.journal, before) {
            journal.0.borrow_mut().push(Written { path: self.dir.join(file), value: value.to_owned(), before });
        }
        Ok(())
    }
}

/// What was written, in its order, and what was there before.
#[derive(Debug, Default)]
pub struct Journal(RefCell<Vec<Written>>);

#[derive(Debug)]
struct Written {
    path: PathBuf,
    value: String,
    before: String,
}

impl Journal {
    /// Writes what was there before, the last first: so every step leads to where the group has been. The error is of the first
    /// file that does not take it; the others have it nevertheless.
    pub fn undo(&self) -> Result<()> {
        let mut result = Ok(());
        for written in self.0.take().iter().rev() {
            let (Some(dir), Some(file)) =
                (written.path.parent(), written.path.file_name().and_then(|name| name.to_str()))
            else {
                continue;
            };
            let Some(value) = written.back(file) else { continue };
            let back = write(dir, file, &value);
            if result.is_ok() {
                result = back;
            }
        }
        result
    }

    /// The error of what could not be done, when the rest of it is undone.
    pub fn failed(&self, error: Error) -> Error {
        match self.undo() {
            Ok(()) => error,
            Err(undo) => Error::new(format!("{error}; not all is as it was before: {undo}")),
        }
    }
}

impl Written {
    /// What has to be written to have the file as it was; nothing where that is not possible.
    ///
    /// Files with a line for each device (cgroup-v2.rst "Nested keyed", blkio-controller.rst) take one line at a time, and
    /// leave those out that have no limit.
    fn back(&self, file: &str) -> Option<String> {
        if file == "memory.oom_control" {
            let mut lines = self.before.lines();
            return lines.find_map(|line| line.strip_prefix("oom_kill_disable ")).map(str::to_owned);
        }
        let (device, keys) = match self.value.split_once(' ') {
            Some(parts) if !file.starts_with("cpu") => parts,
            _ => {
                // A file that also has lines for devices shows the value for all others first.
                let default = self.before.lines().find_map(|line| line.strip_prefix("default "));
                return Some(default.unwrap_or(self.before.trim_end()).to_owned());
            }
        };
        let line = self.before.lines().find(|line| line.split(' ').next() == Some(device));
        if let Some(line) = line {
            return Some(line.to_owned());
        }
        let none = match file {
            "io.weight" | "io.bfq.weight" => "default".to_owned(),
            "io.max" => {
                let keys: Vec<String> =
                    keys.split(' ').filter_map(|key| Some(format!("{}=max", key.split_once('=')?.0))).collect();
                keys.join(" ")
            }
            "rdma.max" => "hca_handle=max hca_object=max".to_owned(),
            _ if file.starts_with("blkio.") => "0".to_owned(),
            _ => return None,
        };
        Some(format!("{device} {none}"))
    }
}

/// Writes one control file.
pub fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    ControlFile::new(dir, file).write(value)
}

/// A control file that takes several values one after the other; opened with the first.
pub struct ControlFile {
    path: PathBuf,
    file: Option<fs::File>,
}

impl ControlFile {
    pub fn new(dir: &Path, file: &str) -> ControlFile {
        ControlFile { path: dir.join(file), file: None }
    }

    pub fn write(&mut self, value: &str) -> Result<()> {
        let mut write = || -> std::io::Result<()> {
            if self.file.is_none() {
                self.file = Some(fs::OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(&self.path)?);
            }
            // One write is one value (cgroup-v1/devices.rst).
            self.file.as_mut().map_or(Ok(()), |file| std::io::Write::write_all(file, value.as_bytes()))
        };
        write().context(|| format!("write {value:?} to {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_its_way_back() {
        let back = |file: &str, before: &str, value: &str| {
            Written { path: "/".into(), value: value.into(), before: before.into() }.back(file)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(back("cpu.max", "max 100000\n", "5000 10000"), some("max 100000"));
        assert_eq!(back("cpuset.cpus", "\n", "0"), some(""));
        assert_eq!(back("memory.max", "max\n", "4096"), some("max"));
        assert_eq!(back("io.weight", "default 100\n8:0 50\n", "8:16 200"), some("8:16 default"));
        assert_eq!(back("io.weight", "default 100\n8:0 50\n", "8:0 200"), some("8:0 50"));
        assert_eq!(back("io.weight", "default 100\n8:0 50\n", "default 200"), some("default 100"));
        assert_eq!(back("io.max", "", "8:0 rbps=9 wiops=8"), some("8:0 rbps=max wiops=max"));
        assert_eq!(
            back("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n", "8:0 rbps=9"),
            some("8:0 rbps=1 wbps=max riops=max wiops=max")
        );
        assert_eq!(back("blkio.throttle.read_bps_device", "8:16 7\n", "8:0 9"), some("8:0 0"));
        assert_eq!(back("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", "1"), some("0"));
        assert_eq!(back("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 5"), some("eth0 3"));
    }
}
