//! Bound service account tokens: JSON Web Tokens that the server signs itself (KEP-1205; serviceaccount `claims.go`).
//!
//! A token is good while its time lasts, and while the service account, and the pod it was bound to, are there.

use super::{AUTHENTICATED, UserInfo, authenticate as other};
use crate::cache::Snapshot;
use crate::server::Server;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_api::clock::parse_rfc3339;
use coracle_api::json::{Value, json};
use coracle_api::{Status, meta};
use jiff::Timestamp;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

/// Who issues the tokens, and who they are for when a request does not say (kubeadm's `--service-account-issuer`).
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How far clocks may be apart.
const LEEWAY: i64 = 10;

/// How long what is going still counts as there, in seconds (serviceaccount `claims.go`, by `jwt.DefaultLeeway`).
const GOING: i64 = 60;

/// Longest token that is looked at.
const MAX: usize = 16 << 10;

/// Signs tokens and checks them.
pub struct Signer {
    key: EcdsaKeyPair,
    id: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Signer {
    /// From a P-256 key in PKCS #8, or with a new one that lasts as long as the process.
    ///
    /// # Errors
    /// When the PEM holds no such key.
    pub fn new(key_pem: Option<&str>) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("the key of service accounts: {error}");
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = match key_pem {
            Some(pem) => {
                let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(&error))?;
                EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der()).map_err(|error| wrong(&error))?
            }
            None => EcdsaKeyPair::generate(algorithm).map_err(|error| wrong(&error))?,
        };
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Self { key, id })
    }

    /// A token of these claims.
    ///
    /// # Errors
    /// 500 when the random source fails.
    pub fn sign(&self, claims: &Value) -> Result<String, Status> {
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", text(&header), text(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(Status::internal)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this signer made and whose time has not passed.
    pub fn verify(&self, token: &str, now: Timestamp) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= MAX)?;
        let (header, claims) = signed.split_once('.')?;
        let decoded = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let header = decoded(header)?;
        // Only the one algorithm: what a token says of itself decides nothing.
        if header["alg"] != "ES256" || header["kid"] != self.id.as_str() {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let claims = decoded(claims)?;
        let time = |name: &str| claims.get(name).and_then(Value::as_i64);
        let now = now.as_second();
        let lasts = claims["iss"] == ISSUER && time("exp")? > now && time("nbf")? <= now + LEEWAY;
        lasts.then_some(claims)
    }

    /// The public key as a JSON Web Key Set (`/openid/v1/jwks`).
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 4, then the two coordinates.
        let point = self.key.public_key().as_ref();
        let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1..33), "y": coordinate(33..65)}]})
    }
}

/// `/.well-known/openid-configuration`
pub fn configuration() -> Value {
    json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]})
}

/// Whose token it is, and for which of the audiences it is good; the API's own when none are given.
///
/// # Errors
/// 404 when the server has no cache of what tokens are bound to.
pub fn authenticate(
    server: &Server,
    token: &str,
    audiences: &[String],
) -> Result<Option<(UserInfo, Vec<String>)>, Status> {
    let own = [ISSUER.to_owned()];
    let audiences = if audiences.is_empty() { &own } else { audiences };
    let now = server.config.clock.now();
    if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        let secrets = server.cache_of("", "secrets")?.snapshot();
        let user = other::from_token(token, &secrets, now);
        return Ok(user.filter(|_| audiences.contains(&own[0])).map(|user| (user, own.to_vec())));
    }
    let Some(claims) = server.signer.verify(token, now) else { return Ok(None) };
    let meant: Vec<String> = match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        list => list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    let good: Vec<String> = audiences.iter().filter(|audience| meant.contains(audience)).cloned().collect();
    if good.is_empty() {
        return Ok(None);
    }
    Ok(bound(server, &claims, now)?.map(|user| (user, good)))
}

/// The service account of the claims, if it and what the token is bound to are there.
fn bound(server: &Server, claims: &Value, now: Timestamp) -> Result<Option<UserInfo>, Status> {
    let own = &claims["kubernetes.io"];
    let text = |pointer: &str| own.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name, uid) = (text("/namespace"), text("/serviceaccount/name"), text("/serviceaccount/uid"));
    let accounts = server.cache_of("", "serviceaccounts")?.snapshot();
    if !lives(&accounts, &format!("{namespace}/{name}"), uid, now) {
        return Ok(None);
    }
    for (kind, plural) in [("pod", "pods"), ("secret", "secrets"), ("node", "nodes")] {
        let (name, uid) = (text(&format!("/{kind}/name")), text(&format!("/{kind}/uid")));
        // A pod's token tells its node, but lasts as long as the pod.
        if kind == "node" && !text("/pod/name").is_empty() {
            continue;
        }
        let key = if kind == "node" { name.to_owned() } else { format!("{namespace}/{name}") };
        if !name.is_empty() && !lives(&server.cache_of("", plural)?.snapshot(), &key, uid, now) {
            return Ok(None);
        }
    }
    let mut user = UserInfo::new(
        format!("system:serviceaccount:{namespace}:{name}"),
        &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), AUTHENTICATED],
    );
    uid.clone_into(&mut user.uid);
    for (kind, field) in [("pod", "name"), ("pod", "uid"), ("node", "name"), ("node", "uid")] {
        let value = text(&format!("/{kind}/{field}"));
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{kind}-{field}"), vec![value.to_owned()]);
        }
    }
    if let Some(id) = claims.get("jti").and_then(Value::as_str) {
        user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
    }
    Ok(Some(user))
}

fn lives(snapshot: &Snapshot, key: &str, uid: &str, now: Timestamp) -> bool {
    snapshot.get(key).is_some_and(|object| {
        let object = object.parse();
        let gone = meta::deletion_timestamp(&object).and_then(parse_rfc3339);
        meta::uid(&object) == uid && gone.is_none_or(|gone| now.as_second().saturating_sub(gone.as_second()) <= GOING)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_good_until_their_time_has_passed() {
        let signer = Signer::new(None).unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let claims = json!({"iss": ISSUER, "exp": now.as_second() + 60, "nbf": now.as_second(), "sub": "x"});
        let token = signer.sign(&claims).unwrap();
        assert_eq!(signer.verify(&token, now), Some(claims));
        assert_eq!(signer.verify(&token, now + jiff::SignedDuration::from_secs(61)), None);
        assert_eq!(signer.verify(&token, now - jiff::SignedDuration::from_secs(61)), None);
        assert_eq!(Signer::new(None).unwrap().verify(&token, now), None, "another's key");
        let (head, rest) = token.split_once('.').unwrap();
        let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": signer.id}).to_string());
        assert_eq!(signer.verify(&format!("{none}.{rest}"), now), None);
        let (body, signature) = rest.split_once('.').unwrap();
        let other = URL_SAFE_NO_PAD.encode(json!({"iss": ISSUER, "exp": i64::MAX, "nbf": 0}).to_string());
        assert_eq!(signer.verify(&format!("{head}.{other}.{signature}"), now), None);
        assert_eq!(signer.verify(&format!("{head}.{body}."), now), None);
        assert_eq!(signer.key_set()["keys"][0]["x"].as_str().map(str::len), Some(43));
    }
}
