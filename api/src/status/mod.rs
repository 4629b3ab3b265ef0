//! `Status`: the one error of the API, serialised exactly as metav1.Status.

mod cause;
mod constructors;
mod wire;

pub use cause::{Cause, CauseReason, FieldPath, aggregate};
pub use constructors::OPTIMISTIC_LOCK;

/// Why a request failed, for programs (metav1.StatusReason).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reason {
    /// No reason given, or one this version does not know.
    #[default]
    Unknown,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: the object changed meanwhile, or its state does not allow the operation.
    Conflict,
    /// 410: the object is no longer there, for good.
    Gone,
    /// 422: validation failed.
    Invalid,
    /// 500: the server could not finish in time, try again.
    ServerTimeout,
    /// 500: the store could not be read.
    StoreReadError,
    /// 504
    Timeout,
    /// 429
    TooManyRequests,
    /// 400
    BadRequest,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 500
    InternalError,
    /// 410: the resource version is too old to be watched or listed from.
    Expired,
    /// 503
    ServiceUnavailable,
}

impl Reason {
    const ALL: [(Reason, &'static str); 20] = [
        (Reason::Unknown, ""),
        (Reason::Unauthorized, "Unauthorized"),
        (Reason::Forbidden, "Forbidden"),
        (Reason::NotFound, "NotFound"),
        (Reason::AlreadyExists, "AlreadyExists"),
        (Reason::Conflict, "Conflict"),
        (Reason::Gone, "Gone"),
        (Reason::Invalid, "Invalid"),
        (Reason::ServerTimeout, "ServerTimeout"),
        (Reason::StoreReadError, "StorageReadError"),
        (Reason::Timeout, "Timeout"),
        (Reason::TooManyRequests, "TooManyRequests"),
        (Reason::BadRequest, "BadRequest"),
        (Reason::MethodNotAllowed, "MethodNotAllowed"),
        (Reason::NotAcceptable, "NotAcceptable"),
        (Reason::RequestEntityTooLarge, "RequestEntityTooLarge"),
        (Reason::UnsupportedMediaType, "UnsupportedMediaType"),
        (Reason::InternalError, "InternalError"),
        (Reason::Expired, "Expired"),
        (Reason::ServiceUnavailable, "ServiceUnavailable"),
    ];

    /// The word on the wire, empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, text)| text)
    }

    /// The reason of a word; an unknown word is [`Reason::Unknown`].
    pub fn parse(text: &str) -> Self {
        Self::ALL.iter().find(|(_, word)| *word == text).map_or(Reason::Unknown, |(reason, _)| *reason)
    }
}

/// What a failed request was about.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The resource (or, for validation, the kind).
    pub kind: String,
    /// The object's uid; set in answers to a delete.
    pub uid: String,
    /// Each thing that was wrong.
    pub causes: Vec<Cause>,
    /// When to try again.
    pub retry_after_seconds: u32,
    /// How a list that expired can go on (`metadata.continue`).
    pub next: String,
}

/// The answer to a request that has no object to answer with: every failure, and some successes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP code.
    pub code: u16,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// What it was about.
    pub details: Option<Box<Details>>,
}

impl Status {
    /// A failure without details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    /// Whether this is a failure: metav1.Status says `Failure` or `Success`.
    pub fn is_failure(&self) -> bool {
        self.code >= 400
    }

    /// The causes, if there are any.
    pub fn causes(&self) -> &[Cause] {
        self.details.as_ref().map_or(&[], |details| &details.causes)
    }

    /// The number of seconds after which the client should try again.
    pub fn retry_after(&self) -> Option<u32> {
        self.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0)
    }

    /// The same with a time to try again after.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same with causes.
    pub fn with_causes(mut self, causes: Vec<Cause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    /// The same with a token to go on with.
    pub fn with_continue(mut self, token: String) -> Self {
        self.details.get_or_insert_default().next = token;
        self
    }

    /// The bytes of the JSON document.
    pub fn to_json(&self) -> Vec<u8> {
        // A Status holds strings and numbers only: nothing in it can fail to serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
