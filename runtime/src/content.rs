//! The content store: blobs by digest, each written once and verified while it is written.
//!
//! `content/sha256/HASH` is a whole blob; `content/ingest/*` is being written and is dropped at the next start.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    digest::{Digest, Hasher},
    error::{Context, Error, Result},
};

/// Blobs by digest.
#[derive(Debug)]
pub struct ContentStore {
    dir: PathBuf,
    next: AtomicU64,
}

impl ContentStore {
    /// Opens the store, dropping what an earlier process left half written.
    pub fn open(dir: &Path) -> Result<ContentStore> {
        let ingest = dir.join("ingest");
        match fs::remove_dir_all(&ingest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(format!("clean {}", ingest.display()));
            }
            _ => {}
        }
        for path in [&ingest, &dir.join("sha256"), &dir.join("sha512")] {
            fs::create_dir_all(path).context(format!("create {}", path.display()))?;
        }
        Ok(ContentStore { dir: dir.to_owned(), next: AtomicU64::new(0) })
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.algorithm()).join(digest.hex())
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.path(digest)).context(format!("content {digest}"))
    }

    /// Reads a small blob (a manifest, a configuration).
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut file = self.open_blob(digest)?.take(limit + 1);
        file.read_to_end(&mut out).context(format!("read content {digest}"))?;
        if out.len() as u64 > limit {
            Err(Error::invalid(format!("content {digest} is larger than {limit} bytes")))
        } else {
            Ok(out)
        }
    }

    /// Begins a blob; with an expected digest it is that or nothing.
    pub fn writer(&self, expected: Option<&Digest>) -> Result<BlobWriter<'_>> {
        let path = self.dir.join("ingest").join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::create_new(&path).context(format!("create {}", path.display()))?;
        let hasher = expected.map_or_else(Hasher::sha256, Digest::hasher);
        Ok(BlobWriter { store: self, path, file: Some(file), hasher, size: 0, expected: expected.cloned() })
    }

    /// A new directory for files that are dropped at the next start, if not before.
    pub fn spool_dir(&self) -> Result<PathBuf> {
        let path = self.dir.join("ingest").join(format!("spool{}", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).context(format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Stores bytes; returns their digest.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.writer(None)?;
        writer.write_all(bytes).context("write content")?;
        writer.commit().map(|(digest, _)| digest)
    }

    /// Makes the names of all blobs survive a power loss; their bytes do already.
    pub fn settle(&self) -> Result<()> {
        for algorithm in ["sha256", "sha512"] {
            let dir = self.dir.join(algorithm);
            File::open(&dir).and_then(|dir| dir.sync_all()).context(format!("sync {}", dir.display()))?;
        }
        Ok(())
    }

    pub fn remove(&self, digest: &Digest) -> Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(format!("remove content {digest}"))
            }
            _ => Ok(()),
        }
    }

    /// Every blob there is.
    pub fn digests(&self) -> Vec<Digest> {
        let mut out = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let entries = fs::read_dir(self.dir.join(algorithm)).into_iter().flatten().flatten();
            out.extend(entries.filter_map(|entry| format!("{algorithm}:{}", entry.file_name().to_str()?).parse().ok()));
        }
        out
    }
}

/// A blob being written; dropped without [`BlobWriter::commit`], it never was.
pub struct BlobWriter<'a> {
    store: &'a ContentStore,
    path: PathBuf,
    file: Option<File>,
    hasher: Hasher,
    size: u64,
    expected: Option<Digest>,
}

impl BlobWriter<'_> {
    /// The file that is being written, for those who read behind.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the blob in its place; returns digest and size.
    pub fn commit(mut self) -> Result<(Digest, u64)> {
        let digest = self.hasher.clone().finish();
        if let Some(expected) = &self.expected
            && *expected != digest
        {
            return Err(Error::invalid(format!("unexpected digest: expected {expected}, got {digest}")));
        }
        if let Some(file) = self.file.take() {
            // A name must never stand for content that a power loss took.
            file.sync_data().context(format!("sync content {digest}"))?;
        }
        fs::rename(&self.path, self.store.path(&digest)).context(format!("store content {digest}"))?;
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let count = file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        // After a commit it is not there any more; else it is rubbish that the next start would drop too.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_verified_and_a_wrong_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        assert_eq!(store.read(&digest, 100).unwrap(), b"hello");
        assert!(store.read(&digest, 3).is_err());
        let other = Digest::of(b"other");
        let mut writer = store.writer(Some(&other)).unwrap();
        writer.write_all(b"not other").unwrap();
        assert!(writer.commit().unwrap_err().to_string().contains("unexpected digest"));
        assert_eq!(store.digests(), [digest]);
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }
}
