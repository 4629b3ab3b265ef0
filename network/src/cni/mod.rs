//! The CNI plugin (CNI 1.1), as any runtime calls it: command in the environment, configuration on standard input.

mod addresses;
mod attachment;
mod install;

use std::{path::PathBuf, process::ExitCode};

use rscni_plugin::{
    cni::{Cni, Plugin},
    error::Error,
    types::{Args, CNIResult, CNIResultWithVersion, Cmd, ContainerId, ErrorResult, InterfaceName, NetConf},
    version::{PluginInfo, SpecVersion},
};
use serde::Deserialize;
use serde_json::Value;

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

fn info() -> PluginInfo {
    let versions = vec![SpecVersion::new(0, 4, 0), SpecVersion::new(1, 0, 0), SpecVersion::CURRENT];
    PluginInfo::new(SpecVersion::CURRENT, versions)
}

/// Runs the plugin on this process's environment and standard streams; the answer, errors too, is on standard output.
pub fn main() -> ExitCode {
    let info = info();
    let plugin = Plugin::new(info.cni_version(), info.supported_versions().to_vec());
    match plugin.msg("CNI plugin coracle-cni").run(&CoracleCni) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The same for a runtime in whose program the plugin is: what a process would find in its environment (`CNI_COMMAND`,
/// `CNI_CONTAINERID`, `CNI_NETNS`, `CNI_IFNAME`) and on its standard input, and what it would answer, the error as
/// CNI defines it. None for what only the process does: GC, VERSION, and results in the form from before 1.0.
pub fn call(
    command: &str,
    container: &str,
    netns: &str,
    interface: &str,
    config: &Value,
) -> Option<Result<Option<Value>, Value>> {
    let command: Cmd = command.parse().ok()?;
    let config: NetConf = serde_json::from_value(config.clone()).ok()?;
    let version = info().negotiate(&config, command).ok().filter(|version| !version.is_legacy())?;
    let attached = || -> Result<Attachment, Error> {
        let container = ContainerId::try_from(container.to_owned())?;
        let interface = InterfaceName::try_from(interface.to_owned())?;
        let netns = Some(PathBuf::from(netns)).filter(|path| !path.as_os_str().is_empty());
        Ok(Attachment::of(container.as_ref(), interface.as_ref(), netns))
    };
    let outcome = match command {
        Cmd::Add => attached().and_then(|attachment| add(&config, &attachment)).and_then(|result| {
            serde_json::to_value(CNIResultWithVersion::new(version, result))
                .map(Some)
                .map_err(|error| Error::FailedToDecode(error.to_string()))
        }),
        Cmd::Del => attached().and_then(|attachment| del(&config, &attachment)).map(|()| None),
        Cmd::Check => attached().and_then(|attachment| check(&config, &attachment)).map(|()| None),
        Cmd::Status => status(&config).map(|()| None),
        Cmd::Gc | Cmd::Version => return None,
    };
    Some(outcome.map_err(|error| serde_json::to_value(ErrorResult::new(version, &error)).unwrap_or_default()))
}

struct CoracleCni;

impl Cni for CoracleCni {
    fn add(&self, args: Args) -> Result<CNIResult, Error> {
        add(args.config(), &attachment(&args)?)
    }

    fn del(&self, args: Args) -> Result<(), Error> {
        del(args.config(), &attachment(&args)?)
    }

    fn check(&self, args: Args) -> Result<(), Error> {
        check(args.config(), &attachment(&args)?)
    }

    fn status(&self, args: Args) -> Result<(), Error> {
        status(args.config())
    }

    fn gc(&self, args: Args) -> Result<(), Error> {
        let settings = settings(args.config())?;
        let valid = args.config().valid_attachments.clone().unwrap_or_default();
        let valid: Vec<_> = valid.into_iter().map(|known| Owner::new(known.container_id, known.ifname)).collect();
        let addresses = open(args.config(), &settings)?;
        for owner in addresses.owners().map_err(failed)? {
            if !valid.contains(&owner) {
                attachment::remove_link(&owner)?;
                addresses.give_back(&owner).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn attachment(args: &Args) -> Result<Attachment, Error> {
    let container = args.container_id().ok_or_else(|| Error::missing_env(&["CNI_CONTAINERID"]))?;
    let interface = args.ifname().ok_or_else(|| Error::missing_env(&["CNI_IFNAME"]))?;
    Ok(Attachment::of(container.as_ref(), interface.as_ref(), args.netns().map(Into::into)))
}

fn add(config: &NetConf, attachment: &Attachment) -> Result<CNIResult, Error> {
    let settings = settings(config)?;
    // The notes are free again while the kernel works: others wait for them.
    let address = open(config, &settings)?.take(&attachment.owner()).map_err(failed)?;
    let outcome = attachment.connect(address, settings.mtu);
    if outcome.is_err() {
        // The caller will say DEL too; until then nobody else should wait for the address.
        let _ = open(config, &settings).map(|addresses| addresses.give_back(&attachment.owner()));
    }
    outcome
}

fn del(config: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    let settings = settings(config)?;
    attachment.disconnect()?;
    open(config, &settings)?.give_back(&attachment.owner()).map_err(failed)
}

fn check(config: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    let settings = settings(config)?;
    let address = open(config, &settings)?.of(&attachment.owner()).map_err(failed)?;
    let address = address.ok_or_else(|| custom("the attachment has no address", attachment.owner().to_string()))?;
    on_runtime(attachment.check(address))
}

fn status(config: &NetConf) -> Result<(), Error> {
    let settings = settings(config)?;
    open(config, &settings).map(drop).map_err(|error| Error::PluginNotAvailable(error.details().to_owned()))
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
