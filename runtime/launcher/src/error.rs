//! One error for the whole launcher: the operation and its object, then what the kernel said.

use std::{fmt, io};

/// What could not be done, to what, and why.
#[derive(Debug)]
pub struct Error {
    what: String,
    source: Option<io::Error>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the launcher's own judgement.
    pub fn new(what: impl Into<String>) -> Error {
        Error { what: what.into(), source: None }
    }

    /// An operation that the kernel refused.
    pub fn io(what: impl Into<String>, source: io::Error) -> Error {
        Error { what: what.into(), source: Some(source) }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => match source.raw_os_error() {
                // The words of strerror(3) alone: people search for them, and runc prints them so.
                Some(errno) => write!(f, ": {}", crate::sys::strerror(errno)),
                None => write!(f, ": {source}"),
            },
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Names the operation of a system call's error.
pub trait Context<T> {
    /// Says what was being done, and to what.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::io(what(), source))
    }
}

impl<T> Context<T> for Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error { what: format!("{}: {}", what(), error.what), source: error.source })
    }
}
