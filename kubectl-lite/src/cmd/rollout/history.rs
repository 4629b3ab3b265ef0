//! The revisions of a deployment.

use std::io::Write;

use coracle_api::meta;
use serde_json::Value;

use super::{CHANGE_CAUSE, display, replica_sets};
use crate::{
    cmd::describe::pod_template,
    discovery::Resource,
    error::{Error, Result},
    output,
    session::Session,
};

/// Prints the revisions, or the pod template of one.
pub async fn show(session: &Session, resource: &Resource, object: &Value, revision: i64) -> Result<()> {
    let sets = replica_sets(session, object).await?;
    let mut out = std::io::stdout().lock();
    if revision > 0 {
        let Some((_, set)) = sets.iter().find(|(number, _)| *number == revision) else {
            return Err(Error::usage(format!("unable to find the specified revision {revision} in history")));
        };
        writeln!(out, "{} with revision #{revision}", display(resource, object))?;
        write!(
            out,
            "{}",
            pod_template(&set["spec"]["template"], "Pod Template:", meta::annotation(set, CHANGE_CAUSE))
        )?;
        return Ok(());
    }
    writeln!(out, "{} ", display(resource, object))?;
    let mut table = output::aligned(out);
    writeln!(table, "REVISION\tCHANGE-CAUSE")?;
    for (number, set) in sets {
        let cause = meta::annotation(&set, CHANGE_CAUSE).filter(|cause| !cause.is_empty()).unwrap_or("<none>");
        writeln!(table, "{number}\t{cause}")?;
    }
    writeln!(table)?;
    Ok(table.flush()?)
}
