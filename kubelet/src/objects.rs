//! ConfigMaps, Secrets and tokens that pods refer to, read from the API.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::pod::env::{Objects, Reference};
use crate::pod::{self};
use crate::volumes::Tokens;

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a request with a deadline.
pub async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API server did not answer in time".into()),
    }
}

/// Fetches what is referred to. What does not exist comes back as `None`; other failures are errors.
pub async fn fetch(client: &Client, namespace: &str, references: &[Reference]) -> Result<Objects, String> {
    enum Found {
        ConfigMap(String, Option<ConfigMap>),
        Secret(String, Option<Secret>),
    }
    let requests = references.iter().map(|reference| async move {
        match reference {
            Reference::ConfigMap(name) => {
                let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
                within(api.get_opt(name)).await.map(|found| Found::ConfigMap(name.clone(), found))
            }
            Reference::Secret(name) => {
                let api = Api::<Secret>::namespaced(client.clone(), namespace);
                within(api.get_opt(name)).await.map(|found| Found::Secret(name.clone(), found))
            }
        }
    });
    let mut objects = Objects::default();
    for found in join_all(requests).await {
        match found? {
            Found::ConfigMap(name, found) => drop(objects.config_maps.insert(name, found)),
            Found::Secret(name, found) => drop(objects.secrets.insert(name, found)),
        }
    }
    Ok(objects)
}

/// Asks for tokens of the pod's service account, bound to the pod: they die with it.
pub async fn tokens(client: &Client, pod: &Pod, wanted: &[(String, i64)]) -> Result<Tokens, String> {
    let spec = pod::spec(pod);
    let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let api = Api::<ServiceAccount>::namespaced(client.clone(), pod::namespace(pod));
    let mut tokens = Tokens::new();
    for (audience, lifetime) in wanted {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience.clone()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod::name(pod).into()),
                    uid: Some(pod::uid(pod).into()),
                }),
                expiration_seconds: Some(*lifetime),
            }),
            ..TokenRequest::default()
        };
        let made = within(api.create_token_request(account, &PostParams::default(), &request)).await?;
        let token = made.status.and_then(|status| status.token).ok_or("the API server made no token")?;
        tokens.insert((audience.clone(), *lifetime), token);
    }
    Ok(tokens)
}
