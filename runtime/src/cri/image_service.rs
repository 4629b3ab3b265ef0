//! ImageService: what images there are, pulling and removing them.

use std::{collections::HashMap, sync::Arc};

use coracle_cri::{ImageService, Items};
use futures::{StreamExt, stream};
use k8s_cri::v1;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::{convert, known_handler, missing, status};
use crate::{
    engine::{Engine, model::now},
    images::{
        reference::Reference,
        registry::{Credentials, address_host},
    },
    snapshots::measure,
};

/// The CRI's service of images.
pub struct Service {
    engine: Arc<Engine>,
}

type Answer<T> = Result<T, Status>;

impl Service {
    pub fn new(engine: Arc<Engine>) -> Service {
        Service { engine }
    }
}

/// What the kubelet knows of a registry's credentials. Those that name another registry than the image's are not for it
/// (containerd `internal/cri/server/images`, `ParseAuth`).
fn credentials(auth: Option<v1::AuthConfig>, image: &str) -> Result<Credentials, Status> {
    let Some(auth) = auth else { return Ok(Credentials::Anonymous) };
    if !auth.server_address.is_empty() {
        let image: Reference = image.parse().map_err(status)?;
        if address_host(&auth.server_address) != image.registry {
            return Ok(Credentials::Anonymous);
        }
    }
    if !auth.registry_token.is_empty() {
        return Ok(Credentials::Bearer(auth.registry_token));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Credentials::Refresh(auth.identity_token));
    }
    if !auth.username.is_empty() {
        return Ok(Credentials::Basic { username: auth.username, password: auth.password });
    }
    if !auth.auth.is_empty() {
        return Credentials::from_docker_auth(&auth.auth).map_err(status);
    }
    Ok(Credentials::Anonymous)
}

impl ImageService for Service {
    async fn list_images(&self, request: v1::ListImagesRequest) -> Answer<Items<v1::Image>> {
        let name = request.filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        let images = if name.is_empty() {
            self.engine.images().list()
        } else {
            self.engine.images().find(&name).into_iter().collect()
        };
        Ok(stream::iter(images.into_iter().map(|image| Ok(convert::image(&image)))).boxed())
    }

    async fn image_status(&self, request: v1::ImageStatusRequest) -> Answer<v1::ImageStatusResponse> {
        let wanted = request.image.ok_or_else(|| missing("image"))?;
        let Some(image) = self.engine.images().find(&wanted.image) else {
            return Ok(v1::ImageStatusResponse::default());
        };
        let mut info = HashMap::new();
        if request.verbose {
            let config = self.engine.images().config(&image).map_err(status)?;
            let text = serde_json::json!({ "chainID": image.chains.last(), "imageSpec": config }).to_string();
            info.insert("info".to_owned(), text);
        }
        Ok(v1::ImageStatusResponse { image: Some(convert::image(&image)), info })
    }

    async fn pull_image(&self, request: v1::PullImageRequest) -> Answer<v1::PullImageResponse> {
        let image = request.image.ok_or_else(|| missing("image"))?;
        known_handler(&image.runtime_handler)?;
        let credentials = credentials(request.auth, &image.image)?;
        let image = self.engine.images().pull(&image.image, credentials).await.map_err(status)?;
        Ok(v1::PullImageResponse { image_ref: image.id.to_string() })
    }

    async fn remove_image(&self, request: v1::RemoveImageRequest) -> Answer<v1::RemoveImageResponse> {
        let image = request.image.ok_or_else(|| missing("image"))?;
        // By the id: CRI removes the image with all its names.
        if let Some(found) = self.engine.images().find(&image.image) {
            let engine = self.engine.clone();
            let removed = self.engine.images().remove(found.id.as_str(), move || engine.chains_in_use());
            removed.await.map_err(status)?;
        }
        Ok(v1::RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: v1::ImageFsInfoRequest) -> Answer<v1::ImageFsInfoResponse> {
        let engine = self.engine.clone();
        let info = spawn_blocking(move || {
            let dir = engine.data_dir().join("snapshots");
            let content = measure(&engine.data_dir().join("content"));
            let mut images = (content.bytes, content.inodes);
            for chain in engine.snapshots().layers() {
                let usage = engine.snapshots().layer_usage(&chain);
                images = (images.0 + usage.bytes, images.1 + usage.inodes);
            }
            let mut containers = (0, 0);
            for container in engine.containers() {
                let usage = engine.writable_usage(&container);
                containers = (containers.0 + usage.bytes, containers.1 + usage.inodes);
            }
            let mountpoint = dir.to_string_lossy().into_owned();
            v1::ImageFsInfoResponse {
                image_filesystems: vec![convert::filesystem_usage(mountpoint.clone(), now(), images.0, images.1)],
                container_filesystems: vec![convert::filesystem_usage(mountpoint, now(), containers.0, containers.1)],
            }
        });
        info.await.map_err(|error| status(error.into()))
    }
}
