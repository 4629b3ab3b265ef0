//! Eviction: a delete that respects disruption budgets.

use super::{Call, Response, delete, update};
use crate::cache::{encode, store_key};
use crate::http::render;
use crate::http::request::Body;
use crate::server::store_status;
use crate::store::{Compare, Op, Outcome, Txn};
use coracle_api::selector::LabelSelector;
use coracle_api::status::CauseReason;
use coracle_api::{Cause, Gvk, Status, meta as object_meta};
use http::StatusCode;
use serde_json::Value;

const EVICTION: Gvk = Gvk::of("policy", "v1", "Eviction");

pub(super) async fn evict(mut call: Call, body: Body) -> Result<Response, Status> {
    let (eviction, _) = body.of_kind(&EVICTION, call.options.field_validation)?;
    let name = object_meta::name(&eviction);
    if !name.is_empty() && name != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = delete::DeleteOptions::from_value(&call, eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
    call.options.dry_run |= options.dry_run;
    let pod = call.current().await?.value;
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    // A pod that does not run counts in no budget.
    if !matches!(phase, "Succeeded" | "Failed" | "Pending") && object_meta::deletion_timestamp(&pod).is_none() {
        take_from_budget(&call, &pod).await?;
    }
    delete::delete_object(&call, &options).await?;
    let mut done = Status::success();
    done.code = StatusCode::CREATED.as_u16();
    Ok(render::status(&call.accept, &done))
}

/// Counts the eviction in the pod's budget, when it has one (KEP-85; core/pod/storage `eviction.go`).
async fn take_from_budget(call: &Call, pod: &Value) -> Result<(), Status> {
    let cache = call.server.cache_of("policy", "poddisruptionbudgets")?;
    for _ in 0..update::ATTEMPTS {
        call.server.fresh().await?;
        let snapshot = cache.snapshot();
        let prefix = format!("{}/", call.namespace);
        let mut matching = snapshot.range(&prefix, "").filter_map(|object| {
            let budget = object.parse();
            let selector = LabelSelector::from_json(budget.pointer("/spec/selector")?).ok()?;
            selector.matches(&object_meta::labels(pod)).then_some((budget, object.revision))
        });
        let Some((mut budget, revision)) = matching.next() else { return Ok(()) };
        if matching.next().is_some() {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        let allowed = budget.pointer("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0);
        let name = object_meta::name(&budget).to_owned();
        if allowed <= 0 {
            return Err(refused(&budget, &name));
        }
        if call.options.dry_run {
            return Ok(());
        }
        budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
        let now = coracle_api::clock::rfc3339(call.server.config.clock.now());
        crate::registry::fields::object_mut(&mut budget["status"], "disruptedPods")[call.name.as_str()] = now.into();
        let key = store_key(&cache.row, &call.namespace, &name);
        let txn =
            Txn { compare: vec![Compare::modified(key.clone(), revision)], ops: vec![Op::put(key, encode(&budget))] };
        if let Outcome::Committed(_) = call.server.store().txn(txn).await.map_err(store_status)? {
            return Ok(());
        }
    }
    Err(Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10))
}

fn refused(budget: &Value, name: &str) -> Status {
    let number = |name: &str| budget.pointer(&format!("/status/{name}")).and_then(Value::as_i64).unwrap_or(0);
    let detail = format!(
        "The disruption budget {name} needs {} healthy pods and has {} currently",
        number("desiredHealthy"),
        number("currentHealthy")
    );
    Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
        .with_causes(vec![Cause::new(CauseReason::DisruptionBudget, "", detail)])
}
