//! All pods of the node: a worker for each, news from the runtime to the worker it is for, and what belongs to nobody removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::Informer;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::observed::{Overview, label};
use crate::plan::Wanted;
use crate::pod;
use crate::work::{Shared, clean_up};
use crate::worker::{Desired, Worker};

/// How often the runtime is looked over when it has no events (upstream's generic PLEG).
const RELIST: Duration = Duration::from_secs(1);
/// How often when it has (upstream's evented PLEG).
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(300);
/// Pause before a broken stream of events is opened again.
const REOPEN: Duration = Duration::from_millis(200);

struct Handle {
    desired: watch::Sender<Desired>,
    nudge: Arc<Notify>,
}

/// The pods of the node.
pub struct Manager {
    shared: Arc<Shared>,
    pods: Arc<Informer<Pod>>,
    // By uid. Locked for lookups only, never across an await.
    handles: Mutex<HashMap<String, Handle>>,
    /// Rises with every change in the runtime, for those who wait for any.
    changes: watch::Sender<u64>,
}

impl Manager {
    pub fn new(shared: Arc<Shared>, pods: Arc<Informer<Pod>>) -> Arc<Self> {
        Arc::new(Self { shared, pods, handles: Mutex::default(), changes: watch::Sender::new(0) })
    }

