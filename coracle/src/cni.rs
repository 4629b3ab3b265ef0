//! Being the CNI plugin.

use std::{env, path::Path};

use coracle_network::cni::{PLUGIN_NAME, call};
use coracle_runtime::cni::OwnPlugin;

/// Whether this process was started under the plugin's name.
pub fn called_as_plugin() -> bool {
    let name = env::args_os().next();
    name.as_deref().and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == PLUGIN_NAME)
}

/// The plugin, for a runtime in this process.
pub fn own() -> OwnPlugin {
    OwnPlugin { name: PLUGIN_NAME, call }
}
