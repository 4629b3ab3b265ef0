//! HTTP: from a request to an answer.
//!
//! ```text
//! request ─► authenticate ─► path ─► act as another ─► flow ─► authorize ─┬─► health, version, discovery, OpenAPI, metrics
//!                                                                         └─► options ─► seat ─► verb ─► answer
//! ```

pub mod discovery;
pub mod fairness;
mod gather;
pub mod health;
pub mod kubelet;
pub mod logs;
pub mod metrics;
pub mod negotiate;
pub mod openapi;
mod pretty;
pub mod protobuf;
mod proxy;
pub mod render;
pub mod request;
pub mod serve;
pub mod streams;
pub mod table;
pub mod version;
mod websocket;
mod zpages;

use crate::auth::{self, Attributes, Decision, UserInfo, authorize, forbidden, impersonate};
use crate::options::Options;
use crate::registry::{Resolved, Row, Subresource};
use crate::server::Server;
use crate::verbs::{Call, Response, Verb, dispatch, dispatch_binding, manager_of};
use axum::body::Body;
use coracle_api::json::Value;
use coracle_api::{Gvr, Status};
use coracle_streaming::messages;
use fairness::{Asker, Flow, Kept, Work};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use negotiate::Accept;
use render::GivenUp;
use request::Target;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// Everything but watches and logs is answered within this, or sooner where that is asked for (upstream `--request-timeout`).
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Writes of one object have less (apiserver `endpoints/handlers/rest.go`, requestTimeoutUpperBound).
const WRITTEN_WITHIN: Duration = Duration::from_secs(34);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-cache, private");

/// By which the server is known where it asks itself.
const OWN_NAME: &str = "system:apiserver";

/// Paths below which nothing takes HEAD, as upstream's router knows methods by their names alone.
const ROUTED: [&str; 4] = ["/api", "/version", "/openid/", "/.well-known/"];

/// Where the cluster's state can be had as a whole, by who may do everything.
pub const BACKUP: &str = "/coracle/store/backup";

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, Debug)]
pub enum Identity {
    /// An in-process client that was given its identity.
    User(Arc<UserInfo>),
    /// A connection: the user of its certificate, and the address it comes from.
    Connection(Option<Arc<UserInfo>>, Option<SocketAddr>),
}

/// Answers a request; never fails and never panics.
///
/// The future is moved several times before it runs, so what is large in it and seldom needed is in a box.
pub async fn handle(server: Arc<Server>, request: Request<Body>, identity: Identity) -> Response {
    let accept = Accept::negotiate(request.headers(), || true).unwrap_or_default();
    let accept = accept.laid_out(request.uri().query(), request.headers());
    let mut flow = None;
    let audit_id = audit_id(request.headers(), &identity);
    let answer = AssertUnwindSafe(route(&server, request, identity, &mut flow)).catch_unwind().await;
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => render::status(&plain(&accept), &status),
        Err(_) => {
            tracing::error!("a request panicked");
            flow = None;
            render::panicked()
        }
    };
    if let Some(sizes) = flow.as_ref().and_then(Flow::sizes) {
        response = sizes.measure(response);
    }
    if let Some(flow) = flow.filter(|_| GivenUp::of(&response) != Some(GivenUp::Late)) {
        flow.mark(response.headers_mut());
    }
    // Whatever is not said to be kept is not (apiserver `endpoints/filters/cachecontrol.go`).
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(NOT_KEPT);
    if let Some(id) = audit_id {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    response
}

/// By what name people may speak of a request: its own or a new one (apiserver `endpoints/filters/with_auditinit.go`). Nobody
/// reads those of requests in process.
fn audit_id(headers: &HeaderMap, identity: &Identity) -> Option<HeaderValue> {
    let given = headers.get(AUDIT_ID).filter(|given| !given.is_empty());
    if given.is_some() || matches!(identity, Identity::User(_)) {
        return given.cloned();
    }
    let mut text = uuid::Uuid::encode_buffer();
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
    let mut id = HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).ok()?;
    // Each is another: remembering them would drop headers that come again from the connection's table.
    id.set_sensitive(true);
    Some(id)
}

