//! Authentication: client certificates and bootstrap tokens.

use super::{AUTHENTICATED, BOOTSTRAPPERS, UserInfo};
use crate::cache::Snapshot;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::clock::parse_rfc3339;
use coracle_api::json::Value;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// What a connection or a header proves.
pub type Authenticated = Option<UserInfo>;

/// The user of a verified client certificate: the common name, the organisations as groups.
pub fn from_certificate(der: &[u8]) -> Authenticated {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    let mut user = UserInfo::new(name, &groups);
    // Which certificate it was (apiserver `authentication/request/x509`, CommonNameUserConversion).
    let print = hex::encode(Sha256::digest(der));
    user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={print}")]);
    Some(user)
}

/// The token of an `Authorization: Bearer …` header.
pub fn bearer_token(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

/// The user of a bootstrap token `id.secret`, kept in the Secret `bootstrap-token-<id>` of kube-system (KEP-130).
pub fn from_token(token: &str, secrets: &Snapshot, now: Timestamp) -> Authenticated {
    let (id, secret) = token.split_once('.')?;
    let lower = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if id.len() != 6 || secret.len() != 16 || !lower(id) || !lower(secret) {
        return None;
    }
    let object = secrets.get(&format!("kube-system/bootstrap-token-{id}"))?.parse();
    let data = |name: &str| decoded(&object, name);
    let known_secret = data("token-secret")?;
    if object.get("type").and_then(Value::as_str) != Some("bootstrap.kubernetes.io/token")
        || object["metadata"].get("deletionTimestamp").is_some()
        || data("token-id")? != id
        || !equal_in_constant_time(known_secret.as_bytes(), secret.as_bytes())
        || data("usage-bootstrap-authentication").as_deref() != Some("true")
        || data("expiration").is_some_and(|end| parse_rfc3339(&end).is_none_or(|end| end <= now))
    {
        return None;
    }
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    let extra = data("auth-extra-groups").unwrap_or_default();
    // Groups of any other name would let the holder of a token become anybody.
    groups.extend(
        extra.split(',').map(str::trim).filter(|group| group.starts_with("system:bootstrappers:")).map(str::to_owned),
    );
    groups.push(AUTHENTICATED.to_owned());
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

fn decoded(secret: &Value, name: &str) -> Option<String> {
    let value = STANDARD.decode(secret.get("data")?.get(name)?.as_str()?).ok()?;
    String::from_utf8(value).ok()
}

/// Compares without stopping at the first difference, so that the time taken tells nothing about the secret.
fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Change, Object, encode};
    use coracle_api::json::json;
    use std::sync::Arc;

    fn snapshot(data: &[(&str, &str)]) -> Snapshot {
        let data: coracle_api::json::Map =
            data.iter().map(|(k, v)| ((*k).to_owned(), json!(STANDARD.encode(v)))).collect();
        let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token", "data": data});
        let key: Arc<str> = "kube-system/bootstrap-token-abcdef".into();
        let object = Object::new(key.clone(), &encode(&secret), 1, 1, Change::Added, crate::registry::pods()).unwrap();
        let mut snapshot = Snapshot::default();
        snapshot.objects.insert(key, Arc::new(object));
        snapshot
    }

    #[test]
    fn bootstrap_tokens() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let valid = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:a,system:masters"),
        ];
        let user = from_token("abcdef.0123456789abcdef", &snapshot(&valid), now).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:a", "system:authenticated"]);
        assert_eq!(from_token("abcdef.0123456789abcdee", &snapshot(&valid), now), None);
        assert_eq!(from_token("abcdef", &snapshot(&valid), now), None);
        let ended = [&valid[..], &[("expiration", "2025-12-31T00:00:00Z")]].concat();
        assert_eq!(from_token("abcdef.0123456789abcdef", &snapshot(&ended), now), None);
        assert_eq!(from_token("abcdef.0123456789abcdef", &snapshot(&valid[..2]), now), None);
    }
}
