//! Makes again what was there from the start when somebody deletes it. Upstream looks every ten seconds, or every minute; here
//! the news of each resource say when to look.

use super::{
    Built, NAMESPACES, addresses, api_services, authentication, flow_control, kubernetes_service, namespaces,
    service_range,
};
use crate::cache::Snapshot;
use crate::server::Server;
use crate::store::Revision;
use coracle_api::Status;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at the same things: two that disagree about them do not keep each other busy.
const PAUSE: Duration = Duration::from_secs(1);

/// What is kept.
#[derive(Clone, Copy)]
enum Part {
    Namespaces,
    Authentication,
    Service,
    Endpoints,
    ServiceRange,
    FlowControl,
    ApiServices,
}

/// Each part, and the resource whose news concern it.
const PARTS: [(&str, &str, Part); 9] = [
    ("", "namespaces", Part::Namespaces),
    ("", "configmaps", Part::Authentication),
    ("", "services", Part::Service),
    ("", "endpoints", Part::Endpoints),
    ("discovery.k8s.io", "endpointslices", Part::Endpoints),
    ("networking.k8s.io", "servicecidrs", Part::ServiceRange),
    (flow_control::GROUP, "prioritylevelconfigurations", Part::FlowControl),
    (flow_control::GROUP, "flowschemas", Part::FlowControl),
    ("apiregistration.k8s.io", "apiservices", Part::ApiServices),
];

impl Part {
    /// Which objects of the resource these are, as the cache names them; None for all.
    fn names(self, plural: &str) -> Option<Vec<String>> {
        Some(match self {
            Part::Namespaces => NAMESPACES.map(str::to_owned).into(),
            Part::Authentication => vec![format!("kube-system/{}", authentication::NAME)],
            Part::Service | Part::Endpoints => vec!["default/kubernetes".to_owned()],
            Part::ServiceRange => vec!["kubernetes".to_owned()],
            Part::FlowControl => flow_control::objects()
                .filter(|(of, _)| *of == plural)
                .map(|(_, object)| coracle_api::meta::name(&object).to_owned())
                .collect(),
            Part::ApiServices => return None,
        })
    }

    async fn mend(self, server: &Arc<Server>) -> Result<(), Status> {
        match self {
            Part::Namespaces => namespaces(server).await,
            Part::Authentication => authentication::run(server).await,
            Part::Service => kubernetes_service::service(server).await,
            Part::Endpoints => kubernetes_service::endpoints(server).await,
            Part::ServiceRange => service_range::make(server).await,
            Part::FlowControl => flow_control::make(server).await,
            Part::ApiServices => api_services(server, Built::FromDefinitions).await,
        }
    }
}

/// Runs until the server stops.
pub async fn run(server: Arc<Server>) {
    let followed = PARTS.map(|(group, plural, part)| follow(&server, (group, plural), part));
    tokio::join!(futures::future::join_all(followed), addresses::keep(&server));
}

async fn follow(server: &Arc<Server>, (group, plural): (&str, &str), part: Part) {
    let Ok(cache) = server.cache_of(group, plural) else { return };
    let names = part.names(plural);
    let mut news = cache.subscribe();
    let (mut mended, mut looked): (Option<Vec<Option<Revision>>>, Option<Instant>) = (None, None);
    loop {
        news.borrow_and_update();
        let found = revisions(&cache.snapshot(), names.as_deref());
        // Of most news these objects are no part.
        let is_news = mended.as_ref() != Some(&found);
        let due = looked.map_or_else(Instant::now, |looked| looked + PAUSE);
        if is_news && due <= Instant::now() {
            looked = Some(Instant::now());
            // What is written when the server stops is written whole, or not.
            let done = tokio::select! {
                () = server.stop.cancelled() => return,
                done = part.mend(server) => done,
            };
            match done {
                Ok(()) => mended = Some(found),
                Err(status) => tracing::warn!(%status, resource = plural, "making again what every cluster has"),
            }
            continue;
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(due), if is_news => {}
        }
    }
}

fn revisions(snapshot: &Snapshot, names: Option<&[String]>) -> Vec<Option<Revision>> {
    let Some(names) = names else { return vec![Some(snapshot.revision)] };
    names.iter().map(|name| snapshot.get(name).map(|object| object.revision)).collect()
}
