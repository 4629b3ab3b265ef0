//! Bounds what a tar archive may say of a file before its content: long names and PAX records are read into memory, and
//! a few kilobytes of compressed zeros can be a header of gigabytes.

use std::{
    cell::Cell,
    io::{self, Read},
};

/// Most bytes of headers before one file. Go's archive/tar, which wrote nearly every layer there is, reads 1 MiB of each.
pub const MAX_HEADERS: u64 = 4 << 20;

/// A number of a header, by its field. A blank one is 0, as GNU tar and Go's archive/tar read it; what is no number is an
/// error there, too.
pub fn number(field: &[u8], value: io::Result<u64>) -> io::Result<u64> {
    match value {
        Err(_) if field.iter().all(|byte| matches!(byte, b' ' | 0)) => Ok(0),
        value => value,
    }
}

/// How much may be read before the next file begins.
pub struct Allowance(Cell<u64>);

impl Allowance {
    pub fn new() -> Allowance {
        Allowance(Cell::new(MAX_HEADERS))
    }

    /// From here on headers are read.
    pub fn headers(&self) {
        self.0.set(MAX_HEADERS);
    }

    /// From here on content is read, which whoever reads it bounds.
    pub fn content(&self) {
        self.0.set(u64::MAX);
    }

    /// The stream to give to the archive.
    pub fn metered<R>(&self, inner: R) -> Metered<'_, R> {
        Metered { inner, allowance: &self.0 }
    }
}

/// Ends a stream that says more than it may.
pub struct Metered<'a, R> {
    inner: R,
    allowance: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.get();
        if left == 0 {
            return Err(io::Error::other(format!("more than {MAX_HEADERS} bytes of headers for one file")));
        }
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..wanted])?;
        self.allowance.set(left - count as u64);
        Ok(count)
    }
}
