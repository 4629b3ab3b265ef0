//! Pod networks by CNI plugins (CNI specification 1.1): configuration lists, plugin calls, cached results.
//!
//! The configuration is read when it is needed, so a file that appears or changes counts from then on. What a sandbox
//! was attached with is cached: it is detached with the same, whatever the directory holds by then.

mod config;
mod invoke;
mod settings;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

pub use config::NetworkList;
pub use invoke::OwnPlugin;
pub use settings::{Bandwidth, Settings};

use crate::error::{Context, Error, Result};

/// How long a plugin's good answer to STATUS is believed: the kubelet asks every few seconds.
const STATUS_STANDS: Duration = Duration::from_secs(60);
/// The interface inside the sandbox.
pub const INTERFACE: &str = "eth0";

/// The plugins and configurations of one node.
pub struct Cni {
    conf_dir: PathBuf,
    bin_dir: PathBuf,
    cache_dir: PathBuf,
    own: Option<OwnPlugin>,
    /// When STATUS was answered well, and for which configuration.
    well: tokio::sync::Mutex<Option<(Instant, Value)>>,
}

/// What is attached to the network.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    pub container_id: String,
    pub netns: PathBuf,
    /// `CNI_ARGS`
    pub args: Vec<(String, String)>,
    pub settings: Settings,
}

/// What a sandbox was attached with. Its file holds it first without a result, as it is before plugins run; the result is
/// written behind, as a document of its own. So no file takes another's place: on a file system mounted with `discard`, the
/// block that is given back is waited for.
#[derive(Deserialize)]
struct Cached {
    config: Value,
    result: Option<Value>,
}

impl Cni {
    pub fn open(conf_dir: &Path, bin_dir: &Path, cache_dir: &Path, own: Option<OwnPlugin>) -> Cni {
        // A daemon that was killed while it wrote one leaves it.
        let parts = fs::read_dir(cache_dir).into_iter().flatten().flatten().map(|entry| entry.path());
        for part in parts.filter(|path| path.extension().is_some_and(|extension| extension == "part")) {
            if let Err(error) = fs::remove_file(&part) {
                tracing::warn!(path = %part.display(), %error, "half a record of a network stays");
            }
        }
        Cni {
            conf_dir: conf_dir.to_owned(),
            bin_dir: bin_dir.to_owned(),
            cache_dir: cache_dir.to_owned(),
            own,
            well: tokio::sync::Mutex::new(None),
        }
    }

    pub fn conf_dir(&self) -> &Path {
        &self.conf_dir
    }

    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// The network and where it is from, by the names of go-cni's `ConfigResult`; none without a configuration.
    pub fn settings(&self) -> Option<Value> {
        let list = NetworkList::find(&self.conf_dir).ok()?;
        let plugins: Vec<Value> =
            list.plugins.iter().map(|plugin| json!({ "Network": { "type": plugin.kind } })).collect();
        Some(json!({
            "PluginDirs": [self.bin_dir],
            "PluginConfDir": self.conf_dir,
            "PluginMaxConfNum": 1,
            "Prefix": "eth",
            "Networks": [{
                "Config": {
                    "Name": list.name,
                    "CNIVersion": list.version,
                    "Plugins": plugins,
                    "Source": list.document.to_string(),
                },
                "IFName": INTERFACE,
            }],
        }))
    }

    /// Why there is no network, in containerd's words; none if there is one.
    pub async fn problem(&self) -> Option<String> {
        let list = match NetworkList::find(&self.conf_dir) {
            Ok(list) => list,
            Err(error) => return Some(format!("cni plugin not initialized: {error}")),
        };
        let missing = list.plugins.iter().find(|plugin| !self.bin_dir.join(&plugin.kind).exists());
        if let Some(plugin) = missing {
            return Some(format!(
                "cni plugin not initialized: failed to find plugin {:?} in path [{}]",
                plugin.kind,
                self.bin_dir.display()
            ));
        }
        if list.has_status() { self.status(&list).await } else { None }
    }

    /// Asks the plugins whether they can attach (STATUS, since 1.1). A good answer stands for a while.
    async fn status(&self, list: &NetworkList) -> Option<String> {
        let mut well = self.well.lock().await;
        if well.as_ref().is_some_and(|(since, document)| since.elapsed() < STATUS_STANDS && *document == list.document)
        {
            return None;
        }
        let nothing = Attachment::default();
        for plugin in &list.plugins {
            let config = plugin.config(list, &json!({}), None);
            if let Err(error) = self.invoke("STATUS", plugin, &config, &nothing).await {
                // 50 and 51 say that the plugin cannot; anything else, that it does not know the command.
                if matches!(error, invoke::Failure { code: Some(50 | 51), .. }) {
                    *well = None;
                    return Some(format!("cni plugin not ready: {}", Error::from(error)));
                }
            }
        }
        *well = Some((Instant::now(), list.document.clone()));
        None
    }

