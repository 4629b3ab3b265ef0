//! ImageService: what images there are, pulling and removing them.

use std::sync::Arc;

use k8s_cri::v1::{self, image_service_server::ImageService};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use super::{convert, missing, status};
use crate::{
    engine::{Engine, model::now},
    images::registry::Credentials,
    snapshots::measure,
};

/// The CRI's service of images.
pub struct Service {
    engine: Arc<Engine>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub fn new(engine: Arc<Engine>) -> Service {
        Service { engine }
    }
}

/// What the kubelet knows of a registry's credentials.
fn credentials(auth: Option<v1::AuthConfig>) -> Result<Credentials, Status> {
    let Some(auth) = auth else { return Ok(Credentials::Anonymous) };
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

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(&self, request: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let name =
            request.into_inner().filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        let images = if name.is_empty() {
            self.engine.images().list()
        } else {
            self.engine.images().find(&name).into_iter().collect()
        };
        Ok(Response::new(v1::ListImagesResponse { images: images.iter().map(|image| convert::image(image)).collect() }))
    }

    async fn image_status(&self, request: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let image = request.into_inner().image.ok_or_else(|| missing("image"))?;
        let found = self.engine.images().find(&image.image);
        Ok(Response::new(v1::ImageStatusResponse {
            image: found.map(|image| convert::image(&image)),
            info: Default::default(),
        }))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.ok_or_else(|| missing("image"))?.image;
        let credentials = credentials(request.auth)?;
        let image = self.engine.images().pull(&name, credentials).await.map_err(status)?;
        Ok(Response::new(v1::PullImageResponse { image_ref: image.id.to_string() }))
    }

    async fn remove_image(&self, request: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        let image = request.into_inner().image.ok_or_else(|| missing("image"))?;
        // By the id: CRI removes the image with all its names.
        if let Some(found) = self.engine.images().find(&image.image) {
            let engine = self.engine.clone();
            let removed = self.engine.images().remove(found.id.as_str(), move || engine.chains_in_use());
            removed.await.map_err(status)?;
        }
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
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
        Ok(Response::new(info.await.map_err(|error| status(error.into()))?))
    }
}
