//! Header blocks: name and value pairs, compressed with one zlib stream per direction for the whole connection.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::DICTIONARY;

/// No block is larger when it is unpacked.
const MAX_BLOCK: usize = 64 << 10;

/// Names are in lower case.
pub type Headers = Vec<(String, String)>;

/// The value of a header.
pub fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Unpacks blocks in the order they come.
pub struct Unpacker(Decompress);

impl Default for Unpacker {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Unpacker {
    /// # Errors
    /// When the block is not what the protocol says, or is too large.
    pub fn unpack(&mut self, block: &[u8]) -> io::Result<Headers> {
        let mut bytes = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            // No more than the block was taken.
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(block.len());
            if bytes.capacity() == bytes.len() {
                if bytes.len() >= MAX_BLOCK {
                    return Err(malformed("a header block is too large"));
                }
                bytes.reserve(bytes.len().max(1024));
            }
            let before = (self.0.total_in(), bytes.len());
            match self.0.decompress_vec(&block[taken..], &mut bytes, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| malformed("another dictionary"))?;
                    continue;
                }
                Err(_) => return Err(malformed("a header block cannot be unpacked")),
            }
            let all_taken = usize::try_from(self.0.total_in() - start).unwrap_or(0) >= block.len();
            if (all_taken && bytes.len() < bytes.capacity()) || before == (self.0.total_in(), bytes.len()) {
                return parse(&bytes);
            }
        }
    }
}

/// Packs blocks in the order they go.
#[derive(Default)]
pub struct Packer(Option<Compress>);

impl Packer {
    /// # Errors
    /// When the compressor refuses, which it has no reason to.
    pub fn pack(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        put(&mut bytes, headers.len());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            put(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
        let packer = match &mut self.0 {
            Some(packer) => packer,
            none => {
                let mut packer = Compress::new(Compression::fast(), true);
                packer.set_dictionary(&DICTIONARY).map_err(io::Error::other)?;
                none.insert(packer)
            }
        };
        let mut packed = Vec::with_capacity(bytes.len() + 256);
        let start = packer.total_in();
        loop {
            let taken = usize::try_from(packer.total_in() - start).unwrap_or(bytes.len());
            packer.compress_vec(&bytes[taken..], &mut packed, FlushCompress::Sync).map_err(io::Error::other)?;
            let all_taken = usize::try_from(packer.total_in() - start).unwrap_or(0) >= bytes.len();
            if all_taken && packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(256);
        }
    }
}

fn put(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

fn parse(bytes: &[u8]) -> io::Result<Headers> {
    let mut rest = bytes;
    let pairs = number(&mut rest)?;
    // Each takes eight bytes at least: what does not fit is not there.
    if pairs > bytes.len() / 8 {
        return Err(malformed("a header block promises more than it holds"));
    }
    (0..pairs).map(|_| Ok((text(&mut rest)?, text(&mut rest)?))).collect()
}

fn number(rest: &mut &[u8]) -> io::Result<usize> {
    let (head, tail) = rest.split_first_chunk().ok_or_else(|| malformed("a header block ends early"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text(rest: &mut &[u8]) -> io::Result<String> {
    let length = number(rest)?;
    let (text, tail) = rest.split_at_checked(length).ok_or_else(|| malformed("a header block ends early"))?;
    *rest = tail;
    String::from_utf8(text.to_vec()).map_err(|_| malformed("a header is not text"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn blocks_of_one_connection_come_back_in_order() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for block in
            [headers(&[("streamtype", "error")]), headers(&[]), headers(&[("streamtype", "data"), ("port", "80")])]
        {
            let packed = packer.pack(&block).unwrap();
            assert_eq!(unpacker.unpack(&packed).unwrap(), block);
        }
        let long = headers(&[("a", &"x".repeat(5000))]);
        let packed = packer.pack(&long).unwrap();
        assert_eq!(unpacker.unpack(&packed).unwrap(), long);
    }

    #[test]
    fn bombs_and_rubbish_are_refused() {
        let bomb = headers(&[("a", &"x".repeat(10 * MAX_BLOCK))]);
        let packed = Packer::default().pack(&bomb).unwrap();
        assert!(Unpacker::default().unpack(&packed).is_err());
        assert!(Unpacker::default().unpack(b"no zlib").is_err());
        assert!(parse(&[0, 0, 0, 9]).is_err());
        assert!(parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'x', 0, 0, 0, 0]).is_err());
    }
}
