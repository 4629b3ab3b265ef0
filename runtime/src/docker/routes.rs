//! The API as a table: method, path, the version since which it is there, and who answers.
//!
//! `{name}` takes one part of a path, `{name*}` as many as there are (image names have slashes). `coracle runtime
//! --docker-routes` prints the table.

use std::{future::Future, pin::Pin};

use http::{Method, StatusCode};

use super::{
    archives, build, containers,
    http::{Answer, Call, Problem, percent},
    images, networks, pulls, registry, system, volumes,
};

/// The newest version served, that of Docker 28.2.
pub const MAX_VERSION: u16 = 50;
/// The oldest.
pub const MIN_VERSION: u16 = 24;

type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One endpoint.
pub struct Route {
    pub method: Method,
    pub template: &'static str,
    pub since: u16,
    /// None where it is not there yet.
    handler: Option<Handler>,
}

impl Route {
    pub fn is_served(&self) -> bool {
        self.handler.is_some()
    }
}

macro_rules! routes {
    ($($method:ident $template:literal $since:literal => $handler:path,)*; $($later_method:ident $later:literal $later_since:literal,)*) => {
        /// Every endpoint of the API.
        pub static ROUTES: &[Route] = &[
            $(Route {
                method: Method::$method,
                template: $template,
                since: $since,
                handler: Some(|call| Box::pin($handler(call))),
            },)*
            $(Route { method: Method::$later_method, template: $later, since: $later_since, handler: None },)*
        ];
    };
}

