//! ConfigMaps and Secrets.

use super::go_json;
use crate::cache::Field;
use crate::registry::certificates::key_pair;
use crate::registry::fields::{invalid_all, is_set, remove, same, set, set_default, text};
use crate::registry::strategy::{Strategy, WriteContext};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};

/// The most bytes that all values may take together.
const MAX_DATA: usize = 1 << 20;

const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// core/v1 ConfigMap
#[derive(Debug)]
pub struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate(&self, map: &Value, causes: &mut Vec<Cause>) {
        let empty = Map::new();
        let field = |name: &str| map.get(name).and_then(Value::as_object).unwrap_or(&empty);
        let (data, binary) = (field("data"), field("binaryData"));
        let mut size = 0;
        for (key, value) in data {
            let path = || FieldPath::new("data").key(key);
            invalid_all(&path(), key, validation::config_map_key(key), causes);
            if binary.contains_key(key) {
                causes.push(Cause::invalid(&path(), key.as_str(), "duplicate of key present in binaryData"));
            }
            size += value.as_str().map_or(0, str::len);
        }
        for (key, value) in binary {
            invalid_all(&FieldPath::new("binaryData").key(key), key, validation::config_map_key(key), causes);
            size += value.as_str().map_or(0, decoded_len);
        }
        if size > MAX_DATA {
            // So upstream shows a path of nothing.
            causes.push(Cause::too_long(&FieldPath::new("[]"), MAX_DATA));
        }
    }

    fn validate_update(&self, map: &Value, old: &Value, causes: &mut Vec<Cause>) {
        immutable(map, old, &["data", "binaryData"], causes);
    }
}

/// core/v1 Secret
#[derive(Debug)]
pub struct SecretStrategy;

static SECRET_FIELDS: [Field; 1] = [Field::of("type", &["type"], "")];

/// Which keys a type of secret must have (core `ValidateSecret`).
const REQUIRED_KEYS: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Strategy for SecretStrategy {
    fn fields(&self) -> &[Field] {
        &SECRET_FIELDS
    }

    fn default(&self, secret: &mut Value) {
        set_default(secret, "type", "Opaque");
        // What is given as text is kept as data.
        if let Some(Value::Object(text)) = remove(secret, "stringData") {
            let mut data = secret.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, value) in text {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
            set(secret, "data", data);
        }
    }

    fn prepare_update(&self, secret: &mut Value, old: &Value, _context: &WriteContext) {
        if text(secret, "type").is_empty() {
            set(secret, "type", text(old, "type"));
        }
    }

    fn validate(&self, secret: &Value, causes: &mut Vec<Cause>) {
        let empty = Map::new();
        let data = secret.get("data").and_then(Value::as_object).unwrap_or(&empty);
        let path = FieldPath::new("data");
        let mut size = 0;
        for (key, value) in data {
            invalid_all(&path.key(key), key, validation::config_map_key(key), causes);
            size += value.as_str().map_or(0, decoded_len);
        }
        if size > MAX_DATA {
            causes.push(Cause::too_long(&path, MAX_DATA));
        }
        let kind = text(secret, "type");
        for key in REQUIRED_KEYS.iter().filter(|(known, _)| *known == kind).flat_map(|(_, keys)| *keys) {
            match data.get(key).and_then(Value::as_str) {
                None => causes.push(Cause::required(&path.key(key), "")),
                Some("") if kind == "kubernetes.io/ssh-auth" => causes.push(Cause::required(&path.key(key), "")),
                Some(value) if key.starts_with(".docker") => {
                    let text = STANDARD.decode(value).unwrap_or_default();
                    if let Err(why) = go_json::object(&text) {
                        causes.push(Cause::invalid(&path.key(key), "<secret contents redacted>", why));
                    }
                }
                Some(_) => {}
            }
        }
        if kind == "kubernetes.io/basic-auth" && !data.contains_key("username") && !data.contains_key("password") {
            causes.push(Cause::required(&path.key("username"), ""));
            causes.push(Cause::required(&path.key("password"), ""));
        }
        if kind == "kubernetes.io/service-account-token"
            && meta::annotation(secret, "kubernetes.io/service-account.name").is_none_or(str::is_empty)
        {
            causes.push(Cause::required(
                &FieldPath::new("metadata").child("annotations").key("kubernetes.io/service-account.name"),
                "",
            ));
        }
    }

    fn warnings(&self, secret: &Value, _old: Option<&Value>) -> Vec<String> {
        if text(secret, "type") != "kubernetes.io/tls" {
            return Vec::new();
        }
        let part = |key: &str| STANDARD.decode(text(&secret["data"], key)).unwrap_or_default();
        key_pair::check(&part("tls.crt"), &part("tls.key")).err().into_iter().collect()
    }

    fn validate_update(&self, secret: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if text(secret, "type") != text(old, "type") {
            causes.push(Cause::immutable(&FieldPath::new("type"), text(secret, "type")));
        }
        immutable(secret, old, &["data"], causes);
    }
}

/// How many bytes a text of base64 stands for.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn immutable(new: &Value, old: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    if old.get("immutable").and_then(Value::as_bool) != Some(true) {
        return;
    }
    if new.get("immutable").and_then(Value::as_bool) != Some(true) {
        causes.push(Cause::forbidden(&FieldPath::new("immutable"), IMMUTABLE));
    }
    for field in fields.iter().filter(|field| !same(new, old, field) && (is_set(new, field) || is_set(old, field))) {
        causes.push(Cause::forbidden(&FieldPath::new(field), IMMUTABLE));
    }
}
