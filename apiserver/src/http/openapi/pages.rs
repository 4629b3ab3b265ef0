//! What there is besides resources: what is served, and by whom.

use super::definitions::{Definitions, Style};
use super::names::Names;
use coracle_api::json::{Map, Value, json};
use coracle_api::schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const DOCUMENTS: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// A page that is read, and nothing else.
pub(super) struct Page {
    /// Without the slash that it begins with.
    pub path: String,
    /// What stands in its name after `get`.
    name: &'static str,
    describes: &'static str,
    types: &'static [&'static str],
    /// The definition of what is read, where it is no text.
    definition: Option<String>,
}

impl Page {
    fn new(path: &str, name: &'static str, describes: &'static str, definition: &str) -> Self {
        Self { path: path.to_owned(), name, describes, types: &DOCUMENTS, definition: Some(definition.to_owned()) }
    }

    /// The resources of a group and version, below `base`.
    pub fn of_resources(base: &str) -> Self {
        let path = format!("{base}/");
        Self::new(&path, "APIResources", "Reads which resources there are.", &format!("{META}.APIResourceList"))
    }

    /// The pages apart from groups and versions.
    pub fn all<'g>(groups: impl Iterator<Item = &'g str>) -> Vec<Self> {
        let version = "io.k8s.apimachinery.pkg.version.Info";
        let mut pages = vec![
            Self {
                types: &DOCUMENTS[..1],
                definition: None,
                ..Self::new(
                    ".well-known/openid-configuration",
                    "ServiceAccountIssuerOpenIDConfiguration",
                    "Reads how tokens of service accounts are issued.",
                    "",
                )
            },
            Self::new(
                "api/",
                "APIVersions",
                "Reads which versions of the core group there are.",
                &format!("{META}.APIVersions"),
            ),
            Self::new("apis/", "APIVersions", "Reads which groups there are.", &format!("{META}.APIGroupList")),
            Self {
                types: &["application/jwk-set+json"],
                definition: None,
                ..Self::new(
                    "openid/v1/jwks",
                    "ServiceAccountIssuerOpenIDKeyset",
                    "Reads the keys that tokens of service accounts are signed with.",
                    "",
                )
            },
            Self {
                types: &DOCUMENTS[..1],
                ..Self::new("version/", "CodeVersion", "Reads the server's version.", version)
            },
        ];
        let groups = groups.filter(|group| !group.is_empty());
        pages.extend(groups.map(|group| {
            let path = format!("apis/{group}/");
            Self::new(&path, "APIGroup", "Reads which versions of the group there are.", &format!("{META}.APIGroup"))
        }));
        pages
    }

    /// Adds the page and what it is made of.
    pub fn add(&self, style: Style, found: &mut Map, definitions: &mut Definitions<'_>) {
        let gives = match self.definition.as_deref().and_then(schema::named) {
            Some(ty) => {
                definitions.add(ty);
                style.reference(ty.full_name())
            }
            None => json!({"type": "string"}),
        };
        let names = Names::of(&self.path);
        let mut operation = json!({
            "description": self.describes, "operationId": names.id("get", self.name), "tags": [names.tag()],
        });
        let mut answer = json!({"description": "OK"});
        match style {
            Style::V3 => {
                let each = self.types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": gives})));
                answer["content"] = Value::Object(each.collect());
            }
            Style::V2 => {
                operation["produces"] = json!(self.types);
                answer["schema"] = gives;
            }
        }
        operation["responses"] = json!({"200": answer, "401": {"description": "Unauthorized"}});
        found.insert(format!("/{}", self.path), json!({"get": operation}));
    }
}
