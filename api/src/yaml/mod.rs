//! YAML as kubectl and the API server read and write it.

mod emit;
mod events;
mod read;
mod scalar;
mod text;

use crate::json::Value;

pub use emit::to_string;
pub(crate) use read::Read;

/// Why a text is no YAML, or none that JSON could hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// As upstream counts it, from the start of the whole text; None where it tells no line.
    pub line: Option<u64>,
    /// What is wrong; whole when there is no line.
    pub message: String,
}

impl std::error::Error for Error {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "yaml: line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Error {
    fn of(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into() }
    }
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it holds; never null.
    pub value: Value,
    /// The line it starts at, counted from 1.
    pub line: u64,
    /// Keys that stand twice, of which the last counts: a line of text each.
    pub twice: Vec<String>,
}

/// Reads the first document: Go's YAML reads no further (`yaml.Unmarshal`).
///
/// # Errors
/// When it is no YAML.
pub(crate) fn read(bytes: &[u8]) -> Result<Read, Error> {
    read::read(bytes)
}

/// What the strict reader says of keys that stand twice, of which there are `lines`.
pub fn unmarshal_errors(lines: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))
}

/// Reads one document.
///
/// # Errors
/// When it is no YAML, or a key stands twice in a mapping.
pub fn parse(text: &str) -> Result<Value, Error> {
    let read = read_at(text, 0)?;
    match read.twice.first() {
        Some((line, key)) => Err(Error { line: Some(*line), message: format!("key {key} already set in map") }),
        None => Ok(read.value),
    }
}

/// Reads the first document as Go's YAML does when it is not strict: of a key that stands twice, the last counts. With what
/// the strict reader says of such keys, a line each.
///
/// # Errors
/// When it is no YAML.
pub fn parse_loosely(bytes: &[u8]) -> Result<(Value, Vec<String>), Error> {
    read(bytes).map(|read| {
        let lines = read.lines();
        (read.value, lines)
    })
}

/// Reads a part of a text that begins after so many lines.
fn read_at(text: &str, offset: u64) -> Result<Read, Error> {
    let mut read =
        read(text.as_bytes()).map_err(|error| Error { line: error.line.map(|line| line + offset), ..error })?;
    read.twice.iter_mut().for_each(|(line, _)| *line += offset);
    Ok(read)
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
        let read = read_at(chunk, offset)?;
        let (twice, value) = (read.lines(), read.value);
        if !value.is_null() {
            let blank = chunk.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count() as u64;
            found.push(Document { value, line: offset + blank + 1, twice });
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
    use crate::json::json;

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
        let document = |value, line| Document { value, line, twice: Vec::new() };
        assert_eq!(found, [document(json!({"a": 1}), 3), document(json!({"b": 2}), 9)]);
        assert_eq!(documents("{\"a\": [1, 2]}").unwrap()[0].value, json!({"a": [1, 2]}));
        assert!(documents("").unwrap().is_empty());
    }

    #[test]
    fn errors_tell_the_line_of_the_whole_text() {
        let error = documents("a: 1\n---\nb: 2\n  c: : 3\n").unwrap_err();
        assert_eq!(error.to_string(), "yaml: line 4: mapping values are not allowed in this context");
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.to_string(), "yaml: line 3: key \"a\" already set in map");
        let found = documents("a: 1\n---\nb: 2\nb: 3\n").unwrap();
        assert_eq!(found[1].value, json!({"b": 3}));
        assert_eq!(found[1].twice, ["line 4: key \"b\" already set in map"]);
    }
}
