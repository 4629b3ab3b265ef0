//! Network configuration lists (CNI specification, section 1).

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};

/// Larger than any configuration.
const MAX_CONFIG: u64 = 1 << 20;

/// A network: its name and the plugins that make it, in order.
#[derive(Clone, Debug)]
pub struct NetworkList {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Plugin>,
    /// As it was read.
    pub document: Value,
}

/// One plugin of a list.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The name of its program.
    pub kind: String,
    config: Value,
}

impl NetworkList {
    /// The first configuration of a directory in the order of names, as every runtime chooses.
    pub fn find(dir: &Path) -> Result<NetworkList> {
        let none = || Error::unavailable(format!("no network config found in {}", dir.display()));
        let entries = fs::read_dir(dir).map_err(|_| none())?;
        let fitting = |path: &std::path::PathBuf| {
            path.extension()
                .is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known))
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(fitting).collect();
        paths.sort();
        let path = paths.first().ok_or_else(none)?;
        let what = || format!("network config {}", path.display());
        if fs::metadata(path).context(what())?.len() > MAX_CONFIG {
            return Err(Error::invalid("larger than a megabyte").context(what()));
        }
        let bytes = fs::read(path).context(what())?;
        let document =
            serde_json::from_slice(&bytes).map_err(|error| Error::invalid(format!("{}: {error}", what())))?;
        NetworkList::parse(document).context(what())
    }

    /// Whether its plugins know STATUS, which came with 1.1.
    pub fn has_status(&self) -> bool {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(1), Some(1))
    }

    /// Reads a list, or a single plugin's configuration as a list of one.
    pub fn parse(document: Value) -> Result<NetworkList> {
        let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
        let plugins = match document["plugins"].as_array() {
            Some(plugins) => plugins.clone(),
            None => vec![document.clone()],
        };
        let plugins = plugins.into_iter().map(Plugin::parse).collect::<Result<Vec<_>>>()?;
        if text("name").is_empty() || plugins.is_empty() {
            return Err(Error::invalid("a network needs a name and a plugin"));
        }
        let version = if text("cniVersion").is_empty() { "0.2.0".into() } else { text("cniVersion") };
        Ok(NetworkList { name: text("name"), version, plugins, document })
    }
}

impl Plugin {
    fn parse(config: Value) -> Result<Plugin> {
        let kind = config["type"].as_str().unwrap_or_default().to_owned();
        if kind.is_empty() || kind.contains('/') || kind.starts_with('.') {
            return Err(Error::invalid(format!("{kind:?} is not a plugin's name")));
        }
        Ok(Plugin { kind, config })
    }

    /// What the plugin reads: its part of the list, with the list's name and version, the result before it, and those
    /// runtime settings that it says it can use.
    pub fn config(&self, list: &NetworkList, runtime: &Value, previous: Option<&Value>) -> Value {
        let mut out = self.config.clone();
        out["name"] = json!(list.name);
        out["cniVersion"] = json!(list.version);
        let capable = |name: &String| self.config["capabilities"][name.as_str()].as_bool() == Some(true);
        let settings: serde_json::Map<String, Value> = runtime
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| capable(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(object) = out.as_object_mut() {
            object.remove("capabilities");
        }
        if !settings.is_empty() {
            out["runtimeConfig"] = Value::Object(settings);
        }
        if let Some(previous) = previous {
            out["prevResult"] = previous.clone();
        }
        out
    }
}
