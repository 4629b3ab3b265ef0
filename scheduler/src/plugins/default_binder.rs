//! Binds through the API: a POST to the pod's `binding`.

use std::time::Duration;

use coracle_api::json::{Value, json};
use coracle_client::Client;
use futures::{FutureExt, future::BoxFuture};

use super::Handle;
use crate::{
    framework::{Bind, Plugin},
    pod_info::PodInfo,
};

const DEADLINE: Duration = Duration::from_secs(30);

pub struct DefaultBinder {
    client: Option<Client>,
}

impl DefaultBinder {
    pub fn new(handle: &Handle) -> Self {
        Self { client: handle.client.clone() }
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn bind(&self) -> Option<&dyn Bind> {
        Some(self)
    }
}

impl Bind for DefaultBinder {
    fn bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let client = self.client.as_ref().ok_or("there is no API server to bind through")?;
            let (namespace, name) = (pod.key.namespace(), pod.key.name());
            let body = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {"namespace": namespace, "name": name, "uid": pod.uid.as_ref()},
                "target": {"kind": "Node", "name": node},
            });
            let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body.to_string().into_bytes())
                .map_err(|error| error.to_string())?;
            match tokio::time::timeout(DEADLINE, client.request::<Value>(request)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(kube::Error::Api(status))) => Err(status.message),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} seconds", DEADLINE.as_secs())),
            }
        }
        .boxed()
    }
}
