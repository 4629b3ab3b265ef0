//! What is told of each container.

use super::{Pod, SECCOMP, has_profile};
use crate::registry::core::profiles::{APP_ARMOR, DEPRECATED, SECCOMP_OF_CONTAINER};
use crate::registry::core::windows::containers;
use crate::registry::fields::{field, items, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::collections::HashSet;

pub fn tell(pod: &Pod, told: &mut Warnings) {
    let of_pod = has_profile(pod.spec, "appArmorProfile");
    let annotated = pod.annotations.is_some_and(|annotations| !annotations.is_empty());
    for (container, path) in containers(pod.spec, &pod.path) {
        let name = text(container, "name");
        if annotated && !has_profile(container, "seccompProfile") {
            pod.annotation(&format!("{SECCOMP_OF_CONTAINER}{name}"), SECCOMP, told);
        }
        // Of pods themselves it is told where the annotation is read.
        if annotated && pod.is_template && !of_pod && !has_profile(container, "appArmorProfile") {
            pod.annotation(&format!("{APP_ARMOR}{name}"), DEPRECATED, told);
        }
        if let Some(resources) = field(container, "resources") {
            for name in ["memory", "ephemeral-storage"] {
                for kind in ["limits", "requests"] {
                    told.fraction(field(resources, kind), name, || path.child("resources").child(kind));
                }
            }
        }
        hidden(container, &path, told);
    }
}

/// Variables that hide others of their name, rather than to build upon them.
fn hidden(container: &Value, path: &FieldPath, told: &mut Warnings) {
    let variables = items(container, "env");
    if variables.len() < 2 {
        return;
    }
    let mut known = HashSet::new();
    for (nth, variable) in variables.iter().enumerate() {
        let name = text(variable, "name");
        if known.insert(name) {
            continue;
        }
        let (value, before) = (text(variable, "value"), format!("$({name})"));
        let is_from_elsewhere = field(variable, "valueFrom").is_some_and(|from| !from.is_null());
        if is_from_elsewhere || value == before || !value.contains(&before) {
            let why = format_args!("hides previous definition of {name:?}, which may be dropped when using apply");
            told.at(&path.child("env").index(nth), why);
        }
    }
}
