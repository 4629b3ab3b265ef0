//! Schemas and levels compiled for matching: in the order in which they are tried (apiserver `util/flowcontrol`,
//! `rule.go`, `apf_controller.go`).

use super::lending::Wanted;
use super::meters::{Meter, Meters};
use super::turns::{Settings, Turns};
use crate::auth::{Attributes, UserInfo};
use crate::registry::fields::{items, text};
use coracle_api::json::Value;
use coracle_api::meta;
use http::HeaderValue;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A level that requests are of.
#[derive(Debug)]
pub struct Level {
    pub name: String,
    pub uid: HeaderValue,
    /// None: exempt.
    pub turns: Option<Arc<Turns>>,
    /// The most seats that one request takes; none says nothing.
    pub widest: usize,
    /// Seats that an exempt level keeps from the others.
    kept: usize,
}

/// How flows of a schema are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// A flow schema.
#[derive(Debug)]
pub struct Schema {
    pub name: String,
    pub uid: HeaderValue,
    pub level: Arc<Level>,
    pub meter: Meter,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

impl Schema {
    pub fn is_distinguished(&self) -> bool {
        self.distinguisher != Distinguisher::None
    }

    /// What tells a flow of it apart from others.
    pub fn distinguish<'a>(&self, user: &'a str, namespace: &'a str) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => user,
            Distinguisher::Namespace => namespace,
        }
    }
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// All of a namespace: what their names begin with.
    Accounts(String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Words,
    groups: Words,
    resources: Words,
    cluster: bool,
    namespaces: Words,
}

#[derive(Debug)]
struct PathRule {
    verbs: Words,
    paths: Vec<String>,
}

/// A list of words, or every word.
#[derive(Debug)]
enum Words {
    Every,
    Some(Vec<String>),
}

impl Words {
    fn of(object: &Value, key: &str) -> Self {
        let words: Vec<String> =
            items(object, key).iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
        if words.iter().any(|word| word == "*") { Self::Every } else { Self::Some(words) }
    }

    fn has(&self, word: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Some(words) => words.iter().any(|known| known == word),
        }
    }

    /// As [`has`](Words::has), of two words joined by a slash, without joining them.
    fn has_joined(&self, one: &str, other: &str) -> bool {
        match self {
            _ if other.is_empty() => self.has(one),
            Self::Every => true,
            Self::Some(words) => words.iter().any(|known| known.split_once('/') == Some((one, other))),
        }
    }
}

impl Subject {
    fn of(subject: &Value) -> Option<Self> {
        match text(subject, "kind") {
            "User" => Some(Self::User(text(&subject["user"], "name").to_owned())),
            "Group" => Some(Self::Group(text(&subject["group"], "name").to_owned())),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                let (namespace, name) = (text(account, "namespace"), text(account, "name"));
                Some(match name {
                    "*" => Self::Accounts(format!("system:serviceaccount:{namespace}:")),
                    _ => Self::User(format!("system:serviceaccount:{namespace}:{name}")),
                })
            }
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.is_in(name),
            Self::Accounts(prefix) => user.name.starts_with(prefix.as_str()),
        }
    }
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let resource = |rule: &Value| ResourceRule {
            verbs: Words::of(rule, "verbs"),
            groups: Words::of(rule, "apiGroups"),
            resources: Words::of(rule, "resources"),
            cluster: rule.get("clusterScope").and_then(Value::as_bool) == Some(true),
            namespaces: Words::of(rule, "namespaces"),
        };
        let path = |rule: &Value| PathRule {
            verbs: Words::of(rule, "verbs"),
            paths: items(rule, "nonResourceURLs").iter().filter_map(|path| path.as_str().map(str::to_owned)).collect(),
        };
        Self {
            subjects: items(rule, "subjects").iter().filter_map(Subject::of).collect(),
            resources: items(rule, "resourceRules").iter().map(resource).collect(),
            paths: items(rule, "nonResourceRules").iter().map(path).collect(),
        }
    }

    fn matches(&self, user: &UserInfo, request: &Attributes) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(user)) {
            return false;
        }
        match request.path {
            Some(path) => self.paths.iter().any(|rule| rule.matches(request.verb, path)),
            None => self.resources.iter().any(|rule| rule.matches(request)),
        }
    }
}

