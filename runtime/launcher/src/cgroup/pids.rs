//! How many processes a group may have. The file is the same on v1 and v2.

use super::Files;
use crate::{error::Result, json::Json};

pub fn apply(files: Files<'_>, pids: &Json) -> Result<()> {
    match pids.get("limit").i64() {
        None | Some(0) => Ok(()),
        Some(limit) if limit > 0 => files.write("pids.max", &limit.to_string()),
        Some(_) => files.write("pids.max", "max"),
    }
}
