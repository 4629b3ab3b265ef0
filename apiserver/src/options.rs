//! Query options, parsed once.

use crate::registry::batch::duration;
use crate::verbs::Verb;
use coracle_api::decode::FieldValidation;
use coracle_api::selector::{FieldSelector, LabelSelector};
use coracle_api::status::{FieldPath, Reason};
use coracle_api::{Cause, Gvk, Status};
use std::time::Duration;

/// How exactly a list's revision is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// What to do with dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl Propagation {
    /// From the API's word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Orphan" => Some(Self::Orphan),
            "Background" => Some(Self::Background),
            "Foreground" => Some(Self::Foreground),
            _ => None,
        }
    }
}

/// DeleteOptions for a record that is no object: without it, nothing could remove one.
pub const UNREADABLE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// Everything a request's query can say.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the API calls options of such a request.
    kind: &'static str,
    pub watch: bool,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// None when absent or empty.
    pub resource_version: Option<u64>,
    /// Why what was given as a resource version is none; those who need one refuse it.
    no_version: Option<String>,
    pub version_match: Option<VersionMatch>,
    pub limit: usize,
    pub continue_token: Option<String>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<i64>,
    pub dry_run: bool,
    pub field_manager: Option<String>,
    /// Whether an apply takes what others own.
    pub force: Option<bool>,
    pub field_validation: FieldValidation,
    pub grace_period: Option<i64>,
    pub propagation: Option<Propagation>,
    /// The older way to say it.
    pub orphan: Option<bool>,
    /// Whether what cannot be read is to go without being looked at.
    pub unreadable: bool,
    /// Within what time the client wants its answer.
    pub timeout: Option<Duration>,
    /// `includeObject` of tables: `None`, `Metadata`, `Object`.
    pub include_object: Option<String>,
    /// Every pair, for what is proxied on.
    pub pairs: Vec<(String, String)>,
}

/// The largest name of a field manager (apimachinery `validation.FieldManagerMaxLength`).
const FIELD_MANAGER_MAX: usize = 128;

impl Options {
    /// Whether a query asks for a watch, of what can be watched.
    pub fn asks_to_watch(query: Option<&str>) -> bool {
        let mut given = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        given.find(|(name, _)| *name == "watch").is_some_and(|(_, value)| flag(value))
    }

    /// Reads of the query what the verb has options for (metav1 `GetOptions`, `ListOptions`, `CreateOptions` …); without a verb,
    /// what is asked for has its own.
    ///
    /// # Errors
    /// 400 for what cannot be parsed, 422 for values that options do not take.
    pub fn parse(verb: Option<Verb>, query: Option<&str>) -> Result<Self, Status> {
        let mut options = Self {
            kind: verb.map_or(LIST, kind_of),
            watch: verb == Some(Verb::Watch),
            labels: LabelSelector::EVERYTHING,
            fields: FieldSelector::default(),
            resource_version: None,
            no_version: None,
            version_match: None,
            limit: 0,
            continue_token: None,
            bookmarks: false,
            send_initial_events: None,
            timeout_seconds: None,
            dry_run: false,
            field_manager: None,
            force: None,
            field_validation: FieldValidation::Warn,
            grace_period: None,
            propagation: None,
            orphan: None,
            unreadable: false,
            timeout: None,
            include_object: None,
            pairs: Vec::new(),
        };
        let Some(query) = query else { return Ok(options) };
        options.pairs = pairs(query);
        let Some(verb) = verb else { return Ok(options) };
        for (name, value) in std::mem::take(&mut options.pairs) {
            if is_option_of(verb, &name) {
                options.set(&name, &value)?;
            }
            options.pairs.push((name, value));
        }
        options.check(verb)?;
        Ok(options)
    }

