//! Admission: what the server adds to, and refuses of, objects of any kind. Mutating first, then validating.

mod certificates;
mod device_admin;
mod grounds;
mod namespace_lifecycle;
mod node_features;
mod pods;
mod storage_in_use;

use crate::registry::Subresource;
use crate::store::Compare;
use crate::verbs::Call;
use coracle_api::json::Value;
use coracle_api::{Status, meta};
use std::time::{Duration, Instant};

pub use grounds::Grounds;
use grounds::Rests;

/// Steps and operations by upstream's names.
const ADMIT: &str = "admit";
const VALIDATE: &str = "validate";
const CREATE: &str = "CREATE";
const UPDATE: &str = "UPDATE";

/// Of every object, first.
const LIFECYCLE: &str = "NamespaceLifecycle";

/// A step, whose time is counted.
fn step(
    call: &Call,
    kind: &'static str,
    operation: &'static str,
    step: impl FnOnce(&Plugins<'_>) -> Result<(), Status>,
) -> Result<(), Status> {
    let since = Instant::now();
    let answer = step(&Plugins { call, kind, operation });
    call.server.metrics.admission(kind, operation, answer.is_err(), since.elapsed());
    answer
}

/// What a step is made of.
struct Plugins<'a> {
    call: &'a Call,
    kind: &'static str,
    operation: &'static str,
}

impl Plugins<'_> {
    /// Runs one, by upstream's name.
    fn run(&self, name: &'static str, plugin: impl FnOnce() -> Result<(), Status>) -> Result<(), Status> {
        let since = Instant::now();
        let answer = plugin();
        let took = since.elapsed();
        self.call.server.metrics.admission_of(name, self.kind, self.operation, answer.is_err(), took);
        answer
    }

    /// The same of one that refuses nothing.
    fn change(&self, name: &'static str, plugin: impl FnOnce()) {
        // It cannot fail.
        let _ = self.run(name, || {
            plugin();
            Ok(())
        });
    }
}

/// The plugins of a new object, each of which says what its answer rests on.
struct Creating<'a, 'g> {
    plugins: &'a Plugins<'a>,
    grounds: &'g mut Grounds,
}

impl Creating<'_, '_> {
    /// As [`Plugins::run`].
    fn run(
        &mut self,
        name: &'static str,
        rests: Rests<'_>,
        plugin: impl FnOnce() -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.grounds.note(self.plugins.call, rests)?;
        self.plugins.run(name, plugin)
    }

    /// As [`Plugins::change`]; it rests on the object.
    fn change(&self, name: &'static str, plugin: impl FnOnce()) {
        self.plugins.change(name, plugin);
    }
}

/// Changes a new object.
pub fn mutate_create(call: &Call, object: &mut Value, grounds: &mut Grounds) -> Result<(), Status> {
    step(call, ADMIT, CREATE, |plugins| {
        let mut creating = Creating { plugins, grounds };
        // Nothing is told of an object that has no place to be. Whether it has is asked again of each.
        creating.run(LIFECYCLE, Rests::Object, || namespace_of(call, meta::name(object)).map(drop))?;
        match (&*call.row().served[0].0, &*call.row().plural) {
            ("", "pods") => {
                creating.change("ServiceAccount", || pods::service_account(object));
                creating.change("DefaultTolerationSeconds", || pods::default_tolerations(object));
                let node = crate::registry::fields::text(&object["spec"], "nodeName").to_owned();
                let of_node = match &*node {
                    "" => Rests::Object,
                    key => Rests::One { group: "", plural: "nodes", key },
                };
                creating.run("PodTopologyLabels", of_node, || pods::topology_labels(call, object, &node))?;
                let classes = Rests::All { group: pods::CLASSES.0, plural: pods::CLASSES.1 };
                creating.run("Priority", classes, || pods::priority(call, object))
            }
            ("", "persistentvolumeclaims") => {
                creating.change(storage_in_use::NAME, || storage_in_use::protect(object, storage_in_use::CLAIM));
                Ok(())
            }
            ("", "persistentvolumes") => {
                creating.change(storage_in_use::NAME, || storage_in_use::protect(object, storage_in_use::VOLUME));
                Ok(())
            }
            ("", "nodes") => {
                creating.change("TaintNodesByCondition", || pods::taint_new_node(object));
                Ok(())
            }
            _ => Ok(()),
        }
    })
}

