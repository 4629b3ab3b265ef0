//! Dockerfiles: text → lines ([`lines`]) → instructions ([`instruction`]), and the variables in them ([`expand`]).

pub mod expand;
pub mod flags;
pub mod instruction;
pub mod lines;
#[cfg(test)]
mod tests;

pub use instruction::{Instruction, parse};
pub use lines::{Document, Heredoc, Line};

/// What is wrong with a Dockerfile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// The line, from 1; 0 where there is none to name.
    pub line: usize,
    pub message: String,
    pub kind: Kind,
}

/// What kind of mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Syntax,
    /// There is no instruction.
    Empty,
    UnknownInstruction,
    /// An `ONBUILD` of nothing.
    EmptyOnbuild,
    /// The stage that is asked for.
    NoTarget,
}

impl Mistake {
    pub fn new(line: usize, message: impl Into<String>) -> Mistake {
        Mistake { line, message: message.into(), kind: Kind::default() }
    }

    pub fn of(self, kind: Kind) -> Mistake {
        Mistake { kind, ..self }
    }

    /// In dockerd's words, with the line shown as BuildKit shows it.
    pub fn describe(&self, name: &str, text: &str) -> String {
        if self.line == 0 {
            return self.message.clone();
        }
        let shown = excerpt(name, text, self.line, self.line);
        format!("dockerfile parse error on line {}: {}\n{shown}", self.line, self.message)
    }
}

/// Lines with a few around them, those that are meant marked.
pub fn excerpt(name: &str, text: &str, first: usize, last: usize) -> String {
    const AROUND: usize = 2;
    const MOST: usize = 20;
    let rule = "-".repeat(20);
    let mut out = format!("{name}:{first}\n{rule}\n");
    let (from, to) = (first.saturating_sub(AROUND).max(1), (last + AROUND).min(first + MOST));
    for (index, line) in text.lines().enumerate().skip(from - 1).take(to + 1 - from) {
        let number = index + 1;
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let separator = if line.is_empty() { "" } else { " " };
        out.push_str(&format!("{number:4} | {mark}{separator}{}\n", line.trim_end_matches('\r')));
    }
    out.push_str(&rule);
    out
}