routes! {
    GET "/_ping" 24 => system::ping,
    HEAD "/_ping" 24 => system::ping,
    GET "/version" 24 => system::version,
    GET "/info" 24 => system::info,
    GET "/events" 24 => system::events,
    GET "/system/df" 25 => system::df,
    POST "/build" 24 => build::build,
    POST "/build/prune" 31 => build::prune::prune,
    POST "/auth" 24 => registry::auth,
    GET "/plugins" 25 => system::plugins,
    GET "/plugins/{name*}/json" 25 => system::plugin,
    GET "/distribution/{name*}/json" 30 => registry::distribution,

    GET "/containers/json" 24 => containers::list::list,
    POST "/containers/create" 24 => containers::create::create,
    POST "/containers/prune" 25 => containers::remove::prune,
    GET "/containers/{id}/json" 24 => containers::inspect::inspect,
    GET "/containers/{id}/top" 24 => containers::process::top,
    GET "/containers/{id}/logs" 24 => containers::logs::logs,
    GET "/containers/{id}/stats" 24 => containers::stats::stats,
    GET "/containers/{id}/changes" 24 => containers::archive::changes,
    GET "/containers/{id}/export" 24 => containers::archive::export,
    HEAD "/containers/{id}/archive" 24 => containers::archive::head,
    GET "/containers/{id}/archive" 24 => containers::archive::get,
    PUT "/containers/{id}/archive" 24 => containers::archive::put,
    POST "/containers/{id}/start" 24 => containers::lifecycle::start,
    POST "/containers/{id}/stop" 24 => containers::lifecycle::stop,
    POST "/containers/{id}/restart" 24 => containers::lifecycle::restart,
    POST "/containers/{id}/kill" 24 => containers::lifecycle::kill,
    POST "/containers/{id}/pause" 24 => containers::lifecycle::pause,
    POST "/containers/{id}/unpause" 24 => containers::lifecycle::unpause,
    POST "/containers/{id}/wait" 24 => containers::lifecycle::wait,
    POST "/containers/{id}/rename" 24 => containers::update::rename,
    POST "/containers/{id}/update" 24 => containers::update::update,
    POST "/containers/{id}/attach" 24 => containers::attach::attach,
    GET "/containers/{id}/attach/ws" 24 => containers::attach::attach_websocket,
    POST "/containers/{id}/resize" 24 => containers::attach::resize,
    POST "/containers/{id}/exec" 24 => containers::exec::create,
    DELETE "/containers/{id}" 24 => containers::remove::remove,
    POST "/exec/{id}/start" 24 => containers::exec::start,
    POST "/exec/{id}/resize" 24 => containers::exec::resize,
    GET "/exec/{id}/json" 24 => containers::exec::inspect,
    POST "/commit" 24 => archives::commit,

    GET "/images/json" 24 => images::list,
    POST "/images/create" 24 => pulls::create,
    GET "/images/search" 24 => images::search,
    POST "/images/prune" 25 => images::prune,
    POST "/images/load" 24 => archives::load,
    GET "/images/get" 24 => archives::save,
    GET "/images/{name*}/get" 24 => archives::save,
    GET "/images/{name*}/json" 24 => images::inspect,
    GET "/images/{name*}/history" 24 => images::history,
    POST "/images/{name*}/push" 24 => images::push,
    POST "/images/{name*}/tag" 24 => images::tag,
    DELETE "/images/{name*}" 24 => images::remove,

    GET "/volumes" 24 => volumes::list,
    POST "/volumes/create" 24 => volumes::create,
    POST "/volumes/prune" 25 => volumes::prune,
    GET "/volumes/{name}" 24 => volumes::inspect,
    DELETE "/volumes/{name}" 24 => volumes::remove,

    GET "/networks" 24 => networks::list,
    POST "/networks/create" 24 => networks::create,
    POST "/networks/prune" 25 => networks::prune,
    GET "/networks/{id}" 24 => networks::inspect,
    DELETE "/networks/{id}" 24 => networks::remove,
    POST "/networks/{id}/connect" 24 => networks::connect,
    POST "/networks/{id}/disconnect" 24 => networks::disconnect,
    ;
    POST "/containers/{id}/checkpoints" 25,
    POST "/build/cancel" 39,
    POST "/session" 31,
    POST "/grpc" 31,
    PUT "/volumes/{name}" 42,
    GET "/plugins/privileges" 25,
    POST "/plugins/pull" 25,
    POST "/plugins/create" 25,
    POST "/plugins/{name*}/enable" 25,
    POST "/plugins/{name*}/disable" 25,
    POST "/plugins/{name*}/upgrade" 26,
    POST "/plugins/{name*}/push" 25,
    POST "/plugins/{name*}/set" 25,
    DELETE "/plugins/{name*}" 25,
    GET "/swarm" 24,
    POST "/swarm/init" 24,
    POST "/swarm/join" 24,
    POST "/swarm/leave" 24,
    POST "/swarm/update" 24,
    GET "/swarm/unlockkey" 24,
    POST "/swarm/unlock" 24,
    GET "/nodes" 24,
    GET "/nodes/{id}" 24,
    DELETE "/nodes/{id}" 24,
    POST "/nodes/{id}/update" 24,
    GET "/services" 24,
    POST "/services/create" 24,
    GET "/services/{id}" 24,
    DELETE "/services/{id}" 24,
    POST "/services/{id}/update" 24,
    GET "/services/{id}/logs" 29,
    GET "/tasks" 24,
    GET "/tasks/{id}" 24,
    GET "/tasks/{id}/logs" 29,
    GET "/secrets" 25,
    POST "/secrets/create" 25,
    GET "/secrets/{id}" 25,
    DELETE "/secrets/{id}" 25,
    POST "/secrets/{id}/update" 26,
    GET "/configs" 30,
    POST "/configs/create" 30,
    GET "/configs/{id}" 30,
    DELETE "/configs/{id}" 30,
    POST "/configs/{id}/update" 30,
}

