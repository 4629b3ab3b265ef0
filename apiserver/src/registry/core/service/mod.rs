//! Services (core/v1 `defaults.go`, core/service `strategy.go`).

mod kept;
mod ports;
mod spec;
mod status;
mod warnings;

use super::families;
use crate::cache::Field;
use crate::registry::fields::{items, items_mut, object_mut, remove, set, set_default, text};
use crate::registry::strategy::{Allocation, NameRule, Strategy, Traits, WriteContext};
use coracle_api::json::{Value, json};
use coracle_api::{Cause, validation};

/// core/v1 Service
#[derive(Debug)]
pub struct ServiceStrategy;

static FIELDS: [Field; 2] =
    [Field::of("spec.clusterIP", &["spec", "clusterIP"], ""), Field::of("spec.type", &["spec", "type"], "")];

/// Three hours (core/v1 `DefaultClientIPServiceAffinitySeconds`).
const AFFINITY_SECONDS: i64 = 10_800;

impl Strategy for ServiceStrategy {
    fn traits(&self) -> Traits {
        Traits { create_on_update: true, allocation: Allocation::Service, ..Traits::DEFAULT }
    }

    fn fields(&self) -> &[Field] {
        &FIELDS
    }

    fn name_rule(&self) -> NameRule {
        // RelaxedServiceNameValidation, on since v1.36 (KEP-5311).
        validation::dns1123_label
    }

    fn default(&self, service: &mut Value) {
        let spec = object_mut(service, "spec");
        set_default(spec, "type", "ClusterIP");
        affinity(spec);
        for port in items_mut(spec, "ports") {
            set_default(port, "protocol", "TCP");
            let target = port.get("targetPort");
            if target.is_none_or(|target| target.is_null() || target.as_i64() == Some(0) || target.as_str() == Some(""))
            {
                let number = port.get("port").cloned().unwrap_or(Value::Null);
                set(port, "targetPort", number);
            }
        }
        if is_external(spec) {
            set_default(spec, "externalTrafficPolicy", "Cluster");
        }
        if text(spec, "type") != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", "Cluster");
        }
        if text(spec, "type") == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
            status::default(service);
        }
    }

    fn prepare_create(&self, service: &mut Value, _context: &WriteContext) {
        service["status"] = json!({"loadBalancer": {}});
        let spec = object_mut(service, "spec");
        families::pair(spec, None);
        families::fill(spec, None);
    }

    fn prepare_update(&self, service: &mut Value, old: &Value, _context: &WriteContext) {
        kept::prepare(service, old);
    }

    fn validate(&self, service: &Value, causes: &mut Vec<Cause>) {
        spec::validate(service, None, causes);
    }

    fn validate_create(&self, service: &Value, causes: &mut Vec<Cause>) {
        if !refuses(service, None, causes) {
            spec::validate(service, None, causes);
        }
    }

    fn validate_changed(&self, service: &Value, old: &Value, causes: &mut Vec<Cause>) {
        if !refuses(service, Some(old), causes) {
            spec::validate_update(&service["spec"], &old["spec"], causes);
            spec::validate(service, Some(old), causes);
        }
    }

    fn warnings(&self, service: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of_service(service)
    }

    fn status_warnings(&self, service: &Value) -> Vec<String> {
        warnings::of_status(service)
    }

    fn validate_status(&self, service: &Value, old: &Value, causes: &mut Vec<Cause>) {
        status::validate(service, old, causes);
    }
}

/// Families are given out before anything else is looked at, so what is said of them is said alone
/// (core/service/storage `beginCreate`, `beginUpdate`).
fn refuses(service: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) -> bool {
    let refused = families::refused(&service["spec"], old.map(|old| &old["spec"]));
    let any = !refused.is_empty();
    if any {
        *causes = refused;
    }
    any
}

/// Who comes back to the pod that answered before; what is said of it without being wanted is forgotten.
fn affinity(spec: &mut Value) {
    set_default(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => drop(remove(spec, "sessionAffinityConfig")),
        "ClientIP" => {
            let config = object_mut(object_mut(spec, "sessionAffinityConfig"), "clientIP");
            set_default(config, "timeoutSeconds", AFFINITY_SECONDS);
        }
        _ => {}
    }
}

/// Whether a service takes what comes from outside the cluster (api/service `ExternallyAccessible`).
fn is_external(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !items(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether a Service of this type has ports of the nodes.
pub fn has_node_ports(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

/// Whether it gets those that it does not ask for (core/service/storage `shouldAllocateNodePorts`).
pub fn gets_node_ports(spec: &Value) -> bool {
    let is_wanted = || spec.get("allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false);
    has_node_ports(spec) && (text(spec, "type") == "NodePort" || is_wanted())
}

/// Whether balancers ask each node if it has pods of the Service (api/service `NeedsHealthCheck`).
pub fn has_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// A port's number; 0 when there is none.
pub fn number(of: &Value, field: &str) -> i64 {
    of.get(field).and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests;
