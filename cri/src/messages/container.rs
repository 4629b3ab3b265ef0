//! Containers: what is asked for, and how they are.

use std::collections::HashMap;

use bytes::Bytes;
use k8s_cri::v1;
use prost::Message;

use crate::Signal;

#[derive(Clone, PartialEq, Message)]
pub struct ImageSpec {
    #[prost(string, tag = "1")]
    pub image: String,
    #[prost(map = "string, string", tag = "2")]
    pub annotations: HashMap<String, String>,
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
    #[prost(string, tag = "19")]
    pub runtime_handler: String,
    /// The digest of an image that is mounted.
    #[prost(string, tag = "20")]
    pub image_ref: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub container_path: String,
    #[prost(string, tag = "2")]
    pub host_path: String,
    #[prost(bool, tag = "3")]
    pub readonly: bool,
    #[prost(bool, tag = "4")]
    pub selinux_relabel: bool,
    #[prost(enumeration = "v1::MountPropagation", tag = "5")]
    pub propagation: i32,
    #[prost(message, repeated, tag = "6")]
    pub uid_mappings: Vec<v1::IdMapping>,
    #[prost(message, repeated, tag = "7")]
    pub gid_mappings: Vec<v1::IdMapping>,
    #[prost(bool, tag = "8")]
    pub recursive_read_only: bool,
    #[prost(message, optional, tag = "9")]
    pub image: Option<ImageSpec>,
    /// The directory of the image that is mounted; empty for all of it.
    #[prost(string, tag = "10")]
    pub image_sub_path: String,
}

/// An environment variable.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    /// Any bytes: a Secret's need not be text.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<v1::ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    pub image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    #[prost(string, tag = "5")]
    pub working_dir: String,
    #[prost(message, repeated, tag = "6")]
    pub envs: Vec<KeyValue>,
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<Mount>,
    #[prost(message, repeated, tag = "8")]
    pub devices: Vec<v1::Device>,
    #[prost(map = "string, string", tag = "9")]
    pub labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "10")]
    pub annotations: HashMap<String, String>,
    #[prost(string, tag = "11")]
    pub log_path: String,
    #[prost(bool, tag = "12")]
    pub stdin: bool,
    #[prost(bool, tag = "13")]
    pub stdin_once: bool,
    #[prost(bool, tag = "14")]
    pub tty: bool,
    #[prost(message, optional, tag = "15")]
    pub linux: Option<v1::LinuxContainerConfig>,
    #[prost(message, optional, tag = "16")]
    pub windows: Option<v1::WindowsContainerConfig>,
    #[prost(message, repeated, tag = "17")]
    pub cdi_devices: Vec<v1::CdiDevice>,
    /// In place of the image's.
    #[prost(enumeration = "Signal", tag = "18")]
    pub stop_signal: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    pub config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pub sandbox_config: Option<v1::PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatus {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<v1::ContainerMetadata>,
    #[prost(enumeration = "v1::ContainerState", tag = "3")]
    pub state: i32,
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    #[prost(int64, tag = "5")]
    pub started_at: i64,
    #[prost(int64, tag = "6")]
    pub finished_at: i64,
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    #[prost(message, optional, tag = "8")]
    pub image: Option<ImageSpec>,
    #[prost(string, tag = "9")]
    pub image_ref: String,
    #[prost(string, tag = "10")]
    pub reason: String,
    #[prost(string, tag = "11")]
    pub message: String,
    #[prost(map = "string, string", tag = "12")]
    pub labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "13")]
    pub annotations: HashMap<String, String>,
    #[prost(message, repeated, tag = "14")]
    pub mounts: Vec<Mount>,
    #[prost(string, tag = "15")]
    pub log_path: String,
    #[prost(message, optional, tag = "16")]
    pub resources: Option<v1::ContainerResources>,
    #[prost(string, tag = "17")]
    pub image_id: String,
    #[prost(message, optional, tag = "18")]
    pub user: Option<v1::ContainerUser>,
    /// The one that it is asked to end with, whoever chose it.
    #[prost(enumeration = "Signal", tag = "19")]
    pub stop_signal: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_newer_goes_over_the_wire_beside_the_known_fields() {
        let mount = |path: &str, part: &str| Mount {
            container_path: path.into(),
            image_sub_path: part.into(),
            readonly: true,
            ..Mount::default()
        };
        let config = ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 1 }),
            mounts: vec![mount("/a", ""), mount("/b", "dir/part")],
            envs: vec![KeyValue { key: "K".into(), value: Bytes::from_static(b"text") }],
            log_path: "c/0.log".into(),
            stop_signal: Signal::Sigusr1 as i32,
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: "pod".into(),
            config: Some(config),
            sandbox_config: Some(v1::PodSandboxConfig { hostname: "h".into(), ..Default::default() }),
        };
        let bytes = request.encode_to_vec();
        assert_eq!(CreateContainerRequest::decode(&bytes[..]).unwrap(), request);
        // Field 10 of a mount, field 18 of the configuration.
        for part in [&b"\x52\x08dir/part"[..], b"\x90\x01\x1d"] {
            assert!(bytes.windows(part.len()).any(|window| window == part), "{bytes:?}");
        }
        // A runtime that does not know the fields reads the rest.
        let known = v1::CreateContainerRequest::decode(&bytes[..]).unwrap();
        let config = known.config.unwrap();
        assert_eq!((config.mounts[1].container_path.as_str(), config.log_path.as_str()), ("/b", "c/0.log"));
        assert_eq!((known.pod_sandbox_id.as_str(), config.envs[0].value.as_str()), ("pod", "text"));
    }

    #[test]
    fn values_of_variables_need_not_be_text() {
        let value = KeyValue { key: "K".into(), value: Bytes::from_static(b"\xff\x00") };
        assert!(v1::KeyValue::decode(&value.encode_to_vec()[..]).is_err());
        assert_eq!(KeyValue::decode(&value.encode_to_vec()[..]).unwrap(), value);
    }
}
