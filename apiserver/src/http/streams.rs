//! `pods/exec`, `pods/attach` and `pods/portforward`: the client's connection joined to the kubelet's.

use super::{fairness::Permit, kubelet};
use crate::registry::{Subresource, fields::text};
use crate::verbs::{Call, Response};
use axum::body::Body;
use coracle_api::Status;
use coracle_streaming::proxy;
use http::{Request, request::Parts};

/// Options under their names here and at the kubelet (core/pod `streamParams`).
const FLAGS: [(&str, &str); 4] = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];

/// Answers with what the kubelet answers; after 101 the connections are one.
///
/// # Errors
/// When the pod, its container or its node cannot be found, or the kubelet does not answer.
pub async fn connect(call: Call, what: Subresource, head: &Parts, permit: Permit) -> Result<Response, Status> {
    let pod = call.current().await?.value;
    let path = match what {
        Subresource::PortForward => format!("/portForward/{}/{}", call.namespace, call.name),
        _ => format!("/{}/{}/{}/{}", what.path(), call.namespace, call.name, kubelet::container(&call, &pod)?),
    };
    let node = text(&pod["spec"], "nodeName");
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", call.name)));
    }
    let address = kubelet::address(&call, node)?;
    let query = query(&call, what);
    let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
    if !proxy::is_upgrade(&head.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let failed = |why: String| Status::internal(format!("error dialing backend: {why}"));
    let connection = call.server.kubelet.connect(address).await.map_err(failed)?;
    // The parts hold the client's connection until it is upgraded.
    let mut request = Request::from_parts(head.clone(), ());
    let answer = proxy::pass(&mut request, connection, &address.to_string(), &uri, permit).await;
    Ok(answer.map_err(|error| failed(error.to_string()))?.map(Body::from))
}

/// The options as the kubelet knows them.
fn query(call: &Call, what: Subresource) -> String {
    let mut out = Vec::new();
    let values = |name: &'static str| call.options.pairs.iter().filter(move |(known, _)| known == name);
    if what == Subresource::PortForward {
        out.extend(values("ports").map(|(_, ports)| format!("port={}", kubelet::escape(ports))));
        return out.join("&");
    }
    for (name, passed) in FLAGS {
        if values(name).any(|(_, value)| matches!(value.as_str(), "true" | "1" | "")) {
            out.push(format!("{passed}=1"));
        }
    }
    if what == Subresource::Exec {
        out.extend(values("command").map(|(_, word)| format!("command={}", kubelet::escape(word))));
    }
    out.join("&")
}
