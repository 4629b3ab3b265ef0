//! Which processors and memory nodes a group runs on.

use std::{fs, path::Path};

use super::write;
use crate::{
    error::{Context, Result},
    json::Json,
};

/// A new v1 cpuset is empty and no process may enter an empty one: it takes over its parent's.
pub fn inherit(dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file)).context(|| format!("read {}/{file}", dir.display()))?;
        if own.trim().is_empty()
            && let Some(parent) = dir.parent()
        {
            let value =
                fs::read_to_string(parent.join(file)).context(|| format!("read {}/{file}", parent.display()))?;
            write(dir, file, value.trim())?;
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
