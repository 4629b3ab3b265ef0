//! Each cluster IP of a Service has an IPAddress, and each IPAddress that was made for a Service has that (core/service/ipallocator/controller
//! `repairip.go`). Upstream looks at everything every three minutes; here the news say which Services and addresses to look at.

use super::{call, remove};
use crate::cache::{CacheEvent, ResourceCache, Snapshot, encode, store_key};
use crate::registry::fields::{items, text};
use crate::server::{Server, store_status};
use crate::store::{Compare, Op, Outcome, Revision, Txn};
use crate::verbs::allocate::{
    FAMILY, MANAGED_BY, MANAGER, cluster_ips, family, ip_key, ip_object, is_of_service, is_parent,
};
use crate::verbs::{Managing, create_object, service_ranges};
use coracle_api::clock::{parse_rfc3339, rfc3339_micro};
use coracle_api::json::{Value, json};
use coracle_api::{Status, meta};
use ipnet::Ipv4Net;
use jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const REPORTER: &str = "ipallocator-repair-controller";

/// How old an IPAddress must be before it goes for having no Service: others make theirs before the Service.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Between two looks at what could not be mended.
const RETRY: Duration = Duration::from_secs(1);

/// Events that are read at a time.
const CHUNK: usize = 1024;

/// What is to be looked at: Services and IPAddresses by their keys.
#[derive(Default)]
struct Due {
    services: BTreeSet<Arc<str>>,
    addresses: BTreeSet<Arc<str>>,
}

/// The three caches, and how far each has been read; None before all of it has.
struct Follower {
    services: (Arc<ResourceCache>, Option<Revision>),
    addresses: (Arc<ResourceCache>, Option<Revision>),
    ranges: (Arc<ResourceCache>, Option<Revision>),
    due: Due,
    /// Addresses without a Service, and when they are old enough.
    later: BTreeMap<Arc<str>, Instant>,
}

