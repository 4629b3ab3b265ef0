//! Ending a container: preStop hook, then the runtime's stop.

use std::time::Duration;

use coracle_client::EventType;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};

use super::Shared;
use crate::observed::Observed;
use crate::pod;

/// However long a hook took, a container gets this many seconds to end (upstream's `minimumGracePeriodInSeconds`).
const MIN_GRACE: i64 = 2;
/// A hook without a deadline of its own.
const HOOK: Duration = Duration::from_secs(600);

/// Ends a container within `grace` seconds, its hook included. A failure is told.
pub async fn stop(
    shared: &Shared,
    pod: &Pod,
    observed: &Observed,
    id: &str,
    name: &str,
    message: &str,
    grace: i64,
) -> Result<(), String> {
    shared.tell(pod, Some(name), EventType::Normal, "Killing", message);
    let begun = shared.clock.monotonic();
    let container = pod::container(pod, name).map(|(_, container)| container);
    let hook = container.as_ref();
    let hook = hook.and_then(|container| Some((&**container, container.lifecycle.as_ref()?.pre_stop.as_ref()?)));
    if let (Some((container, hook)), true) = (hook, grace > 0) {
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let address = shared.facts(pod, observed).pod_ips.into_iter().next();
        if let Err(why) = run_hook(shared, hook, container, id, address.as_deref(), Some(limit)).await {
            shared.tell(
                pod,
                Some(name),
                EventType::Warning,
                "FailedPreStopHook",
                &format!("PreStopHook failed: {why}"),
            );
        }
    }
    let used = i64::try_from(shared.clock.monotonic().saturating_sub(begun).as_secs()).unwrap_or(i64::MAX);
    // Zero means at once: the pod was deleted by force.
    let left = if grace == 0 { 0 } else { grace.saturating_sub(used).max(MIN_GRACE) };
    match shared.cri.stop_container(id, left).await {
        Err(error) if !error.is_not_found() => {
            shared.tell(
                pod,
                Some(name),
                EventType::Warning,
                "FailedKillPod",
                &format!("error killing container: {error}"),
            );
            Err(error.to_string())
        }
        _ => Ok(()),
    }
}

/// Runs a lifecycle hook.
pub(super) async fn run_hook(
    shared: &Shared,
    hook: &LifecycleHandler,
    container: &Container,
    id: &str,
    address: Option<&str>,
    limit: Option<Duration>,
) -> Result<(), String> {
    let limit = limit.unwrap_or(HOOK);
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = shared.cri.exec_sync(id, &command, limit).await.map_err(|error| error.to_string())?;
        return match answer.exit_code {
            0 => Ok(()),
            code => Err(format!(
                "command '{}' exited with {code}: {}",
                command.join(" "),
                String::from_utf8_lossy(&answer.stderr).trim()
            )),
        };
    }
    if let Some(action) = &hook.http_get {
        let request = http_hook(shared, action, container, address);
        return tokio::time::timeout(limit, request)
            .await
            .unwrap_or_else(|_| Err("the hook did not end in time".into()));
    }
    if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    Err("invalid handler: no supported action".into())
}

/// A GET request as a hook; any answer will do (kubernetes `pkg/kubelet/lifecycle/handlers.go`).
async fn http_hook(
    shared: &Shared,
    action: &HTTPGetAction,
    container: &Container,
    address: Option<&str>,
) -> Result<(), String> {
    let host =
        action.host.as_deref().filter(|host| !host.is_empty()).or(address).ok_or("the pod has no address yet")?;
    let port = pod::port(&action.port, container.ports.as_deref().unwrap_or_default()).ok_or("couldn't find port")?;
    let ip: std::net::IpAddr = host.parse().map_err(|_| format!("the host {host} is no address"))?;
    let stream = shared
        .place
        .connect_tcp((ip, port).into(), Duration::from_secs(30))
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut request =
        http::Request::get(path).header("host", format!("{host}:{port}")).header("user-agent", "kube-lifecycle/1.36");
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    if let Ok(answer) = answer {
        // Only so that the server is not cut off while it still writes; how much it writes is bounded.
        let _ = http_body_util::Limited::new(answer.into_body(), 10 * 1024).collect().await;
        driver.abort();
        return Ok(());
    }
    driver.abort();
    answer.map(drop)
}
