//! `POST /images/create`: pulls, as dockerd tells them.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{
    Docker,
    http::{Answer, Call, Problem, line, stream},
    images::{credentials, pull_step},
};
use crate::{
    digest::Digest,
    error::Kind,
    images::{
        events::Event,
        manifest::{NO_SCHEMA_1, Platform},
        pull::PullOptions,
        reference::{Reference, is_name_only},
        registry::Credentials,
    },
};

/// Who hears whether there is something to pull: what fails before that is an answer with a status.
type Begun = oneshot::Sender<Result<(), Problem>>;

/// A pull, or an import.
pub async fn create(call: Call) -> Answer {
    let source = call.query.text("fromSrc").to_owned();
    if !source.is_empty() {
        return super::archives::import(call, &source).await;
    }
    // The CLI's `pull -a` may leave a colon.
    let name = call.query.text("fromImage").trim_end_matches(':');
    let tag = call.query.text("tag");
    let mut reference: Reference = name.parse().map_err(|_| Problem::bad("invalid reference format"))?;
    if !tag.is_empty() {
        // Whatever the name had of them.
        let separator = if tag.contains(':') { '@' } else { ':' };
        let whole = format!("{}{separator}{tag}", reference.name());
        reference = whole.parse().map_err(|_| Problem::bad("invalid reference format"))?;
    }
    let puller = Puller {
        platform: super::archives::platform(call.query.text("platform"))?,
        credentials: credentials(&call),
        docker: call.docker.clone(),
    };
    let all = tag.is_empty() && is_name_only(name);
    let (sender, receiver) = mpsc::channel::<Bytes>(1024);
    let (begun, beginning) = oneshot::channel();
    tokio::spawn(async move {
        let gone = sender.clone();
        tokio::select! {
            () = puller.pull(reference, all, sender, begun) => {}
            // Nobody waits for it any more, as when `docker pull` is interrupted.
            () = gone.closed() => {}
        }
    });
    beginning.await.map_err(|_| Problem::internal("the pull ended early"))??;
    Ok(stream("application/json", receiver))
}

struct Puller {
    docker: Arc<Docker>,
    platform: Option<Platform>,
    credentials: Credentials,
}

impl Puller {
    /// Pulls a name, or every tag of its repository.
    async fn pull(&self, reference: Reference, all: bool, sender: mpsc::Sender<Bytes>, begun: Begun) {
        let mut begun = Some(begun);
        let references = if all {
            match self.docker.engine.images().tags_in_registry(&reference, self.credentials.clone()).await {
                Ok(tags) => tags.into_iter().map(|tag| Reference { tag: Some(tag), ..reference.clone() }).collect(),
                Err(error) => return tell(&mut begun, &sender, pull_problem(&reference, &error)).await,
            }
        } else {
            vec![reference]
        };
        let mut pulled = false;
        for reference in references {
            // What the registry lists is not ours: it must be a name like any other.
            let begin = Arc::new(Mutex::new(begun.take()));
            let result = match reference.to_string().parse::<Reference>() {
                Ok(reference) => self.pull_one(&reference, &sender, begin.clone()).await,
                Err(error) => Err(error.into()),
            };
            begun = begin.lock().take();
            if let Err(problem) = result {
                return tell(&mut begun, &sender, problem).await;
            }
            pulled = true;
        }
        if !pulled {
            tell(&mut begun, &sender, Problem::not_found("the repository has no tags")).await;
        }
    }

    async fn pull_one(
        &self,
        reference: &Reference,
        sender: &mpsc::Sender<Bytes>,
        begun: Arc<Mutex<Option<Begun>>>,
    ) -> Result<(), Problem> {
        let images = self.docker.engine.images();
        let (name, shown) = (reference.to_string(), reference.familiar());
        let before = images.find(&name).map(|image| image.id.clone());
        let resolved: Arc<Mutex<Option<Digest>>> = Arc::default();
        let options = PullOptions {
            credentials: self.credentials.clone(),
            platform: self.platform.clone(),
            events: Some(Arc::new(sink(reference, sender.clone(), resolved.clone(), begun))),
        };
        let image = images.pull_with(&name, options).await.map_err(|error| pull_problem(reference, &error))?;
        let digest = resolved.lock().take();
        if let Some(digest) = digest {
            let _ = sender.send(line(&json!({ "status": format!("Digest: {digest}") }))).await;
        }
        let word = if before.as_ref() == Some(&image.id) { "Image is up to date" } else { "Downloaded newer image" };
        self.docker.tell_image(&shown, "pull", &shown);
        let _ = sender.send(line(&json!({ "status": format!("Status: {word} for {shown}") }))).await;
        Ok(())
    }
}

