//! Sends actions to the API server.

use std::time::Duration;

use coracle_api::json::{Value, json};
use http::{Method, Request, header::CONTENT_TYPE};
use kube::{Client, core::Status};
use thiserror::Error;

use crate::{
    action::{Action, Verb},
    recorder::{EventType, Recorder},
};

/// No request of a controller is answered later than this (the server's own limit is 60 s).
const DEADLINE: Duration = Duration::from_secs(65);

/// Why an action was not done.
#[derive(Debug, Error)]
pub enum ActionError {
    /// The server refused it.
    #[error("{}", .0.message)]
    Refused(Box<Status>),
    /// There was no answer that could be understood.
    #[error("{0}")]
    Transport(#[source] Box<kube::Error>),
    /// There was no answer in time.
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Deadline,
    /// The action itself makes no request.
    #[error("request: {0}")]
    Request(#[from] http::Error),
}

impl ActionError {
    /// The HTTP code, 0 where there was no answer.
    pub fn code(&self) -> u16 {
        match self {
            Self::Refused(status) => status.code,
            _ => 0,
        }
    }

    /// The snapshot was older than the object: plan again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == 409 && status.reason == "Conflict")
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// The namespace is being deleted, so nothing is to be made in it any more.
    pub fn is_namespace_terminating(&self) -> bool {
        let Self::Refused(status) = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

/// What the server answered: the object as it is now, or a Status for a deletion.
pub type Outcome = Result<Value, ActionError>;

/// Sends actions with a client, and records the events that they announce.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    recorder: Recorder,
}

impl Executor {
    /// An executor that acts as `client` and records as `recorder`.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    /// The recorder it announces with.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Sends one action and announces its outcome.
    pub async fn execute(&self, action: &Action) -> Outcome {
        let outcome = excuse(action, self.send(action).await);
        tracing::debug!(
            action = action.describe(),
            failed = outcome.as_ref().err().map(tracing::field::display),
            "action"
        );
        if let Some(announcement) = &action.announce {
            match (&outcome, &announcement.success, &announcement.failure) {
                (Ok(object), Some((reason, message)), _) => {
                    let name = coracle_api::meta::name(object);
                    self.recorder.record(
                        &announcement.about,
                        EventType::Normal,
                        reason,
                        &message.replace("{name}", name),
                    );
                }
                (Err(error), _, Some((reason, message)))
                    if !error.is_conflict() && !error.is_namespace_terminating() =>
                {
                    let message = message.replace("{error}", &error.to_string());
                    self.recorder.record(&announcement.about, EventType::Warning, reason, &message);
                }
                _ => {}
            }
        }
        outcome
    }

    async fn send(&self, action: &Action) -> Outcome {
        let request = request(action)?;
        match tokio::time::timeout(DEADLINE, self.client.request::<Value>(request)).await {
            Err(_) => Err(ActionError::Deadline),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) => Err(ActionError::Refused(status)),
            Ok(Err(error)) => Err(ActionError::Transport(Box::new(error))),
        }
    }
}

fn excuse(action: &Action, outcome: Outcome) -> Outcome {
    let Err(error) = &outcome else { return outcome };
    let excused = match &action.verb {
        Verb::Delete { .. } | Verb::DeleteCollection => error.is_not_found(),
        Verb::Create(_) => action.lenient && error.code() == 409,
        Verb::Update { .. } | Verb::Patch { .. } | Verb::CreateSubresource { .. } => {
            action.lenient && error.is_not_found()
        }
        Verb::Probe | Verb::List => false,
    };
    if excused { Ok(Value::Null) } else { outcome }
}

fn request(action: &Action) -> Result<Request<Vec<u8>>, http::Error> {
    let collection = action.resource.path(&action.namespace);
    let object = |subresource: Option<&str>| match subresource {
        Some(subresource) => format!("{collection}/{}/{subresource}", action.name),
        None => format!("{collection}/{}", action.name),
    };
    let (method, path, content_type, body) = match &action.verb {
        Verb::Create(body) => (Method::POST, collection, JSON, encode(body)),
        Verb::Update { body, subresource } => (Method::PUT, object(*subresource), JSON, encode(body)),
        Verb::Patch { kind, body, subresource } => {
            (Method::PATCH, object(*subresource), kind.content_type(), encode(body))
        }
        Verb::Delete { .. } => (Method::DELETE, object(None), JSON, encode(&delete_options(&action.verb))),
        // What a kind does of itself, as freeing the pods of a Job, is nothing to wait for where all goes
        // (pkg/controller/namespace deletion `deleteCollection`).
        Verb::DeleteCollection => {
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
            (Method::DELETE, collection, JSON, encode(&options))
        }
        Verb::CreateSubresource { subresource, body } => (Method::POST, object(Some(subresource)), JSON, encode(body)),
        // Without a name: whether there is any.
        Verb::Probe if action.name.is_empty() => (Method::GET, format!("{collection}?limit=1"), JSON, Vec::new()),
        Verb::Probe => (Method::GET, object(None), JSON, Vec::new()),
        Verb::List => (Method::GET, collection, JSON, Vec::new()),
    };
    Request::builder().method(method).uri(path).header(CONTENT_TYPE, content_type).body(body)
}

const JSON: &str = "application/json";

fn encode(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

fn delete_options(verb: &Verb) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Verb::Delete { uid, version, propagation, grace } = verb {
        if uid.is_some() || version.is_some() {
            let mut preconditions = json!({});
            if let Some(uid) = uid {
                preconditions["uid"] = uid.as_str().into();
            }
            if let Some(version) = version {
                preconditions["resourceVersion"] = version.as_str().into();
            }
            options["preconditions"] = preconditions;
        }
        if let Some(propagation) = propagation {
            options["propagationPolicy"] = propagation.as_str().into();
        }
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = (*grace).into();
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, ResourceId, action::Propagation};
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Node};

    #[test]
    fn requests_carry_preconditions() {
        let verb = Verb::Delete {
            uid: Some("u1".into()),
            version: Some("7".into()),
            propagation: Some(Propagation::Foreground),
            grace: Some(0),
        };
        let action = Action::at(ResourceId::of::<ReplicaSet>(), &Key::new("d", "web"), verb);
        let request = request(&action).unwrap();
        assert_eq!(
            (request.method(), request.uri().path()),
            (&Method::DELETE, "/apis/apps/v1/namespaces/d/replicasets/web")
        );
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let expected = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "preconditions": {"uid": "u1", "resourceVersion": "7"}, "propagationPolicy": "Foreground"});
        assert_eq!(body, expected);
    }

    #[test]
    fn cluster_scoped_and_subresources() {
        let verb = Verb::Update { body: json!({}), subresource: Some("status") };
        let request = request(&Action::at(ResourceId::of::<Node>(), &Key::cluster("n1"), verb)).unwrap();
        assert_eq!((request.method(), request.uri().path()), (&Method::PUT, "/api/v1/nodes/n1/status"));
    }
}
