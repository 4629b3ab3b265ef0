//! Images: whether to pull, with whose credentials, and what is told about it (kubernetes `pkg/kubelet/images`).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_client::EventType;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde::Deserialize;

use crate::cri::Cri;
use crate::objects;
use crate::pod::env::Reference;
use crate::pod::security::ImageUser;
use crate::pod::{self};
use crate::work::{Shared, Trouble};

/// An image that is on the node.
#[derive(Debug, Clone)]
pub struct Ready {
    /// What containers are made of: its id.
    pub id: String,
    pub user: ImageUser,
}

/// The image's name with its tag: `latest` when none is given.
pub fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') || image.is_empty() {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// `Always`, `IfNotPresent` or `Never`.
fn policy<'c>(container: &'c Container, image: &str) -> &'c str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if image.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// Makes sure that the container's image is on the node. Tells events about it.
///
/// # Errors
/// `ErrImagePull`, `ErrImageNeverPull`, `ImageInspectError`, `InvalidImageName`.
pub async fn ensure(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    sandbox: &cri::PodSandboxConfig,
) -> Result<Ready, Trouble> {
    let image = with_tag(container.image.as_deref().unwrap_or_default());
    let tell = |kind, reason: &str, message: &str| shared.tell(pod, Some(&container.name), kind, reason, message);
    let invalid = image.is_empty() || image.contains(char::is_whitespace) || image.chars().any(char::is_control);
    if invalid {
        let message = format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
        );
        tell(EventType::Warning, "InspectFailed", &message);
        return Err(Trouble::new("InvalidImageName", message));
    }
    let present = status(&shared.cri, &image).await.map_err(|error| {
        let message = format!("Failed to inspect image \"{image}\": {error}");
        tell(EventType::Warning, "InspectFailed", &message);
        Trouble::new("ImageInspectError", message)
    })?;
    match (policy(container, &image), present) {
        ("IfNotPresent" | "Never", Some(ready)) => {
            tell(EventType::Normal, "Pulled", &format!("Container image \"{image}\" already present on machine"));
            Ok(ready)
        }
        ("Never", None) => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            tell(EventType::Warning, "ErrImageNeverPull", &message);
            Err(Trouble::new("ErrImageNeverPull", message))
        }
        _ => pull(shared, pod, container, &image, sandbox).await,
    }
}

async fn status(cri: &Cri, image: &str) -> Result<Option<Ready>, crate::cri::Error> {
    let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
    let answer = cri.image_status(cri::ImageStatusRequest { image: Some(spec), verbose: false }).await?;
    Ok(answer.image.map(|image| {
        let uid = image.uid.map(|uid| uid.value);
        // Neither number nor name: the image runs as root.
        let uid = if uid.is_none() && image.username.is_empty() { Some(0) } else { uid };
        Ready { id: image.id, user: ImageUser { uid, name: image.username } }
    }))
}

