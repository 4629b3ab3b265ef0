//! The ranges that Services get their addresses from: those of the ServiceCIDRs (core/service/ipallocator
//! `cidrallocator.go`), of which the server makes the first one itself.

use crate::registry::fields::{items, text};
use crate::server::Server;
use coracle_api::Status;
use coracle_api::json::Value;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

/// The ServiceCIDR of the range that the server was told.
pub const OWN: &str = "kubernetes";

/// How many random picks are tried before the range is walked from end to end.
pub const RANDOM_PICKS: usize = 32;

/// The ranges that are ready, by the names of their objects.
///
/// # Errors
/// When ServiceCIDRs are not served.
pub fn ready(server: &Server) -> Result<Vec<Ipv4Net>, Status> {
    ranges(server, is_ready)
}

/// All ranges: addresses of one that is not ready any more are still Services' (ipallocator/controller `syncCIDRs`).
///
/// # Errors
/// When ServiceCIDRs are not served.
pub fn known(server: &Server) -> Result<Vec<Ipv4Net>, Status> {
    ranges(server, |_| true)
}

fn ranges(server: &Server, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Ipv4Net>, Status> {
    let known = server.cache_of("networking.k8s.io", "servicecidrs")?.snapshot();
    let mut ranges = Vec::new();
    // Services are made before it is.
    if known.get(OWN).is_none()
        && let IpNet::V4(range) = server.config.service_cidr
    {
        ranges.push(range);
    }
    for (_, object) in &known.objects {
        let object = object.parse();
        if wanted(&object) {
            ranges.extend(
                items(&object["spec"], "cidrs").iter().filter_map(|range| range.as_str()?.parse::<Ipv4Net>().ok()),
            );
        }
    }
    Ok(ranges)
}

/// Whether addresses are given out of it. One of which nobody says it counts as ready: no controller may be there to say so.
fn is_ready(object: &Value) -> bool {
    let said = items(&object["status"], "conditions").iter().find(|condition| text(condition, "type") == "Ready");
    let is_ending = object["metadata"].get("deletionTimestamp").is_some();
    !is_ending && said.is_none_or(|condition| text(condition, "status") == "True")
}

/// Whether a Service can have the address: neither that of the network nor that of all its hosts.
pub fn contains(range: &Ipv4Net, ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if range.contains(&ip) && ip != range.network() && ip != range.broadcast())
}

/// An address that is not taken, of the upper part of the range: the lower part is kept for addresses that are asked for
/// by number (KEP-3070), its size being between 16 and 256 and a sixteenth of the range.
///
/// # Errors
/// Those of `is_taken`.
pub fn free<E>(range: &Ipv4Net, is_taken: impl Fn(&str) -> Result<bool, E>) -> Result<Option<String>, E> {
    let first = u32::from(range.network()) + 1;
    let last = u32::from(range.broadcast()).saturating_sub(1);
    if last < first {
        return Ok(None);
    }
    let size = last - first + 1;
    let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256).min(size - 1) };
    let mut random = (0..RANDOM_PICKS).map(|_| fastrand::u32(first + band..=last));
    let mut all = (first + band..=last).chain(first..first + band);
    while let Some(ip) = random.next().or_else(|| all.next()) {
        let ip = Ipv4Addr::from(ip).to_string();
        if !is_taken(&ip)? {
            return Ok(Some(ip));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;
    use std::collections::HashSet;
    use std::convert::Infallible;

    #[test]
    fn every_address_but_the_first_and_the_last_is_given_out() {
        for (range, wanted) in [("10.0.0.0/24", 254), ("10.0.0.0/30", 2), ("10.0.0.0/31", 0), ("10.0.0.0/32", 0)] {
            let range: Ipv4Net = range.parse().unwrap();
            let mut taken = HashSet::new();
            while let Some(ip) = free(&range, |ip| Ok::<_, Infallible>(taken.contains(ip))).unwrap() {
                assert!(contains(&range, ip.parse().unwrap()), "{ip} of {range}");
                assert!(
                    taken.len() >= 238 || ip.parse::<Ipv4Addr>().unwrap().octets()[3] > 16 || wanted < 254,
                    "{ip} too early"
                );
                assert!(taken.insert(ip));
            }
            assert_eq!(taken.len(), wanted, "{range}");
            assert!(!contains(&range, range.network().into()) && !contains(&range, range.broadcast().into()));
        }
        assert!(!contains(&"10.0.0.0/24".parse().unwrap(), "fd00::1".parse().unwrap()));
    }

    #[test]
    fn a_range_is_ready_unless_it_is_said_not_to_be() {
        let of = |status: &str| json!({"status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": status}]}});
        assert!(is_ready(&json!({})) && is_ready(&of("True")));
        assert!(!is_ready(&of("False")) && !is_ready(&of("Unknown")));
        let mut ending = of("True");
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(!is_ready(&ending));
    }
}
