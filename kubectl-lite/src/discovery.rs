//! What the server serves: names to resources.

use coracle_api::json::Value;

use crate::{
    error::{Error, Result},
    session::Session,
};

/// Aggregated discovery (KEP-3352), or the classic lists from a server that has none.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A resource as the server serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
    pub namespaced: bool,
}

impl Resource {
    /// `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployment.apps`, `pod`: how kubectl names a kind in its messages.
    pub fn qualified_singular(&self) -> String {
        coracle_api::gvk::qualified(&self.singular, &self.group)
    }

    /// `deployments.apps`, `pods`
    pub fn qualified_plural(&self) -> String {
        coracle_api::gvk::qualified(&self.plural, &self.group)
    }

    /// The path of the collection, in `namespace` or in all.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let version = self.api_version();
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{version}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.path(Some(namespace)))
    }

    fn is(&self, name: &str) -> bool {
        self.plural == name || self.singular == name || self.short.iter().any(|short| short == name)
    }
}

/// Every resource, preferred versions first.
pub struct Discovery(Vec<Resource>);

impl Discovery {
    /// Asks the server.
    pub async fn ask(session: &Session) -> Result<Self> {
        let (core, groups) = tokio::try_join!(session.get_as("/api", AGGREGATED), session.get_as("/apis", AGGREGATED))?;
        if core["kind"] == "APIGroupDiscoveryList" {
            let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
            return Ok(Self(items(&core).iter().chain(&items(&groups)).flat_map(aggregated_group).collect()));
        }
        Self::ask_classic(session, &core, &groups).await
    }

    async fn ask_classic(session: &Session, core: &Value, groups: &Value) -> Result<Self> {
        let mut resources = Vec::new();
        for version in strings(&core["versions"]) {
            resources.extend(classic("", &version, &session.get(&format!("/api/{version}")).await?));
        }
        for group in groups["groups"].as_array().into_iter().flatten() {
            for version in group["versions"].as_array().into_iter().flatten() {
                let path = format!("/apis/{}", text(&version["groupVersion"]));
                let list = session.get(&path).await?;
                resources.extend(classic(text(&group["name"]), text(&version["version"]), &list));
            }
        }
        Ok(Self(resources))
    }

    /// The resource that a name means: `pods`, `po`, `deployment.apps`, `deployments.v1.apps`, `Deployment`.
    pub fn find(&self, name: &str) -> Result<&Resource> {
        let lower = name.to_lowercase();
        let found = self.0.iter().find(|resource| resource.is(&lower));
        let qualified = || {
            let (name, rest) = lower.split_once('.')?;
            self.0.iter().find(|resource| {
                resource.is(name)
                    && (resource.group == rest || rest == format!("{}.{}", resource.version, resource.group))
            })
        };
        found
            .or_else(qualified)
            .ok_or_else(|| Error::usage(format!("the server doesn't have a resource type \"{name}\"")))
    }

    /// The resource of an object in a manifest.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.0.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// The resources of a category (`all`).
    pub fn category(&self, category: &str) -> Vec<&Resource> {
        self.0.iter().filter(|resource| resource.categories.iter().any(|known| known == category)).collect()
    }

    /// Every resource.
    pub fn all(&self) -> &[Resource] {
        &self.0
    }
}

fn aggregated_group(group: &Value) -> Vec<Resource> {
    let versions = group["versions"].as_array().into_iter().flatten();
    versions
        .flat_map(|version| version["resources"].as_array().into_iter().flatten().map(move |it| (version, it)))
        .map(|(version, resource)| Resource {
            group: text(&group["metadata"]["name"]).to_owned(),
            version: text(&version["version"]).to_owned(),
            kind: text(&resource["responseKind"]["kind"]).to_owned(),
            plural: text(&resource["resource"]).to_owned(),
            singular: text(&resource["singularResource"]).to_owned(),
            short: strings(&resource["shortNames"]),
            categories: strings(&resource["categories"]),
            verbs: strings(&resource["verbs"]),
            namespaced: resource["scope"] == "Namespaced",
        })
        .collect()
}

fn classic(group: &str, version: &str, list: &Value) -> Vec<Resource> {
    let resources = list["resources"].as_array().into_iter().flatten();
    resources
        .filter(|resource| !text(&resource["name"]).contains('/'))
        .map(|resource| {
            let kind = text(&resource["kind"]).to_owned();
            let singular = text(&resource["singularName"]);
            Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: text(&resource["name"]).to_owned(),
                singular: if singular.is_empty() { kind.to_lowercase() } else { singular.to_owned() },
                kind,
                short: strings(&resource["shortNames"]),
                categories: strings(&resource["categories"]),
                verbs: strings(&resource["verbs"]),
                namespaced: resource["namespaced"] == true,
            }
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    fn discovery() -> Discovery {
        let group = json!({
            "metadata": {"name": "apps"},
            "versions": [{"version": "v1", "resources": [{
                "resource": "deployments", "singularResource": "deployment", "scope": "Namespaced",
                "responseKind": {"kind": "Deployment"}, "shortNames": ["deploy"], "categories": ["all"], "verbs": ["get"],
            }]}],
        });
        Discovery(aggregated_group(&group))
    }

    #[test]
    fn a_resource_goes_by_all_its_names() {
        let discovery = discovery();
        for name in ["deployments", "deployment", "deploy", "Deployment", "deployments.apps", "deploy.v1.apps"] {
            assert_eq!(discovery.find(name).unwrap().plural, "deployments", "{name}");
        }
        let unknown = discovery.find("boats").unwrap_err().to_string();
        assert_eq!(unknown, "error: the server doesn't have a resource type \"boats\"");
        assert!(discovery.find("deployments.batch").is_err());
        let resource = discovery.of_kind("apps/v1", "Deployment").unwrap();
        assert_eq!(resource.object_path("a", "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(resource.qualified_singular(), "deployment.apps");
    }
}