async fn pull(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    image: &str,
    sandbox: &cri::PodSandboxConfig,
) -> Result<Ready, Trouble> {
    let tell = |kind, reason: &str, message: &str| shared.tell(pod, Some(&container.name), kind, reason, message);
    let waiting = shared.clock.monotonic();
    // The permit is dropped when the pull is over; the semaphore is never closed.
    let _permit = shared.pulls.acquire().await;
    tell(EventType::Normal, "Pulling", &format!("Pulling image \"{image}\""));
    let begun = shared.clock.monotonic();
    let failed = |error: String| {
        tell(EventType::Warning, "Failed", &format!("Failed to pull image \"{image}\": {error}"));
        tell(EventType::Warning, "Failed", "Error: ErrImagePull");
        Trouble::new("ErrImagePull", error)
    };
    let auths = credentials(shared, pod, image).await.map_err(failed)?;
    let mut last = String::new();
    for auth in auths {
        let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
        let request = cri::PullImageRequest { image: Some(spec), auth, sandbox_config: Some(sandbox.clone()) };
        match shared.cri.pull_image(request).await {
            Ok(_) => {
                let now = shared.clock.monotonic();
                let size = size(&shared.cri, image).await;
                let (pulling, waited) = (seconds(now.saturating_sub(begun)), seconds(now.saturating_sub(waiting)));
                let message = format!(
                    "Successfully pulled image \"{image}\" in {pulling} ({waited} including waiting). Image size: {size} bytes."
                );
                tell(EventType::Normal, "Pulled", &message);
                let found = status(&shared.cri, image).await.map_err(|error| failed(error.to_string()))?;
                return found.ok_or_else(|| failed("the image is not there after its pull".into()));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(failed(last))
}

async fn size(cri: &Cri, image: &str) -> u64 {
    let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
    let answer = cri.image_status(cri::ImageStatusRequest { image: Some(spec), verbose: false }).await;
    answer.ok().and_then(|answer| answer.image).map_or(0, |image| image.size)
}

/// A duration as Go writes it, with milliseconds.
fn seconds(duration: std::time::Duration) -> String {
    if duration.as_secs() == 0 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}

/// The credentials to try, in order; at last none.
async fn credentials(shared: &Shared, pod: &Pod, image: &str) -> Result<Vec<Option<cri::AuthConfig>>, String> {
    let spec = pod::spec(pod);
    let names = spec.image_pull_secrets.iter().flatten().map(|secret| Reference::Secret(secret.name.clone()));
    let references: Vec<_> = names.collect();
    let mut auths = Vec::new();
    if !references.is_empty() {
        let objects = objects::fetch(&shared.client, pod::namespace(pod), &references).await?;
        // A secret that is not there is passed over: the image may not need it.
        for secret in objects.secrets.values().flatten() {
            auths.extend(of_secret(secret, image).into_iter().map(Some));
        }
    }
    auths.push(None);
    Ok(auths)
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// The registry of an image, as credentials name it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The credentials in a secret that fit the image's registry.
fn of_secret(secret: &Secret, image: &str) -> Vec<cri::AuthConfig> {
    let data = secret.data.as_ref();
    let config = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data
            .and_then(|data| data.get(".dockerconfigjson"))
            .and_then(|bytes| serde_json::from_slice::<DockerConfig>(&bytes.0).ok()),
        Some("kubernetes.io/dockercfg") => data
            .and_then(|data| data.get(".dockercfg"))
            .and_then(|bytes| serde_json::from_slice(&bytes.0).ok())
            .map(|auths| DockerConfig { auths }),
        _ => None,
    };
    let fits = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        let host = if host == "index.docker.io" || host == "registry-1.docker.io" { "docker.io" } else { host };
        let below = path.is_empty() || path == "v1/" || path == "v2/" || image.starts_with(&format!("{host}/{path}"));
        host == registry(image) && below
    };
    let auths = config.map(|config| config.auths).unwrap_or_default();
    auths.into_iter().filter(|(key, _)| fits(key)).map(|(key, auth)| auth_config(key, auth)).collect()
}

fn auth_config(server: String, auth: DockerAuth) -> cri::AuthConfig {
    let decoded = STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) = match pair {
        Some((username, password)) if auth.username.is_empty() => {
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        _ => (auth.username, auth.password),
    };
    cri::AuthConfig {
        username,
        password,
        server_address: server,
        identity_token: auth.identitytoken,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tags_and_policies() {
        assert_eq!(with_tag("nginx"), "nginx:latest");
        assert_eq!(with_tag("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(with_tag("a:v1"), "a:v1");
        assert_eq!(with_tag("a@sha256:x"), "a@sha256:x");
        let container = Container::default();
        assert_eq!((policy(&container, "a:latest"), policy(&container, "a:v1")), ("Always", "IfNotPresent"));
    }

    #[test]
    fn credentials_fit_their_registry() {
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "reg.example:5000": {"username": "a", "password": "b"}, "reg.example/team": {"username": "t"}}});
        let secret: Secret = serde_json::from_value(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": STANDARD.encode(config.to_string())}})).unwrap();
        let of = |image: &str| {
            of_secret(&secret, image).into_iter().map(|auth| (auth.username, auth.password)).collect::<Vec<_>>()
        };
        assert_eq!(of("nginx:1"), [("u".into(), "p".into())]);
        assert_eq!(of("reg.example:5000/x:1"), [("a".into(), "b".into())]);
        assert_eq!(of("reg.example/team/x:1").len(), 1);
        assert!(of("reg.example/other:1").is_empty() && of("quay.io/x").is_empty());
    }
}
