//! Asking a registry without pulling from it: does it take these credentials, what does a name stand for there.

use super::{
    Images,
    reference::Reference,
    registry::{Credentials, Served},
};
use crate::error::{Error, Result};

impl Images {
    /// Whether a registry takes credentials; a token that stands for them from then on, if the registry gives one.
    pub async fn check_login(&self, host: &str, credentials: Credentials) -> Result<Option<String>> {
        self.inner.registry.login(host, credentials).await
    }

    /// The tags that a repository has in its registry.
    pub async fn tags_in_registry(&self, reference: &Reference, credentials: Credentials) -> Result<Vec<String>> {
        self.inner.registry.repository(reference, credentials)?.tags().await
    }

    /// The manifest or index that a name stands for in its registry.
    pub async fn manifest_in_registry(&self, reference: &Reference, credentials: Credentials) -> Result<Served> {
        let repository = self.inner.registry.repository(reference, credentials)?;
        let asked = repository.manifest(&reference.manifest()).await;
        asked.map_err(|error| match error.is_not_found() {
            true => Error::not_found(format!("manifest unknown: {}", reference.familiar())),
            false => error,
        })
    }
}
