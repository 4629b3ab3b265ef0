//! What `POST /build` asks for. What this builder has not is refused by name.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;

use super::super::{
    http::{Call, Problem},
    types::{HostConfig, LogConfig, Ulimit},
};
use crate::images::{manifest::Platform, reference::Reference, registry::Credentials};

/// A build as asked for.
pub struct Request {
    pub remote: String,
    pub dockerfile: String,
    /// It was named; another is not looked for.
    pub dockerfile_given: bool,
    pub tags: Vec<String>,
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: String,
    pub cache_from: Vec<String>,
    pub network: String,
    pub platform: Option<Platform>,
    pub no_cache: bool,
    pub pull: bool,
    pub remove: bool,
    pub force_remove: bool,
    pub quiet: bool,
    /// What the containers of commands are given.
    pub host: HostConfig,
    pub credentials: RegistryConfig,
}

/// Who pulls from which registry: `X-Registry-Config`, decoded.
#[derive(Clone, Default)]
pub struct RegistryConfig(Option<Vec<u8>>);

impl RegistryConfig {
    pub fn of(&self, registry: &str) -> Result<Credentials, crate::Error> {
        match &self.0 {
            Some(json) => Credentials::from_docker_config(json, registry),
            None => Ok(Credentials::Anonymous),
        }
    }
}

/// A parameter that is JSON.
fn json<T: DeserializeOwned + Default>(call: &Call, name: &str) -> Result<T, Problem> {
    match call.query.text(name) {
        "" | "null" => Ok(T::default()),
        text => serde_json::from_str(text).map_err(|error| Problem::bad(format!("error reading {name}: {error}"))),
    }
}

fn refuse_what_is_not_there(call: &Call) -> Result<(), Problem> {
    let query = &call.query;
    match query.text("version") {
        "" | "1" => {}
        "2" => {
            return Err(Problem::bad(
                "version 2 of the builder (BuildKit) is not supported by this engine: build with DOCKER_BUILDKIT=0",
            ));
        }
        other => return Err(Problem::bad(format!("invalid version {other}"))),
    }
    if query.flag("squash") {
        return Err(Problem::bad("squash is not supported by this engine"));
    }
    let given = |name: &str| !matches!(query.text(name), "" | "null" | "[]");
    for name in ["outputs", "session"] {
        if given(name) {
            return Err(Problem::bad(format!("{name}: is for BuildKit, which this engine does not support")));
        }
    }
    if !matches!(query.text("isolation"), "" | "default") {
        return Err(Problem::bad("isolation is for Windows containers"));
    }
    if query.text("remote") == "client-session" {
        return Err(Problem::bad("remote=client-session is for BuildKit, which this engine does not support"));
    }
    Ok(())
}

impl Request {
    pub fn read(call: &Call) -> Result<Request, Problem> {
        refuse_what_is_not_there(call)?;
        let query = &call.query;
        let mut tags = Vec::new();
        for text in query.all("t").filter(|text| !text.is_empty()) {
            let reference: Reference = text.parse().map_err(|_| Problem::bad("invalid reference format"))?;
            if reference.digest.is_some() {
                return Err(Problem::bad("build tag cannot contain a digest"));
            }
            let name = reference.to_string();
            if !tags.contains(&name) {
                tags.push(name);
            }
        }
        let platform = match query.text("platform") {
            "" => None,
            text => Some(text.parse::<Platform>()?),
        };
        if let Some(platform) = platform.as_ref().filter(|platform| platform.os != "linux") {
            return Err(Problem::bad(format!("operating system is not supported: {:?}", platform.os)));
        }
        let dockerfile = query.text("dockerfile");
        Ok(Request {
            remote: query.text("remote").to_owned(),
            dockerfile: if dockerfile.is_empty() { "Dockerfile".into() } else { dockerfile.into() },
            dockerfile_given: !matches!(dockerfile, "" | "Dockerfile"),
            tags,
            arguments: json(call, "buildargs")?,
            labels: json(call, "labels")?,
            target: query.text("target").to_owned(),
            cache_from: json(call, "cachefrom")?,
            network: match query.text("networkmode") {
                "default" => String::new(),
                mode => mode.to_owned(),
            },
            platform,
            no_cache: query.flag("nocache"),
            pull: query.flag("pull"),
            remove: query.flag_or("rm", true),
            force_remove: query.flag("forcerm"),
            quiet: query.flag("q"),
            host: host_config(call)?,
            credentials: registry_config(call)?,
        })
    }
}

fn host_config(call: &Call) -> Result<HostConfig, Problem> {
    let query = &call.query;
    let number = |name: &str| query.number(name).map(Option::unwrap_or_default);
    let texts = |name| Some(query.all(name).map(str::to_owned).collect::<Vec<_>>()).filter(|list| !list.is_empty());
    let ulimits: Vec<Ulimit> = json(call, "ulimits")?;
    Ok(HostConfig {
        // What commands say is told to the client, and kept nowhere.
        log_config: LogConfig { kind: "none".into(), ..LogConfig::default() },
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        cgroup_parent: query.text("cgroupparent").to_owned(),
        shm_size: number("shmsize")?,
        extra_hosts: texts("extrahosts"),
        security_opt: texts("securityopt"),
        ulimits: Some(ulimits).filter(|list| !list.is_empty()),
        ..HostConfig::default()
    })
}

/// `X-Registry-Config`: what is known of every registry, as a Docker configuration has it.
fn registry_config(call: &Call) -> Result<RegistryConfig, Problem> {
    let Some(header) = call.request.headers().get("X-Registry-Config") else { return Ok(RegistryConfig(None)) };
    let bytes = header.as_bytes();
    let decoded = BASE64_URL_SAFE.decode(bytes).or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(bytes));
    let decoded = decoded.map_err(|_| Problem::bad("invalid X-Registry-Config header: it is not base64url"))?;
    let value: serde_json::Value = match decoded.is_empty() {
        true => return Ok(RegistryConfig(None)),
        false => serde_json::from_slice(&decoded)
            .map_err(|error| Problem::bad(format!("invalid X-Registry-Config header: {error}")))?,
    };
    if !value.is_object() {
        return Ok(RegistryConfig(None));
    }
    Ok(RegistryConfig(Some(serde_json::json!({ "auths": value }).to_string().into_bytes())))
}
