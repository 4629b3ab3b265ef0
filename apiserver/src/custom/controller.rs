//! Follows the definitions: accepts names, serves what is accepted, and clears away what a deleted definition leaves
//! (apiextensions `controller/{status,establish,finalizer}`). Every server of a cluster does so; a write that another one
//! did first is none.

use super::check::{self, Approval};
use super::definition::{self, CLEANUP, DefinitionStrategy, STORAGE, fingerprint, has_condition, set_condition};
use crate::bootstrap;
use crate::cache::{PREFIX, Snapshot};
use crate::registry::fields::{items, object_mut, set, text};
use crate::registry::{Resolved, Row, Strategy};
use crate::server::Server;
use crate::store::{Range, Store, StoreError};
use crate::verbs::{Call, DeleteOptions, delete_object};
use coracle_api::clock::{parse_rfc3339, rfc3339};
use coracle_api::json::{Value, json};
use coracle_api::{Status, meta};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");

/// How long to wait before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The shortest time between two looks at whether something is due.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// Objects of a deleted definition that are deleted side by side.
const PARALLEL: usize = 64;

/// What is served of one definition.
#[derive(Debug)]
struct Served {
    fingerprint: String,
    rows: Vec<Arc<Row>>,
}

/// The definitions that are served, by name.
#[derive(Debug, Default)]
pub struct Definitions {
    served: BTreeMap<String, Served>,
    /// Uids of definitions whose objects are being deleted.
    ending: HashSet<String>,
    /// When the next definition is said to be established.
    due: Option<Timestamp>,
}

/// How long a definition is served before it is said to be established, when there are other servers: all of them are to serve
/// it by then (apiextensions `customresource_handler.go`, `establish.EstablishingController`).
const INSTALLING: SignedDuration = SignedDuration::from_secs(5);

/// Whether a definition's resources are served: from when it has its names.
fn is_served(found: &Value) -> bool {
    has_condition(found, "Established") || has_condition(found, "NamesAccepted")
}

impl Definitions {
    /// What is established in the store, so that a server serves it from its first moment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let range = Range { prefix: format!("{PREFIX}{STORAGE}/"), from: None, limit: 0, at: None };
        let records = store.range(range).await?.records;
        let mut definitions = Self::default();
        for record in records {
            let Ok(mut found) = serde_json::from_slice::<Value>(&record.value) else { continue };
            DefinitionStrategy.default(&mut found);
            if is_served(&found) {
                definitions.served.insert(meta::name(&found).to_owned(), Served::of(&found));
            }
        }
        Ok(definitions)
    }

    /// The rows of all of them.
    pub fn rows(&self) -> impl Iterator<Item = Arc<Row>> {
        self.served.values().flat_map(|served| served.rows.iter().cloned())
    }
}

impl Served {
    fn of(found: &Value) -> Self {
        Self { fingerprint: fingerprint(found), rows: definition::rows(found).into_iter().map(Arc::new).collect() }
    }

    /// The row whose version is stored: the cache is its.
    fn stored(&self) -> Option<&Arc<Row>> {
        let stored = self.rows.iter().find(|row| !row.strategy.custom().is_some_and(|custom| custom.converts()));
        stored.or(self.rows.first())
    }
}

/// Runs until the server stops.
pub async fn run(server: Arc<Server>, mut definitions: Definitions) {
    let Ok(cache) = server.cache_of(DEFINITIONS.0, DEFINITIONS.1) else { return };
    let mut news = cache.subscribe();
    let mut generation = 0;
    loop {
        news.borrow_and_update();
        let mut done = definitions.reconcile(&server, &cache.snapshot()).await;
        let now = server.registry.current().generation;
        if done.is_ok() && generation != now {
            done = bootstrap::api_services(&server, bootstrap::Built::FromDefinitions).await;
            if done.is_ok() {
                generation = now;
            }
        }
        if let Err(status) = &done {
            tracing::warn!(%status, "custom resource definitions");
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if done.is_err() => {}
            () = tokio::time::sleep(definitions.until_due(&server)), if definitions.due.is_some() => {}
        }
    }
}

impl Definitions {
    /// How long it is until the next is to be established.
    fn until_due(&self, server: &Server) -> Duration {
        let left = self.due.map(|due| due.duration_since(server.config.clock.now()));
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default().max(LEAST_WAIT)
    }

