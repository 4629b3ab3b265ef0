//! Content digests (OCI image specification, descriptor.md "Digests").

use std::{fmt, io, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::Error;

/// `sha256:` or `sha512:` and the hash in small hexadecimal letters; nothing else is one, so it is safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The SHA-256 digest of bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn algorithm(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    pub fn hex(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// Begins to hash with this digest's algorithm.
    pub fn hasher(&self) -> Hasher {
        if self.algorithm() == "sha512" { Hasher::Sha512(Sha512::new()) } else { Hasher::sha256() }
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest, Error> {
        let length = match text.split_once(':') {
            Some(("sha256", hash)) => (hash, 64),
            Some(("sha512", hash)) => (hash, 128),
            _ => return Err(Error::invalid(format!("invalid digest {text:?}"))),
        };
        let (hash, expected) = length;
        if hash.len() != expected || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid(format!("invalid digest {text:?}")));
        }
        Ok(Digest(text.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A hash being computed.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub fn sha256() -> Hasher {
        Hasher::Sha256(Sha256::new())
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hash) => Digest(format!("sha256:{}", hex::encode(hash.finalize()))),
            Hasher::Sha512(hash) => Digest(format!("sha512:{}", hex::encode(hash.finalize()))),
        }
    }
}

/// Hashes and counts what is read through it.
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
}

impl<R: io::Read> HashingReader<R> {
    pub fn new(inner: R, hasher: Hasher) -> HashingReader<R> {
        HashingReader { inner, hasher, count: 0 }
    }

    /// Reads what is left, then gives the digest and the length of everything.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.finish(), self.count))
    }
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_digests_are_digests() {
        let good = Digest::of(b"");
        assert_eq!(good.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(good.as_str().parse::<Digest>().unwrap(), good);
        for bad in ["", "sha256:", "sha256:../../etc", "md5:00", &good.as_str().to_uppercase(), &good.as_str()[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
