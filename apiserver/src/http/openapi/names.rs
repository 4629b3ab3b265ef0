//! What operations are called (apiserver `endpoints/openapi`, `GetOperationIDAndTags`): clients that are generated from the
//! documents have a method for each.

/// How a path puts itself into names.
#[derive(Clone)]
pub(super) struct Names {
    tag: String,
    middle: String,
}

impl Names {
    /// Those of the operations at or below a path.
    pub fn of(path: &str) -> Self {
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        if parts[0] == "api" {
            parts.splice(..1, ["apis", "core"]);
        }
        match parts[..] {
            ["apis", group, ref rest @ ..] => {
                let group = group.strip_suffix(".k8s.io").unwrap_or(group);
                let mut names = Self { tag: joined(group, false), middle: joined(group, true) };
                if let Some(version) = rest.first() {
                    names.tag = format!("{}_{}", names.tag, joined(version, false));
                    names.middle.push_str(&joined(version, true));
                }
                names
            }
            ref other => Self { tag: joined(other[0], false), middle: String::new() },
        }
    }

    /// Under which operations are gathered.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Of an operation that begins with a verb.
    pub fn id(&self, verb: &str, rest: &str) -> String {
        format!("{verb}{}{}", self.middle, joined(rest, true))
    }
}

/// Letters, digits and `_`; what comes after anything else is capitalized. No name begins with a digit.
fn joined(text: &str, capitalize: bool) -> String {
    let mut name = String::with_capacity(text.len());
    let mut capitalize = capitalize;
    for (at, letter) in text.char_indices() {
        if !(letter.is_alphabetic() || letter == '_' || at != 0 && letter.is_numeric()) {
            capitalize = true;
        } else if std::mem::take(&mut capitalize) {
            name.extend(letter.to_uppercase());
        } else {
            name.push(letter);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_upstream_calls_them() {
        let cases = [
            ("api/v1", "core_v1", "listCoreV1NamespacedPod"),
            ("apis/apps/v1", "apps_v1", "listAppsV1NamespacedPod"),
            ("apis/rbac.authorization.k8s.io/v1", "rbacAuthorization_v1", "listRbacAuthorizationV1NamespacedPod"),
            ("apis/stable.example.com/v1beta1", "stableExampleCom_v1beta1", "listStableExampleComV1beta1NamespacedPod"),
            ("apis/my-apps.io/v1", "myAppsIo_v1", "listMyAppsIoV1NamespacedPod"),
            ("version", "version", "listNamespacedPod"),
            (".well-known/openid-configuration", "WellKnown", "listNamespacedPod"),
        ];
        for (path, tag, id) in cases {
            let names = Names::of(path);
            assert_eq!((names.tag(), &*names.id("list", "NamespacedPod")), (tag, id));
        }
    }
}
