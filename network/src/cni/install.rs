//! How a runtime finds the plugin: a program in the plugin directory and a configuration list beside others.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use serde_json::json;

/// The name the plugin's program goes by; a `coracle` started under it is the plugin.
pub const PLUGIN_NAME: &str = "coracle-cni";

/// Where things go.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The runtime's configuration directory (`/etc/cni/net.d`).
    pub conf_dir: PathBuf,
    /// The runtime's plugin directory (`/opt/cni/bin`).
    pub bin_dir: PathBuf,
    /// Where the plugin notes its addresses.
    pub data_dir: PathBuf,
}

/// Puts `program` and a configuration for the node's range `subnet` in place. Other configurations stay, and the first
/// by name wins, as ever with CNI; ours is `10-coracle.conflist`.
pub fn install(paths: &Paths, program: &Path, subnet: Ipv4Net, mtu: Option<u32>) -> io::Result<()> {
    for dir in [&paths.conf_dir, &paths.bin_dir, &paths.data_dir] {
        fs::create_dir_all(dir)?;
    }
    let beside = paths.bin_dir.join(format!(".{PLUGIN_NAME}.new"));
    let _ = fs::remove_file(&beside);
    symlink(program, &beside)?;
    fs::rename(&beside, paths.bin_dir.join(PLUGIN_NAME))?;

    let mut plugin = json!({
        "type": PLUGIN_NAME,
        "subnet": subnet,
        "dataDir": paths.data_dir,
        "capabilities": {"portMappings": false},
    });
    if let Some(mtu) = mtu {
        plugin["mtu"] = mtu.into();
    }
    let list = json!({"cniVersion": "1.1.0", "name": "coracle", "plugins": [plugin]});
    // A runtime may look at any moment: the file appears whole.
    let beside = paths.conf_dir.join(".10-coracle.conflist.new");
    fs::write(&beside, serde_json::to_vec_pretty(&list)?)?;
    fs::rename(&beside, paths.conf_dir.join("10-coracle.conflist"))
}
