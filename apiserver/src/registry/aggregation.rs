//! APIServices: which server answers for a group and version (apiregistration `validation.go`). All of them are answered
//! here; another server can not be put in the place of this one.

use super::fields::{is_set, text};
use super::strategy::{NameRule, Strategy, ThroughStatus, Traits};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use serde_json::Value;

#[derive(Debug)]
pub struct ApiServiceStrategy;

impl Strategy for ApiServiceStrategy {
    fn traits(&self) -> Traits {
        Traits { through_status: ThroughStatus::Nothing, ..Traits::DEFAULT }
    }

    fn name_rule(&self) -> NameRule {
        // Of the core group it is `v1.`
        validation::path_segment
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        let name = coracle_api::meta::name(object);
        if name != format!("{version}.{group}") {
            let why = format!("must be `spec.version+\".\"+spec.group`: {:?}", format!("{version}.{group}"));
            causes.push(Cause::invalid(&FieldPath::new("metadata.name"), name, why));
        }
        if version.is_empty() {
            causes.push(Cause::required(&path.child("version"), ""));
        }
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let number = spec.get(field).and_then(Value::as_i64).unwrap_or(0);
            if !(1..=most).contains(&number) {
                let why = format!("must be positive and less than {most}");
                causes.push(Cause::invalid(&path.child(field), number, why));
            }
        }
        if is_set(spec, "service") {
            let why = "this server does not pass requests on to other API servers";
            causes.push(Cause::forbidden(&path.child("service"), why));
        }
    }
}