    /// Whether only some objects are asked for.
    pub fn selects(&self) -> bool {
        self.pairs
            .iter()
            .any(|(name, value)| matches!(name.as_str(), "labelSelector" | "fieldSelector") && !value.is_empty())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Status> {
        match name {
            "watch" => self.watch |= flag(value),
            "labelSelector" => {
                self.labels = LabelSelector::parse(value).map_err(|error| Status::bad_request(error.to_string()))?;
            }
            "fieldSelector" => {
                self.fields = FieldSelector::parse(value).map_err(|error| Status::bad_request(error.to_string()))?;
            }
            "resourceVersion" if !value.is_empty() => {
                self.resource_version = value.parse().ok();
                if self.resource_version.is_none() {
                    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                    let why = if is_number { "value out of range" } else { "invalid syntax" };
                    let why = format!("strconv.ParseUint: parsing {value:?}: {why}");
                    let cause = Cause::invalid(&FieldPath::new("resourceVersion"), value, why);
                    self.no_version = Some(cause.to_string());
                }
            }
            "resourceVersionMatch" if !value.is_empty() => {
                self.version_match = Some(match value {
                    "Exact" => VersionMatch::Exact,
                    "NotOlderThan" => VersionMatch::NotOlderThan,
                    other => return Err(not_supported(LIST, name, other, &["Exact", "NotOlderThan", ""])),
                });
            }
            // Below zero is no limit.
            "limit" => self.limit = usize::try_from(number::<i64>(value)?).unwrap_or(0),
            "continue" if !value.is_empty() => self.continue_token = Some(value.to_owned()),
            "allowWatchBookmarks" => self.bookmarks = flag(value),
            "sendInitialEvents" => self.send_initial_events = Some(flag(value)),
            "timeoutSeconds" => self.timeout_seconds = Some(number(value)?),
            "dryRun" => match value {
                "All" => self.dry_run = true,
                other => return Err(wrong_dry_run(self.kind, &[other])),
            },
            "force" if !value.is_empty() => self.force = Some(flag(value)),
            "fieldManager" => self.field_manager = Some(value.to_owned()),
            "fieldValidation" => {
                self.field_validation = match value {
                    "Strict" => FieldValidation::Strict,
                    "Warn" | "" => FieldValidation::Warn,
                    "Ignore" => FieldValidation::Ignore,
                    other => return Err(not_supported(self.kind, name, other, &["", "Ignore", "Strict", "Warn"])),
                }
            }
            "gracePeriodSeconds" => self.grace_period = Some(number(value)?),
            "propagationPolicy" => self.propagation = Some(propagation(value)?),
            "orphanDependents" => self.orphan = Some(flag(value)),
            UNREADABLE => self.unreadable = flag(value),
            "timeout" if !value.is_empty() => {
                let nanoseconds = duration::parse(value).map_err(|why| {
                    Status::bad_request(format!("invalid timeout specified in the request URL - {why}"))
                })?;
                // None at all, or one before now, is none (apiserver `endpoints/filters/request_deadline.go`).
                self.timeout = u64::try_from(nanoseconds).ok().filter(|some| *some > 0).map(Duration::from_nanos);
            }
            "includeObject" => self.include_object = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn check(&self, verb: Verb) -> Result<(), Status> {
        let mut causes = Vec::new();
        match verb {
            Verb::Watch | Verb::List | Verb::DeleteCollection if self.watch => self.check_watch(&mut causes),
            Verb::List | Verb::DeleteCollection => self.check_list(&mut causes),
            _ => {}
        }
        if !causes.is_empty() {
            return Err(invalid_options(LIST, causes));
        }
        if let Some(manager) = &self.field_manager {
            let path = FieldPath::new("fieldManager");
            if manager.len() > FIELD_MANAGER_MAX {
                causes.push(Cause::too_long(&path, FIELD_MANAGER_MAX));
            }
            if manager.chars().any(char::is_control) {
                causes.push(Cause::invalid(&path, manager.as_str(), "should only contain printable characters"));
            }
        }
        if causes.is_empty() { Ok(()) } else { Err(invalid_options(self.kind, causes)) }
    }

    /// Refuses what is no resource version, of a list.
    ///
    /// # Errors
    /// 400 (apiserver `storage/cacher/delegator`).
    pub fn version_of_list(&self) -> Result<(), Status> {
        self.no_version
            .as_ref()
            .map_or(Ok(()), |why| Err(Status::bad_request(format!("invalid resource version: {why}"))))
    }

    /// Refuses what is no resource version, of a read or a watch.
    ///
    /// # Errors
    /// 500, as the storage's error reaches clients of upstream.
    pub fn version_of_object(&self) -> Result<(), Status> {
        self.no_version.as_ref().map_or(Ok(()), |why| Err(Status::new(500, Reason::Unknown, why.as_str())))
    }

    /// What a list may ask (apimachinery `internalversion/validation`).
    fn check_list(&self, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("resourceVersionMatch");
        if self.version_match.is_some() {
            if self.resource_version.is_none() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                causes.push(Cause::forbidden(&path, why));
            }
            if self.continue_token.is_some() {
                causes.push(Cause::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
            }
        }
        if self.version_match == Some(VersionMatch::Exact) && self.resource_version == Some(0) {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(Cause::forbidden(&path, why));
        }
        if self.send_initial_events.is_some() {
            let path = FieldPath::new("sendInitialEvents");
            causes.push(Cause::forbidden(&path, "sendInitialEvents is forbidden for list"));
        }
    }

    /// What a watch may ask.
    fn check_watch(&self, causes: &mut Vec<Cause>) {
        let path = FieldPath::new("resourceVersionMatch");
        if self.send_initial_events.is_some() && self.version_match != Some(VersionMatch::NotOlderThan) {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(Cause::forbidden(&path, why));
        }
        if self.version_match.is_some() {
            if self.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                causes.push(Cause::forbidden(&path, why));
            }
            if self.version_match == Some(VersionMatch::Exact) {
                causes.push(Cause::not_supported(&path, "Exact", &["NotOlderThan"]));
            }
        }
        // Without a version the state is sent first, which implies a match.
        let legacy = self.send_initial_events.is_none() && matches!(self.resource_version, None | Some(0));
        if self.continue_token.is_some() && (self.version_match.is_some() || legacy) {
            causes.push(Cause::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
}

/// From the API's word, or 422.
pub fn propagation(value: &str) -> Result<Propagation, Status> {
    Propagation::parse(value).ok_or_else(|| {
        let path = FieldPath::new("propagationPolicy");
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        let cause = Cause::not_supported(&path, value, &supported);
        Status::invalid(&Gvk::of("meta.k8s.io", "v1", "DeleteOptions"), "", vec![cause])
    })
}

const LIST: &str = "ListOptions";

/// What the API calls the options of a request (meta.k8s.io/v1).
fn kind_of(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get | Verb::List | Verb::Watch => LIST,
    }
}

/// Whether a verb has an option of this name; what it does not have is not looked at.
fn is_option_of(verb: Verb, name: &str) -> bool {
    let of_list = matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    match name {
        "watch"
        | "labelSelector"
        | "fieldSelector"
        | "resourceVersionMatch"
        | "limit"
        | "continue"
        | "allowWatchBookmarks"
        | "sendInitialEvents"
        | "timeoutSeconds" => of_list,
        "resourceVersion" => of_list || verb == Verb::Get,
        "dryRun" => verb.writes(),
        "fieldManager" | "fieldValidation" => matches!(verb, Verb::Create | Verb::Update | Verb::Patch),
        "force" => verb == Verb::Patch,
        "gracePeriodSeconds" | "propagationPolicy" | "orphanDependents" | UNREADABLE => {
            matches!(verb, Verb::Delete | Verb::DeleteCollection)
        }
        // A watch lasts.
        "timeout" => verb != Verb::Watch,
        "includeObject" => true,
        _ => false,
    }
}

fn invalid_options(kind: &'static str, causes: Vec<Cause>) -> Status {
    Status::invalid(&Gvk::of("meta.k8s.io", "v1", kind), "", causes)
}

fn not_supported(kind: &'static str, name: &str, value: &str, supported: &[&str]) -> Status {
    invalid_options(kind, vec![Cause::not_supported(&FieldPath::new(name), value, supported)])
}

/// 422 for words that `dryRun` does not take; all that were given are shown.
pub fn wrong_dry_run(kind: &'static str, words: &[&str]) -> Status {
    invalid_options(kind, vec![Cause::not_supported(&FieldPath::new("dryRun"), words.to_vec(), &["All"])])
}

/// What both ways to say it come to, or 422 when both are used (apimachinery `meta/v1/validation`, ValidateDeleteOptions).
pub fn propagation_of(policy: Option<Propagation>, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (policy, orphan) {
        (Some(policy), Some(_)) => {
            let path = FieldPath::new("propagationPolicy");
            let why = "orphanDependents and deletionPropagation cannot be both set";
            Err(invalid_options("DeleteOptions", vec![Cause::invalid(&path, format!("{policy:?}"), why)]))
        }
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) => Ok(Some(Propagation::Background)),
        (policy, None) => Ok(policy),
    }
}

/// Go's strconv.ParseBool, where anything but a clear no is a yes (apimachinery `conversion.queryparams`).
fn flag(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, Status> {
    value.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")))
}

/// Splits and unescapes a query.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name, true), unescape(value, true))
        })
        .collect()
}

/// Undoes percent-encoding; invalid escapes stay as they are.
pub fn unescape(text: &str, plus_is_space: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) if plus_is_space => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: Option<&str>) -> Result<Options, Status> {
        Options::parse(Some(Verb::List), query)
    }

    #[test]
    fn queries_are_read() {
        let options = parse(Some("watch=1&labelSelector=app%3Dweb%2Ctier+in+(a)&limit=5")).unwrap();
        assert!(options.watch);
        assert_eq!((options.limit, options.labels.to_string().as_str()), (5, "app=web,tier=a"));
        for (query, watches) in
            [("watch=false", false), ("watch", true), ("a=b&watch=1", true), ("watch=0", false), ("unwatch=1", false)]
        {
            assert_eq!(Options::asks_to_watch(Some(query)), watches, "{query}");
        }
        let options =
            Options::parse(Some(Verb::Create), Some("dryRun=All&fieldValidation=Strict&timeout=1.5s")).unwrap();
        assert!(options.dry_run);
        assert_eq!(options.timeout, Some(Duration::from_millis(1500)));
        for none in ["timeout=0", "timeout=-3s", "timeout="] {
            assert_eq!(parse(Some(none)).unwrap().timeout, None, "{none}");
        }
    }

    #[test]
    fn what_a_verb_has_no_option_for_is_not_looked_at() {
        let wrong = "labelSelector=)(&limit=x&resourceVersionMatch=Exact&sendInitialEvents=1";
        for verb in [Verb::Get, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete] {
            assert!(Options::parse(Some(verb), Some(wrong)).is_ok(), "{verb:?}");
        }
        let wrong = "dryRun=x&fieldValidation=x&propagationPolicy=x&gracePeriodSeconds=x";
        for verb in [Verb::Get, Verb::List, Verb::Watch] {
            assert!(Options::parse(Some(verb), Some(wrong)).is_ok(), "{verb:?}");
        }
        assert_eq!(Options::parse(None, Some("dryRun=x&limit=x")).unwrap().pairs.len(), 2);
    }

    #[test]
    fn wrong_options_are_refused() {
        for (verb, query, code) in [
            (Verb::Create, "dryRun=Some", 422),
            (Verb::List, "limit=x", 400),
            (Verb::List, "resourceVersionMatch=Exact", 422),
            (Verb::List, "resourceVersionMatch=Exact&resourceVersion=0", 422),
            (Verb::Update, "fieldValidation=Maybe", 422),
            (Verb::List, "labelSelector=a%20b", 400),
            (Verb::Delete, "propagationPolicy=Sideways", 422),
            (Verb::Watch, "sendInitialEvents=true&watch=1", 422),
            (Verb::Get, "timeout=x", 400),
        ] {
            assert_eq!(Options::parse(Some(verb), Some(query)).unwrap_err().code, code, "{query}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused_by_those_who_read() {
        for (value, why) in
            [("x", "invalid syntax"), ("-1", "invalid syntax"), ("18446744073709551616", "value out of range")]
        {
            let options = parse(Some(&format!("resourceVersion={value}"))).unwrap();
            let why = format!("resourceVersion: Invalid value: {value:?}: strconv.ParseUint: parsing {value:?}: {why}");
            let (list, object) = (options.version_of_list().unwrap_err(), options.version_of_object().unwrap_err());
            assert_eq!((list.code, list.message), (400, format!("invalid resource version: {why}")));
            assert_eq!((object.code, object.message), (500, why));
        }
    }

    #[test]
    fn options_are_called_as_the_request_is() {
        for (verb, query, message) in [
            (
                Verb::Create,
                "dryRun=Some",
                "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
            ),
            (
                Verb::Delete,
                "dryRun=",
                "DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"\"]: supported values: \"All\"",
            ),
            (
                Verb::Update,
                "fieldValidation=x",
                "UpdateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (
                Verb::DeleteCollection,
                "resourceVersionMatch=Exact",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
        ] {
            assert_eq!(Options::parse(Some(verb), Some(query)).unwrap_err().message, message);
        }
    }

    #[test]
    fn one_way_to_say_what_becomes_of_dependents() {
        assert_eq!(propagation_of(None, Some(true)).unwrap(), Some(Propagation::Orphan));
        assert_eq!(propagation_of(Some(Propagation::Foreground), None).unwrap(), Some(Propagation::Foreground));
        let both = propagation_of(Some(Propagation::Orphan), Some(true)).unwrap_err();
        assert_eq!(
            both.causes()[0].message,
            "Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set"
        );
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape("a%2Fb+c", true), "a/b c");
        assert_eq!(unescape("a+%zz%", false), "a+%zz%");
    }
}
