//! What columns of metadata show, in the words of the field itself (metav1.ObjectMeta): from the JSON schema that `k8s-openapi`
//! carries.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::schemars::generate::SchemaSettings;
use std::sync::LazyLock;

static NAME: LazyLock<String> = LazyLock::new(|| of("name"));
static CREATED: LazyLock<String> = LazyLock::new(|| of("creationTimestamp"));

/// Of the column that names the object.
pub(super) fn name() -> &'static str {
    &NAME
}

/// Of columns that say when it was created, or how long ago.
pub(super) fn created() -> &'static str {
    &CREATED
}

fn of(field: &str) -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<ObjectMeta>();
    let described = schema.pointer(&format!("/properties/{field}/description"));
    described.and_then(|text| text.as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_described() {
        assert!(name().contains("unique within a namespace") && created().contains("server time"), "{}", created());
    }
}