    /// A level that rises with every change in the runtime.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Runs until `shutdown`. Containers go on running after it.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut workers = JoinSet::new();
        let mut changes = self.pods.changes();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.pods.synced() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.meet_runtime() => {}
        }
        self.reconcile(&mut workers, &shutdown);
        let (events, orphans) = tokio::sync::mpsc::channel(1);
        let mut orphans = orphans;
        let watcher = tokio::spawn(self.clone().follow(events, shutdown.clone()));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.reconcile(&mut workers, &shutdown);
                }
                Some(overview) = orphans.recv() => self.adopt(overview, &mut workers, &shutdown).await,
                Some(ended) = workers.join_next(), if !workers.is_empty() => self.ended(ended, &mut workers, &shutdown),
            }
        }
        watcher.abort();
        // Each worker ends by the same token.
        while workers.join_next().await.is_some() {}
    }

    /// Waits until the runtime answers: nothing can be said of a pod before.
    async fn meet_runtime(&self) {
        let mut pause = Duration::from_millis(10);
        loop {
            match self.shared.cri.version(k8s_cri::v1::VersionRequest { version: "v1".into() }).await {
                Ok(version) => {
                    // Nobody else sets it.
                    let _ = self.shared.runtime_name.set(version.runtime_name);
                    return;
                }
                Err(error) => tracing::debug!(error = %error, "the runtime does not answer yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RELIST);
        }
    }

    /// A worker for every pod, and every worker told of its pod.
    fn reconcile(&self, workers: &mut JoinSet<String>, shutdown: &CancellationToken) {
        let snapshot = self.pods.snapshot();
        let mut handles = self.handles.lock();
        let mut here: HashMap<String, ()> = HashMap::with_capacity(handles.len());
        for pod in snapshot.iter() {
            let uid = pod::uid(pod).to_owned();
            let wanted = if pod.metadata.deletion_timestamp.is_some() { Wanted::End } else { Wanted::Run };
            match handles.get(&uid) {
                Some(handle) => tell(handle, pod.clone(), wanted),
                None => {
                    let handle = self.start(Desired { pod: pod.clone(), wanted }, workers, shutdown);
                    handles.insert(uid.clone(), handle);
                }
            }
            here.insert(uid, ());
        }
        for (uid, handle) in handles.iter().filter(|(uid, _)| !here.contains_key(*uid)) {
            tracing::debug!(uid, "the pod's object is gone");
            let pod = handle.desired.borrow().pod.clone();
            tell(handle, pod, Wanted::Gone);
        }
    }

    fn start(&self, desired: Desired, workers: &mut JoinSet<String>, shutdown: &CancellationToken) -> Handle {
        let uid = pod::uid(&desired.pod).to_owned();
        self.shared.allocations.register(&desired.pod);
        let (sender, receiver) = watch::channel(desired);
        let nudge = Arc::new(Notify::new());
        let worker = Worker::new(self.shared.clone(), receiver, nudge.clone());
        let shutdown = shutdown.clone();
        workers.spawn(async move {
            worker.run(shutdown).await;
            uid
        });
        Handle { desired: sender, nudge }
    }

    /// A worker is done with its pod, or crashed: then the next look starts another.
    fn ended(
        &self,
        ended: Result<String, tokio::task::JoinError>,
        workers: &mut JoinSet<String>,
        shutdown: &CancellationToken,
    ) {
        match ended {
            Ok(uid) => drop(self.handles.lock().remove(&uid)),
            Err(error) => {
                tracing::error!(error = %error, "a pod's worker crashed");
                self.handles.lock().retain(|_, handle| !handle.desired.is_closed());
            }
        }
        // The same uid may be wanted still, after a crash.
        self.reconcile(workers, shutdown);
    }

    fn nudge(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.nudge.notify_one();
        }
    }

    fn nudge_all(&self) {
        self.handles.lock().values().for_each(|handle| handle.nudge.notify_one());
    }

    /// Follows the runtime: by its events where it has them, by looking it over where it has none.
    async fn follow(self: Arc<Self>, overviews: tokio::sync::mpsc::Sender<Overview>, shutdown: CancellationToken) {
        let mut known = Overview::default();
        while !shutdown.is_cancelled() {
            match self.shared.cri.events().await {
                Ok(mut stream) => {
                    // What happened before the stream was open is in no event.
                    self.nudge_all();
                    let mut look = tokio::time::interval(RELIST_WITH_EVENTS);
                    loop {
                        tokio::select! {
                            _ = look.tick() => self.look_over(&mut known, &overviews).await,
                            event = stream.message() => match event {
                                Ok(Some(event)) => self.event(&event),
                                Ok(None) => break,
                                Err(error) => {
                                    tracing::warn!(error = %error, "the runtime's events broke off");
                                    break;
                                }
                            },
                        }
                    }
                    tokio::time::sleep(REOPEN).await;
                }
                Err(error) => {
                    let none = error.code == tonic::Code::Unimplemented;
                    tracing::debug!(error = %error, "the runtime has no events");
                    self.look_over(&mut known, &overviews).await;
                    // A runtime that has no events will have none in a second.
                    for _ in 0..if none { 60 } else { 1 } {
                        tokio::time::sleep(RELIST).await;
                        self.look_over(&mut known, &overviews).await;
                    }
                }
            }
        }
    }

    fn event(&self, event: &k8s_cri::v1::ContainerEventResponse) {
        self.changes.send_modify(|level| *level += 1);
        let sandbox = event.pod_sandbox_status.iter().map(|status| &status.labels);
        let mut labels = sandbox.chain(event.containers_statuses.iter().map(|status| &status.labels));
        match labels.find_map(|labels| labels.get(label::POD_UID)) {
            Some(uid) => self.nudge(uid),
            // An event that does not say whose it is: everybody's.
            None => self.nudge_all(),
        }
    }

    /// Looks the runtime over; rings those whose parts changed, and reports pods that nobody looks after.
    async fn look_over(&self, known: &mut Overview, overviews: &tokio::sync::mpsc::Sender<Overview>) {
        let Ok(now) = Overview::take(&self.shared.cri).await else { return };
        if now != *known {
            self.changes.send_modify(|level| *level += 1);
        }
        let changed = now.0.iter().filter(|(uid, pod)| known.0.get(*uid) != Some(pod)).map(|(uid, _)| uid);
        let gone = known.0.keys().filter(|uid| !now.0.contains_key(*uid));
        changed.chain(gone).for_each(|uid| self.nudge(uid));
        let orphans = {
            let handles = self.handles.lock();
            Overview(
                now.0
                    .iter()
                    .filter(|(uid, _)| !handles.contains_key(*uid))
                    .map(|(uid, pod)| (uid.clone(), pod.clone()))
                    .collect(),
            )
        };
        *known = now;
        // One look is waiting to be dealt with already: the next will find what this one found.
        let _ = overviews.try_send(orphans);
    }

    /// Ends pods that run and are in nobody's list, and removes directories that no pod has.
    async fn adopt(&self, orphans: Overview, workers: &mut JoinSet<String>, shutdown: &CancellationToken) {
        for (uid, found) in &orphans.0 {
            let snapshot = self.pods.snapshot();
            let wanted = snapshot.iter().any(|pod| pod::uid(pod) == uid);
            let mut handles = self.handles.lock();
            if wanted || handles.contains_key(uid) {
                continue;
            }
            tracing::info!(uid, namespace = found.namespace, name = found.name, "removing a pod that is in no list");
            let metadata = ObjectMeta {
                name: Some(found.name.clone()),
                namespace: Some(found.namespace.clone()),
                uid: Some(uid.clone()),
                ..ObjectMeta::default()
            };
            let pod = Arc::new(Pod { metadata, ..Pod::default() });
            let handle = self.start(Desired { pod, wanted: Wanted::Gone }, workers, shutdown);
            handles.insert(uid.clone(), handle);
        }
        self.remove_directories().await;
    }

    async fn remove_directories(&self) {
        let directory = self.shared.paths.pods();
        let Ok(Ok(entries)) = tokio::task::spawn_blocking(move || std::fs::read_dir(directory)).await else { return };
        for uid in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if self.handles.lock().contains_key(&uid) {
                continue;
            }
            // Whose it was is not known any more, and so its logs are not found; they are few.
            if let Err(trouble) = clean_up(&self.shared, "", "", &uid, None).await {
                tracing::warn!(uid, error = trouble.message, "an old pod's directory could not be removed");
            }
        }
    }
}

fn tell(handle: &Handle, pod: Arc<Pod>, wanted: Wanted) {
    handle.desired.send_if_modified(|desired| {
        let same = Arc::ptr_eq(&desired.pod, &pod) && desired.wanted == wanted;
        if !same {
            *desired = Desired { pod, wanted };
        }
        !same
    });
}
