//! Lists, which come in one message or in several (KEP-5825). `Stream…Request` and `Stream…Response` are, field by field, what
//! `List…Request` and `List…Response` are: each is one type here.

use k8s_cri::v1;
use prost::Message;

use crate::{ContainerStats, PodSandboxStats};

#[derive(Clone, PartialEq, Message)]
pub struct ListContainerStatsResponse {
    #[prost(message, repeated, tag = "1")]
    pub stats: Vec<ContainerStats>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxStatsResponse {
    #[prost(message, repeated, tag = "1")]
    pub stats: Vec<PodSandboxStats>,
}

/// A message that is a part of a list.
pub trait Part: Message + Default + 'static {
    type Item: Message + Send + 'static;

    fn of(items: Vec<Self::Item>) -> Self;
    fn items(self) -> Vec<Self::Item>;
}

macro_rules! parts {
    ($($part:ty { $items:ident: $item:ty })*) => {
        $(impl Part for $part {
            type Item = $item;

            fn of(items: Vec<$item>) -> Self {
                Self { $items: items }
            }
            fn items(self) -> Vec<$item> {
                self.$items
            }
        })*
    };
}

parts! {
    v1::ListPodSandboxResponse { items: v1::PodSandbox }
    v1::ListContainersResponse { containers: v1::Container }
    v1::ListImagesResponse { images: v1::Image }
    v1::ListPodSandboxMetricsResponse { pod_metrics: v1::PodSandboxMetrics }
    ListContainerStatsResponse { stats: ContainerStats }
    ListPodSandboxStatsResponse { stats: PodSandboxStats }
}
