//! Deployments.

use super::{rolling, workload};
use crate::registry::fields::{below_mut, non_negative, object_mut, set, set_default, text};
use crate::registry::strategy::{ScalePaths, Strategy, ThroughStatus, Traits};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, go, meta};

const COUNTS: [&str; 8] = [
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "collisionCount",
];

/// The revision to go back to: a field in extensions/v1beta1, an annotation since (apps/v1 `conversion.go`).
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// It is a number, or it is not there.
fn settle_rollback(deployment: &mut Value) {
    let Some(given) = meta::annotation(deployment, ROLLBACK_TO) else { return };
    if given.is_empty() {
        meta::drop_annotations(deployment, &[ROLLBACK_TO]);
    } else if let Ok(revision) = go::parse_int(given)
        && let Some(annotations) = below_mut(deployment, &["metadata", "annotations"])
    {
        set(annotations, ROLLBACK_TO, revision.to_string());
    }
}

/// apps/v1 Deployment
#[derive(Debug)]
pub struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    fn traits(&self) -> Traits {
        Traits {
            generation: true,
            annotations_count: true,
            through_status: ThroughStatus::NotLabels,
            ..Traits::DEFAULT
        }
    }

    fn default(&self, object: &mut Value) {
        settle_rollback(object);
        let spec = object_mut(object, "spec");
        workload::default_template(spec);
        set_default(spec, "replicas", 1);
        let strategy = object_mut(spec, "strategy");
        set_default(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object_mut(strategy, "rollingUpdate");
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
    }

    fn misfit(&self, object: &Value) -> Option<String> {
        let given = meta::annotation(object, ROLLBACK_TO).filter(|given| !given.is_empty())?;
        let why = go::parse_int(given).err()?;
        Some(format!("failed to parse annotation[{ROLLBACK_TO}]={given} as int64: {why}"))
    }

    fn validate(&self, object: &Value, causes: &mut Vec<Cause>) {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        non_negative(spec, "replicas", &path, causes);
        workload::selector(spec, "deployment", &path, causes);
        workload::replicated(spec, &path, causes);
        strategy(&spec["strategy"], &path.child("strategy"), causes);
        non_negative(spec, "minReadySeconds", &path, causes);
        non_negative(spec, "revisionHistoryLimit", &path, causes);
        if let Some(deadline) = spec.get("progressDeadlineSeconds").and_then(Value::as_i64) {
            non_negative(spec, "progressDeadlineSeconds", &path, causes);
            if deadline <= spec.get("minReadySeconds").and_then(Value::as_i64).unwrap_or(0) {
                causes.push(Cause::invalid(
                    &path.child("progressDeadlineSeconds"),
                    deadline,
                    "must be greater than minReadySeconds",
                ));
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        workload::same_selector(object, old, causes);
    }

    fn validate_status(&self, object: &Value, old: &Value, causes: &mut Vec<Cause>) {
        let status = &object["status"];
        let within = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        workload::counts(status, &COUNTS, &within, causes);
        workload::available(status, "cannot be greater than readyReplicas", causes);
        workload::collisions(status, &old["status"], causes);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old)
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(ScalePaths { structured_selector: true, custom: None })
    }
}

fn strategy(strategy: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let update = strategy.get("rollingUpdate").filter(|update| !update.is_null());
    match (text(strategy, "type"), update) {
        ("Recreate", Some(_)) => {
            causes.push(Cause::forbidden(
                &path.child("rollingUpdate"),
                "may not be specified when strategy `type` is 'Recreate'",
            ));
        }
        ("RollingUpdate", Some(update)) => {
            let path = path.child("rollingUpdate");
            let (unavailable, surge) = (update.get("maxUnavailable"), update.get("maxSurge"));
            rolling::number(unavailable, &path.child("maxUnavailable"), causes);
            rolling::number(surge, &path.child("maxSurge"), causes);
            if rolling::is_zero(unavailable) && rolling::is_zero(surge) {
                let value = unavailable.cloned().unwrap_or(Value::Null);
                causes.push(Cause::invalid(&path.child("maxUnavailable"), value, "may not be 0 when `maxSurge` is 0"));
            }
            rolling::at_most_all(unavailable, &path.child("maxUnavailable"), causes);
        }
        ("RollingUpdate", None) => {
            causes.push(Cause::required(&path.child("rollingUpdate"), "this should be defaulted and never be nil"));
        }
        ("Recreate", None) => {}
        _ => {
            let fields = [("maxUnavailable", "MaxUnavailable", 0.into()), ("maxSurge", "MaxSurge", 0.into())];
            let value = workload::strategy_value(strategy, &fields);
            causes.push(Cause::not_supported(path, value, &["Recreate", "RollingUpdate"]));
        }
    }
}
