//! Where in a document the reader is, and what was unknown or given twice.

use std::fmt::Write;

use crate::gvk::Symbol;

/// No more than this many are told (sigs.k8s.io/json stops there too).
const MAX_PROBLEMS: usize = 100;

/// A step from a value to one inside it. Names are borrowed from the schema; keys of maps are the document's own.
#[derive(Debug, Clone)]
pub(super) enum Step<'s> {
    Field(&'s str),
    Key(Symbol),
    Index(usize),
}

/// The way from the root to where the reader is.
#[derive(Debug, Default)]
pub(super) struct Trail<'s>(pub Vec<Step<'s>>);

impl Trail<'_> {
    /// `spec.containers[0].name`, with one more name at its end.
    pub fn with(&self, last: &str) -> String {
        let mut text = self.text(true);
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(last);
        text
    }

    /// With or without indexes of lists and keys of maps: Go's type errors tell fields alone.
    pub fn text(&self, whole: bool) -> String {
        let mut text = String::new();
        for step in &self.0 {
            let name = match step {
                Step::Field(name) => name,
                Step::Key(key) if whole => key.as_str(),
                Step::Index(index) if whole => {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "[{index}]");
                    continue;
                }
                Step::Key(_) | Step::Index(_) => continue,
            };
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        text
    }
}

/// Unknown and duplicate fields.
#[derive(Debug, Default)]
pub(super) struct Problems {
    messages: Vec<String>,
}

impl Problems {
    pub fn unknown(&mut self, path: String) {
        self.add(format!("unknown field \"{path}\""));
    }

    pub fn duplicate(&mut self, path: String) {
        self.add(format!("duplicate field \"{path}\""));
    }

    fn add(&mut self, message: String) {
        if self.messages.len() < MAX_PROBLEMS && !self.messages.contains(&message) {
            self.messages.push(message);
        }
    }

    pub fn into_messages(self) -> Vec<String> {
        self.messages
    }
}
