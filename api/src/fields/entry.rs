//! One entry of `metadata.managedFields`: an owner and what it has.

use std::borrow::Cow;

use serde::Deserialize;

use super::held::Held;
use crate::json::put_text;

/// How an owner came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes, how and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager's name.
    pub manager: &'a str,
    /// The version that the write is in, `apps/v1`.
    pub api_version: &'a str,
    /// The subresource that is written through; empty for the object itself.
    pub subresource: &'a str,
    /// Now, in RFC 3339.
    pub now: &'a str,
}

/// One owner.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry<'a> {
    #[serde(borrow, default)]
    pub manager: Cow<'a, str>,
    pub operation: Operation,
    #[serde(borrow, default)]
    pub api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    pub time: Cow<'a, str>,
    #[serde(borrow, default)]
    pub fields_type: Cow<'a, str>,
    #[serde(borrow, default)]
    pub subresource: Cow<'a, str>,
    #[serde(borrow, default, rename = "fieldsV1")]
    pub held: Held<'a>,
}

impl Entry<'_> {
    /// Updates in different versions are different owners; an applier is one whatever version it applies in.
    pub fn is(&self, operation: Operation, writer: &Writer<'_>) -> bool {
        self.operation == operation
            && self.manager == writer.manager
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }

    /// The owner in a conflict's message.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }

    /// Appends the entry, as JSON.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_opening(out, &self.manager, self.operation, &self.api_version, &self.time);
        self.held.put(out);
        put_closing(out, &self.subresource);
    }
}

/// What an entry has before its fields.
pub(super) fn put_opening(out: &mut Vec<u8>, manager: &str, operation: Operation, api_version: &str, time: &str) {
    out.extend_from_slice(b"{\"manager\":");
    put_text(out, manager);
    out.extend_from_slice(b",\"operation\":");
    put_text(out, operation.as_str());
    out.extend_from_slice(b",\"apiVersion\":");
    put_text(out, api_version);
    if !time.is_empty() {
        out.extend_from_slice(b",\"time\":");
        put_text(out, time);
    }
    out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
}

/// What an entry has behind its fields.
pub(super) fn put_closing(out: &mut Vec<u8>, subresource: &str) {
    if !subresource.is_empty() {
        out.extend_from_slice(b",\"subresource\":");
        put_text(out, subresource);
    }
    out.push(b'}');
}
