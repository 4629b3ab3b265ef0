//! Eviction: a delete that respects disruption budgets (core/pod/storage `eviction.go`; KEP-3017, KEP-3329).

use super::manage::Managing;
use super::{Call, DeleteOptions, Response, budget_count, delete, update};
use crate::admission;
use crate::bootstrap;
use crate::http::render;
use crate::http::request::Body;
use crate::registry::core::pod::{is_ready, set_condition};
use crate::registry::fields::{items, items_mut, object_mut, set, text};
use crate::registry::{Subresource, meta};
use coracle_api::clock::rfc3339;
use coracle_api::json::{Value, json};
use coracle_api::selector::LabelSelector;
use coracle_api::status::CauseReason;
use coracle_api::{Cause, Gvk, Gvr, Reason, Status, meta as object_meta};

const EVICTION: Gvk = Gvk::of("policy", "v1", "Eviction");
/// As upstream names it when a budget's own numbers are wrong: in the singular.
const BUDGET: Gvr = Gvr::of("policy", "v1", "poddisruptionbudget");
/// No more pods of a budget may be on their way (upstream's `MaxDisruptedPodSize`).
const MOST_DISRUPTED: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What the decision to evict a pod holds for.
enum Holds {
    /// For the pod whatever it becomes.
    Always,
    /// For the pod as it was seen: it may become ready, and count. It is decided anew when it changed.
    AsSeen,
    /// The same by this budget; the client is to ask again.
    AsSeenBy(String),
}

