//! Layers as tar streams, whatever they are compressed with. The first bytes decide: media types lie.

use std::io::{self, BufRead, BufReader, Read};

use super::manifest::OCI_LAYER;
use crate::error::{Context, Result};

/// A window of 128 MiB is the most that any image tool writes; more would be a way to use up memory.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// In KiB. `xz -9` needs 65 MiB.
const MAX_XZ_MEMORY: u32 = 160 << 10;

/// What a stream is packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Form {
    /// By the first bytes.
    pub fn of(magic: &[u8]) -> Form {
        match magic {
            [0x1f, 0x8b, ..] => Form::Gzip,
            // A frame, or one that is to be skipped, as pzstd begins with (RFC 8878, section 3.1.2).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Form::Zstd,
            [b'B', b'Z', b'h', ..] => Form::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Form::Xz,
            _ => Form::Plain,
        }
    }

    /// What a layer of this form is called; none for those that no layer has.
    pub fn layer_type(self) -> Option<&'static str> {
        match self {
            Form::Plain => Some(OCI_LAYER),
            Form::Gzip => Some("application/vnd.oci.image.layer.v1.tar+gzip"),
            Form::Zstd => Some("application/vnd.oci.image.layer.v1.tar+zstd"),
            Form::Bzip2 | Form::Xz => None,
        }
    }
}

/// Looks what a stream is packed with; gives the whole stream back.
pub fn form<R: Read>(stream: R) -> Result<(Form, BufReader<R>)> {
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    let magic = peek(&mut stream).context("read layer")?;
    Ok((Form::of(&magic), stream))
}

/// Reads the uncompressed stream.
pub fn reader<'a>(stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    open(stream).context("read layer")
}

/// The same, for who says himself what was being read.
pub fn open<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    let magic = peek(&mut stream)?;
    Ok(match Form::of(&magic) {
        Form::Plain => Box::new(stream),
        Form::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Form::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(stream)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        // Docker takes these two wherever it takes archives.
        Form::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        Form::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(stream, true, MAX_XZ_MEMORY)),
    })
}

/// The bytes that came with the first read; a pipe may give few, but never less than the four that decide without end.
fn peek(stream: &mut BufReader<impl Read>) -> io::Result<Vec<u8>> {
    Ok(stream.fill_buf()?.iter().take(8).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<String> {
        let mut out = String::new();
        reader(bytes).map_err(io::Error::other)?.read_to_string(&mut out)?;
        Ok(out)
    }

    /// What `bzip2` and `xz` make of "hello\n".
    const BZIP2: &str = "425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2";
    const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a301000568656c6c6f0a000000a56097f194f6fde000011e06c12fa41d1fb6f37d010000000004595a";

    #[test]
    fn whatever_it_is_packed_with() {
        assert_eq!(read(b"plain").unwrap(), "plain");
        assert_eq!(read(&hex::decode(BZIP2).unwrap()).unwrap(), "hello\n");
        assert_eq!(read(&hex::decode(XZ).unwrap()).unwrap(), "hello\n");
        let mut skipped = vec![0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        skipped.extend(zstd::encode_all(&b"hello\n"[..], 1).unwrap());
        assert_eq!(read(&skipped).unwrap(), "hello\n");
        let torn = &hex::decode(XZ).unwrap()[..40];
        assert!(read(torn).is_err());
        let mut wrong = hex::decode(BZIP2).unwrap();
        wrong[20] ^= 1;
        assert!(read(&wrong).is_err());
    }
}
