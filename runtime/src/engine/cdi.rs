//! Devices that files on the node describe (Container Device Interface, `SPEC.md`; how they are found and what is made of them is
//! container-device-interface `pkg/cdi`).
//!
//! A file is of one kind of devices, `vendor/class`. A container that asks for `vendor/class=name` is given what the file says of
//! that device, and once what it says of all. What is in a later directory goes before what is in an earlier one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::warn;

use super::spec::device_node;
use crate::error::{Context, Error, Result};

/// Where such files are, unless told otherwise: the administrator's, and what drivers write.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Annotations of containers that name devices, of before CRI had a field for them.
const ANNOTATION: &str = "cdi.k8s.io/";

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    container_edits: Edits,
}

/// What is changed in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    net_devices: Vec<NetDevice>,
    hooks: Vec<Hook>,
    mounts: Vec<Mount>,
    intel_rdt: Option<Value>,
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: String,
    /// Where it is on the node; where it is in the container if it is not said.
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    major: i64,
    #[serde(default)]
    minor: i64,
    file_mode: Option<u32>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetDevice {
    host_interface_name: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    hook_name: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

/// The devices that a container asks for, each once: by CRI's field, then by annotations.
pub fn asked_for(devices: Vec<String>, annotations: &BTreeMap<String, String>) -> Vec<String> {
    let named = annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION));
    let named = named.flat_map(|(_, devices)| devices.split(',').map(str::to_owned));
    let mut seen = BTreeSet::new();
    devices.into_iter().chain(named).filter(|name| seen.insert(name.clone())).collect()
}

/// Gives a container, whose OCI configuration this is, the devices of these names.
///
/// # Errors
/// Names the devices that are not described, or are twice; the device node that is not there.
pub fn inject(config: &mut Value, names: &[String], directories: &[PathBuf]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let specs = read_all(directories);
    let (mut used, mut edits, mut unresolved) = (BTreeSet::new(), Vec::new(), Vec::new());
    for name in names {
        match find(&specs, name) {
            Some((index, device)) => {
                if used.insert(index) {
                    edits.push(&specs[index].1.container_edits);
                }
                edits.push(&device.container_edits);
            }
            None => unresolved.push(name.as_str()),
        }
    }
    let failed = "failed to inject CDI devices: CDI device injection failed";
    if !unresolved.is_empty() {
        return Err(Error::invalid(format!("{failed}: unresolvable CDI devices {}", unresolved.join(", "))));
    }
    edits.into_iter().try_for_each(|edits| edits.apply(config)).context(failed)
}

/// Every file that can be read, with its directory's place.
fn read_all(directories: &[PathBuf]) -> Vec<(usize, Spec)> {
    let mut out = Vec::new();
    for (place, directory) in directories.iter().enumerate() {
        // One that is not there has none.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if !path.extension().is_some_and(|extension| extension == "json" || extension == "yaml") {
                continue;
            }
            match read(&path) {
                Ok(spec) => out.push((place, spec)),
                // The devices of the others are there all the same.
                Err(error) => warn!(path = %path.display(), %error, "a description of devices cannot be used"),
            }
        }
    }
    out
}

fn read(path: &Path) -> Result<Spec> {
    let size = fs::metadata(path).context("stat")?.len();
    if size > LARGEST {
        return Err(Error::invalid(format!("it has {size} bytes, more than {LARGEST}")));
    }
    // JSON is YAML.
    let text = fs::read_to_string(path).context("read")?;
    let spec: Spec = serde_saphyr::from_str(&text).map_err(|error| Error::invalid(error.to_string()))?;
    if !matches!(spec.cdi_version.split_once('.'), Some(("0" | "1", _))) {
        return Err(Error::invalid(format!("unknown cdiVersion {:?}", spec.cdi_version)));
    }
    let whole = |text: &str| !text.is_empty() && !text.contains(['/', '=', ',']);
    if !spec.kind.split_once('/').is_some_and(|(vendor, class)| whole(vendor) && whole(class)) {
        return Err(Error::invalid(format!("invalid kind {:?}", spec.kind)));
    }
    match spec.devices.iter().find(|device| !whole(&device.name)) {
        Some(device) => Err(Error::invalid(format!("invalid name of a device {:?}", device.name))),
        None => Ok(spec),
    }
}

/// The device of a name, `vendor/class=name`: that of the last directory that has it. Two files of one directory that describe it
/// leave it undescribed.
fn find<'a>(specs: &'a [(usize, Spec)], name: &str) -> Option<(usize, &'a Device)> {
    let (kind, name) = name.split_once('=')?;
    let of_kind = specs.iter().enumerate().filter(|(_, (_, spec))| spec.kind == kind);
    let devices = |(index, (place, spec)): (usize, &'a (usize, Spec))| {
        let named = spec.devices.iter().filter(|device| device.name == name);
        named.map(move |device| (*place, index, device)).collect::<Vec<_>>()
    };
    let found: Vec<_> = of_kind.flat_map(devices).collect();
    let last = found.iter().map(|(place, ..)| *place).max()?;
    match found.iter().filter(|(place, ..)| *place == last).collect::<Vec<_>>()[..] {
        [(_, index, device)] => Some((*index, device)),
        _ => None,
    }
}

