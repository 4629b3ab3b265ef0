//! Words of a command line, as Go's flag takes them.

use std::collections::VecDeque;

use super::help;
use crate::error::{Error, Result};

/// Arguments, taken from the front: options first, then operands.
pub struct Arguments {
    pub rest: VecDeque<String>,
}

/// An option with its value, if it was written with `=`.
pub struct Flag {
    pub name: String,
    pub value: Option<String>,
}

impl Arguments {
    pub fn flag(&mut self) -> Option<Flag> {
        if !self.rest.front().is_some_and(|word| word.len() > 1 && word.starts_with('-')) {
            return None;
        }
        let word = self.rest.pop_front()?;
        if word == "--" {
            return None;
        }
        let word = word.trim_start_matches('-');
        Some(match word.split_once('=') {
            Some((name, value)) => Flag { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Flag { name: word.to_owned(), value: None },
        })
    }

    pub fn value(&mut self, flag: Flag) -> Result<String> {
        let next = match flag.value {
            Some(value) => Some(value),
            None => self.rest.pop_front(),
        };
        next.ok_or_else(|| Error::new(format!("--{}: a value is missing", flag.name)))
    }

    /// A switch; the next word is never its value (Go's flag, which knows these words).
    pub fn boolean(flag: &Flag) -> Result<bool> {
        match flag.value.as_deref() {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(Error::new(format!("--{}: invalid boolean value {value:?}", flag.name))),
        }
    }

    pub fn number<T: std::str::FromStr>(&mut self, flag: Flag) -> Result<T> {
        let name = flag.name.clone();
        let value = self.value(flag)?;
        value.parse().map_err(|_| Error::new(format!("--{name}: {value:?} is not a number")))
    }

    pub fn operand(&mut self, name: &str) -> Result<String> {
        self.rest.pop_front().ok_or_else(|| Error::new(format!("{name} is missing\n{}", help::USAGE)))
    }

    pub fn end(&mut self) -> Result<()> {
        self.rest.pop_front().map_or(Ok(()), |word| Err(Error::new(format!("unexpected argument {word:?}"))))
    }
}

pub fn unknown(command: &str, flag: &Flag) -> Error {
    Error::new(format!("{command}: option --{} is not supported", flag.name))
}
