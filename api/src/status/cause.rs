//! Causes of an invalid object, in the words of upstream's `field.Error`.

use std::fmt::{self, Write};

use serde_json::Value;

use super::Reason;

/// What is wrong with a field (metav1.CauseType).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CauseReason {
    /// None given.
    #[default]
    None,
    /// The field names something that does not exist.
    NotFound,
    /// The field must be given.
    Required,
    /// The value occurs twice where it must be unique.
    Duplicate,
    /// The value is malformed or out of range.
    Invalid,
    /// The value is not one of those there are.
    NotSupported,
    /// The field must not be given, or must not change.
    Forbidden,
    /// The value is too long.
    TooLong,
    /// The list holds too many items.
    TooMany,
    /// The server failed while it checked the field.
    Internal,
    /// The value has the wrong type.
    TypeInvalid,
    /// What was sent cannot be understood (`UnexpectedServerResponse`, for clients).
    UnexpectedServerResponse,
    /// A namespace that is being deleted takes no new objects.
    NamespaceTerminating,
    /// The resource version asked for lies in the future.
    ResourceVersionTooLarge,
    /// An eviction would break a disruption budget.
    DisruptionBudget,
    /// A server-side apply met another field manager.
    FieldManagerConflict,
}

impl CauseReason {
    /// (reason, word on the wire, words in a message)
    const ALL: [(CauseReason, &'static str, &'static str); 16] = [
        (CauseReason::None, "", ""),
        (CauseReason::NotFound, "FieldValueNotFound", "Not found"),
        (CauseReason::Required, "FieldValueRequired", "Required value"),
        (CauseReason::Duplicate, "FieldValueDuplicate", "Duplicate value"),
        (CauseReason::Invalid, "FieldValueInvalid", "Invalid value"),
        (CauseReason::NotSupported, "FieldValueNotSupported", "Unsupported value"),
        (CauseReason::Forbidden, "FieldValueForbidden", "Forbidden"),
        (CauseReason::TooLong, "FieldValueTooLong", "Too long"),
        (CauseReason::TooMany, "FieldValueTooMany", "Too many"),
        (CauseReason::Internal, "InternalError", "Internal error"),
        (CauseReason::TypeInvalid, "FieldValueTypeInvalid", "Invalid value"),
        (CauseReason::UnexpectedServerResponse, "UnexpectedServerResponse", ""),
        (CauseReason::NamespaceTerminating, "NamespaceTerminating", ""),
        (CauseReason::ResourceVersionTooLarge, "ResourceVersionTooLarge", ""),
        (CauseReason::DisruptionBudget, "DisruptionBudget", ""),
        (CauseReason::FieldManagerConflict, "FieldManagerConflict", ""),
    ];

    fn row(self) -> (&'static str, &'static str) {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or(("", ""), |(_, word, text)| (word, text))
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The reason of a word; an unknown word is [`CauseReason::None`].
    pub fn parse(text: &str) -> Self {
        Self::ALL.iter().find(|(_, word, _)| *word == text).map_or(CauseReason::None, |(reason, ..)| *reason)
    }
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// What is wrong, for programs.
    pub reason: CauseReason,
    /// What is wrong, for people: `Invalid value: "x": must be …`.
    pub message: String,
    /// Where: `spec.template.spec.containers[0].image`.
    pub field: String,
}

impl Cause {
    /// A cause in words of its own.
    pub fn new(reason: CauseReason, field: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: field.to_string() }
    }

    fn with_detail(reason: CauseReason, field: &FieldPath, value: Option<&Value>, detail: &str) -> Self {
        let mut message = reason.row().1.to_owned();
        if let Some(value) = value {
            // Go's %q and JSON quote alike for the text that fields hold. Writing to a String cannot fail.
            let _ = write!(message, ": {value}");
        }
        if !detail.is_empty() {
            let _ = write!(message, ": {detail}");
        }
        Self::new(reason, field, message)
    }