pub(super) async fn evict(mut call: Call, body: Body) -> Result<Response, Status> {
    let (mut eviction, _) = body.of_kind_or(&EVICTION, "policy/v1beta1", call.options.field_validation)?;
    meta::check_location(&call, &mut eviction)?;
    if object_meta::name(&eviction) != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    admission::namespace_of_part(&call).await?;
    let options = DeleteOptions::from_value(&call, eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
    call.options.dry_run |= options.dry_run;
    let mut failed = Status::modified(&call.gvr(), &call.name);
    for _ in 0..update::ATTEMPTS {
        let current = call.current().await?;
        let pod = &current.value;
        let holds = match text(&pod["status"], "phase") {
            "Succeeded" | "Failed" => Holds::Always,
            _ if object_meta::deletion_timestamp(pod).is_some() => Holds::Always,
            "Pending" => Holds::AsSeen,
            _ => ask_budget(&call, pod).await?,
        };
        let pins = !matches!(holds, Holds::Always) && options.resource_version.is_none();
        let pinned = pins.then(|| current.revision.to_string()).or_else(|| options.resource_version.clone());
        let mut given = options.clone();
        given.resource_version = pinned;
        match (mark_and_delete(&call, given).await, holds) {
            (Err(status), Holds::AsSeenBy(budget)) if status.code == 409 && pins => return Err(busy(&budget)),
            (Err(status), Holds::AsSeen) if status.code == 409 && pins => failed = status,
            (result, _) => {
                result?;
                return Ok(render::created(&call.accept));
            }
        }
    }
    Err(failed)
}

/// Says on the pod why it goes, and deletes it.
async fn mark_and_delete(call: &Call, mut options: DeleteOptions) -> Result<(), Status> {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
    let mut marked = call.options.dry_run;
    for _ in 0..update::ATTEMPTS {
        if marked {
            break;
        }
        let current = call.current().await?;
        delete::check_preconditions(call, &options, &current)?;
        let mut pod = current.value.clone();
        let mut condition = condition.clone();
        set(&mut condition, "observedGeneration", object_meta::generation(&pod));
        set_condition(&mut pod, condition, call.server.config.clock.now());
        if let Some(written) = call.replace(&current, &current.with(&pod), Vec::new()).await? {
            marked = true;
            if options.resource_version.is_some() {
                // It is our own write that changed it.
                let written: Value = serde_json::from_slice(&written.json).map_err(Status::internal)?;
                options.resource_version = Some(object_meta::resource_version(&written).to_owned());
            }
        }
    }
    delete::delete_object(call, &options).await.map(drop)
}

/// Counts the eviction in the pod's budget, when it has one.
async fn ask_budget(call: &Call, pod: &Value) -> Result<Holds, Status> {
    let mut asked = String::new();
    for _ in 0..update::ATTEMPTS {
        let Some(name) = budget_of(call, pod).await? else { return Ok(Holds::Always) };
        // The server's own write, as upstream's goes through its own client.
        let mut own = bootstrap::call(&call.server, ("policy", "poddisruptionbudgets"), &call.namespace, &name)?;
        own.subresource = Some(Subresource::Status);
        asked = name;
        let current = match own.current().await {
            Err(status) if status.code == 404 => continue,
            found => found?,
        };
        let mut budget = current.value.clone();
        let now = call.server.config.clock.now();
        let unobserved = budget_count::is_unobserved(&budget, now);
        if unobserved {
            budget_count::count(&call.server, &mut budget, now)?;
        }
        if !is_ready(pod) && spares_the_unready(&budget) {
            return Ok(Holds::AsSeenBy(asked));
        }
        take(&mut budget, &asked)?;
        if call.options.dry_run {
            return Ok(Holds::Always);
        }
        object_mut(&mut budget["status"], "disruptedPods")[call.name.as_str()] = rfc3339(now).into();
        if unobserved {
            // Nobody is told that it was observed: who is on their way is all that is kept.
            let disrupted = budget["status"]["disruptedPods"].take();
            budget["status"] = current.value["status"].clone();
            object_mut(&mut budget, "status")["disruptedPods"] = disrupted;
        } else if budget["status"]["disruptionsAllowed"] == 0 {
            used_up(&mut budget["status"], &rfc3339(now));
        }
        object_meta::set(&mut budget, "resourceVersion", current.revision.to_string());
        if update::write(&own, &current, budget, false, Managing::Tracked).await?.is_some() {
            return Ok(Holds::Always);
        }
    }
    Err(Status::timeout(&format!("couldn't update PodDisruptionBudget {asked:?} due to conflicts"), 10))
}

/// The name of the budget that counts the pod.
async fn budget_of(call: &Call, pod: &Value) -> Result<Option<String>, Status> {
    call.server.fresh().await?;
    let snapshot = call.server.cache_of("policy", "poddisruptionbudgets")?.snapshot();
    let prefix = format!("{}/", call.namespace);
    let mut counting = snapshot.range(&prefix, "").filter_map(|object| {
        let budget = object.parse();
        let selector = LabelSelector::from_json(budget.pointer("/spec/selector")?).ok()?;
        selector.matches(&object_meta::labels(pod)).then(|| object_meta::name(&budget).to_owned())
    });
    match (counting.next(), counting.next()) {
        (_, Some(_)) => Err(Status::new(
            500,
            Reason::Unknown,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
        (name, None) => Ok(name),
    }
}

fn number(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether pods that are not ready may go without being counted.
fn spares_the_unready(budget: &Value) -> bool {
    let (healthy, desired) = (number(&budget["status"], "currentHealthy"), number(&budget["status"], "desiredHealthy"));
    text(&budget["spec"], "unhealthyPodEvictionPolicy") == "AlwaysAllow" || healthy >= desired && desired > 0
}

/// Takes one disruption from those that are allowed (upstream's `checkAndDecrement`).
fn take(budget: &mut Value, name: &str) -> Result<(), Status> {
    let status = &budget["status"];
    if number(status, "observedGeneration") < object_meta::generation(budget) {
        return Err(busy(name));
    }
    let allowed = number(status, "disruptionsAllowed");
    if allowed < 0 {
        return Err(Status::forbidden(&BUDGET, name, "pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&BUDGET, name, why));
    }
    if allowed == 0 {
        let cause = Cause::new(CauseReason::DisruptionBudget, "", none_left(status, name));
        return Err(Status::too_many_requests(REFUSED, 0).with_causes(vec![cause]));
    }
    object_mut(budget, "status")["disruptionsAllowed"] = (allowed - 1).into();
    Ok(())
}

fn none_left(status: &Value, name: &str) -> String {
    let told = items(status, "conditions").iter().find(|condition| text(condition, "type") == ALLOWED);
    let told = told.filter(|told| text(told, "status") == "False" && !text(told, "message").is_empty());
    let (healthy, desired) = (number(status, "currentHealthy"), number(status, "desiredHealthy"));
    match told {
        // Then the numbers cannot be trusted.
        Some(told) if text(told, "reason") == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            text(told, "message")
        ),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        Some(told) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            text(told, "reason"),
            text(told, "message")
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// The condition that says whether disruptions are allowed.
const ALLOWED: &str = "DisruptionAllowed";

/// Says that no more disruptions are allowed (upstream's `UpdateDisruptionAllowedCondition`).
fn used_up(status: &mut Value, now: &str) {
    let generation = number(status, "observedGeneration");
    let known = items(status, "conditions").iter().find(|condition| text(condition, "type") == ALLOWED);
    let since =
        known.filter(|known| text(known, "status") == "False").map_or(now, |known| text(known, "lastTransitionTime"));
    let condition = json!({"type": ALLOWED, "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": since, "observedGeneration": generation});
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let found = items_mut(status, "conditions").find(|condition| text(condition, "type") == ALLOWED);
    match found {
        Some(found) => *found = condition,
        None => {
            if let Some(all) = status["conditions"].as_array_mut() {
                all.push(condition);
            }
        }
    }
}

/// 429: the budget is not up to date.
fn busy(name: &str) -> Status {
    let why = format!("The disruption budget {name} is still being processed by the server.");
    Status::too_many_requests(REFUSED, 10).with_causes(vec![Cause::new(CauseReason::DisruptionBudget, "", why)])
}
