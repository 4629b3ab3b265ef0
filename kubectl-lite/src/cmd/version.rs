//! `version` and `cluster-info`.

use clap::Args;

use crate::{cli::Connection, error::Result, session::Session};

#[derive(Debug, Args)]
pub struct Options {
    /// Only this program's
    #[arg(long)]
    client: bool,
}

pub async fn run(connection: &Connection, options: &Options) -> Result<()> {
    println!("Client Version: v{}", env!("CARGO_PKG_VERSION"));
    if !options.client {
        let session = Session::connect(connection).await?;
        let version = session.get("/version").await?;
        println!("Server Version: {}", version["gitVersion"].as_str().unwrap_or("unknown"));
    }
    Ok(())
}

pub async fn cluster_info(session: &Session) -> Result<()> {
    session.get("/version").await?;
    println!("Kubernetes control plane is running at {}", session.server());
    Ok(())
}
