//! Layers as tar streams, whatever they are compressed with. The first bytes decide: media types lie.

use std::io::{self, BufRead, BufReader, Read};

use crate::error::{Context, Error, Result};

/// A window of 128 MiB is the most that any image tool writes; more would be a way to use up memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// Reads the uncompressed stream.
pub fn reader<'a>(stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    let magic = peek(&mut stream).context("read layer")?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)));
    }
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::Decoder::with_buffer(stream).context("read layer")?;
        decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).context("read layer")?;
        return Ok(Box::new(decoder));
    }
    for (magic_of, name) in [(&b"BZh"[..], "bzip2"), (&b"\xfd7zXZ"[..], "xz")] {
        if magic.starts_with(magic_of) {
            return Err(Error::invalid(format!("layer is compressed with {name}, which is not supported")));
        }
    }
    Ok(Box::new(stream))
}

/// The bytes that came with the first read; a pipe may give few, but never less than the four that decide without end.
fn peek(stream: &mut BufReader<impl Read>) -> io::Result<Vec<u8>> {
    Ok(stream.fill_buf()?.iter().take(8).copied().collect())
}
