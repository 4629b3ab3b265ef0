//! Memory: limit, reservation, swap, and whether the kernel killed something for want of it.

use std::path::Path;

use super::{Files, read_key, read_number};
use crate::{
    error::{Error, Result},
    json::Json,
};

pub fn v1(files: Files<'_>, memory: &Json) -> Result<()> {
    let limit = memory.get("limit").i64().filter(|&limit| limit != 0);
    let swap =
        memory.get("swap").i64().filter(|&swap| swap != 0 && files.dir.join("memory.memsw.limit_in_bytes").exists());
    let write_limit = |limit: i64| files.write("memory.limit_in_bytes", &limit.to_string());
    let write_swap = |swap: i64| files.write("memory.memsw.limit_in_bytes", &swap.to_string());
    match (limit, swap) {
        (Some(limit), Some(swap)) => {
            // The limit may never pass memory+swap: raise the outer one first, lower the inner one first.
            let current = read_number(files.dir, "memory.memsw.limit_in_bytes").unwrap_or(u64::MAX);
            if swap < 0 || swap as u64 > current {
                write_swap(swap)?;
                write_limit(limit)?;
            } else {
                write_limit(limit)?;
                write_swap(swap)?;
            }
        }
        (Some(limit), None) => write_limit(limit)?,
        (None, Some(swap)) => write_swap(swap)?,
        (None, None) => {}
    }
    if let Some(reservation) = memory.get("reservation").i64().filter(|&reservation| reservation != 0) {
        files.write("memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(swappiness) = memory.get("swappiness").u64() {
        files.write("memory.swappiness", &swappiness.to_string())?;
    }
    if memory.get("disableOOMKiller").bool() == Some(true) {
        files.write("memory.oom_control", "1")?;
    }
    Ok(())
}

pub fn v2(files: Files<'_>, memory: &Json) -> Result<()> {
    let number = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    let limit = memory.get("limit").i64().filter(|&limit| limit != 0);
    if let Some(swap) = memory.get("swap").i64().filter(|&swap| swap != 0) {
        if swap > 0 && limit.is_none() {
            return Err(Error::new("unable to set swap limit without memory limit"));
        }
        if swap > 0 && limit.is_some_and(|limit| limit > swap) {
            return Err(Error::new("memory+swap limit should be >= memory limit"));
        }
        // v1 counts memory and swap together, v2 swap alone.
        let swap = if swap < 0 { -1 } else { (swap - limit.unwrap_or(0).max(0)).max(0) };
        match files.write("memory.swap.max", &number(swap)) {
            // A kernel that does not count swap has no such file, and no limit and no swap are then what there is anyway (runc).
            Err(error) if error.errno() == Some(libc::ENOENT) && swap <= 0 => {}
            result => result?,
        }
    }
    if let Some(limit) = limit {
        files.write("memory.max", &number(limit))?;
    }
    if let Some(reservation) = memory.get("reservation").i64().filter(|&reservation| reservation != 0) {
        files.write("memory.low", &number(reservation))?;
    }
    Ok(())
}

/// The file that counts OOM kills under the key `oom_kill`: `memory.oom_control` (v1, since 4.13), `memory.events` (v2).
pub fn oom_file(v2: bool) -> &'static str {
    if v2 { "memory.events" } else { "memory.oom_control" }
}

/// How many processes of the group the kernel killed for want of memory.
pub fn oom_kills(dir: &Path, v2: bool) -> u64 {
    read_key(dir, oom_file(v2), "oom_kill").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_swap_is_a_limit_where_swap_is_counted() {
        let dir = std::env::temp_dir().join(format!("memory-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let apply = |limits: &str| v2(Files::new(&dir, None), &Json::parse(limits.as_bytes()).unwrap());
        fs::write(dir.join("memory.max"), "").unwrap();
        apply(r#"{"limit":4096,"swap":4096}"#).unwrap();
        assert_eq!((file("memory.max").as_str(), file("memory.swap.max").as_str()), ("4096", ""));
        assert!(apply(r#"{"limit":4096,"swap":8192}"#).is_err());
        fs::write(dir.join("memory.swap.max"), "").unwrap();
        apply(r#"{"limit":4096,"swap":4096}"#).unwrap();
        assert_eq!(file("memory.swap.max"), "0");
        fs::remove_dir_all(&dir).unwrap();
    }
}
