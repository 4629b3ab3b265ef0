//! One error for the runtime: what kind of answer it is, what was being done, and why not.

use std::{fmt, io};

/// How a caller should take the error; the edges (CRI, Docker) map it to their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    AlreadyExists,
    InvalidArgument,
    FailedPrecondition,
    PermissionDenied,
    Unavailable,
    DeadlineExceeded,
    Unimplemented,
    Internal,
}

/// An operation that failed.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Error {
                Error { kind: Kind::$kind, message: message.into(), source: None }
            })*
        }
    };
}
constructors! {
    not_found => NotFound,
    already_exists => AlreadyExists,
    invalid => InvalidArgument,
    precondition => FailedPrecondition,
    denied => PermissionDenied,
    unavailable => Unavailable,
    deadline => DeadlineExceeded,
    unimplemented => Unimplemented,
    internal => Internal,
}

impl Error {
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Puts what was being done before the message; the kind stays.
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {
    /// What is below the cause: the cause itself is in the message, and is to be read once.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().and_then(|source| source.source())
    }
}

/// Names the operation of an error that knows none.
pub trait Context<T> {
    /// Says what was being done, and to what.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|source| {
            let kind = match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
                _ => Kind::Internal,
            };
            Error { kind, message: what.to_string(), source: Some(Box::new(source)) }
        })
    }
}

impl<T> Context<T> for Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.context(what))
    }
}

impl<T> Context<T> for coracle_launcher::error::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|source| Error { kind: Kind::Internal, message: what.to_string(), source: Some(Box::new(source)) })
    }
}

macro_rules! internal {
    ($($source:ty => $what:literal),* $(,)?) => {$(
        impl From<$source> for Error {
            fn from(source: $source) -> Error {
                Error { kind: Kind::Internal, message: $what.into(), source: Some(Box::new(source)) }
            }
        }
    )*};
}
internal! {
    redb::DatabaseError => "image metadata",
    redb::TransactionError => "image metadata",
    redb::TableError => "image metadata",
    redb::StorageError => "image metadata",
    redb::CommitError => "image metadata",
    tokio::task::JoinError => "a task of the runtime ended early",
}
