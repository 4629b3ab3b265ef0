//! Which etcd keeps the cluster's state, under upstream's names of the options.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use coracle_apiserver::store::etcd::EtcdConfig;

#[derive(Debug, Default, Args)]
pub struct Etcd {
    /// Keep the cluster's state in this etcd instead of the embedded store
    #[arg(long = "etcd-servers", value_delimiter = ',', value_name = "URL,…")]
    pub servers: Vec<String>,
    /// The authority that signed the certificates of etcd's members
    #[arg(long = "etcd-cafile", value_name = "FILE", requires = "servers")]
    ca_file: Option<PathBuf>,
    /// The certificate that etcd is shown
    #[arg(long = "etcd-certfile", value_name = "FILE", requires_all = ["servers", "key_file"])]
    cert_file: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long = "etcd-keyfile", value_name = "FILE", requires_all = ["servers", "cert_file"])]
    key_file: Option<PathBuf>,
}

impl Etcd {
    /// How etcd is spoken to; None without one.
    pub fn config(&self) -> Result<Option<EtcdConfig>> {
        if self.servers.is_empty() {
            return Ok(None);
        }
        let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        let identity = match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let ca_pem = self.ca_file.as_ref().map(read).transpose()?;
        Ok(Some(EtcdConfig { endpoints: self.servers.clone(), ca_pem, identity }))
    }
}
