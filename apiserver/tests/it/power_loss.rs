//! The embedded store on a disk that fails: power loss, errors, no space.

use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::{Embedded, Opener, Part};
use coracle_apiserver::store::{Op, Outcome, Range, Store, StoreError, Txn};
use redb::{BackendError, StorageBackend};
use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Sectors survive whole or not at all.
const SECTOR: usize = 512;

/// A disk with a cache that power loss empties: what was written since the last sync survives in part.
#[derive(Debug)]
struct Disk {
    /// The database and the two files of its journal.
    files: [File; 3],
    /// Operations until the power goes; every later one fails.
    power: Option<u64>,
    /// Operations that were tried.
    tried: u64,
    /// Writes fail, as on a full disk.
    full: bool,
    /// The next sync of the database fails, and what it was about is gone from the cache, too.
    broken_sync: bool,
    random: fastrand::Rng,
}

#[derive(Debug, Default)]
struct File {
    /// What is on the platter.
    durable: Vec<u8>,
    /// What a reader sees.
    cached: Vec<u8>,
    /// Writes since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
    /// Syncs that were done.
    syncs: u64,
}

impl Disk {
    fn new(seed: u64) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            files: Default::default(),
            power: None,
            tried: 0,
            full: false,
            broken_sync: false,
            random: fastrand::Rng::with_seed(seed),
        }))
    }

    fn spend(&mut self) -> io::Result<()> {
        self.tried += 1;
        match &mut self.power {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Power comes back: any part of what was not synced may have reached the platter, in any order.
    fn restart(&mut self) {
        for file in &mut self.files {
            for (offset, data) in std::mem::take(&mut file.pending) {
                for (nth, sector) in data.chunks(SECTOR).enumerate() {
                    let at = offset + nth * SECTOR;
                    if self.random.bool() && at + sector.len() <= file.durable.len() {
                        file.durable[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            file.cached = file.durable.clone();
        }
        self.power = None;
    }
}

#[derive(Debug)]
struct Handle(Arc<Mutex<Disk>>, usize);

impl Handle {
    /// The sync of a database takes as long as some operations on the journal, if there are any.
    fn linger(&self) {
        const AT_MOST: Duration = Duration::from_millis(5);
        let until = {
            let mut disk = self.0.lock().unwrap();
            disk.tried + disk.random.u64(0..30)
        };
        let began = Instant::now();
        while self.0.lock().unwrap().tried < until && began.elapsed() < AT_MOST {
            std::thread::yield_now();
        }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().files[self.1].cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = disk.files[self.1].cached.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::other("read past the end"))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.spend()?;
        let len = usize::try_from(len).unwrap();
        let full = disk.full;
        let file = &mut disk.files[self.1];
        if full && len > file.cached.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        file.cached.resize(len, 0);
        file.durable.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.1 == 0 {
            self.linger();
        }
        let mut disk = self.0.lock().unwrap();
        disk.spend()?;
        let broken = self.1 == 0 && std::mem::take(&mut disk.broken_sync);
        let file = &mut disk.files[self.1];
        file.syncs += 1;
        file.pending.clear();
        if broken {
            file.cached = file.durable.clone();
            return Err(io::Error::other("the disk is broken"));
        }
        file.durable = file.cached.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.spend()?;
        if disk.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let start = usize::try_from(offset).unwrap();
        let file = &mut disk.files[self.1];
        file.cached[start..start + data.len()].copy_from_slice(data);
        file.pending.push((start, data.to_vec()));
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

fn opener(disk: &Arc<Mutex<Disk>>) -> Opener {
    let disk = disk.clone();
    Box::new(move |part| {
        let file = match part {
            Part::Database => 0,
            Part::Journal(nth) => 1 + nth,
        };
        Ok(Box::new(Handle(disk.clone(), file)))
    })
}

/// Each writer counts up in two keys at once.
async fn write(store: Arc<Embedded>, writer: usize, from: u64) -> (u64, u64) {
    let mut acknowledged = from;
    for next in from + 1..from + 1000 {
        let ops =
            vec![Op::put(format!("/l/{writer}"), next.to_string()), Op::put(format!("/r/{writer}"), next.to_string())];
        match store.txn(Txn { compare: vec![], ops }).await {
            Ok(Outcome::Committed(_)) => acknowledged = next,
            Ok(Outcome::Conflict(current)) => panic!("{current:?}"),
            Err(_) => return (acknowledged, next),
        }
    }
    (acknowledged, acknowledged)
}

async fn counts(store: &dyn Store, prefix: &str) -> HashMap<String, u64> {
    let page = store.range(Range { prefix: prefix.to_owned(), ..Range::default() }).await.unwrap();
    page.records
        .iter()
        .map(|record| (record.key[prefix.len()..].to_owned(), String::from_utf8_lossy(&record.value).parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_goes_at_any_moment() {
    const WRITERS: usize = 8;
    let mut database_syncs = 0;
    for seed in 0..25 {
        let disk = Disk::new(seed);
        let mut acknowledged = [0u64; WRITERS];
        for round in 0..4 {
            // The journal is full again and again.
            let full = disk.lock().unwrap().random.u64(500..20_000);
            let store = Embedded::with_journal(opener(&disk), Arc::new(SystemClock::new()), full).unwrap();
            let store = Arc::new(store);
            let opened = disk.lock().unwrap().files[0].syncs;
            let (left, right) = (counts(&*store, "/l/").await, counts(&*store, "/r/").await);
            assert_eq!(left, right, "seed {seed} round {round}: half a transaction");
            let budget = disk.lock().unwrap().random.u64(20..600);
            disk.lock().unwrap().power = Some(budget);
            let tasks: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let from = left.get(&writer.to_string()).copied().unwrap_or(0);
                    assert!(
                        from >= acknowledged[writer],
                        "seed {seed} round {round}: {} was acknowledged, {from} is there",
                        acknowledged[writer]
                    );
                    tokio::spawn(write(store.clone(), writer, from))
                })
                .collect();
            for (writer, task) in tasks.into_iter().enumerate() {
                let (done, tried) = task.await.unwrap();
                assert!(tried >= done);
                acknowledged[writer] = done;
            }
            database_syncs += disk.lock().unwrap().files[0].syncs - opened;
            drop(store);
            disk.lock().unwrap().restart();
        }
    }
    assert!(database_syncs > 100, "{database_syncs}: power went between the journal and the database, too");
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_sync_of_the_database_that_fails() {
    let disk = Disk::new(3);
    let store = Embedded::with_journal(opener(&disk), Arc::new(SystemClock::new()), 2000).unwrap();
    let put = |key: String| {
        let txn = Txn { compare: vec![], ops: vec![Op::put(key, "x".repeat(100))] };
        store.txn(txn)
    };
    let mut acknowledged = 0;
    for nth in 0..400 {
        disk.lock().unwrap().broken_sync |= nth % 40 == 20;
        match put(format!("/{nth}")).await {
            Ok(_) => acknowledged += 1,
            // A write on whose way the database was found broken is told so.
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}"),
        }
        let there = store.range(Range { prefix: "/".to_owned(), ..Range::default() }).await;
        if let Ok(page) = there {
            assert!(page.records.len() >= acknowledged, "after {nth}: {} of {acknowledged}", page.records.len());
        }
    }
    assert!(acknowledged > 380, "{acknowledged}");
    drop(store);
    disk.lock().unwrap().restart();
    let store = Embedded::with_journal(opener(&disk), Arc::new(SystemClock::new()), 2000).unwrap();
    let there = store.range(Range { prefix: "/".to_owned(), ..Range::default() }).await.unwrap();
    assert!(there.records.len() >= acknowledged, "{} of {acknowledged}", there.records.len());
}

#[tokio::test]
async fn a_full_disk_is_an_error_while_it_is_full() {
    let disk = Disk::new(1);
    let store = Embedded::with_backend(opener(&disk), Arc::new(SystemClock::new())).unwrap();
    let put = |value: &'static str| store.txn(Txn { compare: vec![], ops: vec![Op::put("/a", value)] });
    put("1").await.unwrap();
    disk.lock().unwrap().full = true;
    for _ in 0..3 {
        assert!(matches!(put("2").await, Err(StoreError::Unavailable(_))));
    }
    assert!(store.revision().await.is_err(), "it does not work while the database is closed");
    disk.lock().unwrap().full = false;
    let Outcome::Committed(revision) = put("3").await.unwrap() else { panic!() };
    let record = store.get("/a").await.unwrap().unwrap();
    assert_eq!((&record.value[..], record.modified), (&b"3"[..], revision));
}

#[tokio::test]
async fn the_api_says_so_while_the_disk_is_full() {
    let disk = Disk::new(2);
    let store = Arc::new(Embedded::with_backend(opener(&disk), Arc::new(SystemClock::new())).unwrap());
    let harness = crate::harness::Harness::on(store.clone()).await;
    let client = harness.admin();
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(client.post(pods, &crate::harness::pod("a")).await.0, 201);
    disk.lock().unwrap().full = true;
    let (code, status) = client.post(pods, &crate::harness::pod("b")).await;
    assert_eq!((code.as_u16(), status["reason"].as_str()), (503, Some("ServiceUnavailable")));
    assert_eq!(client.get("/readyz").await.0, 500);
    assert_eq!(client.get("/livez").await.0, 500);
    assert_eq!(client.get("/livez?exclude=etcd").await.0, 200);
    assert_eq!(client.get(&format!("{pods}/a")).await.0, 200, "what was acknowledged last is known");
    assert_eq!(client.get(&format!("{pods}/b")).await.0, 404);
    disk.lock().unwrap().full = false;
    // What the server does by itself every few seconds opens the database again.
    store.expire().await.unwrap();
    assert_eq!(client.get("/readyz").await.0, 200);
    assert_eq!(client.post(pods, &crate::harness::pod("b")).await.0, 201);
}
