//! Comparing and naming pod templates.

use coracle_api::decode;
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Whether the templates are the same but for the hash label, which only the ReplicaSet's has. What holds nothing may be there
/// or not: an older server stored it otherwise, and nothing is rolled out anew for that.
pub fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    if !decode::same(&a.spec, &b.spec, "io.k8s.api.core.v1.PodSpec") {
        return false;
    }
    let bare = |template: &PodTemplateSpec| {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        metadata.creation_timestamp = None;
        if let Some(labels) = metadata.labels.as_mut() {
            labels.remove(HASH_LABEL);
        }
        metadata.labels = metadata.labels.filter(|labels| !labels.is_empty());
        metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
        metadata
    };
    bare(a) == bare(b)
}

/// The template's hash as upstream writes it: FNV-1a of 32 bits over the template and the collision count, in characters
/// that make no words. What is hashed is the canonical JSON; upstream hashes a print-out of Go structs that no other program can make,
/// and nothing depends on the value but its stability.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = Fnv::default();
    // A pod template is made of strings, numbers, lists and maps with string keys: it always serialises.
    hash.write(&serde_json::to_vec(template).unwrap_or_default());
    if let Some(collisions) = collisions {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&collisions.to_le_bytes());
        hash.write(&bytes);
    }
    coracle_api::names::safe_encode(&hash.0.to_string())
}

struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn template(labels: coracle_api::json::Value, image: &str) -> PodTemplateSpec {
        coracle_api::json::from_value(
            json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}),
        )
        .unwrap()
    }

    #[test]
    fn only_the_hash_label_is_ignored() {
        let plain = template(json!({"app": "web"}), "v1");
        assert!(same(&plain, &template(json!({"app": "web", "pod-template-hash": "x"}), "v1")));
        assert!(!same(&plain, &template(json!({"app": "web"}), "v2")));
        assert!(!same(&plain, &template(json!({"app": "web", "tier": "x"}), "v1")));
    }

    #[test]
    fn what_holds_nothing_is_no_difference() {
        let plain = template(json!({"app": "web"}), "v1");
        let mut written = plain.clone();
        let container = &mut written.spec.as_mut().unwrap().containers[0];
        container.resources = Some(Default::default());
        container.env = Some(Vec::new());
        assert!(written != plain && same(&written, &plain));
        written.spec.as_mut().unwrap().security_context = Some(Default::default());
        // A pointer is there or not.
        assert!(!same(&written, &plain));
    }

    #[test]
    fn the_hash_is_stable_and_moves_with_collisions() {
        let plain = template(json!({"app": "web"}), "v1");
        assert_eq!(hash(&plain, None), hash(&plain.clone(), None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
        assert_ne!(hash(&plain, Some(1)), hash(&plain, Some(2)));
        assert!(hash(&plain, None).len() <= 10);
        let mut fnv = Fnv::default();
        fnv.write(b"foobar");
        assert_eq!(fnv.0, 0xbf9c_f968, "the test vector of the FNV authors");
    }
}
