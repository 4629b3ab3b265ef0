//! Labels of nodes that have other names now (node `GetNodeLabelDeprecatedMessage`, `GetWarningsForNodeSelectorTerm`).

use crate::registry::fields::{items, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::validation;

/// The old name, since when, and the new one.
pub const RENAMED: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// What is told of a label that has another name now.
pub fn deprecated(label: &str) -> Option<String> {
    let (_, since, instead) = RENAMED.iter().find(|(known, ..)| *known == label)?;
    Some(format!("deprecated since {since}; use {instead:?} instead"))
}

/// The expressions of a term that selects nodes; their values, too, where no other rule looks at them.
pub fn term(term: &Value, values: bool, path: &FieldPath, told: &mut Warnings) {
    for (nth, rule) in items(term, "matchExpressions").iter().enumerate() {
        if told.is_full() {
            return;
        }
        let label = text(rule, "key");
        let path = || path.child("matchExpressions").index(nth);
        if let Some(why) = deprecated(label) {
            told.at(&path().child("key"), format_args!("{label} is {why}"));
        }
        let values = items(rule, "values").iter().filter(|_| values).enumerate();
        for (nth, value) in values.filter_map(|(nth, value)| Some((nth, value.as_str()?))) {
            for why in validation::label_value(value) {
                told.at(&path().child("values").index(nth), format_args!("{value} is invalid, {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn values_are_judged_where_nothing_else_does() {
        let found = json!({"matchExpressions": [{"key": "a", "values": ["b", "-c"]}, {"key": "beta.kubernetes.io/os", "values": ["-"]}]});
        let of = |values| {
            let mut told = Warnings::default();
            term(&found, values, &FieldPath::new("t"), &mut told);
            Vec::from(told)
        };
        let label = "t.matchExpressions[1].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead";
        assert_eq!(of(false), [label]);
        let all = of(true);
        assert!(all[0].starts_with("t.matchExpressions[0].values[1]: -c is invalid, a valid label must be"), "{all:?}");
        assert!(all[1] == label && all[2].starts_with("t.matchExpressions[1].values[0]: - is invalid, "), "{all:?}");
        assert_eq!(all.len(), 3);
    }
}
