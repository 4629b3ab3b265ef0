//! Classes of block I/O and of caches that annotations put a container in. There are none: they are what an administrator's
//! files make of a machine's disks and processors, and a container that asks for one is refused, as by a containerd without
//! such files (`internal/cri/server`, `blockIOClassFromAnnotations` and `rdtClassFromAnnotations`; the annotations are those
//! of intel/goresctrl, `pkg/blockio` and `pkg/rdt`).

use std::collections::BTreeMap;

use crate::error::{Error, Result};

type Annotations = BTreeMap<String, String>;

/// Refuses a container that is to be in a class; `name` is what its pod calls it.
pub fn refuse(name: &str, container: &Annotations, pod: &Annotations) -> Result<()> {
    let class = |kind: &str| {
        let of_pod = |of: &str| pod.get(&format!("{kind}.resources.beta.kubernetes.io/{of}"));
        let own = container.get(&format!("io.kubernetes.cri.{kind}-class"));
        own.or_else(|| of_pod(&format!("container.{name}"))).or_else(|| of_pod("pod"))
    };
    if let Some(class) = class("blockio").filter(|class| !class.is_empty()) {
        return Err(Error::precondition(format!(
            "failed to set blockio class: blockio disabled, refusing to set blockio class of container {name:?} to {class:?}"
        )));
    }
    match class("rdt") {
        Some(class) => Err(Error::precondition(format!(
            "failed to set RDT class: RDT not initialized, class {class:?} not available"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_refused_by_name() {
        let refused = |container: &[(&str, &str)], pod: &[(&str, &str)]| {
            let map = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Annotations>()
            };
            refuse("web", &map(container), &map(pod)).err().map(|error| error.to_string())
        };
        let (pod, other) =
            ("blockio.resources.beta.kubernetes.io/pod", "rdt.resources.beta.kubernetes.io/container.other");
        assert_eq!(refused(&[], &[(other, "gold"), ("kubernetes.io/x", "y")]), None);
        assert_eq!(refused(&[], &[(pod, "")]), None);
        let why = refused(&[], &[(pod, "slow"), ("blockio.resources.beta.kubernetes.io/container.web", "fast")]);
        assert!(why.unwrap().ends_with("refusing to set blockio class of container \"web\" to \"fast\""));
        let why = refused(&[("io.kubernetes.cri.blockio-class", "own")], &[(pod, "slow")]);
        assert!(why.unwrap().ends_with("to \"own\""));
        let why = refused(&[], &[("rdt.resources.beta.kubernetes.io/pod", "gold")]);
        assert_eq!(why.unwrap(), "failed to set RDT class: RDT not initialized, class \"gold\" not available");
    }
}
