//! Checks of probes and of lifecycle handlers.

use crate::registry::fields::{field, invalid_all, items, non_negative, one_of, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// A probe; a successful liveness or startup probe is enough once.
pub fn validate(probe: &Value, once: bool, path: &FieldPath, causes: &mut Vec<Cause>) {
    handler(probe, path, causes);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(probe, field, path, causes);
    }
    if let Some(threshold) = field(probe, "successThreshold").and_then(Value::as_i64)
        && once
        && threshold != 1
    {
        causes.push(Cause::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
    if let Some(seconds) = field(probe, "terminationGracePeriodSeconds").and_then(Value::as_i64) {
        if !once {
            causes.push(Cause::invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                "must not be set for readinessProbes",
            ));
        } else if seconds <= 0 {
            causes.push(Cause::invalid(
                &path.child("terminationGracePeriodSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
    }
}

/// What a probe or hook does: exactly one thing.
pub fn handler(handler: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given: Vec<&str> =
        HANDLERS.into_iter().filter(|name| field(handler, name).is_some_and(|value| !value.is_null())).collect();
    if given.is_empty() {
        causes.push(Cause::required(path, "must specify a handler type"));
    }
    for (nth, name) in given.iter().enumerate() {
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
            _ => {}
        }
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
