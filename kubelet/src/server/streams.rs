//! `/exec`, `/attach` and `/portForward`: passed through to the runtime's streaming server.

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use coracle_streaming::proxy;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::{App, text};
use crate::observed::{Instance, Observed, Observer};
use crate::pod;

/// The runtime listens on the same machine.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A code and words for who asks.
type Refusal = (StatusCode, String);
type Pairs = Vec<(String, String)>;

pub(super) async fn exec(
    State(app): State<App>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<Pairs>,
    request: Request,
) -> Response {
    answer(request, async {
        let command: Vec<String> = values(&query, "command").map(str::to_owned).collect();
        if command.is_empty() {
            return Err((StatusCode::BAD_REQUEST, "you must specify at least 1 command".to_owned()));
        }
        let Wanted { stdin, stdout, stderr, tty } = wanted(&query)?;
        let container_id = running(&app, &namespace, &name, &container).await?.id;
        let request = cri::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr };
        Ok(app.shared.cri.exec(request).await.map_err(failed)?.url)
    })
    .await
}

pub(super) async fn attach(
    State(app): State<App>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<Pairs>,
    request: Request,
) -> Response {
    answer(request, async {
        let Wanted { stdin, stdout, stderr, tty } = wanted(&query)?;
        let container_id = running(&app, &namespace, &name, &container).await?.id;
        let request = cri::AttachRequest { container_id, tty, stdin, stdout, stderr };
        Ok(app.shared.cri.attach(request).await.map_err(failed)?.url)
    })
    .await
}

pub(super) async fn port_forward(
    State(app): State<App>,
    Path((namespace, name)): Path<(String, String)>,
    Query(query): Query<Pairs>,
    request: Request,
) -> Response {
    answer(request, async {
        let ports = values(&query, "port").chain(values(&query, "ports")).flat_map(|ports| ports.split(','));
        let port: Result<Vec<i32>, _> = ports.filter(|port| !port.is_empty()).map(str::parse).collect();
        let port = port.map_err(|_| (StatusCode::BAD_REQUEST, "a port is not a number".to_owned()))?;
        let (_, observed) = observe(&app, &namespace, &name).await?;
        let sandbox = observed.sandbox().filter(|sandbox| sandbox.ready);
        let not_found = || (StatusCode::NOT_FOUND, format!("pod not found (\"{name}_{namespace}\")"));
        let pod_sandbox_id = sandbox.ok_or_else(not_found)?.id.clone();
        let request = cri::PortForwardRequest { pod_sandbox_id, port };
        Ok(app.shared.cri.port_forward(request).await.map_err(failed)?.url)
    })
    .await
}

/// Asks the runtime for a URL and joins the client's connection to it.
async fn answer(mut request: Request, url: impl Future<Output = Result<String, Refusal>>) -> Response {
    if !proxy::is_upgrade(request.headers()) {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let passed = async {
        let url = url.await?;
        let broken = || (StatusCode::INTERNAL_SERVER_ERROR, format!("the runtime's streaming address {url:?} is none"));
        let uri: Uri = url.parse().map_err(|_| broken())?;
        let (authority, path) = (uri.authority().ok_or_else(broken)?, uri.path_and_query().ok_or_else(broken)?);
        let unreachable = |why: String| (StatusCode::BAD_GATEWAY, format!("reach the runtime's streams: {why}"));
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect(authority.as_str())).await;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        // A keystroke is not to wait for the next.
        let _ = stream.set_nodelay(true);
        let passed = proxy::pass(&mut request, stream, authority.as_str(), path.as_str(), ()).await;
        passed.map_err(|error| unreachable(error.to_string()))
    };
    match passed.await {
        Ok(response) => response.map(Body::from),
        Err((code, why)) => text(code, why),
    }
}

/// The streams of a query, by the names that the API server uses.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

fn wanted(query: &Pairs) -> Result<Wanted, Refusal> {
    let flag = |name: &str| values(query, name).any(|value| matches!(value, "1" | "true"));
    let tty = flag("tty");
    // A terminal has one output.
    let wanted = Wanted { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty, tty };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err((StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr".to_owned()));
    }
    Ok(wanted)
}

fn values<'q>(query: &'q Pairs, name: &str) -> impl Iterator<Item = &'q str> {
    query.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
}

async fn observe(app: &App, namespace: &str, name: &str) -> Result<(std::sync::Arc<Pod>, Observed), Refusal> {
    let missing = || (StatusCode::NOT_FOUND, "pod does not exist".to_owned());
    let found = app.pods.find(namespace, name).ok_or_else(missing)?;
    let observed = Observer::default().observe(&app.shared.cri, pod::uid(&found)).await.map_err(failed)?;
    Ok((found, observed))
}

async fn running(app: &App, namespace: &str, name: &str, container: &str) -> Result<Instance, Refusal> {
    let (_, observed) = observe(app, namespace, name).await?;
    let found = observed.latest(container).filter(|instance| instance.running());
    found.cloned().ok_or_else(|| (StatusCode::INTERNAL_SERVER_ERROR, format!("container not found (\"{container}\")")))
}

fn failed(error: crate::cri::Error) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_terminal_has_no_second_output() {
        let query = pairs(&[("input", "1"), ("output", "1"), ("error", "1"), ("tty", "1")]);
        assert_eq!(wanted(&query), Ok(Wanted { stdin: true, stdout: true, stderr: false, tty: true }));
        assert_eq!(wanted(&pairs(&[("tty", "1")])).unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