/// The list at a path of an object, made where it is not there.
fn list<'a>(config: &'a mut Value, path: &[&str]) -> Result<&'a mut Vec<Value>> {
    let place = path.iter().fold(config, |value, name| &mut value[*name]);
    if place.is_null() {
        *place = json!([]);
    }
    place.as_array_mut().ok_or_else(|| Error::internal(format!("{} is no list", path.join("."))))
}

impl Edits {
    fn apply(&self, config: &mut Value) -> Result<()> {
        for entry in &self.env {
            let (name, _) = entry.split_once('=').ok_or_else(|| Error::invalid(format!("invalid env {entry:?}")))?;
            let of_name = |other: &Value| other.as_str().and_then(|other| other.split('=').next()) == Some(name);
            let env = list(config, &["process", "env"])?;
            match env.iter_mut().find(|other| of_name(other)) {
                Some(other) => *other = json!(entry),
                None => env.push(json!(entry)),
            }
        }
        self.device_nodes.iter().try_for_each(|node| node.apply(config).context(format!("device {:?}", node.path)))?;
        for device in &self.net_devices {
            config["linux"]["netDevices"][&device.host_interface_name] = json!({ "name": device.name });
        }
        self.apply_mounts(config)?;
        self.hooks.iter().try_for_each(|hook| hook.apply(config))?;
        if let Some(rdt) = &self.intel_rdt {
            config["linux"]["intelRdt"] = rdt.clone();
        }
        for gid in self.additional_gids.iter().filter(|gid| **gid != 0) {
            let groups = list(config, &["process", "user", "additionalGids"])?;
            if !groups.contains(&json!(gid)) {
                groups.push(json!(gid));
            }
        }
        Ok(())
    }

    fn apply_mounts(&self, config: &mut Value) -> Result<()> {
        if self.mounts.is_empty() {
            return Ok(());
        }
        let mounts = list(config, &["mounts"])?;
        for mount in &self.mounts {
            let bind = mount.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
            let kind = if mount.kind.is_empty() && bind { "bind" } else { &mount.kind };
            mounts.retain(|other| other["destination"] != json!(mount.container_path));
            mounts.push(json!({
                "destination": mount.container_path, "type": kind, "source": mount.host_path, "options": mount.options,
            }));
        }
        // None is to hide another that is below it.
        mounts.sort_by_key(|mount| {
            let destination = mount["destination"].as_str().unwrap_or_default();
            destination.split('/').filter(|part| !part.is_empty()).count()
        });
        Ok(())
    }
}

impl Node {
    fn apply(&self, config: &mut Value) -> Result<()> {
        let host = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let mut node = Map::new();
        node.insert("path".into(), json!(self.path));
        if self.kind.is_empty() || (self.major == 0 && self.kind != "p") {
            let found = device_node(Path::new(host), &self.path).context(host.clone())?;
            if !self.kind.is_empty() && self.kind != "u" && found["type"] != json!(self.kind) {
                let why = format!("{host:?} is of type {}, not {:?}", found["type"], self.kind);
                return Err(Error::invalid(why));
            }
            for name in ["type", "major", "minor"] {
                node.insert(name.into(), found[name].clone());
            }
        } else {
            node.insert("type".into(), json!(self.kind));
            node.insert("major".into(), json!(self.major));
            node.insert("minor".into(), json!(self.minor));
        }
        // Who the container runs as can use it, unless it is said whose it is.
        let user = &config["process"]["user"];
        let owner = |given: Option<u32>, name: &str| {
            given.or_else(|| user[name].as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0))
        };
        let (uid, gid) = (owner(self.uid, "uid"), owner(self.gid, "gid"));
        for (name, value) in [("fileMode", self.file_mode), ("uid", uid), ("gid", gid)] {
            if let Some(value) = value {
                node.insert(name.into(), json!(value));
            }
        }
        let (kind, major, minor) = (node["type"].clone(), node["major"].clone(), node["minor"].clone());
        let devices = list(config, &["linux", "devices"])?;
        devices.retain(|other| other["path"] != json!(self.path));
        devices.push(Value::Object(node));
        if kind == "b" || kind == "c" {
            let access = if self.permissions.is_empty() { "rwm" } else { &self.permissions };
            let rule = json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
            list(config, &["linux", "resources", "devices"])?.push(rule);
        }
        Ok(())
    }
}

