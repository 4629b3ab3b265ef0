//! One connection to one API server.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use bytes::Bytes;
use coracle_api::Status;
use coracle_api::json::Value;
use coracle_client::Client;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use kube::{
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::OnceCell;

use crate::{
    cli::Connection,
    discovery::Discovery,
    error::{Error, Result},
};

/// JSON, nothing else.
pub const JSON: &str = "application/json";
/// The server's own columns, or JSON where it has none.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// How long a request that is not a stream may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the server notes as the one who changed a field.
const FIELD_MANAGER: &str = "kubectl-lite";

/// A connection with what the user said about it.
pub struct Session {
    client: Client,
    server: String,
    namespace: String,
    discovery: OnceCell<Discovery>,
    warned: Mutex<HashSet<String>>,
}

impl Session {
    /// Connects as the kubeconfig and the flags say; nothing is sent yet.
    pub async fn connect(connection: &Connection) -> Result<Self> {
        coracle_client::install_crypto();
        let failed = |error: &dyn std::fmt::Display| Error::usage(error.to_string());
        let kubeconfig = match &connection.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).map_err(|error| failed(&error))?,
            None => Kubeconfig::read().map_err(|_| no_kubeconfig())?,
        };
        let options = KubeConfigOptions {
            context: connection.context.clone(),
            cluster: connection.cluster.clone(),
            user: connection.user.clone(),
        };
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| failed(&error))?;
        let mut config = config;
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = None;
        config.default_retry = false;
        let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| failed(&error))?;
        Ok(Self { client, server, namespace, discovery: OnceCell::new(), warned: Mutex::default() })
    }

    /// The namespace that is meant where none is said.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The connection, for streams.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.server.trim_end_matches('/')
    }

    /// What the server serves; asked once.
    pub async fn discovery(&self) -> Result<&Discovery> {
        self.discovery.get_or_try_init(|| Discovery::ask(self)).await
    }

    /// GET, as JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None, JSON).await
    }

    /// GET with another `Accept`.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Value> {
        self.call(Method::GET, path, None, accept).await
    }

    /// POST.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.call(Method::POST, &managed(path), Some((JSON, encode(object)?)), JSON).await
    }

    /// PATCH; `media_type` says which.
    pub async fn patch(&self, path: &str, media_type: &str, patch: &Value) -> Result<Value> {
        self.call(Method::PATCH, &managed(path), Some((media_type, encode(patch)?)), JSON).await
    }

    /// A server-side apply.
    pub async fn apply(&self, path: &str, object: &Value, manager: &str, force: bool) -> Result<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let manager: String = form_urlencode(manager);
        let path = format!("{path}{separator}fieldManager={manager}&fieldValidation=Strict&force={force}");
        self.call(Method::PATCH, &path, Some(("application/apply-patch+yaml", encode(object)?)), JSON).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value> {
        self.call(Method::DELETE, path, Some((JSON, encode(options)?)), JSON).await
    }

    /// GET whose answer comes piece by piece.
    pub async fn stream(&self, path: &str, accept: &str) -> Result<Body> {
        let response = self.send(Method::GET, path, None, accept).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let code = response.status().as_u16();
        Err(refused(code, &self.body(response).await?).into())
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, Vec<u8>)>, accept: &str) -> Result<Value> {
        let answer = async {
            let response = self.send(method, path, body, accept).await?;
            let status = response.status();
            let body = self.body(response).await?;
            if !status.is_success() {
                return Err(refused(status.as_u16(), &body).into());
            }
            let mut answer = serde_json::from_slice(&body)
                .map_err(|error| Error::usage(format!("the server's answer is not JSON: {error}")))?;
            name_items(&mut answer);
            Ok(answer)
        };
        let timed = tokio::time::timeout(PATIENCE, answer).await;
        timed.map_err(|_| {
            Error::Unreachable(format!("Unable to connect to the server: no answer within {PATIENCE:?}"))
        })?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
        accept: &str,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        request = request.header(header::USER_AGENT, concat!("kubectl-lite/", env!("CARGO_PKG_VERSION")));
        let bytes = match body {
            Some((media_type, bytes)) => {
                request = request.header(header::CONTENT_TYPE, media_type);
                bytes
            }
            None => Vec::new(),
        };
        let request = request.body(Body::from(bytes)).map_err(|error| Error::usage(format!("{path}: {error}")))?;
        let response = self.client.send(request).await.map_err(|error| self.unreachable(&error))?;
        self.show_warnings(&response);
        Ok(response)
    }

    async fn body(&self, response: Response<Body>) -> Result<Bytes> {
        let collected = response.into_body().collect().await.map_err(|error| self.unreachable(&error))?;
        Ok(collected.to_bytes())
    }

    /// Prints the server's warnings (RFC 7234, section 5.5: `299 - "text"`), each once.
    fn show_warnings(&self, response: &Response<Body>) {
        for warning in response.headers().get_all(header::WARNING) {
            let Some(text) = warning.to_str().ok().and_then(|text| text.split_once('"')) else { continue };
            let text = text.1.rsplit_once('"').map_or(text.1, |(text, _)| text).replace("\\\"", "\"");
            let Ok(mut warned) = self.warned.lock() else { continue };
            if warned.insert(text.clone()) {
                eprintln!("Warning: {text}");
            }
        }
    }

    fn unreachable(&self, error: &(impl std::error::Error + 'static)) -> Error {
        let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
        let refused = causes.any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        let host = self.server().trim_start_matches("https://").trim_start_matches("http://");
        if refused {
            return Error::Unreachable(format!(
                "The connection to the server {host} was refused - did you specify the right host or port?"
            ));
        }
        let last = std::iter::successors(Some(error as &dyn std::error::Error), |cause| (*cause).source()).last();
        Error::Unreachable(format!(
            "Unable to connect to the server: {}",
            last.map(ToString::to_string).unwrap_or_default()
        ))
    }
}

fn no_kubeconfig() -> Error {
    Error::usage(
        "there is no kubeconfig: set KUBECONFIG or pass --kubeconfig\n\
         A lab prints its own with: coracle lab kubeconfig",
    )
}

fn managed(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}fieldManager={FIELD_MANAGER}&fieldValidation=Strict")
}

/// For a query: everything but unreserved characters is escaped (RFC 3986, 2.3).
fn form_urlencode(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Says of a list's items what they are, where the list's kind alone does (apimachinery `unstructuredJSONScheme`,
/// `decodeToList`).
fn name_items(answer: &mut Value) {
    let Some(kind) = answer["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).map(str::to_owned) else {
        return;
    };
    let version = answer["apiVersion"].clone();
    for item in answer.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(item) = item.as_object_mut().filter(|item| !item.contains_key("kind") && !kind.is_empty()) else {
            continue;
        };
        let rest = std::mem::take(item);
        item.insert("apiVersion".to_owned(), version.clone());
        item.insert("kind".to_owned(), kind.clone().into());
        item.extend(rest);
    }
}

fn encode(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

fn refused(code: u16, body: &[u8]) -> Status {
    let text = String::from_utf8_lossy(body);
    serde_json::from_slice::<Status>(body).unwrap_or_else(|_| {
        Status::new(code, coracle_api::Reason::InternalError, format!("the server answered {code}: {}", text.trim()))
    })
}