/// The endpoint of a request and what its braces stand for.
pub enum Found {
    Route(&'static Route, Vec<String>),
    /// Some other method is served there.
    WrongMethod,
    Nothing,
}

/// Finds the endpoint of a path without its version.
pub fn find(method: &Method, path: &str) -> Found {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let mut elsewhere = false;
    for route in ROUTES {
        let Some(parameters) = matches(route.template, &parts) else { continue };
        if route.method == *method {
            return Found::Route(route, parameters);
        }
        elsewhere = true;
    }
    if elsewhere { Found::WrongMethod } else { Found::Nothing }
}

fn matches(template: &str, parts: &[&str]) -> Option<Vec<String>> {
    let wanted: Vec<&str> = template[1..].split('/').collect();
    let mut out = Vec::new();
    let mut at = 0;
    for (index, part) in wanted.iter().enumerate() {
        if part.ends_with("*}") {
            // As many as leave enough for the rest.
            let end = parts.len().checked_sub(wanted.len() - index - 1)?;
            let name = parts.get(at..end).filter(|name| !name.is_empty())?;
            out.push(percent(&name.join("/")));
            at = end;
        } else {
            let own = parts.get(at)?;
            if part.starts_with('{') {
                if own.is_empty() {
                    return None;
                }
                out.push(percent(own));
            } else if part != own {
                return None;
            }
            at += 1;
        }
    }
    (at == parts.len()).then_some(out)
}

/// Takes `/v1.24` off a path.
pub fn split_version(path: &str) -> Result<(Option<u16>, &str), Problem> {
    let Some((version, rest)) = path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) else {
        return Ok((None, path));
    };
    let Some((major, minor)) = version.split_once('.') else { return Ok((None, path)) };
    let (Ok(major), Ok(minor)) = (major.parse::<u16>(), minor.parse::<u16>()) else { return Ok((None, path)) };
    let rest = &path[path.len() - rest.len() - 1..];
    if major > 1 || minor > MAX_VERSION {
        return Err(Problem::bad(format!(
            "client version {version} is too new. Maximum supported API version is 1.{MAX_VERSION}"
        )));
    }
    if major < 1 || minor < MIN_VERSION {
        return Err(Problem::bad(format!(
            "client version {version} is too old. Minimum supported API version is 1.{MIN_VERSION}, please upgrade your client to a newer version"
        )));
    }
    Ok((Some(minor), rest))
}

/// Calls who answers, or says who does not yet.
pub async fn answer(route: &'static Route, call: Call) -> Answer {
    if call.version < route.since {
        return Err(Problem::not_found("page not found"));
    }
    match route.handler {
        Some(handler) => handler(call).await,
        // What makes a swarm is not here; the rest is what any node without one says.
        None if is_of_swarm(route) && !["/swarm/init", "/swarm/join"].contains(&route.template) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        None => Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{} {} is not part of this engine yet", route.method, route.template),
        )),
    }
}

fn is_of_swarm(route: &Route) -> bool {
    ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"]
        .iter()
        .any(|prefix| route.template.starts_with(prefix))
}

/// The table as Markdown.
pub fn table() -> String {
    let mut out = String::from("| method | path | since | served |\n|---|---|---|---|\n");
    for route in ROUTES {
        let served = if route.is_served() { "yes" } else { "not yet" };
        out.push_str(&format!("| {} | `{}` | 1.{} | {served} |\n", route.method, route.template, route.since));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Option<(&'static str, Vec<String>)> {
        match find(&method, path) {
            Found::Route(route, parameters) => Some((route.template, parameters)),
            _ => None,
        }
    }

    #[test]
    fn paths_find_their_rows() {
        assert_eq!(found(Method::GET, "/containers/json").unwrap().0, "/containers/json");
        assert_eq!(found(Method::GET, "/containers/web/json").unwrap().1, ["web"]);
        assert_eq!(found(Method::GET, "/images/host:5000/a/b/json").unwrap().1, ["host:5000/a/b"]);
        assert_eq!(found(Method::DELETE, "/images/a%2Fb:1").unwrap().1, ["a/b:1"]);
        assert!(matches!(find(&Method::PUT, "/containers/json"), Found::WrongMethod));
        assert!(matches!(find(&Method::GET, "/nonsense"), Found::Nothing));
        assert!(matches!(find(&Method::GET, "/containers//json"), Found::Nothing));
    }

    #[test]
    fn versions_are_negotiated() {
        assert_eq!(split_version("/v1.41/info").unwrap(), (Some(41), "/info"));
        assert_eq!(split_version("/volumes/data").unwrap(), (None, "/volumes/data"));
        assert!(split_version("/v1.99/info").unwrap_err().message.contains("too new"));
        assert!(split_version("/v1.12/info").unwrap_err().message.contains("too old"));
    }

    /// Written anew by `coracle runtime --docker-routes`.
    #[test]
    fn the_page_shows_the_table() {
        let page = include_str!("../../../docs/docker-api.md");
        assert!(page.ends_with(&format!("\n\n{}", table())), "docs/docker-api.md is not what the table says");
    }

    #[test]
    fn no_row_hides_another() {
        for route in ROUTES {
            let sample = route.template.replace("{name*}", "x/y").replace("{name}", "x").replace("{id}", "x");
            assert_eq!(found(route.method.clone(), &sample).map(|found| found.0), Some(route.template));
        }
    }
}
