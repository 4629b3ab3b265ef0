//! Errors, in the words of kubectl (k8s.io/kubectl/pkg/cmd/util/helpers.go, StandardErrorMessage and checkErr).

use std::{fmt, io};

use coracle_api::Status;

/// Why a command failed.
#[derive(Debug)]
pub enum Error {
    /// What the user gave, or what was found, does not do.
    Usage(String),
    /// The server refused.
    Server(Box<Status>),
    /// The same with what was being done, for instance the file.
    While(String, Box<Error>),
    /// Nothing answered.
    Unreachable(String),
    /// Several things failed.
    Many(Vec<Error>),
    /// The reason was told already; only the exit code is left to say.
    Quiet(u8),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the user's.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// Whether the server says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Server(status) => status.code == 404,
            Self::While(_, error) => error.is_not_found(),
            _ => false,
        }
    }

    /// One error for several, none for none.
    pub fn all(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Many(errors)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => write!(f, "error: {text}"),
            Self::Server(status) => server(f, status),
            Self::While(doing, error) => match &**error {
                Self::Server(status) => {
                    write!(f, "Error from server ({}): {doing}: {}", reason(status), status.message)
                }
                Self::Usage(text) => write!(f, "error: {doing}: {text}"),
                other => write!(f, "{other}"),
            },
            Self::Unreachable(text) => f.write_str(text),
            Self::Many(errors) => {
                for (number, error) in errors.iter().enumerate() {
                    if number > 0 {
                        writeln!(f)?;
                    }
                    write!(f, "{error}")?;
                }
                Ok(())
            }
            Self::Quiet(_) => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

fn server(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    if status.code == 422 && status.reason == coracle_api::Reason::Invalid {
        // The message names the object itself: `Deployment.apps "web" is invalid: …`.
        let message = status.message.split_once(' ').map_or(status.message.as_str(), |(_, rest)| rest);
        let kind = status.message.split(['.', ' ']).next().unwrap_or_default();
        return write!(f, "The {kind} {message}");
    }
    write!(f, "Error from server ({}): {}", reason(status), status.message)
}

fn reason(status: &Status) -> &str {
    status.reason.as_str()
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        // The reader went away (`kubectl get … | head`): as silent as any filter.
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Quiet(0) } else { Self::Usage(error.to_string()) }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Server(Box::new(status))
    }
}

/// Of streams; all other requests keep the server's Status whole.
impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                match coracle_api::json::to_value(&*status).and_then(coracle_api::json::from_value::<Status>) {
                    Ok(status) if status.reason.as_str() != "Failed to parse error data" => status.into(),
                    // A node answers in plain words.
                    _ => Self::usage(format!("unable to upgrade connection: {}", status.message)),
                }
            }
            error => Self::Unreachable(format!("Unable to connect to the server: {error}")),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Usage(format!("invalid JSON: {error}"))
    }
}
