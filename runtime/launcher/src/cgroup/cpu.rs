//! CPU time: shares (weight), quota and period.

use super::Files;
use crate::{error::Result, json::Json};

pub fn v1(files: Files<'_>, cpu: &Json) -> Result<()> {
    if let Some(shares) = cpu.get("shares").u64().filter(|&shares| shares > 0) {
        files.write("cpu.shares", &shares.to_string())?;
    }
    let period = cpu.get("period").u64().filter(|&period| period > 0);
    let quota = cpu.get("quota").i64().filter(|&quota| quota != 0);
    if let Some(period) = period
        && let Err(error) = files.write("cpu.cfs_period_us", &period.to_string())
    {
        // A shorter period may not fit the old quota (or the parent's): the new quota has to come first.
        let Some(quota) = quota.filter(|_| error.errno() == Some(libc::EINVAL)) else { return Err(error) };
        files.write("cpu.cfs_quota_us", &quota.to_string())?;
        files.write("cpu.cfs_period_us", &period.to_string())?;
    }
    if let Some(quota) = quota {
        files.write("cpu.cfs_quota_us", &quota.to_string())?;
    }
    if let Some(burst) = cpu.get("burst").u64() {
        files.write("cpu.cfs_burst_us", &burst.to_string())?;
    }
    for (key, file) in [("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")] {
        if let Some(value) = cpu.get(key).i64().filter(|&value| value != 0) {
            files.write(file, &value.to_string())?;
        }
    }
    if let Some(idle) = cpu.get("idle").i64() {
        files.write("cpu.idle", &idle.to_string())?;
    }
    Ok(())
}

pub fn v2(files: Files<'_>, cpu: &Json) -> Result<()> {
    if let Some(shares) = cpu.get("shares").u64().filter(|&shares| shares > 0) {
        files.write("cpu.weight", &weight_of_shares(shares).to_string())?;
    }
    let period = cpu.get("period").u64().filter(|&period| period > 0);
    let quota = cpu.get("quota").i64().filter(|&quota| quota != 0);
    if period.is_some() || quota.is_some() {
        let quota = quota.filter(|&quota| quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        files.write("cpu.max", &format!("{quota} {}", period.unwrap_or(100_000)))?;
    }
    if let Some(burst) = cpu.get("burst").u64() {
        files.write("cpu.max.burst", &burst.to_string())?;
    }
    if let Some(idle) = cpu.get("idle").i64() {
        files.write("cpu.idle", &idle.to_string())?;
    }
    Ok(())
}

/// Shares 2…262144 to weight 1…10000 by a curve on which 1024, what every v1 group has, is 100, what every v2 group has
/// (opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`, Kubernetes the same).
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        3..262_144 => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
        262_144.. => 10_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (77, 14),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }
}
