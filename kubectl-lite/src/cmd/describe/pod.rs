//! Pods and pod templates.

use coracle_api::json::Value;
use coracle_api::meta;

use super::{Text, moment, text};

/// A pod.
pub fn pod(pod: &Value) -> String {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let mut out = Text::new();
    out.head(pod);
    out.line(0, "Priority", spec["priority"].as_i64().unwrap_or(0));
    out.line(0, "Service Account", none(&spec["serviceAccountName"]));
    let node = text(&spec["nodeName"]);
    out.line(0, "Node", if node.is_empty() { "<none>".into() } else { format!("{node}/{}", text(&status["hostIP"])) });
    if !status["startTime"].is_null() {
        out.line(0, "Start Time", moment(&status["startTime"]));
    }
    out.labels(pod);
    if meta::deletion_timestamp(pod).is_some() {
        let grace = meta::deletion_grace_period(pod).unwrap_or(0);
        out.line(0, "Status", "Terminating").line(0, "Termination Grace Period", format!("{grace}s"));
    } else {
        out.line(0, "Status", text(&status["phase"]));
    }
    for (name, field) in [("Reason", "reason"), ("Message", "message")] {
        if !text(&status[field]).is_empty() {
            out.line(0, name, text(&status[field]));
        }
    }
    out.line(0, "IP", text(&status["podIP"]));
    let addresses: Vec<_> = status["podIPs"].as_array().into_iter().flatten().map(|ip| text(&ip["ip"])).collect();
    if addresses.is_empty() {
        out.line(0, "IPs", "<none>");
    } else {
        out.raw(0, "IPs:");
        for ip in &addresses {
            out.line(1, "IP", ip);
        }
    }
    if let Some(owner) = meta::controller(pod) {
        out.line(0, "Controlled By", format!("{}/{}", owner.kind, owner.name));
    }
    if spec["initContainers"].as_array().is_some_and(|it| !it.is_empty()) {
        containers(&mut out, "Init Containers", &spec["initContainers"], Some(&status["initContainerStatuses"]));
    }
    containers(&mut out, "Containers", &spec["containers"], Some(&status["containerStatuses"]));
    out.conditions(pod, false);
    volumes(&mut out, 0, spec);
    out.line(0, "QoS Class", text(&status["qosClass"]));
    out.map(0, "Node-Selectors", spec["nodeSelector"].as_object(), "=");
    tolerations(&mut out, spec);
    out.into_string()
}

/// A pod template under `title`, with its change cause if there is one.
pub fn pod_template(template: &Value, title: &str, cause: Option<&str>) -> String {
    let mut out = Text::new();
    out.raw(0, title);
    out.map(1, "Labels", template["metadata"]["labels"].as_object(), "=");
    let annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    if let Some(cause) = cause {
        out.line(1, "Annotations", format!("kubernetes.io/change-cause: {cause}"));
    } else if !annotations.is_empty() {
        out.map(1, "Annotations", Some(&annotations), ": ");
    }
    let mut inner = Text::new();
    containers(&mut inner, "Containers", &template["spec"]["containers"], None);
    volumes(&mut inner, 0, &template["spec"]);
    for line in inner.into_string().lines() {
        out.raw(1, line);
    }
    out.into_string()
}

fn containers(out: &mut Text, title: &str, list: &Value, statuses: Option<&Value>) {
    out.raw(0, format!("{title}:"));
    for container in list.as_array().into_iter().flatten() {
        out.raw(1, format!("{}:", text(&container["name"])));
        let status = statuses.and_then(|all| all.as_array()?.iter().find(|status| status["name"] == container["name"]));
        if let Some(status) = status {
            out.line(2, "Container ID", text(&status["containerID"]));
        }
        out.line(2, "Image", text(&container["image"]));
        if let Some(status) = status {
            out.line(2, "Image ID", text(&status["imageID"]));
        }
        ports(out, container);
        for (name, field) in [("Command", "command"), ("Args", "args")] {
            if let Some(words) = container[field].as_array().filter(|words| !words.is_empty()) {
                out.raw(2, format!("{name}:"));
                for word in words {
                    out.raw(3, text(word));
                }
            }
        }
        if let Some(status) = status {
            state(out, "State", &status["state"]);
            if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
                state(out, "Last State", &status["lastState"]);
            }
            out.line(2, "Ready", if status["ready"] == true { "True" } else { "False" });
            out.line(2, "Restart Count", status["restartCount"].as_i64().unwrap_or(0));
        }
        for (name, field) in [("Limits", "limits"), ("Requests", "requests")] {
            if let Some(resources) = container["resources"][field].as_object().filter(|it| !it.is_empty()) {
                out.raw(2, format!("{name}:"));
                for (name, quantity) in resources {
                    out.line(3, name, text(quantity));
                }
            }
        }
        for (name, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if container[field].is_object() {
                out.line(2, name, probe(&container[field]));
            }
        }
        environment(out, container);
        mounts(out, container);
    }
}

fn ports(out: &mut Text, container: &Value) {
    let ports: Vec<_> = container["ports"].as_array().into_iter().flatten().collect();
    let list = |field: &str| -> Vec<String> {
        ports
            .iter()
            .map(|port| format!("{}/{}", port[field].as_i64().unwrap_or(0), port["protocol"].as_str().unwrap_or("TCP")))
            .collect()
    };
    let (own, host) = (list("containerPort").join(", "), list("hostPort").join(", "));
    let plural = if ports.len() > 1 { "s" } else { "" };
    out.line(2, &format!("Port{plural}"), if own.is_empty() { "<none>" } else { &own });
    out.line(2, &format!("Host Port{plural}"), if host.is_empty() { "<none>" } else { &host });
}

