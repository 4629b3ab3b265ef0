//! Who asks: what callers give, and what a Docker configuration file holds.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Who pulls or pushes.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A token for the registry itself.
    Bearer(String),
    /// A refresh token for its token server.
    Refresh(String),
}

/// Secrets are not for logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::Anonymous => "Anonymous",
            Credentials::Basic { .. } => "Basic",
            Credentials::Bearer(_) => "Bearer",
            Credentials::Refresh(_) => "Refresh",
        })
    }
}

/// One entry of `auths` in a Docker configuration, or the body of `X-Registry-Auth`; by [`Entry::read`].
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Credentials {
    /// The `auth` field of a Docker configuration: base64 of `user:password`.
    pub fn from_docker_auth(auth: &str) -> Result<Credentials> {
        let malformed = || Error::invalid("malformed registry credentials");
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| malformed())?;
        let text = String::from_utf8(bytes).map_err(|_| malformed())?;
        let (username, password) = text.split_once(':').ok_or_else(malformed)?;
        Ok(Credentials::Basic { username: username.into(), password: password.trim_end_matches('\0').into() })
    }

    /// The JSON that Docker's clients send in `X-Registry-Auth`, decoded from base64 already.
    pub fn from_docker_json(json: &[u8]) -> Result<Credentials> {
        let malformed = |error| Error::invalid(format!("malformed credentials: {error}"));
        Entry::read(serde_json::from_slice(json).map_err(malformed)?).map_err(malformed)?.credentials()
    }

    /// What a Docker configuration file (`config.json`) holds for a registry, by its name (`docker.io`, `host:port`).
    /// Helper programs are not run: an entry that needs one gives nothing.
    pub fn from_docker_config(json: &[u8], registry: &str) -> Result<Credentials> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            auths: HashMap<String, Value>,
        }
        let malformed = |error| Error::invalid(format!("malformed Docker configuration: {error}"));
        let config: Config = serde_json::from_slice(json).map_err(malformed)?;
        match config.auths.into_iter().find(|(key, _)| address_host(key) == registry) {
            Some((_, entry)) => Entry::read(entry).map_err(malformed)?.credentials(),
            None => Ok(Credentials::Anonymous),
        }
    }

    /// What is shown to a token server: a refresh token in a password's place, where the server knows nothing better.
    pub(super) fn for_token(&self) -> Option<String> {
        match self {
            Credentials::Refresh(token) => Some(format!("Basic {}", STANDARD.encode(format!(":{token}")))),
            other => other.basic(),
        }
    }

    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Credentials::Basic { username, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            _ => None,
        }
    }
}

impl Entry {
    /// As Go's encoding/json reads it: names in any case (docker-py writes `Username`), and null leaves a field as it was.
    fn read(value: Value) -> serde_json::Result<Entry> {
        let fields = match value {
            Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        };
        let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
        serde_json::from_value(fields.map(|(key, value)| (key.to_lowercase(), value)).collect())
    }

    fn credentials(&self) -> Result<Credentials> {
        if !self.registrytoken.is_empty() {
            return Ok(Credentials::Bearer(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Credentials::Refresh(self.identitytoken.clone()));
        }
        if !self.username.is_empty() {
            return Ok(Credentials::Basic { username: self.username.clone(), password: self.password.clone() });
        }
        if self.auth.is_empty() { Ok(Credentials::Anonymous) } else { Credentials::from_docker_auth(&self.auth) }
    }
}

/// Keys are hosts or addresses; Docker Hub's is `https://index.docker.io/v1/`.
pub fn address_host(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match key.split('/').next().unwrap_or(key) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_credentials_are_read() {
        let basic = Credentials::Basic { username: "user".into(), password: "pa:ss".into() };
        assert_eq!(Credentials::from_docker_auth("dXNlcjpwYTpzcw==").unwrap(), basic);
        assert!(Credentials::from_docker_auth("%").is_err());
        let config = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},"r:5000":{"identitytoken":"t"}},"credsStore":"x"}"#;
        for (registry, expected) in [
            ("docker.io", basic.clone()),
            ("r:5000", Credentials::Refresh("t".into())),
            ("other", Credentials::Anonymous),
        ] {
            assert_eq!(Credentials::from_docker_config(config, registry).unwrap(), expected, "{registry}");
        }
        let sent = br#"{"username":"user","password":"pa:ss","serveraddress":"x"}"#;
        assert_eq!(Credentials::from_docker_json(sent).unwrap(), basic);
        // As docker-py sends what it has from a helper, and from a file.
        for (sent, expected) in [
            (r#"{"ServerAddress":"x","Username":"user","Password":"pa:ss"}"#, basic.clone()),
            (r#"{"IdentityToken":"t","username":null}"#, Credentials::Refresh("t".into())),
            ("null", Credentials::Anonymous),
        ] {
            assert_eq!(Credentials::from_docker_json(sent.as_bytes()).unwrap(), expected, "{sent}");
        }
        assert_eq!(format!("{basic:?}"), "Basic");
    }
}
