//! Asking a registry without pulling from it: does it take these credentials, what does a name stand for there.

use super::{
    Images,
    reference::Reference,
    registry::{Credentials, Served},
};
use crate::error::{Error, Result};

impl Images {
    /// Whether a registry takes credentials: its answer to a question that needs them.
    pub async fn check_login(&self, host: &str, credentials: Credentials) -> Result<()> {
        let reference: Reference = format!("{host}/coracle/login-check").parse()?;
        let repository = self.inner.registry.repository(&reference, credentials);
        match repository.manifest("latest").await {
            // It let us in and has no such image.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// The manifest or index that a name stands for in its registry.
    pub async fn manifest_in_registry(&self, reference: &Reference, credentials: Credentials) -> Result<Served> {
        let repository = self.inner.registry.repository(reference, credentials);
        let asked = repository.manifest(&reference.manifest()).await;
        asked.map_err(|error| match error.is_not_found() {
            true => Error::not_found(format!("manifest unknown: {}", reference.familiar())),
            false => error,
        })
    }
}
