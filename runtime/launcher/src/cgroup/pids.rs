//! How many processes a group may have. The file is the same on v1 and v2.

use std::path::Path;

use super::write;
use crate::{error::Result, json::Json};

pub fn apply(dir: &Path, pids: &Json) -> Result<()> {
    match pids.get("limit").i64() {
        None | Some(0) => Ok(()),
        Some(limit) if limit > 0 => write(dir, "pids.max", &limit.to_string()),
        Some(_) => write(dir, "pids.max", "max"),
    }
}
