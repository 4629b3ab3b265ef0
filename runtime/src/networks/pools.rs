//! Subnets of networks, and the addresses in them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parking_lot::Mutex;

use super::model::{Network, Pool, WantedPool};
use crate::error::{Error, Result};

/// The addresses of one owner on one network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

/// Who has which address, by network.
#[derive(Default)]
pub struct Allocations(Mutex<HashMap<String, Vec<Allocated>>>);

/// What is given of one pool.
struct Allocated {
    ipv6: bool,
    owners: BTreeMap<u128, String>,
    last: Option<u128>,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, ipv6: bool) -> IpAddr {
    if ipv6 { IpAddr::V6(number.into()) } else { IpAddr::V4((number as u32).into()) }
}

impl Allocations {
    /// Gives an address of each family the network has to `owner`: those asked for, or the next that are free.
    pub fn take(&self, network: &Network, owner: &str, wanted: Addresses) -> Result<Addresses> {
        let mut all = self.0.lock();
        let pools = all.entry(network.id.clone()).or_default();
        let mut out = Addresses::default();
        for pool in &network.pools {
            let ipv6 = pool.subnet.addr().is_ipv6();
            let asked = if ipv6 { wanted.v6.map(IpAddr::V6) } else { wanted.v4.map(IpAddr::V4) };
            match allocated(pools, ipv6).take(network, pool, owner, asked) {
                Ok(IpAddr::V4(address)) => out.v4 = Some(address),
                Ok(IpAddr::V6(address)) => out.v6 = Some(address),
                Err(error) => {
                    pools.iter_mut().for_each(|pool| pool.release(owner));
                    return Err(error);
                }
            }
        }
        Ok(out)
    }

    /// Notes an address that an owner has from an earlier daemon.
    pub fn note(&self, network: &str, owner: &str, address: IpAddr) {
        let mut all = self.0.lock();
        let pool = allocated(all.entry(network.to_owned()).or_default(), address.is_ipv6());
        pool.owners.insert(number(address), owner.to_owned());
        pool.last = pool.last.max(Some(number(address)));
    }

    pub fn release(&self, network: &str, owner: &str) {
        if let Some(pools) = self.0.lock().get_mut(network) {
            pools.iter_mut().for_each(|pool| pool.release(owner));
        }
    }

    pub fn forget(&self, network: &str) {
        self.0.lock().remove(network);
    }
}

fn allocated(pools: &mut Vec<Allocated>, ipv6: bool) -> &mut Allocated {
    let index = pools.iter().position(|pool| pool.ipv6 == ipv6).unwrap_or_else(|| {
        pools.push(Allocated { ipv6, owners: BTreeMap::new(), last: None });
        pools.len() - 1
    });
    &mut pools[index]
}

impl Allocated {
    fn take(&mut self, network: &Network, pool: &Pool, owner: &str, wanted: Option<IpAddr>) -> Result<IpAddr> {
        let reserved =
            |address: IpAddr| Some(address) == pool.gateway || pool.auxiliary.values().any(|other| *other == address);
        if let Some(wanted) = wanted {
            if !pool.subnet.contains(&wanted) {
                return Err(Error::invalid(format!(
                    "invalid config for network {}: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {wanted}",
                    network.name
                )));
            }
            if self.owners.get(&number(wanted)).is_some_and(|other| other != owner) || reserved(wanted) {
                return Err(Error::denied("Address already in use"));
            }
            self.owners.insert(number(wanted), owner.to_owned());
            return Ok(wanted);
        }
        let range = pool.range.unwrap_or(pool.subnet);
        let (first, last) = (number(range.network()), number(range.broadcast()));
        let (network_address, broadcast) = (number(pool.subnet.network()), number(pool.subnet.broadcast()));
        // A pair has neither (RFC 3021, RFC 6164); IPv6 has no broadcast, and its first address is the routers'.
        let pair = pool.subnet.max_prefix_len() - pool.subnet.prefix_len() <= 1;
        let usable = |candidate: &u128| {
            (pair || *candidate != network_address && (self.ipv6 || *candidate != broadcast))
                && !reserved(address(*candidate, self.ipv6))
                && !self.owners.contains_key(candidate)
        };
        let start = self.last.filter(|last| (first..=number(range.broadcast())).contains(last)).unwrap_or(first);
        // The one after the last that was given, and round again: an address that was just given back rests.
        let found = (start.saturating_add(1)..=last).chain(first..=start.min(last)).find(usable);
        let found = found.ok_or_else(|| {
            let family = if self.ipv6 { "IPv6" } else { "IPv4" };
            Error::internal(format!(
                "no available {family} addresses on this network's address pools: {} ({})",
                network.name, network.id
            ))
        })?;
        self.owners.insert(found, owner.to_owned());
        self.last = Some(found);
        Ok(address(found, self.ipv6))
    }

