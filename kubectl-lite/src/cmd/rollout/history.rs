//! The revisions of a workload.

use std::io::Write;

use coracle_api::json::Value;
use coracle_api::meta;

use super::{CHANGE_CAUSE, display, revisions};
use crate::{
    cmd::describe::pod_template,
    discovery::Resource,
    error::{Error, Result},
    output,
    session::Session,
};

/// Prints the revisions, or the pod template of one.
pub async fn show(session: &Session, resource: &Resource, object: &Value, revision: i64) -> Result<()> {
    let revisions = revisions::of(session, resource, object).await?;
    let mut out = std::io::stdout().lock();
    if revision > 0 {
        let Some(found) = revisions.iter().find(|known| known.number == revision) else {
            return Err(Error::usage(format!("unable to find the specified revision {revision} in history")));
        };
        writeln!(out, "{} with revision #{revision}", display(resource, object))?;
        write!(
            out,
            "{}",
            pod_template(&found.template, "Pod Template:", meta::annotation(&found.object, CHANGE_CAUSE))
        )?;
        return Ok(());
    }
    writeln!(out, "{} ", display(resource, object))?;
    let mut table = output::aligned(out);
    writeln!(table, "REVISION\tCHANGE-CAUSE")?;
    for known in revisions {
        let cause = meta::annotation(&known.object, CHANGE_CAUSE).filter(|cause| !cause.is_empty()).unwrap_or("<none>");
        writeln!(table, "{}\t{cause}", known.number)?;
    }
    writeln!(table)?;
    Ok(table.flush()?)
}