/// Says how a pull goes on. A slow reader misses progress, never the end; one that is gone misses all.
fn sink(
    reference: &Reference,
    sender: mpsc::Sender<Bytes>,
    resolved: Arc<Mutex<Option<Digest>>>,
    begun: Arc<Mutex<Option<Begun>>>,
) -> impl Fn(Event) + Send + Sync + 'static {
    let label = reference.tag.clone().or_else(|| reference.digest.as_ref().map(Digest::to_string)).unwrap_or_default();
    let repository = reference.name();
    let repository = repository.strip_prefix("docker.io/").unwrap_or(&repository).to_owned();
    let say = move |value: Value| drop(sender.try_send(line(&value)));
    move |event| match event {
        Event::Resolved { digest } => {
            say(json!({ "status": format!("Pulling from {repository}"), "id": label }));
            *resolved.lock() = Some(digest);
            if let Some(begun) = begun.lock().take() {
                // Whoever waited may be gone.
                let _ = begun.send(Ok(()));
            }
        }
        Event::Layer { digest, step } => {
            if let Some(value) = pull_step(&digest, &step) {
                say(value);
            }
        }
    }
}

/// A failure as the answer, or, where that has begun, as its last line.
async fn tell(begun: &mut Option<Begun>, sender: &mpsc::Sender<Bytes>, problem: Problem) {
    match begun.take() {
        Some(begun) => drop(begun.send(Err(problem))),
        None => {
            let last = json!({ "errorDetail": { "message": problem.message }, "error": problem.message });
            let _ = sender.send(line(&last)).await;
        }
    }
}

/// Why a pull failed, in dockerd's words where it has some (moby's `distribution/errors.go`).
pub fn pull_problem(reference: &Reference, error: &crate::Error) -> Problem {
    const SAID: &str = "server message: ";
    let text = error.to_string();
    match error.kind() {
        Kind::NotFound if text.contains("platform") || text.contains("manifest list entries") => {
            Problem::not_found(text)
        }
        Kind::NotFound => Problem::not_found(format!(
            "manifest for {} not found: manifest unknown: manifest unknown",
            reference.familiar()
        )),
        Kind::PermissionDenied if text.contains("failed to authorize") => Problem::new(StatusCode::UNAUTHORIZED, text),
        Kind::PermissionDenied => {
            let name = Reference { tag: None, digest: None, ..reference.clone() }.familiar();
            let words =
                text.split_once(SAID).map(|(_, words)| words).filter(|words| !words.starts_with("insufficient"));
            Problem::not_found(format!(
                "pull access denied for {name}, repository does not exist or may require 'docker login': {}",
                words.unwrap_or("denied: requested access to the resource is denied")
            ))
        }
        Kind::InvalidArgument if text.contains(NO_SCHEMA_1) => Problem::bad(format!(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the \
             author of {reference} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More \
             information at https://docs.docker.com/go/deprecated-image-specs/"
        )),
        _ => Problem::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::manifest;

    #[test]
    fn images_of_the_first_schema_are_refused_in_dockers_words() {
        let reference: Reference = "progrium/stress".parse().unwrap();
        for (text, kind) in [
            (r#"{"schemaVersion":1}"#, ""),
            ("{}", "application/vnd.docker.distribution.manifest.v1+json"),
            ("{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ] {
            let error = manifest::parse(text.as_bytes(), kind).map(drop).unwrap_err();
            let problem = pull_problem(&reference, &error.context("failed to pull and unpack image"));
            assert_eq!(problem.status, StatusCode::BAD_REQUEST);
            assert_eq!(
                problem.message,
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest \
                 the author of docker.io/progrium/stress:latest to upgrade the image to the OCI Format or Docker Image \
                 manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/"
            );
        }
    }
}