    /// `Required value: detail`
    pub fn required(field: &FieldPath, detail: &str) -> Self {
        Self::with_detail(CauseReason::Required, field, None, detail)
    }
    /// `Invalid value: "x": detail`
    pub fn invalid(field: &FieldPath, value: impl Into<Value>, detail: impl AsRef<str>) -> Self {
        Self::with_detail(CauseReason::Invalid, field, Some(&value.into()), detail.as_ref())
    }
    /// `Duplicate value: "x"`
    pub fn duplicate(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::with_detail(CauseReason::Duplicate, field, Some(&value.into()), "")
    }
    /// `Not found: "x"`
    pub fn not_found(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::with_detail(CauseReason::NotFound, field, Some(&value.into()), "")
    }
    /// `Unsupported value: "x": supported values: "a", "b"`
    pub fn not_supported(field: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::with_detail(CauseReason::NotSupported, field, Some(&value.into()), &detail)
    }
    /// `Forbidden: detail`
    pub fn forbidden(field: &FieldPath, detail: impl AsRef<str>) -> Self {
        Self::with_detail(CauseReason::Forbidden, field, None, detail.as_ref())
    }
    /// `Too long: may not be more than N bytes`
    pub fn too_long(field: &FieldPath, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::with_detail(CauseReason::TooLong, field, None, &format!("may not be more than {max} {unit}"))
    }
    /// `Too many: N: must have at most M items`
    pub fn too_many(field: &FieldPath, count: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::with_detail(CauseReason::TooMany, field, Some(&count.into()), &format!("must have at most {max} {unit}"))
    }
    /// `Invalid value: "x": field is immutable`
    pub fn immutable(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::invalid(field, value, "field is immutable")
    }
    /// `Internal error: detail`
    pub fn internal(field: &FieldPath, detail: impl AsRef<str>) -> Self {
        Self::with_detail(CauseReason::Internal, field, None, detail.as_ref())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

/// Several messages as one, as upstream's aggregate writes them: one stands alone, more stand in brackets, each once.
pub fn aggregate(messages: impl IntoIterator<Item = String>) -> String {
    let mut unique: Vec<String> = Vec::new();
    for message in messages {
        if !unique.contains(&message) {
            unique.push(message);
        }
    }
    match unique.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Where in an object a value stands.
///
/// ```
/// use coracle_api::status::FieldPath;
/// let ports = FieldPath::new("spec").child("containers").index(0).child("ports");
/// assert_eq!(ports.to_string(), "spec.containers[0].ports");
/// assert_eq!(FieldPath::new("metadata").child("labels").key("a/b").to_string(), "metadata.labels[a/b]");
/// let long = (0..40).fold(FieldPath::default(), |path, nth| path.child("a").index(nth));
/// assert!(long.to_string().starts_with("a[0].a[1]") && long.to_string().ends_with(".a[38].a[39]"));
/// ```
#[derive(Clone)]
pub struct FieldPath(Text);

/// Paths are made for every field that is checked, though hardly one is ever told of: most fit in without an allocation.
#[derive(Clone)]
enum Text {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(String),
}

const SHORT: usize = 95;

impl FieldPath {
    /// The path of one field.
    pub fn new(field: &str) -> Self {
        Self::of([field])
    }
    /// The path of a field of the value here. `field` may hold dots.
    #[must_use]
    pub fn child(&self, field: &str) -> Self {
        let dot = if self.as_str().is_empty() { "" } else { "." };
        Self::of([self.as_str(), dot, field])
    }
    /// The path of an item of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        match index {
            0..10 => Self::of([self.as_str(), "[", &"0123456789"[index..=index], "]"]),
            _ => Self::of([self.as_str(), "[", &index.to_string(), "]"]),
        }
    }
    /// The path of an entry of the map here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self::of([self.as_str(), "[", key, "]"])
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // It is made of whole strings.
            Text::Short { length, bytes } => std::str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default(),
            Text::Long(text) => text,
        }
    }
    fn of<const N: usize>(parts: [&str; N]) -> Self {
        if parts.iter().map(|part| part.len()).sum::<usize>() > SHORT {
            return Self(Text::Long(parts.concat()));
        }
        let (mut bytes, mut length) = ([0; SHORT], 0);
        for part in parts {
            bytes[length..length + part.len()].copy_from_slice(part.as_bytes());
            length += part.len();
        }
        Self(Text::Short { length: length as u8, bytes })
    }
}

impl Default for FieldPath {
    fn default() -> Self {
        Self::new("")
    }
}

impl PartialEq for FieldPath {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for FieldPath {}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<CauseReason> for Reason {
    /// The reason of the answer that a single such cause leads to.
    fn from(cause: CauseReason) -> Self {
        match cause {
            CauseReason::Internal => Reason::InternalError,
            _ => Reason::Invalid,
        }
    }
}
