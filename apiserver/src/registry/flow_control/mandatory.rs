//! What every server needs of priority and fairness, and nobody may change (kubernetes
//! `pkg/apis/flowcontrol/internalbootstrap`).

use crate::bootstrap::flow_control;
use crate::registry::Strategy;
use crate::registry::fields::{alike, items, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};
use std::sync::LazyLock;

/// A schema that is mandatory has its one spec (`ValidateFlowSchema`).
pub(super) fn schema(object: &Value, causes: &mut Vec<Cause>) {
    static FIXED: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| specs("flowschemas", &super::FlowSchemaStrategy));
    let name = meta::name(object);
    let Some((_, fixed)) = FIXED.iter().find(|(fixed, _)| fixed == name) else { return };
    let shown = schema_spec(&object["spec"]);
    if !alike(&shown, &schema_spec(fixed)) {
        let why = format!("spec of '{name}' must equal the fixed value");
        causes.push(Cause::invalid(&FieldPath::new("spec"), shown, why));
    }
}

/// A level that is mandatory has its one spec, but that the shares of the exempt one are anybody's
/// (`ValidateIfMandatoryPriorityLevelConfigurationObject`).
pub(super) fn level(object: &Value, causes: &mut Vec<Cause>) {
    static FIXED: LazyLock<Vec<(String, Value)>> =
        LazyLock::new(|| specs("prioritylevelconfigurations", &super::LevelStrategy));
    let name = meta::name(object);
    let Some((_, fixed)) = FIXED.iter().find(|(fixed, _)| fixed == name) else { return };
    let (shown, mut fixed) = (level_spec(&object["spec"]), level_spec(fixed));
    let mut aside = "";
    if name == "exempt" {
        fixed["Exempt"] = shown["Exempt"].clone();
        aside = "except the 'spec.exempt' field ";
    }
    if !alike(&shown, &fixed) {
        let why = format!("spec of '{name}' {aside}must equal the fixed value");
        causes.push(Cause::invalid(&FieldPath::new("spec"), shown, why));
    }
}

/// The names and specs of the mandatory objects of a resource, with all that is filled in.
fn specs(resource: &str, strategy: &dyn Strategy) -> Vec<(String, Value)> {
    let mandatory = flow_control::objects()
        .filter(|(of, object)| *of == resource && flow_control::MANDATORY.contains(&meta::name(object)));
    let spec = |(_, mut object): (&str, Value)| {
        strategy.default(&mut object);
        (meta::name(&object).to_owned(), object["spec"].take())
    };
    mandatory.map(spec).collect()
}

/// A spec in the field names of upstream's internal type, in their order: so it is told, and compared.
fn schema_spec(spec: &Value) -> Value {
    json!({
        "PriorityLevelConfiguration": {"Name": text(&spec["priorityLevelConfiguration"], "name")},
        "MatchingPrecedence": number(spec, "matchingPrecedence"),
        "DistinguisherMethod": given(&spec["distinguisherMethod"], |method| json!({"Type": text(method, "type")})),
        "Rules": list(spec, "rules", rule),
    })
}

fn rule(rule: &Value) -> Value {
    json!({
        "Subjects": list(rule, "subjects", subject),
        "ResourceRules": list(rule, "resourceRules", |rule| json!({
            "Verbs": words(rule, "verbs"),
            "APIGroups": words(rule, "apiGroups"),
            "Resources": words(rule, "resources"),
            "ClusterScope": rule["clusterScope"].as_bool().unwrap_or_default(),
            "Namespaces": words(rule, "namespaces"),
        })),
        "NonResourceRules": list(rule, "nonResourceRules", |rule| json!({
            "Verbs": words(rule, "verbs"), "NonResourceURLs": words(rule, "nonResourceURLs"),
        })),
    })
}

fn subject(subject: &Value) -> Value {
    let named = |one: &Value| json!({"Name": text(one, "name")});
    json!({
        "Kind": text(subject, "kind"),
        "User": given(&subject["user"], named),
        "Group": given(&subject["group"], named),
        "ServiceAccount": given(&subject["serviceAccount"], |account| json!({
            "Namespace": text(account, "namespace"), "Name": text(account, "name"),
        })),
    })
}

