//! Fills in what older servers left out of what they wrote (`cache/defaults.rs`), and sees that it stays so: of a store that
//! one server has to itself once, of one that others write to for as long as the server runs.
//!
//! | the servers | before it is done | after |
//! |---|---|---|
//! | fill in the same | everything is written anew, and marked | nothing |
//! | do not | what is read is filled in | that begins again, after what came unseen is written anew |

use super::kubernetes_service::agree;
use crate::cache::{is_shared, rewrite};
use crate::server::{Server, store_status};
use coracle_api::Status;
use std::sync::Arc;
use std::time::Duration;

/// How often other servers are looked at, or what failed is tried again.
const LOOK: Duration = Duration::from_secs(10);

/// Runs until everything is filled in, or the server stops.
pub async fn settle(server: Arc<Server>) {
    let shared = is_shared(&**server.store());
    // What failed is told until something else does: not once more with each look.
    let mut told = None;
    loop {
        let done = tokio::select! {
            () = server.stop.cancelled() => return,
            done = look(&server) => done,
        };
        let failed = done.err().map(|status| status.to_string());
        if let Some(why) = failed.as_ref().filter(|_| failed != told) {
            tracing::warn!(%why, "filling in what older servers left out");
        }
        told = failed;
        if !shared && !server.cacher.defaults().lack_now() {
            return;
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(server: &Arc<Server>) -> Result<(), Status> {
    let (store, defaults) = (&**server.store(), server.cacher.defaults());
    match (defaults.lack_now(), agree(server).await?) {
        (true, true) => {
            let mark = defaults.mark(store).await.map_err(store_status)?;
            if !defaults.lack_now() {
                return Ok(());
            }
            write_anew(server).await?;
            // Whoever came meanwhile may have written before it was seen.
            if agree(server).await? {
                defaults.settle(store, mark.as_ref()).await.map_err(store_status)?;
            }
        }
        (false, false) => {
            tracing::warn!("another server fills in other defaults: all that is read is looked at for them");
            defaults.doubt(store).await.map_err(store_status)?;
            write_anew(server).await?;
        }
        (true, false) | (false, true) => {}
    }
    Ok(())
}

async fn write_anew(server: &Server) -> Result<(), Status> {
    let written = rewrite(&server.cacher).await.map_err(store_status)?;
    if written > 0 {
        tracing::info!(written, "objects of older servers have got today's defaults");
    }
    Ok(())
}