    async fn reconcile(&mut self, server: &Arc<Server>, snapshot: &Snapshot) -> Result<(), Status> {
        let mut all: Vec<Value> = snapshot.objects.values().map(|object| object.parse_unmanaged().0).collect();
        // The older definition keeps a name that two want.
        all.sort_by(|a, b| {
            (meta::creation_timestamp(a), meta::name(a)).cmp(&(meta::creation_timestamp(b), meta::name(b)))
        });
        let known: HashSet<&str> = all.iter().map(meta::name).collect();
        let gone: Vec<String> = self.served.keys().filter(|name| !known.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.drop_served(server, &name).await?;
        }
        self.ending.retain(|uid| all.iter().any(|found| meta::uid(found) == uid));
        let mut result = Ok(());
        self.due = None;
        let mut alone = None;
        for at in 0..all.len() {
            let mut wanted = all[at].clone();
            let time = server.config.clock.now();
            let mut changed = decide(&mut wanted, &all, &rfc3339(time));
            if has_condition(&wanted, "NamesAccepted") && !has_condition(&wanted, "Established") {
                if alone.is_none() {
                    alone = Some(bootstrap::is_alone(server).await);
                }
                match due(&wanted).filter(|due| alone == Some(false) && time < *due) {
                    None => changed |= establish(&mut wanted, &rfc3339(time)),
                    Some(due) => self.due = Some(self.due.map_or(due, |other| other.min(due))),
                }
            }
            if is_served(&wanted) {
                self.serve(server, &wanted).await?;
            }
            if changed {
                // Served first: whoever sees the condition finds the resource.
                result = write(server, &all[at], &wanted).await.and(result);
            }
            all[at] = wanted;
            let found = &all[at];
            if meta::deletion_timestamp(found).is_some()
                && meta::finalizers(found).any(|name| name == CLEANUP)
                && self.ending.insert(meta::uid(found).to_owned())
            {
                self.end(server, found);
            }
        }
        result
    }

    async fn serve(&mut self, server: &Arc<Server>, found: &Value) -> Result<(), Status> {
        let name = meta::name(found);
        let before = self.served.get(name);
        if before.is_some_and(|served| served.fingerprint == fingerprint(found)) {
            return Ok(());
        }
        let next = Served::of(found);
        let ending_now = meta::deletion_timestamp(found).is_some() && before.is_some();
        if !ending_now && let Some(row) = next.stored() {
            server.cacher.add(row.clone()).await.map_err(crate::server::store_status)?;
        }
        self.served.insert(name.to_owned(), next);
        server.registry.set_custom(self.rows());
        Ok(())
    }

    async fn drop_served(&mut self, server: &Arc<Server>, name: &str) -> Result<(), Status> {
        let Some(served) = self.served.remove(name) else { return Ok(()) };
        server.registry.set_custom(self.rows());
        match served.stored() {
            Some(row) => server.cacher.remove(&row.storage).await.map_err(crate::server::store_status),
            None => Ok(()),
        }
    }