/// The same of a level.
fn level_spec(spec: &Value) -> Value {
    let queuing = |queuing: &Value| {
        json!({
            "Queues": number(queuing, "queues"),
            "HandSize": number(queuing, "handSize"),
            "QueueLengthLimit": number(queuing, "queueLengthLimit"),
        })
    };
    let response =
        |response: &Value| json!({"Type": text(response, "type"), "Queuing": given(&response["queuing"], queuing)});
    json!({
        "Type": text(spec, "type"),
        "Limited": given(&spec["limited"], |limited| json!({
            "NominalConcurrencyShares": number(limited, "nominalConcurrencyShares"),
            "LimitResponse": response(&limited["limitResponse"]),
            "LendablePercent": limited["lendablePercent"],
            "BorrowingLimitPercent": limited["borrowingLimitPercent"],
        })),
        "Exempt": given(&spec["exempt"], |exempt| json!({
            "NominalConcurrencyShares": exempt["nominalConcurrencyShares"], "LendablePercent": exempt["lendablePercent"],
        })),
    })
}

/// Null where there is none.
fn given(value: &Value, shown: impl FnOnce(&Value) -> Value) -> Value {
    if value.is_null() { Value::Null } else { shown(value) }
}

fn number(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_default()
}

/// Null where there is none.
fn list(value: &Value, name: &str, shown: impl Fn(&Value) -> Value) -> Value {
    given(&value[name], |_| items(value, name).iter().map(shown).collect::<Vec<_>>().into())
}

fn words(value: &Value, name: &str) -> Value {
    list(value, name, Value::clone)
}

#[cfg(test)]
mod tests {
    use super::super::{FlowSchemaStrategy, LevelStrategy};
    use super::*;

    fn told(strategy: &dyn Strategy, object: &Value) -> Vec<String> {
        let mut object = object.clone();
        strategy.default(&mut object);
        let mut causes = Vec::new();
        strategy.validate(&object, &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    fn made(resource: &str, name: &str) -> Value {
        let found = flow_control::objects().find(|(of, object)| *of == resource && meta::name(object) == name);
        found.unwrap().1
    }

    #[test]
    fn what_the_server_makes_is_what_it_asks_for() {
        for (resource, object) in flow_control::objects() {
            let strategy: &dyn Strategy = if resource == "flowschemas" { &FlowSchemaStrategy } else { &LevelStrategy };
            assert_eq!(told(strategy, &object), [""; 0], "{}", meta::name(&object));
        }
    }

    #[test]
    fn nobody_changes_what_every_server_needs() {
        let mut schema = made("flowschemas", "catch-all");
        schema["spec"]["matchingPrecedence"] = 9999.into();
        schema["spec"]["rules"] = json!([{"subjects": [{"kind": "User", "user": {"name": "u"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]);
        let shown = r#"{"PriorityLevelConfiguration":{"Name":"catch-all"},"MatchingPrecedence":9999,"DistinguisherMethod":{"Type":"ByUser"},"Rules":[{"Subjects":[{"Kind":"User","User":{"Name":"u"},"Group":null,"ServiceAccount":null}],"ResourceRules":null,"NonResourceRules":[{"Verbs":["*"],"NonResourceURLs":["*"]}]}]}"#;
        let why = "spec of 'catch-all' must equal the fixed value";
        assert_eq!(told(&FlowSchemaStrategy, &schema), [format!("spec: Invalid value: {shown}: {why}")]);
        schema["metadata"]["name"] = "other".into();
        assert_eq!(told(&FlowSchemaStrategy, &schema), [""; 0]);
        let mut level = made("prioritylevelconfigurations", "catch-all");
        level["spec"]["limited"]["nominalConcurrencyShares"] = 6.into();
        let shown = r#"{"Type":"Limited","Limited":{"NominalConcurrencyShares":6,"LimitResponse":{"Type":"Reject","Queuing":null},"LendablePercent":0,"BorrowingLimitPercent":null},"Exempt":null}"#;
        assert_eq!(told(&LevelStrategy, &level), [format!("spec: Invalid value: {shown}: {why}")]);
    }

    #[test]
    fn the_shares_of_the_exempt_level_are_anybodys() {
        let mut level = made("prioritylevelconfigurations", "exempt");
        level["spec"]["exempt"] = json!({"nominalConcurrencyShares": 7, "lendablePercent": 50});
        assert_eq!(told(&LevelStrategy, &level), [""; 0]);
        level["spec"]["exempt"] = json!({"nominalConcurrencyShares": -7, "lendablePercent": 101});
        assert_eq!(
            told(&LevelStrategy, &level),
            [
                "spec.exempt.nominalConcurrencyShares: Invalid value: -7: must be a non-negative integer",
                "spec.exempt.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            ]
        );
        level["spec"] = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}});
        let told = told(&LevelStrategy, &level);
        assert_eq!(
            told[0],
            "spec.type: Invalid value: \"Limited\": type must be 'Exempt' if and only if name is 'exempt'"
        );
        assert!(
            told[1].ends_with("spec of 'exempt' except the 'spec.exempt' field must equal the fixed value"),
            "{told:?}"
        );
        assert_eq!(told.len(), 2);
    }
}