/// Whether an object like one that was let in on these grounds is let in and changed as that was.
pub fn repeats(call: &Call, name: &str, grounds: &Grounds) -> bool {
    let since = Instant::now();
    if !grounds.hold(call) || namespace_of(call, name).is_err() {
        return false;
    }
    let (took, metrics) = (since.elapsed(), &call.server.metrics);
    // What was remembered of the others did not run.
    metrics.admission_of(LIFECYCLE, ADMIT, CREATE, false, took);
    metrics.admission(ADMIT, CREATE, false, took);
    metrics.admission(VALIDATE, CREATE, false, Duration::ZERO);
    true
}

/// Changes the binding of a pod to a node.
pub fn mutate_binding(call: &Call, binding: &mut Value, node: &str) -> Result<(), Status> {
    step(call, ADMIT, CREATE, |plugins| {
        if crate::registry::fields::text(&binding["target"], "kind") == "Node" {
            plugins.run("PodTopologyLabels", || pods::topology_labels(call, binding, node))?;
        }
        Ok(())
    })
}

/// Changes a changed object.
pub fn mutate_update(call: &Call, object: &mut Value, old: &Value) -> Result<(), Status> {
    step(call, ADMIT, UPDATE, |plugins| {
        if let (("", "pods"), None) = ((&*call.row().served[0].0, &*call.row().plural), call.subresource) {
            plugins.change("DefaultTolerationSeconds", || pods::default_tolerations(object));
            plugins.change("Priority", || pods::keep_priority(object, old));
        }
        Ok(())
    })
}

/// Refuses a new object.
pub fn validate_create(call: &Call, object: &Value, grounds: &mut Grounds) -> Result<(), Status> {
    step(call, VALIDATE, CREATE, |plugins| {
        let mut creating = Creating { plugins, grounds };
        match (&*call.row().served[0].0, &*call.row().plural) {
            ("resource.k8s.io", "resourceclaims" | "resourceclaimtemplates") => {
                creating.grounds.note(call, Rests::Moment)?;
                // Upstream has this one in the kinds' strategies.
                device_admin::check_create(call, object)
            }
            (certificates::GROUP, certificates::REQUESTS) => {
                let check = || certificates::check_subject(call, object);
                creating.run("CertificateSubjectRestriction", Rests::Object, check)
            }
            _ => Ok(()),
        }
    })
}

/// Refuses a changed object.
pub fn validate_update(call: &Call, object: &Value, old: &Value) -> Result<(), Status> {
    step(call, VALIDATE, UPDATE, |plugins| match (&*call.row().served[0].0, &*call.row().plural) {
        ("", "pods") => plugins.run("NodeDeclaredFeatureValidator", || node_features::check(call, object, old)),
        ("resource.k8s.io", "resourceclaims") => device_admin::check_status(call, object, old),
        (certificates::GROUP, certificates::REQUESTS) => {
            let name = match call.subresource {
                Some(Subresource::Approval) => "CertificateApproval",
                _ => "CertificateSigning",
            };
            plugins.run(name, || certificates::check_signer(call, object, old))
        }
        _ => Ok(()),
    })
}

/// What must hold of the object's namespace while it is written.
pub fn namespace_of(call: &Call, name: &str) -> Result<Option<Compare>, Status> {
    namespace_lifecycle::check(call, name)
}

/// The same for what is created below an object: of a namespace that ends, upstream's NamespaceLifecycle refuses every
/// CREATE.
pub async fn namespace_of_part(call: &Call) -> Result<Option<Compare>, Status> {
    if namespace_lifecycle::check(call, &call.name).is_err() {
        // It may have come or gone since.
        call.server.fresh().await?;
    }
    namespace_lifecycle::check(call, &call.name)
}

pub use namespace_lifecycle::check_delete as check_namespace_delete;