impl Hook {
    fn apply(&self, config: &mut Value) -> Result<()> {
        const POINTS: [&str; 6] =
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        if !POINTS.contains(&self.hook_name.as_str()) {
            return Err(Error::invalid(format!("unknown hook name {:?}", self.hook_name)));
        }
        let mut hook = json!({ "path": self.path, "args": self.args, "env": self.env });
        if let Some(timeout) = self.timeout {
            hook["timeout"] = json!(timeout);
        }
        list(config, &["hooks", &self.hook_name])?.push(hook);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        json!({
            "process": { "user": { "uid": 33, "gid": 0, "additionalGids": [5] }, "env": ["A=1", "B=2"] },
            "mounts": [{ "destination": "/proc" }, { "destination": "/a/b/c" }],
            "linux": { "devices": [], "resources": { "devices": [{ "allow": false, "access": "rwm" }] } },
        })
    }

    fn write(directory: &Path, name: &str, text: &str) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
    }

    fn device(kind: &str, name: &str, env: &str) -> String {
        let edits = json!({ "env": [env] });
        json!({ "cdiVersion": "0.6.0", "kind": kind, "devices": [{ "name": name, "containerEdits": edits }] })
            .to_string()
    }

    #[test]
    fn edits_are_made_in_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"
cdiVersion: "0.7.0"
kind: vendor.com/card
containerEdits:
  env: ["A=all", "C=3"]
  additionalGids: [0, 44]
devices:
- name: one
  containerEdits:
    deviceNodes: [{path: /dev/card, hostPath: /dev/null, permissions: r, fileMode: 0o600}]
    mounts: [{hostPath: /opt/card, containerPath: /a, options: [ro, rbind]}]
    hooks: [{hookName: createContainer, path: /bin/hook, args: [hook, x], timeout: 5}]
- {name: two, containerEdits: {env: ["D=4"]}}
"#;
        write(dir.path(), "card.yaml", text);
        let mut config = config();
        let names = ["vendor.com/card=one".to_owned(), "vendor.com/card=two".to_owned()];
        inject(&mut config, &names, &[dir.path().into()]).unwrap();
        // What is said of all is said once.
        assert_eq!(config["process"]["env"], json!(["A=all", "B=2", "C=3", "D=4"]));
        assert_eq!(config["process"]["user"]["additionalGids"], json!([5, 44]));
        let card = json!({ "path": "/dev/card", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 33 });
        assert_eq!(config["linux"]["devices"], json!([card]));
        assert_eq!(config["linux"]["resources"]["devices"][1]["access"], "r");
        let mounts: Vec<_> = config["mounts"].as_array().unwrap().iter().map(|mount| &mount["destination"]).collect();
        assert_eq!(mounts, ["/proc", "/a", "/a/b/c"]);
        let hook = json!([{ "path": "/bin/hook", "args": ["hook", "x"], "env": [], "timeout": 5 }]);
        assert_eq!(config["hooks"]["createContainer"], hook);
    }

    #[test]
    fn later_directories_go_first_and_doubt_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let directories = ["etc", "run", "none"].map(|name| dir.path().join(name));
        write(&directories[0], "a.json", &device("v.com/c", "x", "FROM=etc"));
        write(&directories[0], "b.json", &device("v.com/c", "twice", "FROM=b"));
        write(&directories[0], "c.json", &device("v.com/c", "twice", "FROM=c"));
        write(&directories[0], "d.txt", &device("v.com/c", "text", "FROM=d"));
        write(&directories[0], "e.json", &device("no-kind", "y", "FROM=e"));
        write(&directories[0], "f.json", "{");
        write(&directories[1], "a.json", &device("v.com/c", "x", "FROM=run"));
        let of = |names: &[&str]| {
            let mut config = config();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            inject(&mut config, &names, &directories).map(|()| config["process"]["env"][2].clone())
        };
        assert_eq!(of(&["v.com/c=x"]).unwrap(), "FROM=run");
        let error = of(&["v.com/c=twice", "v.com/c=x", "v.com/c=text", "no-kind=y", "v.com/c"]).unwrap_err();
        let told = "unresolvable CDI devices v.com/c=twice, v.com/c=text, no-kind=y, v.com/c";
        assert!(error.to_string().ends_with(told), "{error}");
    }

    #[test]
    fn devices_are_asked_for_in_two_ways() {
        let annotations = BTreeMap::from([
            ("cdi.k8s.io/gpu".to_owned(), "v/c=1,v/c=2".to_owned()),
            ("other".to_owned(), "v/c=3".to_owned()),
        ]);
        assert_eq!(asked_for(vec!["v/c=2".into(), "v/c=0".into()], &annotations), ["v/c=2", "v/c=0", "v/c=1"]);
    }
}
