//! Tells each flow schema whether its level is there (apiserver `util/flowcontrol`, `apf_controller.go` presyncFlowSchemaStatus).
//! Every server of a cluster does so; what one has written the others find as they would write it.

use super::GROUP;
use crate::bootstrap;
use crate::custom::definition::set_condition;
use crate::registry::fields::text;
use crate::server::Server;
use coracle_api::Status;
use coracle_api::clock::rfc3339;
use coracle_api::json::Value;
use std::sync::Arc;

const SCHEMAS: (&str, &str) = (GROUP, "flowschemas");

/// Writes the conditions that are not as they should be.
pub async fn tell(server: &Arc<Server>) -> Result<(), Status> {
    let levels = server.cache_of(GROUP, "prioritylevelconfigurations")?.snapshot();
    let schemas = server.cache_of(SCHEMAS.0, SCHEMAS.1)?.snapshot();
    let now = rfc3339(server.config.clock.now());
    for seen in schemas.objects.values() {
        let told = |schema: &mut Value| {
            let level = text(&schema["spec"]["priorityLevelConfiguration"], "name").to_owned();
            let is_there = levels.get(&level).is_some();
            let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
            let (reason, message) = match is_there {
                true => ("Found", format!("{about} and it exists")),
                false => ("NotFound", format!("{about} but there is no such object")),
            };
            set_condition(schema, "Dangling", !is_there, reason, &message, &now)
        };
        if !told(&mut seen.parse()) {
            continue;
        }
        let call = bootstrap::call(server, SCHEMAS, "", seen.name())?;
        let current = match call.current().await {
            Ok(current) => current,
            Err(status) if status.code == 404 => continue,
            Err(status) => return Err(status),
        };
        let mut wanted = current.value.clone();
        // What is written meanwhile is looked at again anyway.
        if told(&mut wanted) {
            call.replace(&current, &current.with(&wanted), Vec::new()).await?;
        }
    }
    Ok(())
}
