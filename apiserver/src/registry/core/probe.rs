//! Checks of probes and of lifecycle handlers.

use crate::registry::fields::{field, invalid_all, items, non_negative, one_of, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

const PROBES: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// A probe; a successful liveness or startup probe is enough once, and alone may give a time to end.
pub fn validate(probe: &Value, once: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    handler(probe, &PROBES, None, path, causes);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(probe, field, path, causes);
    }
    if let Some(seconds) = field(probe, "terminationGracePeriodSeconds").and_then(Value::as_i64) {
        let path = path.child("terminationGracePeriodSeconds");
        if seconds <= 0 {
            causes.push(Cause::invalid(&path, seconds, "must be greater than 0"));
        }
        if !once {
            causes.push(Cause::invalid(&path, seconds, "must not be set for readinessProbes"));
        }
    }
    if let Some(threshold) = field(probe, "successThreshold").and_then(Value::as_i64)
        && once
        && threshold != 1
    {
        causes.push(Cause::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}

/// What is done after a container starts or before it stops. `grace` is how long its pod may take to end.
pub fn hook(hook: &Value, grace: Option<i64>, path: &FieldPath, causes: &mut Vec<Cause>) {
    handler(hook, &HOOKS, grace, path, causes);
}

/// What a probe or hook does: exactly one thing (core `validateHandler`).
fn handler(handler: &Value, known: &[&str], grace: Option<i64>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let mut given =
        known.iter().filter(|name| field(handler, name).is_some_and(|value| !value.is_null())).enumerate().peekable();
    if given.peek().is_none() {
        causes.push(Cause::required(path, "must specify a handler type"));
    }
    for (nth, name) in given {
        let (path, value) = (path.child(name), &handler[*name]);
        if nth > 0 {
            causes.push(Cause::forbidden(&path, "may not specify more than 1 handler type"));
            continue;
        }
        match *name {
            "exec" if items(value, "command").is_empty() => causes.push(Cause::required(&path.child("command"), "")),
            "httpGet" => {
                if text(value, "path").is_empty() {
                    causes.push(Cause::required(&path.child("path"), ""));
                }
                port(value, &path, causes);
                one_of(value, "scheme", &["HTTP", "HTTPS"], &path, causes);
                for header in items(value, "httpHeaders") {
                    let name = text(header, "name");
                    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                        let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                        causes.push(Cause::invalid(&path.child("httpHeaders"), name, why));
                    }
                }
            }
            "tcpSocket" => port(value, &path, causes),
            "grpc" => {
                let number = field(value, "port").and_then(Value::as_i64).unwrap_or(0);
                causes.extend(
                    validation::port_number(number)
                        .into_iter()
                        .map(|why| Cause::invalid(&path.child("port"), number, why)),
                );
            }
            "sleep" => sleep(value, grace, &path, causes),
            _ => {}
        }
    }
}

/// Seconds to wait for, which end with the pod's time (core `validateSleepAction`).
fn sleep(value: &Value, grace: Option<i64>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let seconds = field(value, "seconds").and_then(Value::as_i64).unwrap_or(0);
    if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        causes.push(Cause::invalid(path, seconds, why));
    }
}

/// A port by number or name.
fn port(value: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let path = path.child("port");
    match field(value, "port") {
        Some(Value::String(name)) => invalid_all(&path, name, validation::port_name(name), causes),
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0);
            causes.extend(validation::port_number(number).into_iter().map(|why| Cause::invalid(&path, number, why)));
        }
        _ => causes.push(Cause::invalid(&path, 0, "must be between 1 and 65535, inclusive")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(probe: Value, once: bool) -> Vec<String> {
        let mut causes = Vec::new();
        validate(&probe, once, &FieldPath::new("p"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn probes_that_end_a_container_give_it_time() {
        let of = |seconds: i64, threshold: i64| json!({"exec": {"command": ["x"]}, "successThreshold": threshold, "terminationGracePeriodSeconds": seconds});
        assert!(told(of(1, 1), true).is_empty());
        let positive = "p.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0";
        assert_eq!(told(of(0, 2), true), [positive, "p.successThreshold: Invalid value: 2: must be 1"]);
        let unset = "p.terminationGracePeriodSeconds: Invalid value: 0: must not be set for readinessProbes";
        assert_eq!(told(of(0, 2), false), [positive, unset]);
    }

    #[test]
    fn one_thing_is_done() {
        assert_eq!(told(json!({}), true), ["p: Required value: must specify a handler type"]);
        let two = json!({"tcpSocket": {"port": 80}, "exec": {"command": ["x"]}});
        assert_eq!(told(two, true), ["p.tcpSocket: Forbidden: may not specify more than 1 handler type"]);
        assert_eq!(told(json!({"sleep": {"seconds": 1}}), true), ["p: Required value: must specify a handler type"]);
    }
}
