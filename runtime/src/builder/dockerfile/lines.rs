//! The text of a Dockerfile as logical lines: directives, comments, continuations, heredocs
//! (<https://docs.docker.com/reference/dockerfile/#format>; the corners are those of BuildKit's parser).

use super::{Kind, Mistake, expand::Shell};

/// Larger ones are no Dockerfiles.
pub const MAX_SIZE: usize = 1 << 20;

/// A file written down inside of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    pub content: String,
    /// Variables in it are replaced: its name was not quoted.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines go.
    pub chomp: bool,
}

impl Heredoc {
    /// The content without the tabs that `<<-` takes away.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// One instruction as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Numbers of its first and its last line, from 1.
    pub first: usize,
    pub last: usize,
    /// The keyword in lower case.
    pub keyword: String,
    /// Everything after the keyword, continuations joined.
    pub rest: String,
    /// The whole line, continuations joined.
    pub text: String,
    pub heredocs: Vec<Heredoc>,
}

/// A Dockerfile taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub escape: char,
    pub lines: Vec<Line>,
    pub warnings: Vec<String>,
}

/// Takes a Dockerfile apart.
pub fn read(text: &str) -> Result<Document, Mistake> {
    if text.len() > MAX_SIZE {
        return Err(Mistake::new(0, format!("the Dockerfile is larger than {MAX_SIZE} bytes")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let escape = directives(&physical)?;
    let mut document = Document { escape, lines: Vec::new(), warnings: Vec::new() };
    let mut at = 0;
    while at < physical.len() {
        let first = at + 1;
        let Some((line, blank_inside)) = join(&physical, &mut at, escape) else { continue };
        if blank_inside {
            document.warnings.push(format!("[WARNING]: Empty continuation line found in:\n    {line}"));
        }
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let keyword = keyword.to_lowercase();
        let mut heredocs = Vec::new();
        if takes_heredocs(&keyword, rest) {
            for mut heredoc in heredocs_of(rest, escape) {
                heredoc.content =
                    body(&physical, &mut at, &heredoc).ok_or_else(|| Mistake::new(first, "unterminated heredoc"))?;
                heredocs.push(heredoc);
            }
        }
        document.lines.push(Line {
            first,
            last: at,
            rest: rest.trim().to_owned(),
            keyword,
            text: line.trim_end().to_owned(),
            heredocs,
        });
    }
    if !document.warnings.is_empty() {
        document.warnings.push("[WARNING]: Empty continuation lines will become errors in a future release.".into());
    }
    if document.lines.is_empty() {
        return Err(Mistake::new(0, "file with no instructions").of(Kind::Empty));
    }
    Ok(document)
}

/// `# escape=` among the directives, which are the comments of the form `# key=value` that come before all else.
fn directives(lines: &[&str]) -> Result<char, Mistake> {
    let mut seen: Vec<String> = Vec::new();
    let mut escape = '\\';
    for (index, line) in lines.iter().enumerate() {
        let Some((key, value)) = directive(line) else { break };
        if !matches!(key.as_str(), "escape" | "syntax" | "check") {
            // An unknown one is a comment, and ends the directives.
            break;
        }
        if seen.contains(&key) {
            return Err(Mistake::new(index + 1, format!("only one {key} parser directive can be used")));
        }
        if key == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    let message = format!("invalid ESCAPE token '{other}' does not match ` or \\");
                    return Err(Mistake::new(index + 1, message));
                }
            };
        }
        seen.push(key);
    }
    Ok(escape)
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let letter = key.starts_with(|letter: char| letter.is_ascii_alphabetic());
    let word = key.chars().all(|letter| letter.is_ascii_alphanumeric());
    (letter && word && !value.is_empty()).then(|| (key.to_lowercase(), value))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The next logical line, and whether an empty line stood inside; `at` moves behind it.
fn join(lines: &[&str], at: &mut usize, escape: char) -> Option<(String, bool)> {
    let line = lines[*at];
    *at += 1;
    if is_comment(line) || line.trim().is_empty() {
        return None;
    }
    let (mut out, mut goes_on) = continuation(line.trim_start(), escape);
    let mut blank = false;
    while goes_on && *at < lines.len() {
        let line = lines[*at];
        *at += 1;
        if is_comment(line) {
            continue;
        }
        if line.trim().is_empty() {
            blank = true;
            continue;
        }
        let (part, more) = continuation(line, escape);
        out.push_str(&part);
        goes_on = more;
    }
    (!out.trim().is_empty()).then_some((out, blank))
}

/// Takes the sign of continuation off a line: an escape at its end that is not itself escaped.
fn continuation(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

fn takes_heredocs(keyword: &str, rest: &str) -> bool {
    match keyword {
        "add" | "copy" | "run" => true,
        "onbuild" => {
            let inner = rest.split_whitespace().next().unwrap_or_default().to_lowercase();
            matches!(inner.as_str(), "add" | "copy" | "run")
        }
        _ => false,
    }
}

/// The heredocs that a line announces: words `N<<[-]NAME`, the name quoted or not.
fn heredocs_of(rest: &str, escape: char) -> Vec<Heredoc> {
    // A line that cannot be read as words has none; what is wrong with it is told later.
    let words = Shell::raw(escape).words(rest, &|_| None).unwrap_or_default();
    words.iter().filter_map(|word| heredoc(word, escape)).collect()
}

fn heredoc(word: &str, escape: char) -> Option<Heredoc> {
    let word = word.trim_start_matches(|letter: char| letter.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, name) = word.strip_prefix('-').map_or((false, word), |name| (true, name));
    if name.is_empty() || name.contains('<') {
        return None;
    }
    let words = Shell::new(escape).words(name, &|_| None).ok()?;
    let [plain] = &words[..] else { return None };
    if plain.is_empty() {
        return None;
    }
    Some(Heredoc { expand: plain == name, name: plain.clone(), content: String::new(), chomp })
}

/// The lines up to the heredoc's name.
fn body(lines: &[&str], at: &mut usize, heredoc: &Heredoc) -> Option<String> {
    let mut out = String::new();
    while *at < lines.len() {
        let line = lines[*at];
        *at += 1;
        let end = if heredoc.chomp { line.trim_start_matches('\t') } else { line };
        if end == heredoc.name {
            return Some(out);
        }
        out.push_str(line);
        out.push('\n');
    }
    None
}
