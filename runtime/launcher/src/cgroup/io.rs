//! Block I/O (weight and throttling) and huge pages.

use super::Files;
use crate::{
    error::{Error, Result},
    json::Json,
};

const THROTTLES: [(&str, &str, &str); 4] = [
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
];

pub fn v1(files: Files<'_>, io: &Json) -> Result<()> {
    if let Some(weight) = io.get("weight").u64().filter(|&weight| weight > 0) {
        // The file carries the scheduler's name where only BFQ knows weights.
        let file = if files.dir.join("blkio.weight").exists() { "blkio.weight" } else { "blkio.bfq.weight" };
        files.write(file, &weight.to_string())?;
    }
    if let Some(weight) = io.get("leafWeight").u64().filter(|&weight| weight > 0) {
        files.write("blkio.leaf_weight", &weight.to_string())?;
    }
    for (device, weight) in device_weights(io, "leafWeight") {
        files.write("blkio.leaf_weight_device", &format!("{device} {weight}"))?;
    }
    for (device, weight) in device_weights(io, "weight") {
        let file = if files.dir.join("blkio.weight_device").exists() {
            "blkio.weight_device"
        } else {
            "blkio.bfq.weight_device"
        };
        files.write(file, &format!("{device} {weight}"))?;
    }
    throttle(io, |v1_file, _, device, rate| files.write(v1_file, &format!("{device} {rate}")))
}

pub fn v2(files: Files<'_>, io: &Json) -> Result<()> {
    if io.get("leafWeight").u64().is_some_and(|weight| weight > 0) || device_weights(io, "leafWeight").next().is_some()
    {
        return Err(Error::new("linux.resources.blockIO: cgroup v2 has no leafWeight"));
    }
    let default = io.get("weight").u64().filter(|&weight| weight > 0).map(|weight| ("default".to_owned(), weight));
    for (device, weight) in default.into_iter().chain(device_weights(io, "weight")) {
        // BFQ has a weight of its own, which it goes by alone, and takes it as it is (runc, cgroups `fs2/io.go`).
        match files.write("io.bfq.weight", &format!("{device} {weight}")) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            result => {
                result?;
                continue;
            }
        }
        // 10…1000 to 1…10000.
        let weight = 1 + (weight.clamp(10, 1000) - 10) * 9999 / 990;
        files.write("io.weight", &format!("{device} {weight}"))?;
    }
    throttle(io, |_, v2_key, device, rate| files.write("io.max", &format!("{device} {v2_key}={rate}")))
}

/// `major:minor` and weight (or `leafWeight`) of `weightDevice`.
fn device_weights<'a>(io: &'a Json, key: &'static str) -> impl Iterator<Item = (String, u64)> + 'a {
    let number = |entry: &Json, key: &str| entry.get(key).i64().unwrap_or(0);
    io.get("weightDevice").items().iter().filter_map(move |entry| {
        let weight = entry.get(key).u64().filter(|&weight| weight > 0)?;
        Some((format!("{}:{}", number(entry, "major"), number(entry, "minor")), weight))
    })
}

fn throttle(io: &Json, set: impl Fn(&str, &str, &str, u64) -> Result<()>) -> Result<()> {
    for (key, v1_file, v2_key) in THROTTLES {
        for entry in io.get(key).items() {
            let device = format!("{}:{}", entry.get("major").i64().unwrap_or(0), entry.get("minor").i64().unwrap_or(0));
            set(v1_file, v2_key, &device, entry.get("rate").u64().unwrap_or(0))?;
        }
    }
    Ok(())
}

/// Handles and objects of RDMA devices, by device (config-linux "RDMA").
pub fn rdma(files: Files<'_>, devices: &Json) -> Result<()> {
    for (device, limits) in devices.members() {
        let limit = |key: &str| limits.get(key).u64().map_or("max".to_owned(), |value| value.to_string());
        let line = format!("{device} hca_handle={} hca_object={}", limit("hcaHandles"), limit("hcaObjects"));
        files.write("rdma.max", &line)?;
    }
    Ok(())
}

/// `suffix` is `limit_in_bytes` on v1 and `max` on v2. What is reserved counts, where the kernel counts it (5.7), and else
/// what is used (config-linux "Huge page limits"): both are limited, as runc does.
pub fn hugepages(files: Files<'_>, limits: &[Json], suffix: &str) -> Result<()> {
    for limit in limits {
        let (Some(size), Some(bytes)) = (limit.get("pageSize").str(), limit.get("limit").u64()) else {
            return Err(Error::new("linux.resources.hugepageLimits: pageSize or limit is missing"));
        };
        files.write(&format!("hugetlb.{size}.{suffix}"), &bytes.to_string())?;
        match files.write(&format!("hugetlb.{size}.rsvd.{suffix}"), &bytes.to_string()) {
            Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
