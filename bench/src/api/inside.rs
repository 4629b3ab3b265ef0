//! Requests without a network: for a profiler, which then sees the server alone.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Result, ensure};
use axum::body::Body;
use coracle_api::clock::SystemClock;
use coracle_apiserver::{ApiServer, Config, UserInfo, store::embedded::Embedded};
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::json;
use tower::Service;

use super::load::pod;

fn content_type(method: &str) -> &'static str {
    if method == "PATCH" { "application/merge-patch+json" } else { "application/json" }
}

/// Creates so many pods, reads, patches and deletes each once.
pub async fn run(pods: usize) -> Result<()> {
    let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new()))?);
    let address: SocketAddr = "127.0.0.1:6443".parse()?;
    let authority = coracle_pki::Authority::create("inside", jiff::Timestamp::now())?;
    let server = ApiServer::start(Config::new(store, authority.cert_pem(), address)).await?;
    let mut service = server.service(UserInfo::admin());
    let mut call = async |method: &str, path: &str, body: String| -> Result<()> {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content_type(method));
        let response = service.call(request.body(Body::from(body))?).await?;
        ensure!(response.status().is_success(), "{path}: {}", response.status());
        response.into_body().collect().await?;
        Ok(())
    };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    call("POST", "/api/v1/namespaces", namespace.to_string()).await?;
    for number in 0..pods {
        let name = format!("pod-{number:05}");
        call("POST", "/api/v1/namespaces/bench/pods", pod(&name).to_string()).await?;
        let path = format!("/api/v1/namespaces/bench/pods/{name}");
        call("GET", &path, String::new()).await?;
        call("PATCH", &path, json!({"metadata": {"labels": {"round": "1"}}}).to_string()).await?;
        call("DELETE", &path, json!({"gracePeriodSeconds": 0}).to_string()).await?;
    }
    server.stop().await;
    Ok(())
}