    fn release(&mut self, owner: &str) {
        self.owners.retain(|_, other| other != owner);
    }
}

pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The pool that was asked for, if it goes with itself and with those there are.
pub fn judge(wanted: WantedPool, taken: &[IpNet], with_gateway: bool) -> Result<Pool> {
    let subnet = wanted.subnet.trunc();
    if taken.iter().any(|other| overlap(other, &subnet)) {
        return Err(Error::denied("invalid pool request: Pool overlaps with other one on this address space"));
    }
    if let Some(range) = wanted.range.filter(|range| !subnet.contains(range)) {
        return Err(Error::invalid(format!(
            "invalid network config:\ninvalid ip-range {range}: it should be within subnet {subnet}"
        )));
    }
    let inside = |what: &str, address: IpAddr| {
        if subnet.contains(&address) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "invalid network config:\ninvalid {what} {address}: parent subnet {subnet} doesn't contain this address"
        )))
    };
    if let Some(gateway) = wanted.gateway {
        inside("gateway", gateway)?;
    }
    for address in wanted.auxiliary.values() {
        inside("auxiliary address", *address)?;
    }
    let gateway = wanted.gateway.or_else(|| {
        let used = |address: &IpAddr| wanted.auxiliary.values().any(|other| other == address);
        hosts(wanted.range.unwrap_or(subnet)).find(|address| !used(address)).filter(|_| with_gateway)
    });
    Ok(Pool {
        subnet,
        range: wanted.range,
        gateway,
        auxiliary: wanted.auxiliary,
        given: true,
        gateway_given: wanted.gateway.is_some(),
    })
}

/// The first addresses that a host of the subnet can have.
fn hosts(subnet: IpNet) -> impl Iterator<Item = IpAddr> {
    let first = number(subnet.network());
    let skip = u128::from(subnet.max_prefix_len() - subnet.prefix_len() > 1);
    let last = number(subnet.broadcast());
    (first + skip..=last).map(move |candidate| address(candidate, subnet.addr().is_ipv6()))
}

/// A pool of our own choice, with its first address as the gateway.
pub fn choose(ipv6: bool, taken: &[IpNet]) -> Result<Pool> {
    let subnet = if ipv6 { IpNet::V6(free_subnet6(taken)?) } else { IpNet::V4(free_subnet4(taken)?) };
    Ok(Pool {
        subnet,
        range: None,
        gateway: hosts(subnet).next(),
        auxiliary: BTreeMap::new(),
        given: false,
        gateway_given: false,
    })
}

/// The first of Docker's default pools that neither another network nor a route of the host uses (moby
/// `ipamutils/utils.go`).
fn free_subnet4(taken: &[IpNet]) -> Result<Ipv4Net> {
    let routes = host_routes();
    let sixteens = (17..=31).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..=15).map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third * 16, 0), 20));
    let free = |net: &Ipv4Net| !taken.iter().chain(&routes).any(|other| overlap(&IpNet::V4(*net), other));
    sixteens
        .chain(twenties)
        .find(free)
        .ok_or_else(|| Error::internal("all predefined address pools have been fully subnetted"))
}

