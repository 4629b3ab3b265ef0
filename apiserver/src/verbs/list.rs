//! LIST: over one consistent snapshot, in pages when asked.

use super::{Call, Response};
use crate::cache::{Change, Object, Selection, Snapshot, unreadable};
use crate::http::render::{self, ListMeta};
use crate::options::VersionMatch;
use crate::server::{FRESH_WITHIN, Reached, store_status};
use crate::store::{Range, Revision};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};
use coracle_api::Status;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where the next page begins (apiserver `storage/continue`): the revision, and the key behind the last one sent.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Continue {
    v: String,
    /// Below zero: whatever is there by then.
    rv: i64,
    start: String,
}

/// The revision of a token that goes on with what is there now, after the list's own revision is gone.
const INCONSISTENT: i64 = -1;

const CONTINUE_VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    fn encode(revision: Revision, start: String) -> String {
        Self::encoded(i64::try_from(revision).unwrap_or(i64::MAX), start)
    }

    fn encoded(rv: i64, start: String) -> String {
        let token = Continue { v: CONTINUE_VERSION.to_owned(), rv, start };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let wrong =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| {
            // In Go's words: the first byte that cannot be there.
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                _ => token.len() - token.len() % 4,
            };
            wrong(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token: Continue = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
        if token.v != CONTINUE_VERSION {
            return Err(wrong(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(wrong(&format!("incorrect encoded start resourceVersion (version {})", token.v)));
        }
        if token.start.is_empty() {
            return Err(wrong(&format!("encoded start key empty (version {})", token.v)));
        }
        Ok(token)
    }

    /// The revision it means; None for the newest.
    fn revision(&self) -> Option<Revision> {
        Revision::try_from(self.rv).ok()
    }
}

pub(super) async fn list(call: Call) -> Result<Response, Status> {
    page(&call).await?.answer(&call)
}

/// What a list is about: the objects that are selected of a snapshot, from a key on, up to a number of them.
pub(super) struct Page {
    snapshot: Snapshot,
    selection: Selection,
    prefix: String,
    from: String,
    limit: usize,
    meta: ListMeta,
}

impl Page {
    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        let all = self.snapshot.range(&self.prefix, &self.from);
        all.filter(|object| self.selection.matches(object)).take(self.limit)
    }

    pub(super) fn answer(self, call: &Call) -> Result<Response, Status> {
        let Self { snapshot, selection, prefix, from, limit, meta } = self;
        render::list(call, snapshot, selection, prefix, from, limit, meta)
    }
}

/// What the call's options ask for, of as they want it.
pub(super) async fn page(call: &Call) -> Result<Page, Status> {
    call.options.version_of_list()?;
    let token = call.options.continue_token.as_deref().map(Continue::decode).transpose()?;
    if token.is_some() && call.options.resource_version.is_some_and(|revision| revision != 0) {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    let selection = call.selection()?;
    call.check_readable(&selection.prefix())?;
    let (snapshot, from) = match &token {
        Some(token) => {
            let snapshot = match token.revision() {
                Some(revision) => {
                    // The page before may have come from another server, which is further; else the store answers.
                    call.server.cacher.reached(revision, FRESH_WITHIN).await;
                    at(call, revision, Some(token)).await?
                }
                None => first_page(call).await?,
            };
            (snapshot, token.start.clone())
        }
        None => (first_page(call).await?, String::new()),
    };
    let prefix = selection.prefix();
    let mut meta = ListMeta { revision: snapshot.revision, next: None, remaining: None };
    let mut from = from;
    let limit = if token.is_none() && is_answered_whole(call) { 0 } else { call.options.limit };
    if limit > 0 {
        let (end, remaining) = page_end(&snapshot, &selection, &prefix, &from, limit);
        if let Some(start) = end {
            call.cache()?.keep(snapshot.clone());
            meta.next = Some(Continue::encode(snapshot.revision, start));
            // Upstream cannot count what selectors would leave over, and says nothing then.
            meta.remaining = (!selection.filters()).then_some(remaining);
        }
        if from < prefix {
            from.clone_from(&prefix);
        }
    }
    let limit = if limit > 0 { limit } else { usize::MAX };
    Ok(Page { snapshot, selection, prefix, from, limit, meta })
}

/// Whatever is there is wanted, which upstream answers from its watch cache without pages (`storage/cacher`, `computeListLimit`);
/// of events it has none.
fn is_answered_whole(call: &Call) -> bool {
    call.options.resource_version == Some(0) && &*call.gvk().kind != "Event"
}

/// Where the page after this one begins, and how many objects follow this one.
fn page_end(
    snapshot: &Snapshot,
    selection: &Selection,
    prefix: &str,
    from: &str,
    limit: usize,
) -> (Option<String>, usize) {
    let mut matching = snapshot.range(prefix, from).filter(|object| selection.matches(object));
    let last = matching.by_ref().nth(limit - 1).map(|object| object.key.clone());
    let remaining = matching.count();
    match last {
        Some(key) if remaining > 0 => (Some(format!("{key}\0")), remaining),
        _ => (None, 0),
    }
}

/// The snapshot that a list without a continue token is answered from.
async fn first_page(call: &Call) -> Result<Snapshot, Status> {
    let options = &call.options;
    let progress = match (options.resource_version, options.version_match) {
        (None, _) => match call.server.reach_newest(FRESH_WITHIN).await? {
            Reached::All(progress) => progress,
            // Of what the caches lag behind of, the store knows (apiserver `storage/cacher/delegator.go`, `GetList`).
            Reached::Behind => return range(call, None, None).await,
        },
        (Some(0), _) => call.server.cacher.progress(),
        (Some(revision), Some(VersionMatch::Exact)) => {
            call.server.not_older_than(revision).await?;
            return at(call, revision, None).await;
        }
        // A limit without a match means exactly this revision, for the sake of older clients (KEP-1904).
        (Some(revision), None) if options.limit > 0 => {
            call.server.not_older_than(revision).await?;
            return at(call, revision, None).await;
        }
        (Some(revision), _) => call.server.not_older_than(revision).await?,
    };
    let snapshot = call.cache()?.snapshot();
    // All that happened up to `progress` is in the snapshot, perhaps more.
    Ok(Snapshot { objects: snapshot.objects.clone(), revision: snapshot.revision.max(progress) })
}

/// The state at one revision: kept since an earlier page, or read from the store's history.
async fn at(call: &Call, revision: Revision, token: Option<&Continue>) -> Result<Snapshot, Status> {
    let cache = call.cache()?;
    if let Some(snapshot) = cache.kept(revision) {
        return Ok(snapshot);
    }
    let (progress, snapshot) = call.server.cacher.newest(&cache);
    if snapshot.revision <= revision && revision <= progress {
        return Ok(Snapshot { objects: snapshot.objects.clone(), revision });
    }
    range(call, Some(revision), token).await
}

/// What the store holds, at a revision or now.
async fn range(call: &Call, revision: Option<Revision>, token: Option<&Continue>) -> Result<Snapshot, Status> {
    let prefix = crate::cache::store_key(call.row(), "", "");
    let prefix = prefix.trim_end_matches('/').to_owned() + "/";
    let range = Range { prefix: prefix.clone(), from: None, limit: 0, at: revision };
    let page = match call.server.store().range(range).await {
        Ok(page) => page,
        Err(crate::store::StoreError::Compacted { .. }) => return Err(expired(token)),
        Err(error) => return Err(store_status(error)),
    };
    let lacks = call.server.cacher.defaults().lack_at(page.revision);
    let mut past = Snapshot { revision: page.revision, ..Snapshot::default() };
    for record in page.records {
        let key: Arc<str> = record.key[prefix.len()..].into();
        let (created, modified) = (record.created, record.modified);
        let object = unreadable::checked(&key, &record.value, created, modified, Change::Added, call.row(), lacks);
        let object = object.map_err(|why| super::unreadable(&key, &why))?;
        past.objects.insert(key, Arc::new(object));
    }
    Ok(past)
}

/// 410: the revision is gone. A list that had begun is given a token to go on with what is there now (apiserver
/// `storage/etcd3`, `handleCompactedErrorForPaging`).
fn expired(token: Option<&Continue>) -> Status {
    const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
        without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
        Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted \
        between the time the first chunk was returned and now may show up in the list.";
    match token {
        None => Status::expired("The resourceVersion for the provided list is too old."),
        Some(token) => Status::expired(TOO_OLD).with_continue(Continue::encoded(INCONSISTENT, token.start.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_come_back() {
        let token = Continue::decode(&Continue::encode(7, "default/a\0".to_owned())).unwrap();
        assert_eq!((token.rv, token.start.as_str()), (7, "default/a\0"));
        for broken in ["", "!!", "e30", &Continue::encoded(0, String::new())] {
            assert_eq!(Continue::decode(broken).unwrap_err().code, 400, "{broken}");
        }
    }
}
