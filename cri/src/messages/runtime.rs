//! What a runtime can do.

use std::collections::HashMap;

use k8s_cri::v1;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<v1::RuntimeStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub runtime_handlers: Vec<v1::RuntimeHandler>,
    #[prost(message, optional, tag = "4")]
    pub features: Option<RuntimeFeatures>,
}

/// What all handlers of a runtime can do.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RuntimeFeatures {
    #[prost(bool, tag = "1")]
    pub supplemental_groups_policy: bool,
    /// Pods with users of their own in the node's network (KEP-5607).
    #[prost(bool, tag = "2")]
    pub user_namespaces_host_network: bool,
}