/// A unique local network with a random global id (RFC 4193, 3.2).
fn free_subnet6(taken: &[IpNet]) -> Result<Ipv6Net> {
    for _ in 0..64 {
        let global = u128::from(fastrand::u64(..1 << 40));
        let network = Ipv6Net::new_assert(Ipv6Addr::from(0xfd << 120 | global << 80), 64);
        if !taken.iter().any(|other| overlap(&IpNet::V6(network), other)) {
            return Ok(network);
        }
    }
    Err(Error::internal("all predefined address pools have been fully subnetted"))
}

/// Destinations of the IPv4 routes in the daemon's network, but for the default one.
fn host_routes() -> Vec<IpNet> {
    let text = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
        // Our own bridges are in `taken`, under the names their networks have.
        let own = fields.first().is_some_and(|link| *link == "docker0" || link.starts_with("br-"));
        let net = Ipv4Net::new(Ipv4Addr::from(to), mask.count_ones() as u8).ok()?;
        (mask != 0 && !own).then_some(IpNet::V4(net))
    };
    text.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(pools: Vec<Pool>) -> Network {
        Network { id: "n".repeat(64), name: "n".into(), pools, ..Network::default() }
    }

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        let wanted = WantedPool {
            subnet: subnet.parse().unwrap(),
            range: range.map(|range| range.parse().unwrap()),
            gateway: None,
            auxiliary: BTreeMap::new(),
        };
        judge(wanted, &[], true).unwrap()
    }

    #[test]
    fn a_small_subnet_is_used_to_its_end_and_addresses_rest() {
        let network = network(vec![pool("10.77.0.0/29", None)]);
        let allocations = Allocations::default();
        let take = |owner: &str| allocations.take(&network, owner, Addresses::default());
        let first = take("0").unwrap();
        for owner in 1..5 {
            take(&owner.to_string()).unwrap();
        }
        assert!(take("x").unwrap_err().to_string().contains("no available IPv4 addresses"));
        allocations.release(&network.id, "2");
        let again = take("x").unwrap();
        assert_ne!(first, again);
        let wanted = Addresses { v4: again.v4, v6: None };
        assert!(allocations.take(&network, "y", wanted).is_err(), "it is taken");
        assert_eq!(allocations.take(&network, "x", wanted).unwrap(), again, "by its owner it may be asked for again");
    }

    #[test]
    fn both_families_are_given_and_neither_when_one_is_refused() {
        let network = network(vec![pool("10.78.0.0/30", None), pool("fd00:1::/64", None)]);
        let allocations = Allocations::default();
        let given = allocations.take(&network, "a", Addresses::default()).unwrap();
        assert_eq!(given.v4.unwrap().to_string(), "10.78.0.2");
        assert_eq!(given.v6.unwrap().to_string(), "fd00:1::2");
        assert!(allocations.take(&network, "b", Addresses::default()).is_err());
        allocations.release(&network.id, "a");
        assert!(allocations.take(&network, "b", Addresses::default()).is_ok());
    }

    #[test]
    fn ranges_gateways_and_overlaps_are_judged() {
        let inside = pool("10.79.0.0/16", Some("10.79.5.0/24"));
        assert_eq!(inside.gateway.unwrap().to_string(), "10.79.5.1");
        let other: IpNet = "10.79.9.0/24".parse().unwrap();
        let wanted = |subnet: &str, gateway: Option<&str>| WantedPool {
            subnet: subnet.parse().unwrap(),
            range: None,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            auxiliary: BTreeMap::new(),
        };
        assert!(judge(wanted("10.79.0.0/16", None), &[other], true).unwrap_err().to_string().contains("Pool overlaps"));
        let outside = judge(wanted("10.80.0.0/16", Some("9.9.9.9")), &[], true).unwrap_err().to_string();
        assert!(outside.contains("doesn't contain this address"), "{outside}");
        let chosen = choose(true, &[]).unwrap();
        assert!(chosen.subnet.to_string().starts_with("fd") && chosen.subnet.prefix_len() == 64);
    }
}
