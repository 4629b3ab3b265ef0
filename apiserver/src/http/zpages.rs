//! What people ask a server about itself: `/` for its paths, `/statusz` and `/flagz` (KEP-4827, KEP-4828: ComponentStatusz and
//! ComponentFlagz are beta in v1.36, and on).

use super::negotiate::{self, Accept, Format};
use super::{health, metrics, render, version};
use crate::Config;
use crate::registry::Rows;
use crate::server::Server;
use crate::verbs::Response;
use axum::body::Body;
use coracle_api::json::{Value, json};
use coracle_api::{Status, clock};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::collections::BTreeSet;

/// What the pages are of, as upstream's programs are called.
const COMPONENT: &str = "kube-apiserver";

const GROUP: &str = "config.k8s.io";

/// The versions of both kinds, and whether they are there for a while only.
const VERSIONS: [(&str, bool); 2] = [("v1beta1", false), ("v1alpha1", true)];

/// What can be asked for when the form is not said right; upstream's list has what its serializers could write.
const OFFERED: [&str; 4] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/plain"];

const FOREWORD: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and \
                        is for debugging purposes only.";

/// Paths that lead to the API, and not to what is known of the server.
const OF_THE_API: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

enum Form {
    /// For people.
    Text,
    Structured(Format, &'static str, bool),
}

/// All that is served without being a resource, as `/` tells it (apiserver `server/routes/index.go`).
pub fn paths(rows: &Rows) -> BTreeSet<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/flagz",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/statusz",
        "/version",
    ];
    let mut paths: BTreeSet<String> = fixed.into_iter().map(str::to_owned).chain(health::paths()).collect();
    for (group, versions) in rows.groups().into_iter().filter(|(group, _)| !group.is_empty()) {
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
        paths.insert(format!("/apis/{group}"));
    }
    paths
}

/// Answers `/statusz` and `/flagz`; None for other paths.
///
/// # Errors
/// 406 where a form is asked for without its group, version and kind, which are not guessed.
pub fn answer(server: &Server, path: &str, headers: &HeaderMap) -> Option<Result<Response, Status>> {
    let kind = match path {
        "/statusz" => "Statusz",
        "/flagz" => "Flagz",
        _ => return None,
    };
    let form = if negotiate::is_silent(headers) { Some(Form::Text) } else { form(headers, kind) };
    Some(form.map(|form| page(server, kind, form)).ok_or_else(|| Status::not_acceptable(&OFFERED)))
}

fn form(headers: &HeaderMap, kind: &str) -> Option<Form> {
    negotiate::first(headers, |clause| {
        let is_asked = clause.kind == kind && clause.group == GROUP;
        let version = VERSIONS.into_iter().find(|(version, _)| is_asked && *version == clause.version);
        match (clause.range, version) {
            ("application/json" | "application/*" | "*/*", Some((version, old))) => {
                Some(Form::Structured(Format::Json, version, old))
            }
            ("application/yaml", Some((version, old))) => Some(Form::Structured(Format::Yaml, version, old)),
            ("text/plain" | "text/*" | "*/*", None) if clause.kind.is_empty() => Some(Form::Text),
            _ => None,
        }
    })
}

fn page(server: &Server, kind: &str, form: Form) -> Response {
    let fields = if kind == "Statusz" { status(server) } else { json!({"flags": flags(&server.config)}) };
    match form {
        Form::Text => {
            let told = if kind == "Statusz" { told_status(&fields) } else { told_flags(&fields["flags"]) };
            let text = format!("\n{COMPONENT} {}\n{FOREWORD}\n{told}", kind.to_lowercase());
            let mut response = http::Response::new(Body::from(text));
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            response
        }
        Form::Structured(format, version, old) => {
            let mut document =
                json!({"kind": kind, "apiVersion": format!("{GROUP}/{version}"), "metadata": {"name": COMPONENT}});
            for (name, value) in fields.as_object().into_iter().flatten() {
                document[name.as_str()] = value.clone();
            }
            let mut response = render::plain(&Accept { format, ..Accept::default() }, StatusCode::OK, &document);
            if old {
                let why = format!(
                    "This version of the {} endpoint is deprecated. Please use a newer version.",
                    kind.to_lowercase()
                );
                let warning = HeaderValue::from_str(&format!("299 - \"{why}\"")).ok();
                response.headers_mut().extend(warning.map(|warning| (header::WARNING, warning)));
            }
            response
        }
    }
}

fn status(server: &Server) -> Value {
    let started = metrics::process_started();
    let up = (server.config.clock.now().as_second() - started.as_second()).max(0);
    let version = version::document();
    let paths: BTreeSet<String> = paths(&server.registry.current())
        .iter()
        .filter_map(|path| path.split('/').nth(1))
        .map(|first| format!("/{first}"))
        .filter(|first| !OF_THE_API.contains(&first.as_str()))
        .collect();
    json!({
        "startTime": clock::rfc3339(started),
        "uptimeSeconds": up,
        "goVersion": version["goVersion"],
        "binaryVersion": version::GIT_VERSION.trim_start_matches('v'),
        "emulationVersion": format!("{}.{}", text(&version["emulationMajor"]), text(&version["emulationMinor"])),
        "paths": paths.into_iter().collect::<Vec<_>>(),
    })
}

/// As upstream's page has it, whose separators are drawn by lot so that nobody reads it by program.
fn told_status(fields: &Value) -> String {
    let started = clock::parse_rfc3339(text(&fields["startTime"])).unwrap_or_default();
    let up = fields["uptimeSeconds"].as_i64().unwrap_or(0);
    let paths: Vec<&str> = fields["paths"].as_array().into_iter().flatten().map(text).collect();
    format!(
        "\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nGo version: {}\nBinary version: {}\nEmulation version: {}\nPaths: {}\n",
        started.strftime("%a %b %e %H:%M:%S UTC %Y"),
        up / 3600,
        up / 60 % 60,
        up % 60,
        text(&fields["goVersion"]),
        text(&fields["binaryVersion"]),
        text(&fields["emulationVersion"]),
        paths.join(" ")
    )
}

/// What the server was told when it started, under the names that upstream has for it.
fn flags(config: &Config) -> Value {
    json!({
        "advertise-address": config.advertise.ip().to_string(),
        "secure-port": config.advertise.port().to_string(),
        "service-cluster-ip-range": config.service_cidr.to_string(),
        "service-node-port-range": format!("{}-{}", config.node_port_range.start(), config.node_port_range.end()),
    })
}

fn told_flags(flags: &Value) -> String {
    let flags = flags.as_object().into_iter().flatten();
    flags.map(|(name, value)| format!("{name}={}\n", text(value))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
