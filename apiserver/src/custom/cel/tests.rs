//! Expressions whose answers a real apiextensions-apiserver (v1.36.4) gave: what is wrong with them, what they can cost, and
//! what they say of an object.

use super::{Declared, Scope, Type};
use crate::custom::rules;
use crate::custom::structural::Node;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;

/// Expressions that were made up for each seed.
const MADE: usize = 1500;

fn recorded() -> Vec<Value> {
    serde_json::from_str(include_str!("recorded.json")).unwrap()
}

/// What is compiled here, written as it was recorded.
fn compiled(scope: &Scope<'_>, rule: &Value) -> Value {
    let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut answer = json!({});
    let mut set = |name: &str, value: Value| drop(answer.as_object_mut().unwrap().insert(name.to_owned(), value));
    match scope.compile(text("rule")) {
        Err(why) => {
            set("error", why.why.trim_start_matches("compilation failed: ").into());
            return answer;
        }
        Ok(rule) if rule.ty != Type::Bool => {
            set("error", "cel expression must evaluate to a bool".into());
            return answer;
        }
        Ok(rule) => {
            set("cost", rule.cost.into());
            if rule.names_old {
                set("old", true.into());
            }
        }
    }
    if !text("messageExpression").is_empty() {
        match scope.compile(text("messageExpression")) {
            Err(why) => set("msgError", why.why.trim_start_matches("compilation failed: ").into()),
            Ok(message) if message.ty != Type::String => {
                set("msgError", "messageExpression must evaluate to a string".into());
            }
            Ok(message) => set("msgCost", message.cost.into()),
        }
    }
    answer
}

/// What a rule says of an object.
fn said(schema: &Value, rule: &Value, case: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["x-kubernetes-validations"] = json!([rule]);
    let mut causes = Vec::new();
    let old = case.get("old");
    rules::validate(&Node::parse(&schema), &case["object"], old, &FieldPath::default(), &mut causes);
    causes.into_iter().map(|cause| cause.message).collect()
}

#[test]
fn expressions_are_judged_as_upstream_judges_them() {
    let (mut count, mut differ) = (0, Vec::new());
    for case in recorded() {
        let node = Node::parse(&case["schema"]);
        let declared = Declared::of(&node, case["root"] == true, "selfType0").unwrap();
        for row in case["rows"].as_array().unwrap() {
            count += 1;
            let (rule, expected) = (&row[0], &row[1]);
            let scope = Scope::new(&declared, rule["optionalOldSelf"] == true);
            let mut found = compiled(&scope, rule);
            if found.get("error").is_none() {
                let said = said(&case["schema"], rule, &case);
                if !said.is_empty() {
                    found["errs"] = said.into();
                }
            }
            if found != *expected {
                differ.push(format!("{rule}\n  upstream {expected}\n  here     {found}"));
            }
        }
    }
    assert!(differ.is_empty(), "{} of {count} differ:\n{}", differ.len(), differ.join("\n"));
}

/// Parts of an expression: words, and what stands between them.
fn parts(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for c in text.chars() {
        match parts.last_mut() {
            Some(last) if c.is_alphanumeric() && last.chars().all(char::is_alphanumeric) => last.push(c),
            _ => parts.push(c.to_string()),
        }
    }
    parts
}

/// An expression made of the parts of others.
fn made_up(random: &mut fastrand::Rng, rules: &[String]) -> String {
    let mut one = parts(random.choice(rules).unwrap());
    let other = parts(random.choice(rules).unwrap());
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..=one.len());
        match random.u8(0..4) {
            0 if at < one.len() => drop(one.remove(at)),
            1 if at < one.len() => one[at].clone_from(random.choice(&other).unwrap()),
            2 => one.insert(at, random.choice(&other).unwrap().clone()),
            _ => {
                let from = random.usize(0..other.len());
                let to = random.usize(from..=other.len().min(from + 8));
                one.splice(at..at, other[from..to].iter().cloned());
            }
        }
    }
    one.concat()
}

/// Whatever is written, the answer is one; and what fits together finds a function for each call, unless its types are
/// told apart only when it runs.
#[test]
fn what_is_accepted_runs() {
    let recorded = recorded();
    let case = &recorded[0];
    let rows = case["rows"].as_array().unwrap();
    let rules: Vec<String> = rows.iter().map(|row| row[0]["rule"].as_str().unwrap().to_owned()).collect();
    let declared = Declared::of(&Node::parse(&case["schema"]), true, "selfType0").unwrap();
    let scope = Scope::new(&declared, false);
    let (mut accepted, mut seen) = (0, std::collections::HashSet::new());
    for seed in 0..2 {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..MADE {
            let rule = made_up(&mut random, &rules);
            let fits = scope.compile(&rule).is_ok_and(|compiled| compiled.ty == Type::Bool);
            if !fits || !seen.insert(rule.clone()) {
                continue;
            }
            accepted += 1;
            let said = said(&case["schema"], &json!({"rule": rule}), case);
            let open = ["ios", "dyn", "flatten", "type"].iter().any(|word| rule.contains(word));
            let broken = said.iter().any(|why| why.contains("no such overload") || why.contains("ndeclared"));
            assert!(open || !broken, "seed {seed}: {rule}: {said:?}");
        }
    }
    assert!(accepted > 100, "{accepted}");
}

/// What runs cost there, to the last unit.
#[test]
fn runs_cost_what_upstream_counts() {
    let recorded: Value = serde_json::from_str(include_str!("costs.json")).unwrap();
    let node = Node::parse(&recorded["schema"]);
    let mut wrong = Vec::new();
    for row in recorded["costs"].as_array().unwrap() {
        let (rule, wanted) = (row[0].as_str().unwrap(), row[1].as_u64().unwrap());
        let own = rules::convert(&node, &recorded["object"], true);
        let program = super::Program::parse(rule).unwrap();
        let (_, cost) = program.measure(vec![("self".to_owned(), own)]);
        if cost != wanted {
            wrong.push(format!("{rule}: {cost}, there {wanted}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is wrong in many places is shown in full for some expressions of a request, and where it is for all.
#[test]
fn what_is_long_to_show_is_told_of_in_short() {
    let wrong = format!("[{}]", vec!["a"; 2000].join(","));
    let scope = Scope::of_request(super::Given::default());
    let mut found = Vec::new();
    super::roomy(&mut found, |found| found.extend((0..20).map(|_| scope.compile(&wrong).unwrap_err().why)));
    assert!(found[0].ends_with("\n1900 more errors were truncated") && found[0].len() > 400_000, "{}", found[0].len());
    let short = "compilation failed: ERROR: <input>:1:2: undeclared reference to 'a' (in container '')";
    assert_eq!(found[19], short);
    assert!(found.iter().map(String::len).sum::<usize>() < 2 * super::Spent::Shown.most());
    assert_eq!(scope.compile(&wrong).unwrap_err().why, found[0]);
}

/// What is slow to tell is not told of everything in one request.
#[test]
fn many_broken_expressions_are_told_of_in_short() {
    let broken = format!("a == '{}' (", "b".repeat(1000));
    let mut found = Vec::new();
    super::roomy(&mut found, |found| found.extend((0..250).map(|_| super::Program::parse(&broken).unwrap_err())));
    let long = found.iter().filter(|why| why.contains("Syntax error: ") && why.contains('^')).count();
    assert_eq!(long, super::Spent::Asked.most() / broken.len());
    assert!(found[249].ends_with("the expression cannot be read"), "{}", found[249]);
}
