//! Causes of an invalid object, in the words of upstream's `field.Error`.

use std::collections::HashSet;
use std::fmt::{self, Write};

use crate::json::Value;

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
    /// `Invalid value: detail`, of a field whose value says nothing more (field `OmitValueType`)
    pub fn invalid_omitted(field: &FieldPath, detail: impl AsRef<str>) -> Self {
        Self::with_detail(CauseReason::Invalid, field, None, detail.as_ref())
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
    let mut seen = HashSet::new();
    let unique: Vec<String> = messages.into_iter().filter(|message| seen.insert(message.clone())).collect();
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
        Self(Text::Short { length: 0, bytes: [0; SHORT] }).and(None, field, None)
    }
    /// The path of a field of the value here. `field` may hold dots.
    #[must_use]
    pub fn child(&self, field: &str) -> Self {
        self.and((!self.is_empty()).then_some(b'.'), field, None)
    }
    /// The path of an item of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        match index {
            0..10 => self.and(Some(b'['), &"0123456789"[index..=index], Some(b']')),
            _ => self.and(Some(b'['), &index.to_string(), Some(b']')),
        }
    }
    /// The path of an entry of the map here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.and(Some(b'['), key, Some(b']'))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // It is made of whole strings.
            Text::Short { length, bytes } => std::str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default(),
            Text::Long(text) => text,
        }
    }

    fn is_empty(&self) -> bool {
        match &self.0 {
            Text::Short { length, .. } => *length == 0,
            Text::Long(text) => text.is_empty(),
        }
    }

    /// This path with a name behind it, between two ASCII characters where there are any.
    ///
    /// The whole room is copied, whatever is in use: its size is known, so that costs less than looking.
    fn and(&self, before: Option<u8>, name: &str, after: Option<u8>) -> Self {
        if let Text::Short { length, bytes } = &self.0 {
            let start = usize::from(*length) + usize::from(before.is_some());
            let end = start + name.len();
            let whole = end + usize::from(after.is_some());
            if whole <= SHORT {
                let mut bytes = *bytes;
                if let Some(before) = before {
                    bytes[start - 1] = before;
                }
                bytes[start..end].copy_from_slice(name.as_bytes());
                if let Some(after) = after {
                    bytes[end] = after;
                }
                return Self(Text::Short { length: whole as u8, bytes });
            }
        }
        let mut text = String::with_capacity(self.as_str().len() + name.len() + 2);
        text.push_str(self.as_str());
        text.extend(before.map(char::from));
        text.push_str(name);
        text.extend(after.map(char::from));
        Self(Text::Long(text))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_length_are_what_they_are_made_of() {
        for length in [0, 1, 40, SHORT - 4, SHORT - 3, SHORT - 2, SHORT - 1, SHORT, SHORT + 1, 200] {
            let name = "é".repeat(length / 2) + &"a".repeat(length % 2);
            let path = FieldPath::new(&name);
            assert_eq!(path.to_string(), name);
            let dot = if name.is_empty() { "" } else { "." };
            assert_eq!(path.child("b").to_string(), format!("{name}{dot}b"));
            assert_eq!(path.child(&name).to_string(), format!("{name}{dot}{name}"));
            assert_eq!(path.index(7).index(12).to_string(), format!("{name}[7][12]"));
            assert_eq!(path.key("c/d").child("e"), FieldPath::new(&format!("{name}[c/d].e")));
        }
        assert_eq!(FieldPath::default().child("a").to_string(), "a");
    }
}