impl ResourceRule {
    fn matches(&self, request: &Attributes) -> bool {
        let scope = if request.namespace.is_empty() { self.cluster } else { self.namespaces.has(request.namespace) };
        scope
            && self.verbs.has(request.verb)
            && self.groups.has(request.group)
            && self.resources.has_joined(request.resource, request.subresource)
    }
}

impl PathRule {
    fn matches(&self, verb: &str, path: &str) -> bool {
        let is = |rule: &String| match rule.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => rule == path,
        };
        self.verbs.has(verb) && self.paths.iter().any(is)
    }
}

/// Schemas in the order in which they are tried.
#[derive(Debug)]
pub struct Table {
    schemas: Vec<Arc<Schema>>,
    /// For what no schema is for.
    last: Arc<Schema>,
    levels: BTreeMap<String, Arc<Level>>,
}

impl Table {
    /// `known` are the levels' turns that are in use.
    pub fn compile(
        schemas: &[Value],
        levels: &[Value],
        known: &BTreeMap<String, Arc<Turns>>,
        meters: &Meters,
        seats: usize,
    ) -> Self {
        let total: u64 = levels.iter().map(shares).sum::<u64>().max(1);
        let mut compiled = BTreeMap::new();
        for level in levels {
            let level = compile_level(level, known, seats, total);
            compiled.insert(level.name.clone(), Arc::new(level));
        }
        // Both are there always; a store in which somebody deleted them gets them back at the next start.
        let last_level = compiled.get("catch-all").cloned().unwrap_or_else(|| Arc::new(last_level(known, seats)));
        let mut ordered: Vec<(i64, Arc<Schema>)> = Vec::new();
        for schema in schemas {
            let spec = &schema["spec"];
            // One whose level is not there is passed over.
            let Some(level) = compiled.get(text(&spec["priorityLevelConfiguration"], "name")) else { continue };
            let precedence = spec.get("matchingPrecedence").and_then(Value::as_i64).unwrap_or(i64::MAX);
            ordered.push((precedence, Arc::new(compile_schema(schema, level.clone(), meters))));
        }
        ordered.sort_by(|(one, a), (other, b)| (one, &a.name).cmp(&(other, &b.name)));
        let last = Schema {
            name: "catch-all".to_owned(),
            uid: HeaderValue::from_static(""),
            meter: meters.of("catch-all", &last_level.name),
            level: last_level,
            distinguisher: Distinguisher::User,
            rules: Vec::new(),
        };
        for (name, level) in &compiled {
            if let Some(turns) = &level.turns {
                meters.level(name, &turns.settings(), turns.current(), &Wanted::default());
            }
        }
        Self {
            schemas: ordered.into_iter().map(|(_, schema)| schema).collect(),
            last: Arc::new(last),
            levels: compiled,
        }
    }

    /// The turns of each level that has some.
    pub fn turns(&self) -> BTreeMap<String, Arc<Turns>> {
        let levels = self.levels.values().chain([&self.last.level]);
        levels.filter_map(|level| Some((level.name.clone(), level.turns.clone()?))).collect()
    }

    /// All levels, by name.
    pub fn levels(&self) -> impl Iterator<Item = &Level> {
        self.levels.values().map(|level| &**level)
    }

    /// The schemas whose requests are of a level.
    pub fn schemas_of<'a>(&'a self, level: &'a Level) -> impl Iterator<Item = &'a Schema> {
        // What no schema is for counts with the schema of that name, when there is one.
        let last = Some(&self.last).filter(|last| self.schemas.iter().all(|schema| schema.name != last.name));
        let all = self.schemas.iter().chain(last);
        all.map(|schema| &**schema).filter(move |schema| schema.level.name == level.name)
    }

    /// Seats that exempt levels keep from the others.
    pub fn kept(&self) -> usize {
        self.levels.values().map(|level| level.kept).sum()
    }

    /// Whether there is a level of this name.
    pub fn has_level(&self, name: &str) -> bool {
        self.levels.contains_key(name)
    }

