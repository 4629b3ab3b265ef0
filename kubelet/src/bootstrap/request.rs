//! Certificates through `certificates.k8s.io/v1`.

use std::net::IpAddr;
use std::time::Duration;

use coracle_pki::{Identity, Subject};
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::{Error, failed};
use crate::objects::within;

/// How long a signature may take: someone may have to approve it by hand (upstream waits 15 minutes).
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A certificate that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    signer: &'static str,
    usage: &'static str,
    pub subject: Subject,
    pub names: Vec<String>,
}

impl Wish {
    /// The node's identity towards the API.
    pub fn client(node: &str) -> Self {
        Self {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usage: "client auth",
            subject: Subject::member(format!("system:node:{node}"), "system:nodes"),
            names: Vec::new(),
        }
    }

    /// The node's own server.
    pub fn serving(node: &str, addresses: &[IpAddr]) -> Self {
        let mut names = vec![node.to_owned()];
        names.extend(addresses.iter().map(IpAddr::to_string));
        Self { signer: "kubernetes.io/kubelet-serving", usage: "server auth", names, ..Self::client(node) }
    }

    /// Whether a certificate is good for all the names.
    pub fn names_of(&self, identity: &Identity) -> bool {
        coracle_pki::certificate_names(&identity.cert_pem)
            .is_ok_and(|have| self.names.iter().all(|name| have.contains(name)))
    }
}

/// Makes a key, asks for its certificate and waits until it is signed.
pub(super) async fn obtain(client: &Client, wish: &Wish) -> Result<Identity, Error> {
    let (csr_pem, key_pem) = coracle_pki::request(&wish.subject, &wish.names)?;
    let api = Api::<CertificateSigningRequest>::all(client.clone());
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(csr_pem.into_bytes()),
            signer_name: wish.signer.into(),
            usages: Some(vec!["digital signature".into(), wish.usage.into()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let created =
        within(api.create(&PostParams::default(), &request)).await.map_err(failed("ask for a certificate"))?;
    let name = created.metadata.name.unwrap_or_default();
    let signed = tokio::time::timeout(PATIENCE, wait(&api, &name)).await;
    let cert_pem =
        signed.unwrap_or_else(|_| Err(failed("wait for a certificate")(format!("{name} was not signed in time"))))?;
    Ok(Identity { cert_pem, key_pem })
}

async fn wait(api: &Api<CertificateSigningRequest>, name: &str) -> Result<String, Error> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = std::pin::pin!(watcher(api.clone(), config).default_backoff().applied_objects());
    while let Some(change) = changes.next().await {
        match change {
            Ok(request) => {
                if let Some(answer) = answer(&request) {
                    return answer;
                }
            }
            Err(error) => tracing::debug!(error = %error, "waiting for a certificate"),
        }
    }
    Err(failed("wait for a certificate")("the watch ended".into()))
}

/// The certificate, or the refusal, if either is there.
fn answer(request: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let status = request.status.as_ref()?;
    for condition in status.conditions.iter().flatten() {
        let verdict = match condition.type_.as_str() {
            "Denied" => "denied",
            "Failed" => "not signed",
            _ => continue,
        };
        let name = request.metadata.name.clone().unwrap_or_default();
        let message = condition.message.clone().or_else(|| condition.reason.clone()).unwrap_or_default();
        return Some(Err(Error::Refused { name, verdict, message }));
    }
    let certificate = status.certificate.as_ref()?;
    Some(String::from_utf8(certificate.0.clone()).map_err(|error| failed("read a certificate")(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn answers() {
        let of = |status: Value| {
            let request =
                json!({"metadata": {"name": "csr-1"}, "spec": {"request": "", "signerName": "x"}, "status": status});
            answer(&serde_json::from_value(request).unwrap())
        };
        assert!(
            of(json!({})).is_none() && of(json!({"conditions": [{"type": "Approved", "status": "True"}]})).is_none()
        );
        assert_eq!(of(json!({"certificate": "cGVt"})).unwrap().unwrap(), "pem");
        let denied =
            of(json!({"conditions": [{"type": "Denied", "status": "True", "message": "no"}]})).unwrap().unwrap_err();
        assert_eq!(denied.to_string(), "the certificate request csr-1 was denied: no");
    }

    #[test]
    fn the_serving_certificate_carries_the_nodes_names() {
        let wish = Wish::serving("n1", &["10.0.0.1".parse().unwrap()]);
        assert_eq!(wish.names, ["n1", "10.0.0.1"]);
        assert_eq!(wish.subject, Subject::member("system:node:n1", "system:nodes"));
    }
}
