//! An API server above a disk whose every sync takes longer: what group commit saves.

use std::{io, net::SocketAddr, ops::Bound, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use coracle_api::clock::SystemClock;
use coracle_apiserver::{
    ApiServer, Config,
    store::embedded::{Embedded, Part, journal_path},
};
use coracle_pki::{Authority, Subject, Usage};
use redb::{BackendError, StorageBackend, backends::FileBackend};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::client::write_kubeconfig;

/// What a sync takes more than it does.
const MORE: Duration = Duration::from_millis(2);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A file that is slow to sync.
#[derive(Debug)]
struct Slow(FileBackend);

impl StorageBackend for Slow {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        // The delay is what is measured.
        thread::sleep(MORE);
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}

/// Serves until it is ended; its kubeconfig is in `dir`.
pub async fn serve(dir: &Path) -> Result<()> {
    let now = jiff::Timestamp::now();
    let authority = Authority::create("slow", now)?;
    let identity = authority.issue(&Subject::user("slow"), &["127.0.0.1".to_owned()], Usage::Server, now, DAY)?;
    let admin = authority.issue(&Subject::member("bench", "system:masters"), &[], Usage::Client, now, DAY)?;
    let database = dir.join("slow.redb");
    let opener = move |part| {
        let file = match part {
            Part::Database => database.clone(),
            Part::Journal(nth) => journal_path(&database, nth),
        };
        let open = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(&file);
        let backend = open.and_then(|file| FileBackend::new(file).map_err(io::Error::other));
        let backend = backend.map_err(|error| coracle_apiserver::store::StoreError::Unavailable(error.to_string()))?;
        Ok(Box::new(Slow(backend)) as Box<dyn StorageBackend>)
    };
    let store = Embedded::with_backend(Box::new(opener), Arc::new(SystemClock::new()))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address: SocketAddr = listener.local_addr()?;
    let server = ApiServer::start(Config::new(Arc::new(store), authority.cert_pem(), address)).await?;
    let tls = server.tls(&identity.cert_pem, &identity.key_pem)?;
    write_kubeconfig(&dir.join("slow.kubeconfig"), address, &authority, Some(&admin))
        .context("write the kubeconfig")?;
    println!("ready");
    server.serve(listener, tls, CancellationToken::new()).await;
    Ok(())
}