    /// Deletes the objects of a definition, and lets it go when there are none left.
    fn end(&self, server: &Arc<Server>, found: &Value) {
        let (server, name) = (server.clone(), meta::name(found).to_owned());
        let row = self.served.get(&name).and_then(|served| served.stored().cloned());
        tokio::spawn(async move {
            let stop = server.stop.clone();
            let work = async {
                let message = "CustomResource deletion is in progress".to_owned();
                if let Err(status) = terminating(&server, &name, "InstanceDeletionInProgress", message).await {
                    tracing::warn!(%name, %status, "ending a custom resource");
                }
                // What failed is told until something else is: not once more with each try.
                while let Err(status) = end(&server, &name, row.as_ref()).await {
                    tracing::warn!(%name, %status, "ending a custom resource");
                    tokio::time::sleep(RETRY).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// Fills in the status; true when it changed.
fn decide(wanted: &mut Value, all: &[Value], now: &str) -> bool {
    let before = wanted.get("status").cloned();
    let (accepted, conflict) = names(wanted, all);
    set(object_mut(wanted, "status"), "acceptedNames", accepted);
    match conflict {
        None => {
            set_condition(wanted, "NamesAccepted", true, "NoConflicts", "no conflicts found", now);
            if !has_condition(wanted, "Established") {
                // That is said later (apiextensions `naming_controller.go`).
                set_condition(wanted, "Established", false, "Installing", "the initial names have been accepted", now);
            }
        }
        Some((reason, message)) => {
            set_condition(wanted, "NamesAccepted", false, reason, &message, now);
            if !has_condition(wanted, "Established") {
                set_condition(wanted, "Established", false, "NotAccepted", "not all names are accepted", now);
            }
        }
    }
    if check::is_protected(text(&wanted["spec"], "group")) {
        let given = meta::annotation(wanted, check::APPROVAL).unwrap_or_default();
        let approval = Approval::of(given);
        let message = approval.describe(given);
        let approved = approval == Approval::Given;
        set_condition(wanted, "KubernetesAPIApprovalPolicyConformant", approved, approval.reason(), &message, now);
    }
    wanted.get("status") != before.as_ref()
}

/// When a definition that has its names is established though there are other servers.
fn due(found: &Value) -> Option<Timestamp> {
    let conditions = items(&found["status"], "conditions");
    let named = conditions.iter().find(|condition| text(condition, "type") == "NamesAccepted")?;
    parse_rfc3339(text(named, "lastTransitionTime"))?.checked_add(INSTALLING).ok()
}

fn establish(wanted: &mut Value, now: &str) -> bool {
    let message = "the initial names have been accepted";
    set_condition(wanted, "Established", true, "InitialNamesAccepted", message, now)
}

/// The names that a definition gets, and why it does not get all it wants (apiextensions `naming_controller.go`). A name that it
/// has already is its own, whoever has it too.
fn names(wanted: &Value, all: &[Value]) -> (Value, Option<(&'static str, String)>) {
    let group = text(&wanted["spec"], "group");
    let (mut resources, mut kinds) = (HashSet::new(), HashSet::new());
    for other in all.iter().filter(|other| text(&other["spec"], "group") == group) {
        let names = &other["status"]["acceptedNames"];
        resources.extend([text(names, "plural"), text(names, "singular")]);
        resources.extend(items(names, "shortNames").iter().filter_map(Value::as_str));
        kinds.extend([text(names, "kind"), text(names, "listKind")]);
    }
    let asked = &wanted["spec"]["names"];
    let had = &wanted["status"]["acceptedNames"];
    let mut accepted = if had.is_object() { had.clone() } else { json!({}) };
    let mut conflict = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut ask = |field: &str, reason, taken: &HashSet<&str>, conflict: &mut Option<(&'static str, String)>| {
        let name = text(asked, field);
        if !name.is_empty() && name != text(had, field) && taken.contains(name) {
            *conflict = Some((reason, in_use(name)));
        } else {
            set(&mut accepted, field, name);
        }
    };
    ask("plural", "PluralConflict", &resources, &mut conflict);
    ask("singular", "SingularConflict", &resources, &mut conflict);
    let (short, had_short) = (items(asked, "shortNames"), items(had, "shortNames"));
    let fresh = short.iter().filter(|name| !had_short.contains(name)).filter_map(Value::as_str);
    let mut taken: Vec<String> = Vec::new();
    for why in fresh.filter(|name| resources.contains(name)).map(in_use) {
        if !taken.contains(&why) {
            taken.push(why);
        }
    }
    match taken.as_slice() {
        [] => {}
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    ask("kind", "KindConflict", &kinds, &mut conflict);
    ask("listKind", "ListKindConflict", &kinds, &mut conflict);
    if taken.is_empty() {
        set_or_remove(&mut accepted, "shortNames", short);
    }
    set_or_remove(&mut accepted, "categories", items(asked, "categories"));
    (accepted, conflict)
}

fn set_or_remove(names: &mut Value, field: &str, list: &[Value]) {
    match list {
        [] => drop(crate::registry::fields::remove(names, field)),
        list => set(names, field, list.to_vec()),
    }
}

/// Writes a definition's status over what was seen. Another server that was faster wrote the same.
async fn write(server: &Arc<Server>, seen: &Value, wanted: &Value) -> Result<(), Status> {
    let call = bootstrap::call(server, DEFINITIONS, "", meta::name(seen))?;
    match call.current().await {
        Ok(current) if meta::resource_version(&current.value) == meta::resource_version(seen) => {
            call.replace(&current, &current.with(wanted), Vec::new()).await.map(drop)
        }
        // It changed or went; that is news of its own.
        Ok(_) => Ok(()),
        Err(status) if status.code == 404 => Ok(()),
        Err(status) => Err(status),
    }
}

/// So long objects may take to go before the definition says that it waits for them (apiextensions
/// `controller/finalizer/crd_finalizer.go`).
const PATIENCE: Duration = Duration::from_secs(60);

async fn end(server: &Arc<Server>, name: &str, row: Option<&Arc<Row>>) -> Result<(), Status> {
    let tell = |reason, message| terminating(server, name, reason, message);
    let (reason, message) = if let Some(row) = row {
        let work = delete_objects(server, row);
        tokio::pin!(work);
        let slow = tokio::time::sleep(PATIENCE);
        let done = tokio::select! {
            done = &mut work => done,
            () = slow => {
                let why = "could not confirm zero CustomResources remaining: timed out waiting for the condition";
                tell("InstanceDeletionCheck", why.to_owned()).await?;
                work.await
            }
        };
        if let Err(status) = done {
            tell("InstanceDeletionFailed", format!("could not issue all deletes: {}", status.message)).await?;
            return Err(status);
        }
        ("InstanceDeletionCompleted", "removed all instances")
    } else {
        ("NeverEstablished", "resource was never established")
    };
    loop {
        let call = bootstrap::call(server, DEFINITIONS, "", name)?;
        let current = match call.current().await {
            Ok(current) => current,
            Err(status) if status.code == 404 => return Ok(()),
            Err(status) => return Err(status),
        };
        let left: Vec<Value> =
            meta::finalizers(&current.value).filter(|name| *name != CLEANUP).map(Value::from).collect();
        let done = if left.is_empty() {
            call.remove(&current).await?.is_some()
        } else {
            let mut next = current.value.clone();
            meta::set(&mut next, "finalizers", left);
            let now = rfc3339(server.config.clock.now());
            set_condition(&mut next, "Terminating", false, reason, message, &now);
            call.replace(&current, &current.with(&next), Vec::new()).await?.is_some()
        };
        if done {
            return Ok(());
        }
    }
}

/// Says how far the end of a definition is; another server may say it first.
async fn terminating(server: &Arc<Server>, name: &str, reason: &str, message: String) -> Result<(), Status> {
    loop {
        let call = bootstrap::call(server, DEFINITIONS, "", name)?;
        let current = match call.current().await {
            Ok(current) => current,
            Err(status) if status.code == 404 => return Ok(()),
            Err(status) => return Err(status),
        };
        let mut next = current.value.clone();
        let now = rfc3339(server.config.clock.now());
        let changed = set_condition(&mut next, "Terminating", true, reason, &message, &now);
        if !changed || call.replace(&current, &current.with(&next), Vec::new()).await?.is_some() {
            return Ok(());
        }
    }
}

/// Deletes every object of a row, and waits until their own finalizers are done.
async fn delete_objects(server: &Arc<Server>, row: &Arc<Row>) -> Result<(), Status> {
    server.fresh().await?;
    let Ok(cache) = server.cache(row) else { return Ok(()) };
    let mut news = cache.subscribe();
    loop {
        news.borrow_and_update();
        let snapshot = cache.snapshot();
        if let Some((key, record)) = cache.unreadable.first("") {
            // It would be there again with the next definition of the name.
            return Err(Status::internal(format!("the stored object {key:?} cannot be read: {}", record.why)));
        }
        if snapshot.objects.is_empty() {
            return Ok(());
        }
        let calls = snapshot.objects.values().filter(|object| meta::deletion_timestamp(&object.parse()).is_none()).map(
            |object| {
                let mut call = bootstrap::call(server, DEFINITIONS, object.namespace(), object.name())?;
                call.resolved = Resolved { row: row.clone(), served: 0 };
                Ok::<Call, Status>(call)
            },
        );
        let calls = calls.collect::<Result<Vec<_>, _>>()?;
        let options = DeleteOptions::default();
        let options = &options;
        let mut deletes = futures::stream::iter(calls)
            .map(|call| async move { delete_object(&call, options).await })
            .buffer_unordered(PARALLEL);
        while let Some(deleted) = deletes.next().await {
            match deleted {
                Err(status) if status.code != 404 => return Err(status),
                _ => {}
            }
        }
        drop(deletes);
        // Those with finalizers of their own go when somebody finishes these.
        if !cache.snapshot().objects.is_empty() && news.changed().await.is_err() {
            return Ok(());
        }
    }
}