/// Errors are statuses whatever shape was asked for.
fn plain(accept: &Accept) -> Accept {
    Accept { shape: negotiate::Shape::Object, ..accept.clone() }
}

/// The user of a request.
///
/// `named`: the token in the name of a WebSocket's protocol.
async fn authenticate(
    server: &Server,
    headers: &HeaderMap,
    named: Option<&str>,
    identity: &Identity,
) -> Result<Arc<UserInfo>, Status> {
    match identity {
        Identity::User(user) | Identity::Connection(Some(user), _) => Ok(user.clone()),
        Identity::Connection(None, _) => {
            if let Some(token) = auth::bearer_token(headers).or(named) {
                let user = auth::tokens::authenticate(server, token, &[])?;
                return user.map(|(user, _)| Arc::new(user)).ok_or_else(Status::unauthorized);
            }
            if headers.contains_key(header::AUTHORIZATION) {
                return Err(Status::unauthorized());
            }
            Ok(Arc::new(UserInfo::anonymous()))
        }
    }
}

/// `flow` is what the request was found to be of.
async fn route(
    server: &Arc<Server>,
    mut request: Request<Body>,
    identity: Identity,
    flow: &mut Option<Flow>,
) -> Result<Response, Status> {
    let token = websocket::take_token(request.headers_mut())?;
    let user = authenticate(server, request.headers(), token.as_deref(), &identity).await?;
    let path = request.uri().path();
    match Target::parse(path) {
        Some(target) => {
            if let (true, Identity::Connection(_, Some(peer))) = (target.is_proxy(), identity) {
                request.extensions_mut().insert(proxy::Peer(peer.ip()));
            }
            resource(server, target, request, user, flow).await
        }
        None => Box::pin(non_resource(server, request, user, flow)).await,
    }
}

async fn non_resource(
    server: &Arc<Server>,
    request: Request<Body>,
    user: Arc<UserInfo>,
    flow: &mut Option<Flow>,
) -> Result<Response, Status> {
    let path = request.uri().path().to_owned();
    let verb = match *request.method() {
        Method::GET | Method::HEAD => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "options",
    };
    let attributes = Attributes { verb, path: Some(&path), ..Attributes::default() };
    let user = impersonate::acting(request.headers(), &user, &attributes)?.unwrap_or(user);
    let flow = &*flow.insert(server.limits.classify(&user, &attributes));
    if authorize(&user, &attributes) == Decision::Deny {
        return Err(forbidden(&user, &attributes));
    }
    if verb != "get" {
        return Err(Status::method_not_allowed());
    }
    let asker = Asker {
        arrived: server.config.clock.now(),
        user: user.clone(),
        verb,
        uri: request.uri().clone(),
        namespace: String::new(),
        name: String::new(),
        resource: None,
    };
    let _permit = match server.limits.seat(flow, false, Work::Small, asker).await {
        Ok(permit) => permit,
        Err(refusal) => return Ok(render::too_many(refusal)),
    };
    let asked = server.config.clock.monotonic();
    if let Some(response) = health::answer(server, &path, request.uri().query()).await {
        // Those of one check alone are not counted.
        let endpoint = path.trim_end_matches('/');
        if endpoint.rfind('/') == Some(0) {
            let all = server.config.clock.monotonic().saturating_sub(asked);
            let took = metrics::Took { all, waiting: Duration::ZERO };
            flow.measured_by(server.metrics.probed(endpoint, response.status().as_u16(), took));
        }
        return Ok(response);
    }
    let text = |text: String, kind: &'static str| {
        let mut response = http::Response::new(Body::from(text));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    match path.trim_end_matches('/') {
        "/cacerts" => return Ok(text(server.config.ca_pem.clone(), "application/x-pem-file")),
        debug if debug.starts_with("/debug/") => {
            let page = server.limits.page(&path, request.uri().query());
            return Ok(page.map_or_else(render::no_page, |page| text(page, "text/plain; charset=utf-8")));
        }
        "/metrics" => {
            return Ok(text(metrics::text(server), "text/plain; version=0.0.4; charset=utf-8"));
        }
        _ => {}
    }
    if let Some(answer) = zpages::answer(server, &path, request.headers()) {
        return answer;
    }
    if path == BACKUP {
        return backup(server, &user);
    }
    if let Some(path) = path.strip_prefix("/openapi/") {
        let answer = server.openapi.answer(&server.registry, path, request.uri().query(), request.headers());
        return Ok(answer.unwrap_or_else(render::no_page));
    }
    if *request.method() == Method::HEAD && ROUTED.iter().any(|prefix| path.starts_with(prefix)) {
        return Err(Status::method_not_allowed());
    }
    let rows = server.registry.current();
    if let Some(response) = discovery::aggregated(&rows, &path, request.headers()) {
        return Ok(response);
    }
    let accept = Accept::negotiate(request.headers(), || discovery::is_path(&path))?;
    let accept = plain(&accept).laid_out(request.uri().query(), request.headers());
    match path.trim_end_matches('/') {
        "/version" => return Ok(render::raw(&version::document())),
        "/openid/v1/jwks" => return Ok(public("application/jwk-set+json", &server.signer.key_set())),
        "/.well-known/openid-configuration" => return Ok(public("application/json", &auth::tokens::configuration())),
        "" => {
            let paths: Vec<String> = zpages::paths(&rows).into_iter().collect();
            return Ok(render::raw(&coracle_api::json::json!({"paths": paths})));
        }
        _ => {}
    }
    let address = server.config.advertise.to_string();
    match discovery::answer(&rows, &path, &accept, &address) {
        Some(response) => Ok(response),
        None => nothing_there(server, below(&path).unwrap_or("none")),
    }
}

