//! Nodes that have a pod's images already start it sooner.

use crate::{
    framework::{MAX_SCORE, Plugin, PreScore, Score},
    node_info::NodeInfo,
    pod_info::PodInfo,
    snapshot::Snapshot,
};

const MEGABYTE: i64 = 1024 * 1024;
/// Images below this are pulled in no time (upstream's `minThreshold`).
const SMALLEST: i64 = 23 * MEGABYTE;
/// Beyond this a container's image counts no more (upstream's `maxContainerThreshold`).
const LARGEST: i64 = 1000 * MEGABYTE;

pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }
}

impl PreScore for ImageLocality {
    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot, _: &'a [usize]) -> Option<Box<dyn Score + 'a>> {
        let spec = pod.pod.spec.as_ref()?;
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let (mut images, mut count) = (Vec::new(), 0);
        for container in containers {
            count += 1;
            let name = normalized(container.image.as_deref().unwrap_or_default());
            let nodes = snapshot.nodes_with_image(&name);
            // What all nodes have makes no difference between them.
            if nodes > 0 && nodes < snapshot.real_nodes() {
                // An image that few nodes have draws less, or all its pods would end on them.
                images.push((name, nodes as f64 / snapshot.real_nodes().max(1) as f64));
            }
        }
        (!images.is_empty()).then(|| Box::new(Locality { images, largest: LARGEST * count }) as Box<dyn Score>)
    }
}

/// The name as nodes list it: with a tag.
fn normalized(image: &str) -> String {
    let after_path = image.rsplit('/').next().unwrap_or(image);
    if after_path.contains(':') { image.to_owned() } else { format!("{image}:latest") }
}

struct Locality {
    images: Vec<(String, f64)>,
    largest: i64,
}

impl Score for Locality {
    fn score(&self, node: &NodeInfo) -> i64 {
        let weigh =
            |(name, spread): &(String, f64)| node.images.get(name).map_or(0, |size| (*size as f64 * spread) as i64);
        let size = self.images.iter().map(weigh).sum::<i64>().clamp(SMALLEST, self.largest);
        MAX_SCORE * (size - SMALLEST) / (self.largest - SMALLEST)
    }
}
