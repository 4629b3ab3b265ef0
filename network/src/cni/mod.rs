//! The CNI plugin (CNI 1.1), as any runtime calls it: command in the environment, configuration on standard input.

mod addresses;
mod attachment;
mod install;

use std::process::ExitCode;

use rscni_plugin::{
    cni::{Cni, Plugin},
    error::Error,
    types::{Args, CNIResult, NetConf},
    version::SpecVersion,
};
use serde::Deserialize;

pub use addresses::{Addresses, Owner};
use attachment::Attachment;
pub use install::{PLUGIN_NAME, Paths, install};

/// What the plugin's entry in a network configuration holds beside what CNI itself defines.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    /// The node's pod range.
    subnet: ipnet::Ipv4Net,
    /// Where it is noted which address is whose.
    data_dir: std::path::PathBuf,
    /// Bytes, else the kernel's.
    mtu: Option<u32>,
}

/// Runs the plugin on this process's environment and standard streams; the answer, errors too, is on standard output.
pub fn main() -> ExitCode {
    let versions = vec![SpecVersion::new(0, 4, 0), SpecVersion::new(1, 0, 0), SpecVersion::CURRENT];
    match Plugin::new(SpecVersion::CURRENT, versions).msg("CNI plugin coracle-cni").run(&CoracleCni) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

struct CoracleCni;

impl Cni for CoracleCni {
    fn add(&self, args: Args) -> Result<CNIResult, Error> {
        let settings = settings(args.config())?;
        let attachment = Attachment::of(&args)?;
        let addresses = open(args.config(), &settings)?;
        let address = addresses.take(&attachment.owner()).map_err(failed)?;
        let outcome = on_runtime(attachment.connect(address, settings.mtu));
        if outcome.is_err() {
            // The caller will say DEL too; until then nobody else should wait for the address.
            let _ = addresses.give_back(&attachment.owner());
        }
        outcome
    }

    fn del(&self, args: Args) -> Result<(), Error> {
        let settings = settings(args.config())?;
        let attachment = Attachment::of(&args)?;
        on_runtime(attachment.disconnect())?;
        open(args.config(), &settings)?.give_back(&attachment.owner()).map_err(failed)
    }

    fn check(&self, args: Args) -> Result<(), Error> {
        let settings = settings(args.config())?;
        let attachment = Attachment::of(&args)?;
        let address = open(args.config(), &settings)?.of(&attachment.owner()).map_err(failed)?;
        let address = address.ok_or_else(|| custom("the attachment has no address", attachment.owner().to_string()))?;
        on_runtime(attachment.check(address))
    }

    fn status(&self, args: Args) -> Result<(), Error> {
        let settings = settings(args.config())?;
        open(args.config(), &settings).map(drop).map_err(|error| Error::PluginNotAvailable(error.details().to_owned()))
    }

    fn gc(&self, args: Args) -> Result<(), Error> {
        let settings = settings(args.config())?;
        let valid = args.config().valid_attachments.clone().unwrap_or_default();
        let valid: Vec<_> = valid.into_iter().map(|known| Owner::new(known.container_id, known.ifname)).collect();
        let addresses = open(args.config(), &settings)?;
        for owner in addresses.owners().map_err(failed)? {
            if !valid.contains(&owner) {
                on_runtime(attachment::remove_link(&owner))?;
                addresses.give_back(&owner).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn settings(config: &NetConf) -> Result<Settings, Error> {
    let fields = config.custom.clone().into_iter().collect();
    serde_json::from_value(serde_json::Value::Object(fields))
        .map_err(|error| Error::InvalidNetworkConfig(format!("plugin {PLUGIN_NAME}: {error}")))
}

fn open(config: &NetConf, settings: &Settings) -> Result<Addresses, Error> {
    Addresses::open(&settings.data_dir.join(&config.name), settings.subnet).map_err(failed)
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(|error| Error::IOFailure(error.to_string()))?.block_on(work)
}

fn failed(error: impl std::error::Error) -> Error {
    custom("the plugin failed", error.to_string())
}

/// An error in the range that CNI leaves to plugins (SPEC, section Error).
fn custom(message: &str, details: String) -> Error {
    Error::Custom(100, message.to_owned(), details)
}