/// What everybody may keep for a while (kubernetes `pkg/routes/openidmetadata.go`).
fn public(kind: &'static str, document: &Value) -> Response {
    let mut response = http::Response::new(Body::from(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// The group that a path would be of, however many parts it has.
fn below(path: &str) -> Option<&str> {
    let path = path.trim_start_matches('/');
    match path.split_once('/')? {
        ("api", _) => Some(""),
        ("apis", rest) => Some(rest.split('/').next().unwrap_or(rest)),
        _ => None,
    }
}

/// Tells of a path that leads nowhere: in the server's own groups with a status, elsewhere with Go's page (apiserver
/// `server/handler.go`, director).
fn nothing_there(server: &Server, group: &str) -> Result<Response, Status> {
    if server.registry.has_own(group) { Err(Status::no_such_resource()) } else { Ok(render::no_page()) }
}

/// The whole store, as [`crate::store::embedded::snapshot`] writes it. It holds every secret there is.
fn backup(server: &Server, user: &UserInfo) -> Result<Response, Status> {
    if !user.is_in(auth::MASTERS) {
        return Err(forbidden(user, &Attributes { verb: "get", path: Some(BACKUP), ..Attributes::default() }));
    }
    let permit = server.limits.stream()?;
    let pieces = server.store().back_up().ok_or_else(|| {
        Status::bad_request("the cluster's state is in etcd, which has its own backup: etcdctl snapshot save")
    })?;
    let pieces = pieces.map_err(crate::server::store_status)?;
    let mut response = http::Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(holding(response, permit))
}

/// What is asked of a resource.
fn verb(method: &Method, target: &Target, query: Option<&str>) -> Result<Verb, Status> {
    let named = !target.name.is_empty();
    // What has a name is watched by the path of old alone, or by a selector (apiserver `endpoints/request`, RequestInfo).
    let watches = || target.watch || !named && Options::asks_to_watch(query);
    match *method {
        // Asking what can be asked is asking.
        Method::OPTIONS if target.is_proxy() => Ok(Verb::Get),
        Method::GET | Method::HEAD if target.subresource.is_empty() && watches() => Ok(Verb::Watch),
        Method::GET | Method::HEAD if named => Ok(Verb::Get),
        Method::GET | Method::HEAD => Ok(Verb::List),
        // A name in the path belongs to a subresource; without one, POST is to the collection.
        Method::POST if !named || !target.subresource.is_empty() => Ok(Verb::Create),
        Method::PUT if named => Ok(Verb::Update),
        Method::PATCH if named => Ok(Verb::Patch),
        Method::DELETE if named => Ok(Verb::Delete),
        Method::DELETE => Ok(Verb::DeleteCollection),
        _ => Err(Status::method_not_allowed()),
    }
}

/// The row and subresource of a path, when they are served.
fn resolve(server: &Server, target: &Target) -> Option<(Resolved, Option<Subresource>)> {
    if target.group.is_empty()
        && target.version == "v1"
        && target.resource == "bindings"
        && target.subresource.is_empty()
    {
        return Some((server.registry.find("", "v1", "pods")?, Some(Subresource::Binding)));
    }
    let resolved = server.registry.find(&target.group, &target.version, &target.resource)?;
    let is_here = |known: &Subresource| known.path() == target.subresource && resolved.row.has(*known);
    let subresource = match target.subresource.as_str() {
        "" => None,
        _ => Some(Subresource::ALL.into_iter().find(is_here)?),
    };
    // A namespace is where some resources are, and others are not.
    let placed = match (resolved.row.namespaced, target.namespace.is_empty()) {
        (true, true) => target.name.is_empty(),
        (false, false) => target.resource == "namespaces",
        _ => true,
    };
    placed.then_some((resolved, subresource))
}

async fn resource(
    server: &Arc<Server>,
    target: Target,
    request: Request<Body>,
    user: Arc<UserInfo>,
    flow: &mut Option<Flow>,
) -> Result<Response, Status> {
    let started = server.config.clock.monotonic();
    let (head, body) = request.into_parts();
    let verb = verb(&head.method, &target, head.uri.query())?;
    let attributes = Attributes {
        verb: verb.as_str(),
        group: &target.group,
        version: &target.version,
        resource: &target.resource,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: &target.name,
        path: None,
    };
    let user = impersonate::acting(&head.headers, &user, &attributes)?.unwrap_or(user);
    let flow = &*flow.insert(server.limits.classify(&user, &attributes));
    let applies = verb == Verb::Patch
        && head
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
    let dry_run = head.uri.query().is_some_and(|query| query.contains("dryRun=All"));
    let is_own = user.name == OWN_NAME;
    let answer = match authorize(&user, &attributes) {
        Decision::Deny => Err(forbidden(&user, &attributes)),
        Decision::Allow => allowed(server, &target, verb, &head, body, (user, flow)).await,
    };
    let code = answer.as_ref().map_or_else(|status| status.code, |response| response.status().as_u16());
    let all = server.config.clock.monotonic().saturating_sub(started);
    let took = metrics::Took { all, waiting: flow.waited() };
    // Labels are kept for ever, so names that a client made up must not become any.
    let known = code < 400 || resolve(server, &target).is_some();
    let attributes = if known { attributes } else { Attributes { verb: attributes.verb, ..Attributes::default() } };
    if answer.as_ref().is_ok_and(|response| GivenUp::of(response).is_some()) {
        server.metrics.terminated(&attributes, applies, code);
    }
    if is_own {
        server.metrics.own_request(&attributes, applies);
    }
    flow.measured_by(server.metrics.request(&attributes, applies, dry_run, code, took));
    answer
}

/// A request that may be made.
async fn allowed(
    server: &Arc<Server>,
    target: &Target,
    verb: Verb,
    head: &http::request::Parts,
    body: Body,
    (user, flow): (Arc<UserInfo>, &Flow),
) -> Result<Response, Status> {
    let Some((resolved, subresource)) = resolve(server, target) else { return nothing_there(server, &target.group) };
    // Why there is nothing new of what ends is said where objects are made.
    let can = |row: &Row| row.verbs.contains(&verb.as_str()) || row.is_ending();
    if subresource.is_none() && !can(&resolved.row) {
        // Those of the server's own have no such path; custom ones share theirs.
        return Err(match resolved.row.strategy.custom() {
            None => Status::method_not_allowed(),
            Some(_) => Status::method_not_supported(&resolved.row.gvr(resolved.served), verb.as_str()),
        });
    }
    if head.method == Method::HEAD && !target.is_proxy() {
        return Err(Status::method_not_allowed());
    }
    if resolved.row.namespaced && target.namespace.is_empty() && !matches!(verb, Verb::List | Verb::Watch) {
        return Err(Status::method_not_allowed());
    }
    let streams = subresource.is_some_and(|it| it == Subresource::Log || it.connects());
    // A custom resource has no field numbers.
    let has_numbers = || resolved.row.schema.is_none() && protobuf::is_offered(&resolved.row.gvk(resolved.served));
    let accept = Accept::negotiate(&head.headers, has_numbers)
        .or_else(|status| {
            // A stream has no form to agree on.
            if streams { Ok(Accept::default()) } else { Err(status) }
        })?
        .laid_out(head.uri.query(), &head.headers);
    // What stands behind a proxy has options of its own.
    let options = Options::parse((!streams).then_some(verb), head.uri.query().filter(|_| !target.is_proxy()))?;
    let call = Call {
        server: server.clone(),
        namespace: if resolved.row.namespaced { target.namespace.clone() } else { String::new() },
        resolved,
        name: target.name.clone(),
        agent: manager_of(&head.headers, &user.name).into(),
        of_scale: false,
        subresource,
        user,
        options,
        accept,
        gzip: negotiate::accepts_gzip(&head.headers),
        warnings: Arc::default(),
        begins: None,
    };
    call.warn(call.row().warning.clone());
    if let Some(what) = subresource.filter(|subresource| subresource.connects()) {
        let permit = || Ok::<_, Status>(server.limits.stream()?.counted_by(lasting(&call, &target.subresource)));
        return match verb {
            _ if what == Subresource::Proxy => {
                let permit = permit()?;
                Box::pin(proxy::pass(call, head, body, target.subpath.as_deref(), permit)).await
            }
            Verb::Get | Verb::Create => {
                let permit = permit()?;
                Box::pin(streams::connect(call, what, head, permit)).await
            }
            _ => Err(Status::method_not_allowed()),
        };
    }
    let (accept, warnings) = (plain(&call.accept), call.warnings.clone());
    let answer = limited(server, call, verb, flow, target.resource == "bindings", head, body).await;
    let warnings = std::mem::take(&mut *warnings.lock());
    if warnings.is_empty() || answer.as_ref().is_ok_and(|response| GivenUp::of(response).is_some()) {
        return answer;
    }
    // Also when it came to nothing.
    let mut response = answer.unwrap_or_else(|status| render::status(&accept, &status));
    render::warn(&mut response, &warnings);
    Ok(response)
}

async fn limited(
    server: &Server,
    call: Call,
    verb: Verb,
    flow: &Flow,
    binding: bool,
    head: &http::request::Parts,
    body: Body,
) -> Result<Response, Status> {
    if verb == Verb::Watch || call.subresource == Some(Subresource::Log) {
        // Apart, so that what it needs is not moved with every request.
        return Box::pin(streamed(server, call, verb, flow, head)).await;
    }
    let (within, is_own) = deadline(verb, call.options.timeout);
    let work = async {
        // Waiting for its turn is a part of it.
        let seat = server.limits.seat(flow, verb.writes(), work(&call, verb), asker(&call, verb, head));
        let _permit = match seat.await {
            Ok(permit) => permit,
            Err(refusal) => return Ok(render::too_many(refusal)),
        };
        let body =
            if verb.writes() { request::Body::read(&head.headers, body).await? } else { request::Body::default() };
        if binding { dispatch_binding(call, body).await } else { dispatch(call, verb, body).await }
    };
    match tokio::time::timeout(within, work).await {
        Ok(answer) => answer,
        Err(_) if is_own => {
            Err(Status::timeout("request did not complete within requested timeout - context deadline exceeded", 0))
        }
        Err(_) => Ok(render::late(&Status::timeout("request did not complete within the allotted timeout", 0))),
    }
}

/// Within what time a request is to be done, and whether that is the verb's own: then it is the verb that says so when it is not.
fn deadline(verb: Verb, asked: Option<Duration>) -> (Duration, bool) {
    let within = asked.map_or(ANSWER_WITHIN, |asked| asked.min(ANSWER_WITHIN));
    if verb.writes() && verb != Verb::DeleteCollection && within > WRITTEN_WITHIN {
        (WRITTEN_WITHIN, true)
    } else {
        (within, false)
    }
}

/// Who makes a call.
fn asker(call: &Call, verb: Verb, head: &http::request::Parts) -> Asker {
    Asker {
        arrived: call.server.config.clock.now(),
        user: call.user.clone(),
        verb: verb.as_str(),
        uri: head.uri.clone(),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
        resource: Some((call.resolved.clone(), call.subresource)),
    }
}

/// Counts a log or connection while it lasts.
fn lasting(call: &Call, subresource: &str) -> metrics::Guard {
    let Gvr { group, version, resource } = &call.gvr();
    let (namespace, name) = (&*call.namespace, &*call.name);
    call.server.metrics.lasting(&Attributes {
        verb: "get",
        group,
        version,
        resource,
        subresource,
        namespace,
        name,
        path: None,
    })
}

/// A watch or a log, which lasts.
async fn streamed(
    server: &Server,
    mut call: Call,
    verb: Verb,
    flow: &Flow,
    head: &http::request::Parts,
) -> Result<Response, Status> {
    let mut permit = server.limits.stream()?;
    if call.subresource == Some(Subresource::Log) {
        permit = permit.counted_by(lasting(&call, Subresource::Log.path()));
    }
    if verb == Verb::Watch {
        match server.limits.seat(flow, false, work(&call, verb), asker(&call, verb, head)).await {
            Ok(permit) => call.begins = Some(Box::new(permit)),
            Err(refusal) => return Ok(render::too_many(refusal)),
        }
    }
    let response = dispatch(call, verb, request::Body::default()).await?;
    let response = holding(response, permit);
    if messages::is_asked(&head.headers) { websocket::carry(head, response) } else { Ok(response) }
}

/// What a call asks of the server (apiserver `util/flowcontrol/request`, width.go).
fn work(call: &Call, verb: Verb) -> Work {
    let Some(cache) = call.cache().ok().filter(|_| call.row().is_stored()) else { return Work::Small };
    match verb {
        // A watch costs what it begins with, where that is asked for.
        Verb::Watch if call.options.send_initial_events != Some(true) => Work::Small,
        Verb::Watch | Verb::List => {
            let kept = Kept { objects: cache.snapshot().objects.len(), bytes: cache.average_size() };
            let single = !call.name.is_empty() || call.options.fields.required_value("metadata.name").is_some();
            Work::list(kept, &call.options, single)
        }
        // It changes nothing that is watched.
        Verb::Create if call.subresource == Some(Subresource::Token) => Work::Small,
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => {
            Work::Write { watchers: cache.watchers().of(&call.namespace, &call.name) }
        }
        Verb::Get | Verb::DeleteCollection => Work::Small,
    }
}

/// Keeps something alive until the response's body has ended.
fn holding(response: Response, permit: fairness::Permit) -> Response {
    use futures::StreamExt;
    let (head, body) = response.into_parts();
    let stream = body.into_data_stream().map(move |item| {
        let _held = &permit;
        item
    });
    http::Response::from_parts(head, Body::from_stream(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request may take before it is known what it comes to.
    const MOVED: usize = 6 << 10;

    fn size<'a, F: Future + 'a>(_: impl Fn(Arc<Server>, Request<Body>, Identity) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_has_its_time() {
        let seconds = |verb, asked: Option<u64>| deadline(verb, asked.map(Duration::from_secs)).0.as_secs();
        for (verb, asked, within) in [
            (Verb::List, None, 60),
            (Verb::List, Some(5), 5),
            (Verb::List, Some(90), 60),
            (Verb::Create, None, 34),
            (Verb::Patch, Some(50), 34),
            (Verb::Update, Some(5), 5),
            (Verb::DeleteCollection, None, 60),
        ] {
            assert_eq!(seconds(verb, asked), within, "{verb:?} {asked:?}");
        }
        assert!(deadline(Verb::Delete, None).1);
        assert!(!deadline(Verb::Delete, Some(Duration::from_secs(5))).1);
    }

    #[test]
    fn requests_are_moved_cheaply() {
        let size = size(handle);
        assert!(size <= MOVED, "{size} bytes are moved with every request");
    }
}
