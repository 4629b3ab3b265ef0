//! Why nothing was read, and how that is said.

use crate::schema::TypeRef;
use crate::status::Status;

/// The beginning of what is said when the reader does not come so far as to know the kind (apimachinery `runtime/serializer/json`).
pub(super) const NO_KIND: &str = "couldn't get version/kind; json parse error: ";

/// What a kind is read from before all else.
pub(super) const META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// Why nothing was read.
pub(super) enum Refusal {
    /// No document.
    Unreadable(String),
    /// A document that does not say of what kind it is.
    NoKind(String),
    /// A document of some other shape.
    Wrong(String),
    /// Fields that are unknown or given twice.
    Strict(Vec<String>),
}

impl Refusal {
    /// The reason alone.
    pub fn why(self) -> String {
        match self {
            Self::Unreadable(why) | Self::Wrong(why) => why,
            Self::NoKind(why) => format!("{NO_KIND}{why}"),
            Self::Strict(problems) => format!("strict decoding error: {}", problems.join(", ")),
        }
    }

    /// Of the `body` that was read.
    pub fn into_status(self, ty: TypeRef<'_>, body: &[u8]) -> Status {
        match self {
            Self::Unreadable(_) | Self::NoKind(_) => Status::bad_request(unrecognized(ty.name(), &self.why(), body)),
            refusal => refusal.into_status_of(ty),
        }
    }

    /// Of what is no body.
    pub fn into_status_of(self, ty: TypeRef<'_>) -> Status {
        let (kind, version) = (ty.name(), ty.package());
        let why = self.why();
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    }
}

/// So much of a body is shown.
const SHOWN: usize = 30;

/// The words for a body of which not even the kind can be told (apiserver `endpoints/handlers/rest.go`).
pub fn unrecognized(kind: &str, why: &str, body: &[u8]) -> String {
    let (start, more) = if body.len() > SHOWN { (&body[..SHOWN], " ...") } else { (body, "") };
    let shown = match std::str::from_utf8(start) {
        _ if body.is_empty() => "<empty>".to_owned(),
        Ok(text) if text.starts_with('{') => text.to_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown}{more})")
}
