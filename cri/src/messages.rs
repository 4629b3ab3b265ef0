//! The messages and what stands in them beside the fields that k8s-cri knows.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use k8s_cri::v1;
use prost::{
    DecodeError, Message,
    encoding::{WireType, encode_key, encode_varint},
};

/// The pod's share of the node, after its group was changed.
#[derive(Clone, PartialEq, Message)]
pub struct UpdatePodSandboxResourcesRequest {
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    pub overhead: Option<v1::LinuxContainerResources>,
    /// The sum of the containers' resources.
    #[prost(message, optional, tag = "3")]
    pub resources: Option<v1::LinuxContainerResources>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct UpdatePodSandboxResourcesResponse {}

/// A request for a container whose mounts may be parts of images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CreateContainer {
    pub request: v1::CreateContainerRequest,
    /// `image_sub_path` of mounts, by their place in `config.mounts`.
    pub image_sub_paths: BTreeMap<usize, String>,
}

/// The request, its parts as they came: a message and bytes are the same on the wire.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    config: Option<Bytes>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<v1::PodSandboxConfig>,
}

/// `ContainerConfig.mounts`
const MOUNTS: u32 = 7;
/// `Mount.image_sub_path`
const IMAGE_SUB_PATH: u32 = 10;

/// The part of a container's configuration that has a field more.
#[derive(Clone, PartialEq, Message)]
struct Mounts {
    #[prost(message, repeated, tag = "7")]
    mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(string, tag = "10")]
    image_sub_path: String,
}

impl TryFrom<Envelope> for CreateContainer {
    type Error = DecodeError;

    fn try_from(envelope: Envelope) -> Result<Self, DecodeError> {
        let Envelope { pod_sandbox_id, config, sandbox_config } = envelope;
        let mut image_sub_paths = BTreeMap::new();
        if let Some(config) = &config {
            let mounts = Mounts::decode(config.clone())?.mounts.into_iter().enumerate();
            let named = mounts.filter(|(_, mount)| !mount.image_sub_path.is_empty());
            image_sub_paths = named.map(|(index, mount)| (index, mount.image_sub_path)).collect();
        }
        let config = config.map(v1::ContainerConfig::decode).transpose()?;
        Ok(Self { request: v1::CreateContainerRequest { pod_sandbox_id, config, sandbox_config }, image_sub_paths })
    }
}

impl From<CreateContainer> for Envelope {
    fn from(create: CreateContainer) -> Self {
        let CreateContainer { request, image_sub_paths } = create;
        let v1::CreateContainerRequest { pod_sandbox_id, config, sandbox_config } = request;
        let config = config.map(|mut config| {
            let mounts = std::mem::take(&mut config.mounts);
            let mut out = BytesMut::from(&config.encode_to_vec()[..]);
            for (index, mount) in mounts.iter().enumerate() {
                let mut mount = mount.encode_to_vec();
                if let Some(path) = image_sub_paths.get(&index) {
                    put(IMAGE_SUB_PATH, path.as_bytes(), &mut mount);
                }
                put(MOUNTS, &mount, &mut out);
            }
            out.freeze()
        });
        Envelope { pod_sandbox_id, config, sandbox_config }
    }
}

/// Writes a field of bytes.
fn put(number: u32, value: &[u8], out: &mut impl BufMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create() -> CreateContainer {
        let mount = |path: &str| v1::Mount { container_path: path.into(), readonly: true, ..Default::default() };
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 1 }),
            mounts: vec![mount("/a"), mount("/b"), mount("/c")],
            log_path: "c/0.log".into(),
            ..Default::default()
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: "pod".into(),
            config: Some(config),
            sandbox_config: Some(v1::PodSandboxConfig { hostname: "h".into(), ..Default::default() }),
        };
        CreateContainer { request, image_sub_paths: BTreeMap::from([(1, "dir/part".into())]) }
    }

    #[test]
    fn parts_of_images_go_over_the_wire_beside_the_known_fields() {
        let bytes = Envelope::from(create()).encode_to_vec();
        assert_eq!(CreateContainer::try_from(Envelope::decode(&bytes[..]).unwrap()).unwrap(), create());
        // A runtime that does not know the field reads the rest.
        assert_eq!(v1::CreateContainerRequest::decode(&bytes[..]).unwrap(), create().request);
        // Field 10 of field 7 of field 2.
        let part = b"\x52\x08dir/part";
        assert!(bytes.windows(part.len()).any(|window| window == part), "{bytes:?}");
    }

    #[test]
    fn a_request_without_the_field_is_as_before() {
        let CreateContainer { request, .. } = create();
        let bytes = request.encode_to_vec();
        let read = CreateContainer::try_from(Envelope::decode(&bytes[..]).unwrap()).unwrap();
        assert_eq!(read, CreateContainer { request, image_sub_paths: BTreeMap::new() });
        let nothing = CreateContainer::try_from(Envelope::default()).unwrap();
        assert_eq!(nothing.request.config, None);
        let broken = Envelope { config: Some(Bytes::from_static(b"\x3a\xff")), ..Envelope::default() };
        assert!(CreateContainer::try_from(broken).is_err());
    }
}