    /// Asks the plugins whether an attached sandbox is still as they left it (CHECK, since 0.4).
    pub async fn check(&self, attachment: &Attachment) -> Result<()> {
        let Some(cached) = self.cached(&attachment.container_id)? else {
            return Err(Error::not_found(format!("container {:?} is not attached", attachment.container_id)));
        };
        let list = NetworkList::parse(cached.config)?;
        for plugin in &list.plugins {
            let config = plugin.config(&list, &attachment.settings.document(), cached.result.as_ref());
            self.invoke("CHECK", plugin, &config, attachment).await?;
        }
        Ok(())
    }

    /// The sandboxes that are attached, or were when something was killed.
    pub fn attached(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.cache_dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned)).collect()
    }

    /// What the plugins answered when a sandbox was attached, as long as it is.
    pub fn result(&self, container_id: &str) -> Option<Value> {
        self.cached(container_id).ok()??.result
    }

    fn cached(&self, container_id: &str) -> Result<Option<Cached>> {
        let path = self.cache_path(container_id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(format!("read {}", path.display())),
        };
        let mut documents = serde_json::Deserializer::from_slice(&bytes);
        let mut cached = Cached::deserialize(&mut documents)
            .map_err(|error| Error::internal(format!("read {}: {error}", path.display())))?;
        // Half of it says nothing, and the sandbox is detached without.
        cached.result = Value::deserialize(&mut documents).ok().or(cached.result);
        Ok(Some(cached))
    }

    fn cache_path(&self, container_id: &str) -> PathBuf {
        self.cache_dir.join(format!("{container_id}.json"))
    }

    /// Before the first plugin runs: a kill from then on leaves something to detach with.
    fn save(&self, container_id: &str, config: &Value) -> Result<()> {
        fs::create_dir_all(&self.cache_dir).context(format!("create {}", self.cache_dir.display()))?;
        let bytes = serde_json::to_vec(&json!({ "config": config }))
            .map_err(|error| Error::internal(format!("encode the network's configuration: {error}")))?;
        let path = self.cache_path(container_id);
        let part = path.with_extension("part");
        fs::write(&part, bytes).and_then(|()| fs::rename(&part, &path)).context(format!("write {}", path.display()))
    }

    fn save_result(&self, container_id: &str, result: &Value) -> Result<()> {
        let path = self.cache_path(container_id);
        let file = fs::OpenOptions::new().append(true).open(&path);
        file.and_then(|mut file| file.write_all(format!("\n{result}\n").as_bytes()))
            .context(format!("write {}", path.display()))
    }

    /// Attaches a sandbox; returns its addresses. On failure it is detached again.
    pub async fn add(&self, attachment: &Attachment) -> Result<Vec<String>> {
        let list = NetworkList::find(&self.conf_dir).context("cni plugin not initialized")?;
        self.save(&attachment.container_id, &list.document)?;
        match self.add_all(&list, attachment).await {
            Ok(result) => {
                self.save_result(&attachment.container_id, &result)?;
                Ok(addresses(&result))
            }
            Err(error) => {
                if let Err(error) = self.del(attachment).await {
                    tracing::warn!(container = attachment.container_id, %error, "cannot detach what could not be attached");
                }
                Err(error)
            }
        }
    }

    async fn add_all(&self, list: &NetworkList, attachment: &Attachment) -> Result<Value> {
        let mut result = None;
        let settings = attachment.settings.document();
        for plugin in &list.plugins {
            let config = plugin.config(list, &settings, result.as_ref());
            let out = self.invoke("ADD", plugin, &config, attachment).await?;
            result =
                Some(out.ok_or_else(|| {
                    Error::internal(format!("plugin type={:?} failed (add): no result", plugin.kind))
                })?);
        }
        result.ok_or_else(|| Error::internal("the network configuration has no plugin"))
    }

    /// Detaches a sandbox; one that is not attached is detached already.
    pub async fn del(&self, attachment: &Attachment) -> Result<()> {
        let path = self.cache_path(&attachment.container_id);
        let Some(cached) = self.cached(&attachment.container_id)? else { return Ok(()) };
        let list = NetworkList::parse(cached.config)?;
        for plugin in list.plugins.iter().rev() {
            let config = plugin.config(&list, &attachment.settings.document(), cached.result.as_ref());
            self.invoke("DEL", plugin, &config, attachment).await?;
        }
        fs::remove_file(&path).context(format!("remove {}", path.display()))
    }

    async fn invoke(
        &self,
        command: &str,
        plugin: &config::Plugin,
        config: &Value,
        attachment: &Attachment,
    ) -> std::result::Result<Option<Value>, invoke::Failure> {
        let args: Vec<String> = attachment.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        // A namespace that is gone is not named (specification, section 2 "DEL").
        let netns =
            if attachment.netns.exists() { attachment.netns.to_string_lossy().into_owned() } else { String::new() };
        let call = invoke::Call {
            path: self.bin_dir.join(&plugin.kind),
            kind: &plugin.kind,
            command,
            container_id: &attachment.container_id,
            netns: &netns,
            interface: INTERFACE,
            args: &args.join(";"),
            bin_dir: &self.bin_dir,
            own: self.own,
        };
        call.run(config).await
    }
}