    /// The schema of a request, and its flow's hash.
    pub fn find(&self, user: &UserInfo, request: &Attributes) -> (&Arc<Schema>, u64) {
        let matches = |schema: &&Arc<Schema>| schema.rules.iter().any(|rule| rule.matches(user, request));
        let schema = self.schemas.iter().find(matches).unwrap_or(&self.last);
        if schema.level.turns.is_none() {
            return (schema, 0);
        }
        let mut hasher = DefaultHasher::new();
        schema.name.hash(&mut hasher);
        schema.distinguish(&user.name, request.namespace).hash(&mut hasher);
        (schema, hasher.finish())
    }
}

fn compile_schema(schema: &Value, level: Arc<Level>, meters: &Meters) -> Schema {
    let spec = &schema["spec"];
    Schema {
        name: meta::name(schema).to_owned(),
        uid: uid(schema),
        meter: meters.of(meta::name(schema), &level.name),
        level,
        distinguisher: match text(&spec["distinguisherMethod"], "type") {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::None,
        },
        rules: items(spec, "rules").iter().map(Rule::of).collect(),
    }
}

fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(meta::uid(object)).unwrap_or(HeaderValue::from_static(""))
}

fn number(object: &Value, key: &str) -> usize {
    object.get(key).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

/// What a level's own seats, and what it lends, are told in.
fn part(level: &Value) -> &Value {
    let spec = &level["spec"];
    if text(spec, "type") == "Exempt" { &spec["exempt"] } else { &spec["limited"] }
}

fn shares(level: &Value) -> u64 {
    part(level).get("nominalConcurrencyShares").and_then(Value::as_u64).unwrap_or(0)
}

/// A part of a level's seats, rounded as upstream rounds it.
fn percent(seats: usize, of: Option<u64>) -> Option<usize> {
    let percent = usize::try_from(of?).ok()?;
    Some(seats.saturating_mul(percent).saturating_add(50) / 100)
}

fn compile_level(level: &Value, known: &BTreeMap<String, Arc<Turns>>, seats: usize, total: u64) -> Level {
    let name = meta::name(level).to_owned();
    let spec = &level["spec"];
    // Each level's part of the seats, rounded up.
    let own = (seats as u64).saturating_mul(shares(level)).div_ceil(total);
    let own = usize::try_from(own).unwrap_or(seats).min(seats);
    let bound = |name: &str| percent(own, part(level).get(name).and_then(Value::as_u64));
    let least = own - bound("lendablePercent").unwrap_or(0).min(own);
    if text(spec, "type") == "Exempt" {
        return Level { name, uid: uid(level), turns: None, widest: 0, kept: least };
    }
    let response = &spec["limited"]["limitResponse"];
    let queuing = &response["queuing"];
    let is_queued = text(response, "type") == "Queue";
    let hand = number(queuing, "handSize");
    let turns = known.get(&name).cloned().unwrap_or_default();
    turns.configure(Settings {
        seats: own,
        least,
        // It borrows as much as there is when it does not say.
        most: bound("borrowingLimitPercent").map_or(seats, |more| own.saturating_add(more)),
        queues: if is_queued { number(queuing, "queues") } else { 0 },
        hand,
        length: number(queuing, "queueLengthLimit"),
    });
    // max(1, min(15 % of the seats, seats / handSize)) (apf_controller.go, finishQueueSetReconfigsLocked).
    let widest = if is_queued { own.saturating_mul(15).div_ceil(100).min(own / hand.max(1)).max(1) } else { 0 };
    Level { name, uid: uid(level), turns: Some(turns), widest, kept: 0 }
}

/// A level for what there is no level for.
fn last_level(known: &BTreeMap<String, Arc<Turns>>, seats: usize) -> Level {
    let name = "catch-all".to_owned();
    let turns = known.get(&name).cloned().unwrap_or_default();
    turns.configure(Settings { seats, least: seats, most: seats, ..Settings::default() });
    Level { name, uid: HeaderValue::from_static(""), turns: Some(turns), widest: 0, kept: 0 }
}

#[cfg(test)]
mod tests {
    use super::super::turns::{Entry, Request};
    use super::*;
    use coracle_api::json::json;

    fn table() -> Table {
        let level = |name: &str, shares: u64| {
            json!({"metadata": {"name": name, "uid": format!("level-{name}")}, "spec": {"type": "Limited", "limited":
                {"nominalConcurrencyShares": shares, "limitResponse": {"type": "Reject"}}}})
        };
        let levels = [
            level("low", 3),
            level("catch-all", 1),
            json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}}}),
        ];
        let schema = |name: &str, level: &str, precedence: i64, by: &str, rule: Value| {
            json!({"metadata": {"name": name, "uid": name}, "spec": {"priorityLevelConfiguration": {"name": level},
                "matchingPrecedence": precedence, "distinguisherMethod": {"type": by}, "rules": [rule]}})
        };
        let leases = json!({"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}],
            "resourceRules": [{"verbs": ["get", "update"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]}]});
        let status = json!({"subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["nodes/status"], "clusterScope": true}]});
        let probes = json!({"subjects": [{"kind": "Group", "group": {"name": "*"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/live*"]}]});
        let schemas = [
            schema("probes", "exempt", 5, "", probes),
            schema("leases", "low", 9, "ByNamespace", leases),
            schema("status", "low", 8, "ByUser", status),
            schema(
                "dangling",
                "gone",
                1,
                "ByUser",
                json!({"subjects": [{"kind": "User", "user": {"name": "*"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]}),
            ),
        ];
        Table::compile(&schemas, &levels, &BTreeMap::new(), &Meters::default(), 8)
    }

    fn of(user: &str, request: Attributes) -> String {
        let table = table();
        let user = UserInfo::new(user, &[]);
        let (schema, _) = table.find(&user, &request);
        format!("{} {}", schema.name, schema.level.name)
    }

    #[test]
    fn the_first_schema_that_matches_is_taken() {
        let leases = Attributes {
            verb: "get",
            group: "coordination.k8s.io",
            resource: "leases",
            namespace: "x",
            ..Attributes::default()
        };
        let account = "system:serviceaccount:kube-system:a";
        assert_eq!(of(account, leases.clone()), "leases low");
        assert_eq!(of("system:serviceaccount:other:a", leases.clone()), "catch-all catch-all");
        assert_eq!(of(account, Attributes { verb: "delete", ..leases.clone() }), "catch-all catch-all");
        assert_eq!(of(account, Attributes { namespace: "", ..leases }), "catch-all catch-all", "not at cluster scope");
        let status = Attributes { verb: "patch", resource: "nodes", subresource: "status", ..Attributes::default() };
        assert_eq!(of("jane", status.clone()), "status low");
        assert_eq!(of("jane", Attributes { subresource: "", ..status }), "catch-all catch-all");
        let path = |path: &'static str| Attributes { verb: "get", path: Some(path), ..Attributes::default() };
        assert_eq!(of("jane", path("/livez/ping")), "probes exempt");
        assert_eq!(of("jane", path("/healthz/ping")), "catch-all catch-all");
    }

    #[tokio::test]
    async fn seats_go_by_shares() {
        let table = table();
        let (low, last) = (&table.levels["low"], &table.levels["catch-all"]);
        let seats = |level: &Level| {
            let turns = level.turns.as_ref().unwrap();
            let mut held = Vec::new();
            let request = |hash| Request { hash, distinguished: true, width: 1 };
            while let Entry::Seat(seat) = turns.enter(request(held.len() as u64)) {
                held.push(seat);
            }
            held.len()
        };
        assert_eq!((seats(low), seats(last)), (6, 2));
        assert!(table.levels["exempt"].turns.is_none());
    }

    #[test]
    fn levels_lend_borrow_and_bound_their_requests() {
        let level = |name: &str, limited: Value| json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}});
        let queuing = json!({"type": "Queue", "queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}});
        let levels = [
            level(
                "a",
                json!({"nominalConcurrencyShares": 30, "lendablePercent": 33, "borrowingLimitPercent": 50, "limitResponse": queuing}),
            ),
            level("b", json!({"nominalConcurrencyShares": 10, "limitResponse": {"type": "Reject"}})),
            json!({"metadata": {"name": "free"}, "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 10, "lendablePercent": 50}}}),
        ];
        let table = Table::compile(&[], &levels, &BTreeMap::new(), &Meters::default(), 100);
        let of = |name: &str| table.levels[name].turns.as_ref().unwrap().settings();
        assert_eq!((of("a").seats, of("a").least, of("a").most), (60, 40, 90));
        assert_eq!((of("b").seats, of("b").least, of("b").most), (20, 20, 100));
        assert_eq!((table.levels["a"].widest, table.levels["b"].widest, table.kept()), (9, 0, 10));
    }
}