/// Runs until the server stops.
pub async fn keep(server: &Arc<Server>) {
    let cache = |group, plural| server.cache_of(group, plural).map(|cache| (cache, None));
    let (Ok(services), Ok(addresses), Ok(ranges)) =
        (cache("", "services"), cache("networking.k8s.io", "ipaddresses"), cache("networking.k8s.io", "servicecidrs"))
    else {
        return;
    };
    let mut news = [&services, &addresses, &ranges].map(|(cache, _)| cache.subscribe());
    let mut follower = Follower { services, addresses, ranges, due: Due::default(), later: BTreeMap::new() };
    loop {
        news.iter_mut().for_each(|news| drop(news.borrow_and_update()));
        follower.collect();
        let result = tokio::select! {
            () = server.stop.cancelled() => return,
            result = follower.mend(server) => result,
        };
        if let Err(status) = &result {
            tracing::warn!(%status, "mending the allocation of cluster IPs");
        }
        let failed = result.is_err().then(|| Instant::now() + RETRY);
        let again = failed.into_iter().chain(follower.later.values().min().copied()).min();
        let [services, addresses, ranges] = &mut news;
        tokio::select! {
            () = server.stop.cancelled() => return,
            changed = services.changed() => if changed.is_err() { return },
            changed = addresses.changed() => if changed.is_err() { return },
            changed = ranges.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
    }
}

/// The events since the cache was looked at; None when all of it is to be looked at.
fn read((cache, seen): &mut (Arc<ResourceCache>, Option<Revision>)) -> Option<Vec<Arc<CacheEvent>>> {
    let newest = cache.snapshot().revision;
    let mut all = Vec::new();
    while let Some(after) = *seen {
        let Ok(events) = cache.since(after, CHUNK) else { break };
        let Some(last) = events.last() else { return Some(all) };
        *seen = Some(last.revision);
        all.extend(events);
    }
    *seen = Some(newest);
    None
}

impl Follower {
    /// Notes what the news are about.
    fn collect(&mut self) {
        let now = Instant::now();
        let ripe: Vec<Arc<str>> =
            self.later.iter().filter(|(_, due)| **due <= now).map(|(key, _)| key.clone()).collect();
        for key in ripe {
            self.later.remove(&key);
            self.due.addresses.insert(key);
        }
        let (services, addresses) = (read(&mut self.services), read(&mut self.addresses));
        // Which Services are out of range, a range that comes or goes decides.
        let ranges = read(&mut self.ranges).filter(Vec::is_empty);
        let services = services.filter(|_| ranges.is_some());
        match services {
            Some(events) => {
                for event in events {
                    self.due.services.insert(event.object().key.clone());
                    let before = event.previous.as_ref().map(|object| object.parse());
                    // What it has given up, and what it was to take with it.
                    let lost = before.iter().flat_map(cluster_ips);
                    self.due.addresses.extend(lost.map(Arc::from));
                }
            }
            None => self.due.services.extend(self.services.0.snapshot().objects.keys().cloned()),
        }
        match addresses {
            Some(events) => {
                for event in events {
                    self.due.addresses.insert(event.object().key.clone());
                    // Whose it was, and whose it is.
                    for object in event.previous.iter().chain([event.object()]) {
                        let parent = &object.parse()["spec"]["parentRef"];
                        let key = format!("{}/{}", text(parent, "namespace"), text(parent, "name"));
                        self.due.services.insert(key.into());
                    }
                }
            }
            None => self.due.addresses.extend(self.addresses.0.snapshot().objects.keys().cloned()),
        }
    }

    /// Looks at what is noted; what could not be mended stays so.
    async fn mend(&mut self, server: &Arc<Server>) -> Result<(), Status> {
        while let Some(key) = self.due.services.first().cloned() {
            self.service(server, &key).await?;
            self.due.services.remove(&key);
        }
        while let Some(key) = self.due.addresses.first().cloned() {
            self.address(server, &key).await?;
            self.due.addresses.remove(&key);
        }
        Ok(())
    }

    /// Both caches. What is found wrong is looked at again in those of now: they are not written at one time.
    fn state(&self) -> (Arc<Snapshot>, Arc<Snapshot>) {
        (self.services.0.snapshot(), self.addresses.0.snapshot())
    }

    /// Whether each address of a Service is its own.
    async fn service(&self, server: &Arc<Server>, key: &str) -> Result<(), Status> {
        let ranges = service_ranges::known(server)?;
        let (services, addresses) = self.state();
        if findings(&services, &addresses, &ranges, key).is_empty() {
            return Ok(());
        }
        server.fresh().await?;
        let (services, addresses) = self.state();
        let Some(object) = services.get(key) else { return Ok(()) };
        let service = object.parse();
        let unchanged =
            Compare::modified(store_key(&self.services.0.row, object.namespace(), object.name()), object.revision);
        for Finding { ip, reason, note, repair } in findings(&services, &addresses, &ranges, key) {
            // Where somebody else has just written one of them there are news of that.
            let done = match repair {
                Some(stands) => self.allocate(server, unchanged.clone(), &service, &ip, stands).await?,
                None => true,
            };
            if done && !note.is_empty() {
                tell(server, &service, reason, "ClusterIPAllocation", &note).await;
            }
        }
        Ok(())
    }

    /// Makes the IPAddress of a Service that is as it was seen; false when it is not. One that `stands` goes before.
    async fn allocate(
        &self,
        server: &Arc<Server>,
        unchanged: Compare,
        service: &Value,
        ip: &str,
        stands: Option<Revision>,
    ) -> Result<bool, Status> {
        let key = ip_key(server, ip);
        let made = vec![Op::put(key.clone(), encode(&ip_object(server, ip, service)))];
        let store = server.store();
        let outcome = match stands {
            None => store.txn(Txn { compare: vec![Compare::absent(key), unchanged], ops: made }).await,
            Some(revision) => {
                let compare = vec![Compare::modified(key.clone(), revision), unchanged.clone()];
                let gone = store.txn(Txn { compare, ops: vec![Op::delete(key.clone())] }).await;
                match gone {
                    Ok(Outcome::Committed(_)) => {
                        store.txn(Txn { compare: vec![Compare::absent(key), unchanged], ops: made }).await
                    }
                    other => other,
                }
            }
        };
        Ok(matches!(outcome.map_err(store_status)?, Outcome::Committed(_)))
    }

    /// Whether an IPAddress that was made for a Service is that Service's.
    async fn address(&mut self, server: &Arc<Server>, ip: &Arc<str>) -> Result<(), Status> {
        let (services, addresses) = self.state();
        if addresses.get(ip).and_then(|address| superfluous(&services, ip, &address.parse())).is_none() {
            return Ok(());
        }
        server.fresh().await?;
        let (services, addresses) = self.state();
        let Some(address) = addresses.get(ip).map(|address| address.parse()) else { return Ok(()) };
        let Some((reason, note)) = superfluous(&services, ip, &address) else { return Ok(()) };
        if reason == LEAKED.0
            && note.ends_with(LEAKED.1)
            && let Some(rest) = too_young(server, &address)
        {
            self.later.insert(ip.clone(), Instant::now() + rest);
            return Ok(());
        }
        tell(server, &address, reason, "IPAddressAllocation", &note).await;
        remove(server, ("networking.k8s.io", "ipaddresses"), "", ip).await
    }
}

/// What is wrong with an address of a Service.
#[derive(Debug, PartialEq)]
struct Finding {
    ip: String,
    reason: &'static str,
    /// Nothing where nobody is told.
    note: String,
    /// Its IPAddress is to be made, in the place of one of this revision.
    repair: Option<Option<Revision>>,
}

const NOT_ALLOCATED: &str = "ClusterIPNotAllocated";

/// In upstream's order: the range, the IPAddress, what that refers to, its labels (`syncService`).
fn findings(services: &Snapshot, addresses: &Snapshot, ranges: &[Ipv4Net], key: &str) -> Vec<Finding> {
    let Some(service) = services.get(key).map(|service| service.parse()) else { return Vec::new() };
    let (namespace, name) = (meta::namespace(&service), meta::name(&service));
    let mut found = Vec::new();
    for ip in cluster_ips(&service) {
        let Ok(parsed) = ip.parse::<IpAddr>() else { continue };
        let family = family(&ip);
        let mut find = |reason, note, repair| found.push(Finding { ip: ip.clone(), reason, note, repair });
        if !ranges.iter().any(|range| service_ranges::contains(range, parsed)) {
            let why = format!(
                "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
            );
            find("ClusterIPOutOfRange", why, None);
            continue;
        }
        let Some(object) = addresses.get(&ip) else {
            let why = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
            find(NOT_ALLOCATED, why, Some(None));
            continue;
        };
        let address = object.parse();
        if is_parent(&address, namespace, name) {
            if meta::label(&address, FAMILY) != Some(family) || meta::label(&address, MANAGED_BY) != Some(MANAGER) {
                find(NOT_ALLOCATED, String::new(), Some(Some(object.revision)));
            }
        } else if other_has(services, &address, &ip) {
            let why = format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service");
            find("ClusterIPAlreadyAllocated", why, None);
        } else {
            let why = format!(
                "the ClusterIP [{family}]: {ip} for Service {namespace}/{name} has a wrong reference; repairing"
            );
            find(NOT_ALLOCATED, why, Some(Some(object.revision)));
        }
    }
    found
}

/// Why an IPAddress without its Service goes: the reason, and how the note ends.
const LEAKED: (&str, &str) = ("IPAddressNotAllocated", "appears to have leaked: cleaning up");

/// Why an IPAddress that was made for a Service is not to be there (`syncIPAddress`).
fn superfluous(services: &Snapshot, ip: &str, address: &Value) -> Option<(&'static str, String)> {
    if meta::label(address, MANAGED_BY) != Some(MANAGER) {
        return None;
    }
    let parent = &address["spec"]["parentRef"];
    let (namespace, name) = (text(parent, "namespace"), text(parent, "name"));
    if !is_of_service(address) {
        let why =
            format!("IPAddress {ip} appears to have been modified, not referencing a Service {parent}: cleaning up");
        return Some((LEAKED.0, why));
    }
    match services.get(&format!("{namespace}/{name}")) {
        None => Some((LEAKED.0, format!("IPAddress: {ip} for Service {namespace}/{name} {}", LEAKED.1))),
        Some(service) if has(&service.parse(), ip) => None,
        Some(_) => {
            let why = format!("IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning up");
            Some(("IPAddressWrongReference", why))
        }
    }
}

/// How long an address without a Service still has.
fn too_young(server: &Server, address: &Value) -> Option<Duration> {
    let made = parse_rfc3339(meta::creation_timestamp(address))?;
    let rest = GRACE - server.config.clock.now().duration_since(made);
    Duration::try_from(rest).ok().filter(|rest| !rest.is_zero())
}

fn has(service: &Value, ip: &str) -> bool {
    items(&service["spec"], "clusterIPs").iter().any(|own| own.as_str() == Some(ip))
}

/// Whether the Service that an IPAddress names is there, and has the address, too.
fn other_has(services: &Snapshot, address: &Value, ip: &str) -> bool {
    let parent = &address["spec"]["parentRef"];
    let key = format!("{}/{}", text(parent, "namespace"), text(parent, "name"));
    is_of_service(address) && services.get(&key).is_some_and(|other| has(&other.parse(), ip))
}

/// Writes an event; nothing depends on it.
async fn tell(server: &Arc<Server>, about: &Value, reason: &str, action: &str, note: &str) {
    let now = server.config.clock.now();
    let namespace = match meta::namespace(about) {
        "" => "default",
        own => own,
    };
    let name = format!("{}.{:x}", meta::name(about), now.as_nanosecond());
    let regarding = json!({"kind": meta::kind(about), "apiVersion": meta::api_version(about), "namespace": meta::namespace(about),
        "name": meta::name(about), "uid": meta::uid(about), "resourceVersion": meta::resource_version(about)});
    let event = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": name, "namespace": namespace},
        "eventTime": rfc3339_micro(now), "reportingController": REPORTER,
        "reportingInstance": format!("{REPORTER}-{}", server.config.advertise.ip()),
        "action": action, "reason": reason, "regarding": regarding, "note": note, "type": "Warning"});
    let written = async {
        let call = call(server, ("events.k8s.io", "events"), namespace, &name)?;
        create_object(&call, event, Managing::Tracked).await
    };
    if let Err(status) = written.await {
        tracing::warn!(%status, reason, note, "an event could not be written");
    }
}
