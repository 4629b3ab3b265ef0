//! What a write makes of `metadata.managedFields`, without reading more of them than it touches.

use super::entry::Writer;
use super::filter::Filter;
use super::managers::{FIELDS_V1, Managers, Version, comparisons};
use super::read;
use super::reconcile::Way;
use super::set::{Element, Set};

/// What became of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// It is as it was.
    Same,
    /// It is now this JSON; None when nobody owns anything.
    Other(Option<Vec<u8>>),
}

/// The account after a write that is no apply: as [`Managers::update`] and then [`Managers::give`] leave it, byte for byte. None
/// for an account that has to be read as a whole: owners speak of other versions than the writer's, some are to be merged, it
/// is not written as it would be here, or paths in it are to be brought in line with the schema.
pub fn updated<'a>(
    account: &'a [u8],
    version: &'a Version<'a>,
    writer: &Writer<'a>,
    filter: &Filter<'_>,
    given: Set<'a>,
) -> Option<Account> {
    let versions = std::slice::from_ref(version);
    let comparisons = comparisons(versions, filter);
    let own = comparisons.first()?;
    let way = Way::root(&version.old, version.ty);
    let is_touched = |root: &Element<'_>| [&own.changed, &own.removed, &given].iter().any(|set| set.leads(root));
    let entries = read::entries_by(account, |reader, api_version| {
        if api_version == version.api_version { reader.held_where(is_touched, &way) } else { None }
    })?;
    if entries.iter().any(|entry| entry.fields_type != FIELDS_V1) {
        return None;
    }
    let mut owners = Managers::of(entries)?;
    let changed = owners.follow(versions, &comparisons, writer) | owners.give(given, writer);
    Some(if changed { Account::Other(owners.encode()) } else { Account::Same })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::compare;
    use super::super::encode_created;
    use super::super::entry::Entry;
    use super::super::reconcile::reconciled;
    use super::*;
    use crate::gvk::Gvk;
    use crate::json::{Map, Value, json};
    use crate::schema::{self, TypeRef};
    use proptest::prelude::*;
    use proptest::sample::{Index, select, subsequence};

    fn ty() -> TypeRef<'static> {
        schema::of(&Gvk::of("", "v1", "Pod")).unwrap()
    }

    fn version<'a>(old: &'a Value, new: &'a Value) -> Version<'a> {
        Version { api_version: "v1".into(), ty: ty(), old: Cow::Borrowed(old), new: Cow::Borrowed(new) }
    }

    /// Some of these fields, each as one of what it may be.
    fn some(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
        let each: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| prop::option::of(value).prop_map(move |value| value.map(|value| (name, value))))
            .collect();
        each.prop_map(|fields| fields.into_iter().flatten().collect::<Map>().into()).boxed()
    }

    fn one_of(values: Vec<Value>) -> BoxedStrategy<Value> {
        select(values).boxed()
    }

    fn texts() -> BoxedStrategy<Value> {
        some(["a", "b/c", "d"].map(|name| (name, one_of(vec!["1".into(), "2".into()]))).into())
    }

    fn items(all: Vec<Value>) -> BoxedStrategy<Value> {
        let count = all.len();
        subsequence(all, 0..=count).prop_shuffle().prop_map(Value::Array).boxed()
    }

    /// Pods: lists and maps of all kinds, and what is owned by itself while it is empty.
    fn pods() -> BoxedStrategy<Value> {
        let container = |name: &'static str| {
            let fields = some(vec![
                ("image", one_of(vec!["x".into(), "y".into()])),
                ("args", items(vec!["x".into(), "y".into()])),
                ("ports", items(vec![json!({"containerPort": 80}), json!({"containerPort": 80, "protocol": "UDP"})])),
                ("resources", one_of(vec![json!({}), json!({"limits": {"cpu": "1"}})])),
                ("securityContext", one_of(vec![json!({}), json!({"privileged": true}), Value::Null])),
            ]);
            fields.prop_map(move |mut container| {
                container["name"] = name.into();
                container
            })
        };
        let containers = (container("a"), container("b-c"), 0..3_usize)
            .prop_map(|(first, second, count)| [first, second].into_iter().take(count).collect());
        let volumes = items(vec![
            json!({"name": "v", "emptyDir": {}}),
            json!({"name": "w", "emptyDir": {"medium": "Memory"}}),
            json!({"name": "w", "configMap": {"name": "c"}}),
        ]);
        let conditions = items(vec![
            json!({"type": "Ready", "status": "True"}),
            json!({"type": "Ready", "status": "False"}),
            json!({"type": "PodScheduled", "status": "True", "reason": "x"}),
        ]);
        some(vec![
            (
                "metadata",
                some(vec![
                    ("labels", texts()),
                    ("annotations", texts()),
                    ("finalizers", items(vec!["x/y".into(), "z".into(), "z-y".into()])),
                ]),
            ),
            (
                "spec",
                some(vec![
                    ("nodeSelector", texts()),
                    ("hostname", one_of(vec!["a".into(), "b".into()])),
                    ("securityContext", one_of(vec![json!({}), json!({"fsGroup": 1}), Value::Null])),
                    ("containers", containers.boxed()),
                    ("volumes", volumes),
                ]),
            ),
            (
                "status",
                some(vec![
                    ("phase", one_of(vec!["Pending".into(), "Running".into()])),
                    ("conditions", conditions),
                    ("podIPs", items(vec![json!({"ip": "10.0.0.1"}), json!({"ip": "::1"})])),
                ]),
            ),
        ])
    }

    /// What may stand as a name, in an account of anybody's.
    const NAMES: [&str; 26] = [
        ".",
        "f:metadata",
        "f:labels",
        "f:a",
        "f:finalizers",
        "v:\"x/y\"",
        "v:\"\\\"\"",
        "v:1",
        "v:1.0",
        "f:spec",
        "f:nodeSelector",
        "f:hostname",
        "f:securityContext",
        "f:containers",
        "k:{\"name\":\"a\"}",
        "k:{\"name\": \"a\"}",
        "k:{\"name\":\"b\\\"\"}",
        "f:volumes",
        "f:emptyDir",
        "f:ports",
        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}",
        "f:status",
        "f:conditions",
        "f:phase",
        "i:0",
        "f:a\"b",
    ];

    fn foreign() -> BoxedStrategy<Value> {
        let leaf = Just(json!({}));
        leaf.prop_recursive(5, 40, 5, |below| {
            prop::collection::vec((0..NAMES.len(), below), 1..5)
                .prop_map(|fields| fields.into_iter().map(|(at, value)| (NAMES[at].to_owned(), value)).collect())
        })
        .boxed()
    }

    #[derive(Clone, Debug)]
    struct Write {
        manager: &'static str,
        subresource: &'static str,
        filter: usize,
        given: bool,
        object: Value,
    }

    fn writes() -> impl Strategy<Value = Write> {
        let who = (select(vec!["one", "two", "three"]), select(vec!["", "status"]));
        (who, 0..3_usize, any::<bool>(), pods()).prop_map(|((manager, subresource), filter, given, object)| Write {
            manager,
            subresource,
            filter,
            given,
            object,
        })
    }

    impl Write {
        fn time(&self, second: usize) -> String {
            format!("2026-01-01T00:00:{:02}Z", second % 60)
        }

        fn given(&self) -> Set<'static> {
            if self.given { Set::of(&[&["spec", "tolerations"], &["metadata", "finalizers"]]) } else { Set::default() }
        }
    }

    fn writer<'w>(write: &'w Write, now: &'w str) -> Writer<'w> {
        Writer { manager: write.manager, api_version: "v1", subresource: write.subresource, now }
    }

    fn filter(write: &Write) -> Filter<'static> {
        static STATUS: std::sync::LazyLock<Set<'static>> = std::sync::LazyLock::new(|| Set::of(&[&["status"]]));
        match write.filter {
            0 => Filter::All,
            1 => Filter::AllBut(&STATUS),
            _ => Filter::Only(&[&["spec", "containers", "*", "resources"], &["metadata"]]),
        }
    }

    /// By reading all of it. None where it cannot be read.
    fn whole(account: &[u8], version: &Version<'_>, write: &Write, now: &str) -> Option<Account> {
        let versions = std::slice::from_ref(version);
        let mut owners = Managers::decode(account).ok().filter(|owners| !owners.is_empty())?;
        let writer = writer(write, now);
        let changed = owners.update(versions, &writer, &filter(write)) | owners.give(write.given(), &writer);
        Some(if changed { Account::Other(owners.encode()) } else { Account::Same })
    }

    /// What comes of it without reading all, if anything does: the same.
    fn parts(account: &[u8], version: &Version<'_>, write: &Write, now: &str) -> Option<Account> {
        let parts = updated(account, version, &writer(write, now), &filter(write), write.given());
        if parts.is_some() {
            assert_eq!(parts, whole(account, version, write, now), "{}", String::from_utf8_lossy(account));
        }
        parts
    }

    fn needs_nothing(account: &[u8], old: &Value) -> bool {
        let entries: Vec<Entry<'_>> = serde_json::from_slice(account).unwrap();
        entries.iter().all(|entry| reconciled(entry.held.set(), old, ty()).is_none())
    }

    proptest! {
        /// One write after another, of which each leaves others' accounts to be reconciled, or not.
        #[test]
        fn accounts_of_this_server(first in pods(), writes in prop::collection::vec(writes(), 1..8)) {
            let maker = Writer { manager: "one", api_version: "v1", subresource: "", now: "2026-01-01T00:00:00Z" };
            let mut account = encode_created(&first, ty(), &maker, &Set::default());
            let mut old = first;
            for (nth, write) in writes.iter().enumerate() {
                let Some(known) = account.take() else { break };
                let now = write.time(nth);
                let version = version(&old, &write.object);
                let parts = parts(&known, &version, write, &now);
                prop_assert!(parts.is_some() || !needs_nothing(&known, &old), "{}", String::from_utf8_lossy(&known));
                account = match whole(&known, &version, write, &now).unwrap() {
                    Account::Same => Some(known),
                    Account::Other(account) => account,
                };
                old = write.object.clone();
            }
        }

        /// Of anybody's, whole or broken.
        #[test]
        fn accounts_of_others(
            fields in prop::collection::vec((foreign(), select(vec!["v1", "v2"])), 1..3),
            own in pods(),
            old in pods(),
            write in writes(),
            at in any::<Index>(),
            byte in prop::option::of(32..127_u8),
        ) {
            let own = compare(&json!({}), &own, ty()).changed.encode();
            let mut entries = vec![json!({"manager": "one", "operation": "Update", "apiVersion": "v1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": own})];
            entries.extend(fields.into_iter().map(|(fields, version)| json!({"manager": "two", "operation": "Apply",
                "apiVersion": version, "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields, "subresource": "status"})));
            for entries in [Value::Array(entries.clone()), Value::Array(entries[1..].to_vec())] {
                let mut text = entries.to_string();
                let version = version(&old, &write.object);
                parts(text.as_bytes(), &version, &write, "2026-01-01T00:00:01Z");
                let at = at.index(text.len());
                if let Some(byte) = byte.filter(|_| text.is_char_boundary(at) && text.is_char_boundary(at + 1)) {
                    text.replace_range(at..=at, &char::from(byte).to_string());
                    parts(text.as_bytes(), &version, &write, "2026-01-01T00:00:01Z");
                }
            }
        }
    }

    fn one(fields: &str) -> String {
        format!(
            r#"[{{"manager":"one","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{fields}}}]"#
        )
    }

    fn of_labels(account: &str, old: &Value) -> Option<Account> {
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "1", "b": "2"});
        let write = Write { manager: "two", subresource: "", filter: 0, given: false, object: new };
        parts(account.as_bytes(), &version(old, &write.object), &write, "2026-01-01T00:00:01Z")
    }

    #[test]
    fn what_stays_is_not_read() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"hostname": "x", "securityContext": {}}});
        let labels = r#""f:metadata":{"f:labels":{".":{},"f:a":{}}}"#;
        let read = |spec: &str| of_labels(&one(&format!("{{{labels},\"f:spec\":{spec}}}")), &old).is_some();
        for as_it_is in [
            r#"{"f:hostname":{}}"#,
            r#"{"f:hostname":{},"f:nodeSelector":{},"f:securityContext":{}}"#,
            r#"{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:args":{},"f:name":{}},"k:{\"name\":\"a-b\"}":{"f:image":{}}}}"#,
            // The schema has no such field.
            r#"{"f:no":{"f:such":{}}}"#,
        ] {
            assert!(read(as_it_is), "{as_it_is}");
        }
        for otherwise in [
            r#"{"f:nodeSelector":{"f:a":{}}}"#,
            r#"{"f:hostname":{},"f:hostIPC":{}}"#,
            r#"{"f:hostname":{},"f:hostname":{}}"#,
            r#"{"f:hostname": {}}"#,
            r#"{"f:hostname":{".":{}}}"#,
            r#"{"k:{\"name\":\"a\"}":{},"f:hostname":{}}"#,
            r#"{"f:containers":{"k:{\"name\":\"a-b\"}":{"f:image":{}},"k:{\"name\":\"a\"}":{"f:image":{}}}}"#,
            r#"{"f:containers":{"k:{\"port\":1,\"name\":\"a\"}":{"f:image":{}}}}"#,
            r#"{"f:x":3}"#,
            r#"{"x":{}}"#,
        ] {
            assert!(!read(otherwise), "{otherwise}");
        }
        // What is read is to be written as it was, too.
        let otherwise = one(r#"{"f:metadata":{"f:annotations":{".":{}},"f:labels":{"f:a":{}}}}"#);
        assert!(of_labels(&otherwise, &old).is_none());
        // What is empty no more is taken apart.
        let whole = one(&format!("{{{labels},\"f:spec\":{{\"f:securityContext\":{{}}}}}}"));
        let mut filled = old.clone();
        filled["spec"]["securityContext"]["fsGroup"] = 1.into();
        assert!(of_labels(&whole, &old).is_some() && of_labels(&whole, &filled).is_none());
        let other_version = one(&format!("{{{labels}}}")).replace("\"v1\"", "\"v2\"");
        assert!(of_labels(&other_version, &old).is_none());
    }

    #[test]
    fn many_owners_are_merged_by_reading_all() {
        let entry = |nth: usize| {
            json!({"manager": format!("m{nth}"), "operation": "Update", "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{nth}"): {}}}}})
        };
        let account = |count| (0..count).map(entry).collect::<Value>().to_string();
        let old = json!({"metadata": {"labels": {"a": "1"}}});
        assert!(of_labels(&account(9), &old).is_some());
        assert!(of_labels(&account(10), &old).is_none());
    }

    #[test]
    fn depth_has_an_end() {
        let deep =
            |levels: usize| one(&format!("{{\"f:x\":{}{{}}{}}}", "{\"f:a\":".repeat(levels), "}".repeat(levels)));
        let old = json!({"metadata": {"labels": {"a": "1"}}});
        assert!(of_labels(&deep(100), &old).is_some());
        for levels in 120..130 {
            of_labels(&deep(levels), &old);
        }
        assert!(of_labels(&deep(100_000), &old).is_none());
    }
}
