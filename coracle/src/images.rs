//! Options about images, of all that runs containers.

use std::path::PathBuf;

use clap::Args;
use coracle_runtime::{images::registry::Registries, snapshots::apply::Limits};

/// How registries are reached, and what is taken from them.
#[derive(Clone, Debug, Default, Args)]
pub struct ImageOptions {
    /// Where files say how registries are reached, instead of /etc/coracle/certs.d, /etc/containerd/certs.d and /etc/docker/certs.d: DIR/HOST/hosts.toml, or certificates; several are searched in turn
    #[arg(long, value_name = "DIR[:DIR…]", value_delimiter = ':')]
    registry_config_dir: Vec<PathBuf>,
    /// Most bytes that a layer may have unpacked [default: what there is room for]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    max_layer_bytes: Option<u64>,
    /// Most files that a layer may have [default: 10000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_layer_files: Option<u64>,
    /// Most layers that an image may have [default: 127]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=500))]
    max_image_layers: Option<u64>,
}

impl ImageOptions {
    /// How registries are reached.
    pub fn registries(&self) -> Registries {
        let mut out = Registries::default();
        if !self.registry_config_dir.is_empty() {
            out.config_dirs.clone_from(&self.registry_config_dir);
        }
        out
    }

    /// What of an image is too much.
    pub fn limits(&self) -> Limits {
        let own = Limits::default();
        Limits {
            bytes: self.max_layer_bytes.unwrap_or(own.bytes),
            entries: self.max_layer_files.unwrap_or(own.entries),
            layers: self.max_image_layers.and_then(|count| count.try_into().ok()).unwrap_or(own.layers),
            ..own
        }
    }

    /// The same for another program's command line.
    pub fn words(&self) -> Vec<String> {
        let dirs = self.registry_config_dir.iter().map(|dir| ("--registry-config-dir", dir.display().to_string()));
        let numbers = [
            ("--max-layer-bytes", self.max_layer_bytes),
            ("--max-layer-files", self.max_layer_files),
            ("--max-image-layers", self.max_image_layers),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string())));
        dirs.chain(numbers).flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ImageOptions,
    }

    fn read(words: &[String]) -> Result<ImageOptions, clap::Error> {
        Line::try_parse_from([String::from("coracle")].iter().chain(words)).map(|line| line.options)
    }

    #[test]
    fn options_reach_the_runtime_and_are_handed_on() {
        let words = "--registry-config-dir /a:/b --registry-config-dir /c --max-layer-bytes 5 --max-layer-files 6 --max-image-layers 7";
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let options = read(&words).unwrap();
        for options in [read(&options.words()).unwrap(), options] {
            assert_eq!(options.registries().config_dirs, ["/a", "/b", "/c"].map(PathBuf::from));
            let limits = options.limits();
            assert_eq!((limits.bytes, limits.entries, limits.layers), (5, 6, 7));
        }
        let none = read(&[]).unwrap();
        assert!(none.words().is_empty() && none.limits() == Limits::default());
        assert_eq!(none.registries().config_dirs, Registries::default().config_dirs);
        // The help says what these are.
        assert_eq!((Limits::default().entries, Limits::default().layers), (10_000_000, 127));
        for bad in [["--max-image-layers", "501"], ["--max-layer-bytes", "0"]] {
            assert!(read(&bad.map(str::to_owned)).is_err(), "{bad:?}");
        }
    }
}
