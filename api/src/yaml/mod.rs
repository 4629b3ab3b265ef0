//! YAML as kubectl reads and writes it.

mod emit;

use serde_json::Value;
use serde_saphyr::{DefaultMessageFormatter, DuplicateKeyPolicy, MessageFormatter, Options};

pub use emit::to_string;

/// Why a text is no YAML, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("yaml: line {line}, column {column}: {message}")]
pub struct Error {
    /// Counted from 1, from the start of the whole text.
    pub line: u64,
    /// Counted from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

impl Error {
    fn new(error: &serde_saphyr::Error, offset: u64) -> Self {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        Self {
            line: line + offset,
            column,
            message: DefaultMessageFormatter.format_message(error).trim().replace('\n', " "),
        }
    }
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it holds; never null.
    pub value: Value,
    /// The line it starts at, counted from 1.
    pub line: u64,
}

/// YAML 1.1 scalars, as Go's YAML reads them (`yes` is true, `0644` is octal), and bounds against bombs.
fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        duplicate_keys: duplicate_keys,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// The text of the first document: Go's YAML reads no further (`yaml.Unmarshal`).
fn first_document(text: &str) -> &str {
    let (mut at, mut began) = (0, false);
    for line in text.split_inclusive('\n') {
        let marker = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        let is_marker = marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker && began {
            return &text[..at];
        }
        // Comments and directives come before a document, they do not begin it.
        began |= is_marker || !(line.trim().is_empty() || line.starts_with(['#', '%']));
        at += line.len();
    }
    text
}

/// Hands a reader of the first document in `text` to `read`. Keys given twice reach the reader twice.
pub(crate) fn with_deserializer<T>(
    text: &str,
    read: impl for<'de, 'e> FnOnce(serde_saphyr::Deserializer<'de, 'e>) -> Result<T, serde_saphyr::Error>,
) -> Result<T, Error> {
    let text = first_document(text);
    serde_saphyr::with_deserializer_from_str_with_options(text, options(DuplicateKeyPolicy::PassThrough), read)
        .map_err(|error| Error::new(&error, 0))
}

/// Reads one document.
///
/// # Errors
/// When it is no YAML, or a key stands twice in a mapping.
pub fn parse(text: &str) -> Result<Value, Error> {
    parse_at(text, 0)
}

/// Reads the first document as Go's YAML does when it is not strict: of a key that stands twice, the last counts.
///
/// # Errors
/// When it is no YAML.
pub fn parse_loosely(text: &str) -> Result<Value, Error> {
    serde_saphyr::from_str_with_options(first_document(text), options(DuplicateKeyPolicy::LastWins))
        .map_err(|error| Error::new(&error, 0))
}

fn parse_at(text: &str, offset: u64) -> Result<Value, Error> {
    serde_saphyr::from_str_with_options(text, options(DuplicateKeyPolicy::Error))
        .map_err(|error| Error::new(&error, offset))
}

/// Reads all documents of a text, separated by lines that start with `---`. Documents without content are left out.
///
/// # Errors
/// The first document that cannot be read ends it.
pub fn documents(text: &str) -> Result<Vec<Document>, Error> {
    let mut found = Vec::new();
    for (offset, chunk) in chunks(text) {
        if chunk.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let value = parse_at(chunk, offset)?;
        if !value.is_null() {
            let blank = chunk.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count() as u64;
            found.push(Document { value, line: offset + blank + 1 });
        }
    }
    Ok(found)
}

/// The text between separators, each with the number of lines before it.
fn chunks(text: &str) -> Vec<(u64, &str)> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let (mut at, mut line_number) = (0, 0);
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        at += line.len();
        line_number += 1;
        // As kubectl's reader: `---` alone, or followed by a comment. Content on that line is YAML's own business.
        if content == "---" || content.starts_with("--- #") {
            chunks.push((start_line, &text[start..at - line.len()]));
            (start, start_line) = (at, line_number);
        }
    }
    chunks.push((start_line, &text[start..]));
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        let value = parse("a: yes\nb: 0644\nc: \"yes\"\nd: 1.5\ne: ~\nf: 1Gi\ng: -3\nh: 2026-01-01\n").unwrap();
        assert_eq!(
            value,
            json!({"a": true, "b": 420, "c": "yes", "d": 1.5, "e": null, "f": "1Gi", "g": -3, "h": "2026-01-01"})
        );
    }

    #[test]
    fn documents_are_split_and_counted() {
        let found = documents("# head\n---\na: 1\n---\n\n--- # next\n\n# c\nb: 2\n---\n").unwrap();
        assert_eq!(found, [Document { value: json!({"a": 1}), line: 3 }, Document { value: json!({"b": 2}), line: 9 }]);
        assert_eq!(documents("{\"a\": [1, 2]}").unwrap()[0].value, json!({"a": [1, 2]}));
        assert!(documents("").unwrap().is_empty());
    }

    #[test]
    fn the_first_document_ends_where_the_next_begins() {
        let rows = [
            ("a: 1\n---\nb: 2", "a: 1\n"),
            ("# c\n%YAML 1.1\n---\na: 1\n--- # x\nb: [\n", "# c\n%YAML 1.1\n---\na: 1\n"),
            ("---\n---\na: 1\n", "---\n"),
            ("a: 1\n...\nb: 2\n", "a: 1\n"),
            ("--- {a: 1}\n---\n", "--- {a: 1}\n"),
            ("a: |\n  ---\n  x\n", "a: |\n  ---\n  x\n"),
            ("---a: 1\n", "---a: 1\n"),
            ("", ""),
        ];
        for (text, first) in rows {
            assert_eq!(first_document(text), first, "{text:?}");
        }
    }

    #[test]
    fn errors_tell_the_line_of_the_whole_text() {
        let error = documents("a: 1\n---\nb: 2\n  c: : 3\n").unwrap_err();
        assert_eq!(error.line, 4, "{error}");
        let error = documents("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert!(error.line == 3 && error.message.contains("duplicate"), "{error}");
    }
}
