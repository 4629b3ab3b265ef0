//! /livez, /readyz, /healthz.

use crate::server::Server;
use crate::verbs::Response;
use axum::body::Body;
use http::{HeaderValue, StatusCode, header};
use std::time::Duration;

/// How long the store may take to answer a probe.
const STORE_WITHIN: Duration = Duration::from_secs(2);

/// Answers a health path; None when there is no such check.
pub async fn answer(server: &Server, path: &str, query: Option<&str>) -> Option<Response> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next()?;
    let only = parts.next().filter(|name| !name.is_empty());
    if !matches!(endpoint, "livez" | "readyz" | "healthz") {
        return None;
    }
    let mut checks = vec![("ping", Ok(()))];
    let pairs = crate::options::pairs(query.unwrap_or_default());
    let excluded = |name: &str| pairs.iter().any(|(key, value)| key == "exclude" && value == name);
    checks.push(("etcd", store(server).await));
    if endpoint == "readyz" {
        checks.push(("informer-sync", caught_up(server).await));
        checks.push((
            "shutdown",
            if server.stop.is_cancelled() { Err("the server is shutting down".to_owned()) } else { Ok(()) },
        ));
    }
    // Liveness is not lost with the store: a restart would not bring that back.
    if endpoint == "livez" {
        checks.retain(|(name, _)| *name == "ping");
    }
    checks.retain(|(name, _)| !excluded(name) && only.is_none_or(|only| only == *name));
    if only.is_some() && checks.is_empty() {
        return None;
    }
    let failed = checks.iter().any(|(_, result)| result.is_err());
    let verbose = pairs.iter().any(|(key, _)| key == "verbose");
    let mut text = String::new();
    if verbose || failed {
        for (name, result) in &checks {
            match result {
                Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
                Err(_) => text.push_str(&format!("[-]{name} failed: reason withheld\n")),
            }
        }
        text.push_str(&format!("{endpoint} check {}\n", if failed { "failed" } else { "passed" }));
    } else {
        text.push_str("ok");
    }
    for (name, result) in &checks {
        if let Err(error) = result {
            tracing::warn!(check = name, %error, "health");
        }
    }
    let mut response = http::Response::new(Body::from(text));
    *response.status_mut() = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    Some(response)
}

async fn store(server: &Server) -> Result<(), String> {
    match tokio::time::timeout(STORE_WITHIN, server.store().revision()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store does not answer".to_owned()),
    }
}

async fn caught_up(server: &Server) -> Result<(), String> {
    let Ok(Ok(revision)) = tokio::time::timeout(STORE_WITHIN, server.store().revision()).await else {
        return Err("the store does not answer".to_owned());
    };
    if server.cacher.reached(revision, STORE_WITHIN).await {
        Ok(())
    } else {
        Err("the cache is behind the store".to_owned())
    }
}