fn state(out: &mut Text, name: &str, state: &Value) {
    if state["running"].is_object() {
        out.line(2, name, "Running").line(3, "Started", moment(&state["running"]["startedAt"]));
    } else if state["terminated"].is_object() {
        let ended = &state["terminated"];
        out.line(2, name, "Terminated");
        for (name, field) in [("Reason", "reason"), ("Message", "message")] {
            if !text(&ended[field]).is_empty() {
                out.line(3, name, text(&ended[field]));
            }
        }
        out.line(3, "Exit Code", ended["exitCode"].as_i64().unwrap_or(0));
        out.line(3, "Started", moment(&ended["startedAt"])).line(3, "Finished", moment(&ended["finishedAt"]));
    } else {
        out.line(2, name, "Waiting");
        if !text(&state["waiting"]["reason"]).is_empty() {
            out.line(3, "Reason", text(&state["waiting"]["reason"]));
        }
    }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
    let what = if probe["httpGet"].is_object() {
        let get = &probe["httpGet"];
        let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text(&get["host"]), text(&get["port"]), text(&get["path"]))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket {}:{}", text(&probe["tcpSocket"]["host"]), text(&probe["tcpSocket"]["port"]))
    } else if probe["exec"].is_object() {
        let words: Vec<_> = probe["exec"]["command"].as_array().into_iter().flatten().map(text).collect();
        format!("exec [{}]", words.join(" "))
    } else {
        format!("grpc <pod>:{} {}", text(&probe["grpc"]["port"]), text(&probe["grpc"]["service"]))
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

fn environment(out: &mut Text, container: &Value) {
    for source in container["envFrom"].as_array().into_iter().flatten() {
        let (kind, reference) = if source["secretRef"].is_object() {
            ("Secret", &source["secretRef"])
        } else {
            ("ConfigMap", &source["configMapRef"])
        };
        out.raw(2, "Environment Variables from:");
        out.raw(3, format!("{}\t{kind}\tOptional: {}", text(&reference["name"]), reference["optional"] == true));
    }
    let Some(env) = container["env"].as_array().filter(|env| !env.is_empty()) else {
        out.line(2, "Environment", "<none>");
        return;
    };
    out.raw(2, "Environment:");
    for variable in env {
        let from = &variable["valueFrom"];
        let value = if from["fieldRef"].is_object() {
            format!(
                "({}:{})",
                from["fieldRef"]["apiVersion"].as_str().unwrap_or("v1"),
                text(&from["fieldRef"]["fieldPath"])
            )
        } else if from["secretKeyRef"].is_object() {
            format!(
                "<set to the key '{}' in secret '{}'>",
                text(&from["secretKeyRef"]["key"]),
                text(&from["secretKeyRef"]["name"])
            )
        } else if from["configMapKeyRef"].is_object() {
            format!(
                "<set to the key '{}' of config map '{}'>",
                text(&from["configMapKeyRef"]["key"]),
                text(&from["configMapKeyRef"]["name"])
            )
        } else {
            text(&variable["value"])
        };
        out.line(3, &text(&variable["name"]), value);
    }
}

fn mounts(out: &mut Text, container: &Value) {
    let Some(mounts) = container["volumeMounts"].as_array().filter(|mounts| !mounts.is_empty()) else {
        out.line(2, "Mounts", "<none>");
        return;
    };
    out.raw(2, "Mounts:");
    for mount in mounts {
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        out.raw(3, format!("{} from {} ({mode})", text(&mount["mountPath"]), text(&mount["name"])));
    }
}

fn volumes(out: &mut Text, level: usize, spec: &Value) {
    let Some(volumes) = spec["volumes"].as_array().filter(|volumes| !volumes.is_empty()) else {
        out.line(level, "Volumes", "<none>");
        return;
    };
    out.raw(level, "Volumes:");
    for volume in volumes {
        out.raw(level + 1, format!("{}:", text(&volume["name"])));
        let source = volume.as_object().into_iter().flatten().find(|(key, value)| *key != "name" && value.is_object());
        let Some((kind, source)) = source else { continue };
        out.line(level + 2, "Type", kind);
        for (key, value) in source.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            out.line(level + 2, key, text(value));
        }
    }
}

fn tolerations(out: &mut Text, spec: &Value) {
    let lines: Vec<String> = spec["tolerations"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|toleration| {
            let mut line = text(&toleration["key"]);
            if !text(&toleration["value"]).is_empty() {
                line.push_str(&format!("={}", text(&toleration["value"])));
            }
            if !text(&toleration["effect"]).is_empty() {
                line.push_str(&format!(":{}", text(&toleration["effect"])));
            }
            if toleration["operator"] == "Exists" && text(&toleration["value"]).is_empty() {
                line.push_str(if text(&toleration["key"]).is_empty() { "op=Exists" } else { " op=Exists" });
            }
            if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
                line.push_str(&format!(" for {seconds}s"));
            }
            line
        })
        .collect();
    if lines.is_empty() {
        out.line(0, "Tolerations", "<none>");
    }
    for (number, line) in lines.iter().enumerate() {
        if number == 0 {
            out.line(0, "Tolerations", line)
        } else {
            out.raw(0, format!("\t{line}"))
        };
    }
}

fn none(value: &Value) -> String {
    let text = text(value);
    if text.is_empty() { "<none>".into() } else { text }
}
