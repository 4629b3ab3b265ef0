//! Which processors and memory nodes a group runs on.

use std::path::Path;

use super::write;
use crate::{
    error::{Context, Result},
    json::Json,
    sys,
};

/// A new v1 cpuset is empty and no process may enter an empty one: it takes over its parent's.
pub fn inherit(dir: &Path) -> Result<()> {
    let read =
        |dir: &Path, file: &str| sys::read_file(dir.join(file)).context(|| format!("read {}/{file}", dir.display()));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(dir, file)?.trim().is_empty()
            && let Some(parent) = dir.parent()
        {
            write(dir, file, read(parent, file)?.trim())?;
        }
    }
    Ok(())
}

pub fn v1(dir: &Path, cpu: &Json) -> Result<()> {
    v2(dir, cpu)
}

pub fn v2(dir: &Path, cpu: &Json) -> Result<()> {
    for (key, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(value) = cpu.get(key).str().filter(|value| !value.is_empty()) {
            write(dir, file, value)?;
        }
    }
    Ok(())
}
