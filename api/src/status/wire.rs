//! The JSON form of `Status`.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Cause, CauseReason, Details, Reason, Status};

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Status")?;
        map.serialize_entry("apiVersion", "v1")?;
        let next = self.details.as_ref().map_or("", |details| &details.next);
        map.serialize_entry("metadata", &Metadata { next })?;
        map.serialize_entry("status", if self.is_failure() { "Failure" } else { "Success" })?;
        if !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        if self.reason != Reason::Unknown {
            map.serialize_entry("reason", self.reason.as_str())?;
        }
        // The token alone is metadata, no detail.
        let told = |details: &&Details| details.next.is_empty() || !details.causes.is_empty();
        if let Some(details) = self.details.as_deref().filter(told) {
            map.serialize_entry("details", details)?;
        }
        // Upstream leaves the code out of the answer to a delete, and has it in that to a create.
        if self.is_failure() || self.code != 200 {
            map.serialize_entry("code", &self.code)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Metadata<'m> {
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    next: &'m str,
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                map.serialize_entry(field, text)?;
            }
        }
        if !self.causes.is_empty() {
            map.serialize_entry("causes", &self.causes)?;
        }
        if self.retry_after_seconds != 0 {
            map.serialize_entry("retryAfterSeconds", &self.retry_after_seconds)?;
        }
        map.end()
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, text) in [("reason", self.reason.as_str()), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                map.serialize_entry(field, text)?;
            }
        }
        map.end()
    }
}

/// What any server may send: every field can be missing.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    status: String,
    message: String,
    reason: String,
    details: Option<WireDetails>,
    code: u16,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireDetails {
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<WireCause>,
    retry_after_seconds: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireCause {
    reason: String,
    message: String,
    field: String,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireStatus::deserialize(deserializer)?;
        let code = match wire.code {
            0 if wire.status == "Failure" => 500,
            0 => 200,
            code => code,
        };
        let details = wire.details.map(|d| {
            let causes = d.causes.into_iter();
            Box::new(Details {
                name: d.name,
                group: d.group,
                kind: d.kind,
                uid: d.uid,
                causes: causes
                    .map(|c| Cause { reason: CauseReason::parse(&c.reason), message: c.message, field: c.field })
                    .collect(),
                retry_after_seconds: d.retry_after_seconds,
                next: String::new(),
            })
        });
        Ok(Status { code, reason: Reason::parse(&wire.reason), message: wire.message, details })
    }
}
