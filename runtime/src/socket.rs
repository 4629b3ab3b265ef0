//! The unix sockets that the runtime serves on.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use tokio::net::UnixListener;

use crate::error::{Context, Error, Result};

/// Listens, with mode 0660; a socket that nobody answers at is replaced.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen at {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).context(what())?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::already_exists(format!("{}: another runtime listens there", what())));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(what()),
        _ => {}
    }
    let listener = UnixListener::bind(path).context(what())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).context(what())?;
    Ok(listener)
}
