//! Images after a power loss: what is missing of them is made again, or they are forgotten.

use tracing::{info, warn};

use super::{
    Images, Inner,
    catalogue::ImageRecord,
    manifest::{ImageConfig, MAX_DOCUMENT},
};
use crate::error::Result;

impl Images {
    /// Unpacks layers that are missing from the content that is there. An image that cannot be made whole is forgotten, so
    /// that it is pulled again instead of failing each container.
    pub async fn mend(&self) -> Result<()> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || {
            for image in inner.catalogue.list() {
                if inner.is_whole(&image) {
                    continue;
                }
                match inner.restore(&image) {
                    Ok(()) => info!(image = %image.id, names = ?image.tags, "an image's layers were unpacked again"),
                    Err(error) => {
                        warn!(image = %image.id, names = ?image.tags, %error, "an image is not whole and is forgotten");
                        inner.catalogue.remove(image.id.as_str(), false)?;
                    }
                }
            }
            Ok(())
        })
        .await?
    }
}

impl Inner {
    /// Whether containers can be made of it.
    pub(super) fn is_whole(&self, image: &ImageRecord) -> bool {
        self.content.contains(&image.id) && image.chains.iter().all(|chain| self.snapshots.has_layer(chain))
    }

    fn restore(&self, image: &ImageRecord) -> Result<()> {
        let config = ImageConfig::parse(&self.content.read(&image.id, MAX_DOCUMENT)?)?;
        let (_, _, manifest) = self.manifest_of(image)?;
        config.check_layers(&manifest)?;
        self.unpack_missing(&manifest, &config)?;
        self.snapshots.settle()
    }
}
