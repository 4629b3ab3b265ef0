//! What is asked of registries beside images: `auth` and `distribution`.

use serde::Deserialize;
use serde_json::json;

use super::{
    http::{Answer, Call, Problem, ok},
    images::credentials,
    pulls::pull_problem,
};
use crate::images::{
    manifest::{self, Document},
    reference::Reference,
    registry::Credentials,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthBody {
    username: String,
    password: String,
    serveraddress: String,
    identitytoken: String,
}

/// `POST /auth`: whether a registry takes these credentials.
pub async fn auth(mut call: Call) -> Answer {
    let body: AuthBody = call.json().await?;
    let address = body.serveraddress.trim_start_matches("https://").trim_start_matches("http://");
    let host = address.split('/').next().unwrap_or_default();
    let host = if host.is_empty() || host == "index.docker.io" { "docker.io" } else { host };
    let credentials = if body.identitytoken.is_empty() {
        Credentials::Basic { username: body.username, password: body.password }
    } else {
        Credentials::Refresh(body.identitytoken)
    };
    let token =
        call.docker.engine.images().check_login(host, credentials).await.map_err(|error| match error.kind() {
            crate::Kind::PermissionDenied => Problem::new(
                http::StatusCode::UNAUTHORIZED,
                format!("login attempt to https://{host}/v2/ failed with status: 401 Unauthorized: {error}"),
            ),
            _ => Problem::internal(format!("Get \"https://{host}/v2/\": {error}")),
        })?;
    ok(&json!({ "Status": "Login Succeeded", "IdentityToken": token.unwrap_or_default() }))
}

/// `GET /distribution/{name}/json`: what a name stands for in its registry.
pub async fn distribution(call: Call) -> Answer {
    let reference: Reference =
        call.name().parse().map_err(|_| Problem::bad(format!("invalid reference format: {}", call.name())))?;
    let credentials = credentials(&call);
    let served = call.docker.engine.images().manifest_in_registry(&reference, credentials).await?;
    let size = served.bytes.len();
    let platforms = match manifest::parse(&served.bytes, &served.media_type)
        .map_err(|error| pull_problem(&reference, &error))?
    {
        Document::Index(index) => index.manifests.iter().filter_map(|entry| entry.platform.clone()).collect::<Vec<_>>(),
        Document::Manifest(_) => Vec::new(),
    };
    ok(&json!({
        "Descriptor": { "mediaType": served.media_type, "digest": served.digest, "size": size },
        "Platforms": platforms,
    }))
}