/// Addresses of a result, without their prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str())
        .filter_map(|address| address.split('/').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn attachment() -> Attachment {
        Attachment {
            container_id: "c1".into(),
            netns: "/proc/self/ns/net".into(),
            args: vec![("K8S_POD_NAME".into(), "p".into())],
            settings: Settings::default(),
        }
    }

    fn plugin(dir: &Path, name: &str, script: &str) {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn plugins_are_chained_and_undone_in_reverse() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let log = path.join("log");
        let say = |name: &str, result: &str| {
            format!(
                "cat > {}/{name}.in; echo {name} $CNI_COMMAND $CNI_IFNAME $CNI_ARGS >> {}; [ $CNI_COMMAND = DEL ] || echo '{result}'",
                path.display(),
                log.display()
            )
        };
        plugin(path, "first", &say("first", r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}"#));
        plugin(
            path,
            "second",
            &say("second", r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"},{"address":"fd00::2/64"}]}"#),
        );
        let cni = Cni::open(path, path, &path.join("cache"), None);
        assert!(cni.problem().await.unwrap().contains("no network config found"));
        fs::write(path.join("10-x.conflist"), r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"first"},{"type":"second","capabilities":{"portMappings":true}}]}"#).unwrap();
        assert_eq!(cni.problem().await, None);
        assert_eq!(cni.add(&attachment()).await.unwrap(), ["10.0.0.2", "fd00::2"]);
        let second: Value = serde_json::from_slice(&fs::read(path.join("second.in")).unwrap()).unwrap();
        assert_eq!(second["prevResult"]["ips"][0]["address"], "10.0.0.2/24");
        assert_eq!((second["name"].as_str(), second["cniVersion"].as_str()), (Some("n"), Some("1.0.0")));
        fs::remove_file(path.join("10-x.conflist")).unwrap();
        cni.del(&attachment()).await.unwrap();
        let undone: Value = serde_json::from_slice(&fs::read(path.join("second.in")).unwrap()).unwrap();
        assert_eq!(undone["prevResult"]["ips"][1]["address"], "fd00::2/64");
        cni.del(&attachment()).await.unwrap();
        let lines = fs::read_to_string(&log).unwrap();
        assert_eq!(
            lines,
            "first ADD eth0 K8S_POD_NAME=p\nsecond ADD eth0 K8S_POD_NAME=p\nsecond DEL eth0 K8S_POD_NAME=p\nfirst DEL eth0 K8S_POD_NAME=p\n"
        );
    }

    #[tokio::test]
    async fn plugins_are_asked_how_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        plugin(
            path,
            "p",
            &format!(
                r#"echo $CNI_COMMAND >> {0}/log; [ $CNI_COMMAND = STATUS ] && [ -e {0}/bad ] && {{ echo '{{"code":50,"msg":"no range yet"}}'; exit 1; }}; echo '{{"ips":[]}}'"#,
                path.display()
            ),
        );
        fs::write(path.join("a.conflist"), r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"p"}]}"#).unwrap();
        let cni = Cni::open(path, path, &path.join("cache"), None);
        fs::write(path.join("bad"), "").unwrap();
        assert_eq!(
            cni.problem().await.unwrap(),
            "cni plugin not ready: plugin type=\"p\" failed (status): no range yet"
        );
        fs::remove_file(path.join("bad")).unwrap();
        assert_eq!(cni.problem().await, None);
        assert_eq!(cni.problem().await, None);
        assert!(cni.check(&attachment()).await.unwrap_err().is_not_found());
        cni.add(&attachment()).await.unwrap();
        cni.check(&attachment()).await.unwrap();
        assert_eq!(cni.attached(), ["c1"]);
        assert_eq!(fs::read_to_string(path.join("log")).unwrap(), "STATUS\nSTATUS\nADD\nCHECK\n");
    }

    #[tokio::test]
    async fn a_plugin_of_this_program_is_called_here_and_no_other_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::write(path.join("a.conflist"), r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"mine"}]}"#).unwrap();
        fn mine(
            command: &str,
            id: &str,
            _: &str,
            interface: &str,
            config: &Value,
        ) -> Option<std::result::Result<Option<Value>, Value>> {
            match (command, id) {
                ("ADD", "bad") => Some(Err(json!({ "code": 11, "msg": "no addresses left", "details": "of ten" }))),
                ("ADD", "dies") => panic!("the plugin dies"),
                ("ADD", _) => {
                    assert_eq!((interface, config["name"].as_str()), ("eth0", Some("n")));
                    Some(Ok(Some(json!({ "ips": [{ "address": "10.0.0.2/24" }] }))))
                }
                _ => Some(Ok(None)),
            }
        }
        let cni = Cni::open(path, path, &path.join("cache"), Some(OwnPlugin { name: "mine", call: mine }));
        std::os::unix::fs::symlink("/proc/self/exe", path.join("mine")).unwrap();
        assert_eq!(cni.add(&attachment()).await.unwrap(), ["10.0.0.2"]);
        cni.del(&attachment()).await.unwrap();
        let other = |id: &str| Attachment { container_id: id.into(), ..attachment() };
        let error = cni.add(&other("bad")).await.unwrap_err().to_string();
        assert_eq!(error, "plugin type=\"mine\" failed (add): no addresses left; of ten");
        let error = cni.add(&other("dies")).await.unwrap_err().to_string();
        assert_eq!(error, "plugin type=\"mine\" failed (add): the plugin panicked");
        fs::remove_file(path.join("mine")).unwrap();
        plugin(path, "mine", r#"echo '{"ips":[{"address":"10.9.9.9/24"}]}'"#);
        assert_eq!(cni.add(&attachment()).await.unwrap(), ["10.9.9.9"], "somebody else's program by that name is run");
    }

    #[tokio::test]
    async fn what_a_kill_left_of_a_record_is_enough_to_detach() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        plugin(path, "p", &format!("cat > {0}/in; echo $CNI_COMMAND >> {0}/log", path.display()));
        let cni = Cni::open(path, path, &path.join("cache"), None);
        fs::create_dir(path.join("cache")).unwrap();
        let config = r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"p"}]}"#;
        let whole = json!({ "ips": [] });
        // Not attached yet; attached, and half of the result written; and as it was written before.
        for (record, previous) in [
            (format!(r#"{{"config":{config}}}"#), Value::Null),
            (format!("{{\"config\":{config}}}\n{{\"ips\":["), Value::Null),
            (format!("{{\"config\":{config}}}\n{whole}\n"), whole.clone()),
            (format!(r#"{{"config":{config},"result":{whole}}}"#), whole),
        ] {
            fs::write(path.join("cache/c1.json"), &record).unwrap();
            cni.del(&attachment()).await.unwrap();
            let given: Value = serde_json::from_slice(&fs::read(path.join("in")).unwrap()).unwrap();
            assert_eq!(given["prevResult"], previous, "{record}");
            assert!(!path.join("cache/c1.json").exists());
        }
        assert_eq!(fs::read_to_string(path.join("log")).unwrap(), "DEL\n".repeat(4));
    }

    #[tokio::test]
    async fn a_plugins_error_is_told_and_undone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        plugin(
            path,
            "bad",
            r#"[ $CNI_COMMAND = DEL ] && exit 0; echo '{"code":11,"msg":"no addresses left"}'; exit 1"#,
        );
        fs::write(path.join("a.conf"), r#"{"cniVersion":"0.4.0","name":"n","type":"bad"}"#).unwrap();
        let cni = Cni::open(path, path, &path.join("cache"), None);
        let error = cni.add(&attachment()).await.unwrap_err().to_string();
        assert_eq!(error, "plugin type=\"bad\" failed (add): no addresses left");
        assert!(!path.join("cache/c1.json").exists());
    }
}
