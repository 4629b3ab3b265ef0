//! The members of a tar archive, read as Go's archive/tar reads them (`reader.go`, `strconv.go`): it wrote nearly every
//! layer there is, and scanners and other runtimes read them by it. An archive must not say one thing to them and another
//! to us.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::tar_headers::{MAX_HEADERS, number};

const BLOCK: usize = 512;
/// Of one long name or one set of records (`maxSpecialFileSize`).
const MAX_SPECIAL: u64 = 1 << 20;

/// Reads one member after the other; what was not read of a member's content is passed over.
pub struct Members<R> {
    stream: R,
    /// Of the member's content, not read yet.
    left: u64,
    /// Behind it, up to a whole block.
    padding: u64,
    /// Bytes of headers that may come before the next member.
    allowance: u64,
    ended: bool,
}

/// What an archive says of a file.
pub struct Member {
    pub kind: EntryType,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// Of the file, in bytes: with its holes, if it has some.
    pub size: u64,
    pub records: Records,
    /// Where a sparse file's content goes: offset and length, in order, none over another, none beyond the size. What the
    /// archive holds is just that.
    pub pieces: Option<Vec<(u64, u64)>>,
    header: Header,
}

/// A member's extended records (POSIX pax, "Extended Header").
#[derive(Debug, Default)]
pub struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Takes records apart by the lengths they announce: a value may hold newlines.
    fn parse(mut rest: &[u8]) -> io::Result<Records> {
        let malformed = || invalid("malformed PAX record");
        let mut out = Vec::new();
        while !rest.is_empty() {
            let space = rest.iter().take(21).position(|&byte| byte == b' ').ok_or_else(malformed)?;
            let length = decimal(&rest[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|&length| length > space + 1 && length <= rest.len()).ok_or_else(malformed)?;
            let (record, after) = rest.split_at(length);
            rest = after;
            let body = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = body.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&body[..equals], &body[equals + 1..]);
            let text = if matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") { value } else { key };
            if key.is_empty() || text.contains(&0) {
                return Err(malformed());
            }
            out.push((key.to_vec(), value.to_vec()));
        }
        Ok(Records(out))
    }

    /// The last value of a key; an empty one says nothing.
    fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(own, _)| own == key.as_bytes());
        found.map(|(_, value)| &value[..]).filter(|value| !value.is_empty())
    }

    fn number(&self, key: &str) -> io::Result<Option<u64>> {
        let number = |value| decimal(value).ok_or_else(|| invalid(format!("malformed PAX record {key:?}")));
        self.get(key).map(number).transpose()
    }

    /// Keys that begin so, without that, and their values; of equal ones the last decides.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().filter_map(move |(key, value)| {
            Some((std::str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?, &value[..]))
        })
    }
}

impl Member {
    pub fn uid(&self) -> io::Result<u64> {
        match self.records.number("uid")? {
            Some(uid) => Ok(uid),
            None => number(&self.header.as_old().uid, self.header.uid()),
        }
    }

    pub fn gid(&self) -> io::Result<u64> {
        match self.records.number("gid")? {
            Some(gid) => Ok(gid),
            None => number(&self.header.as_old().gid, self.header.gid()),
        }
    }

    pub fn mode(&self) -> io::Result<u32> {
        number(&self.header.as_old().mode, self.header.mode().map(u64::from)).map(|mode| mode as u32)
    }

    /// Seconds since 1970 and nanoseconds.
    pub fn mtime(&self) -> io::Result<(i64, u32)> {
        match self.records.get("mtime") {
            Some(text) => time(text).ok_or_else(|| invalid("malformed PAX record \"mtime\"")),
            // A binary field holds times before 1970 as two's complement.
            None => number(&self.header.as_old().mtime, self.header.mtime()).map(|seconds| (seconds as i64, 0)),
        }
    }

    /// The same, if it is said.
    pub fn atime(&self) -> io::Result<Option<(i64, u32)>> {
        let parsed = |text| time(text).ok_or_else(|| invalid("malformed PAX record \"atime\""));
        self.records.get("atime").map(parsed).transpose()
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> (u32, u32) {
        let number = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
        (number(self.header.device_major()), number(self.header.device_minor()))
    }
}

impl<R: Read> Members<R> {
    pub fn new(stream: R) -> Members<R> {
        Members { stream, left: 0, padding: 0, allowance: MAX_HEADERS, ended: false }
    }

    /// The next member; none at the end, which a block of zeros is too.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        self.pass()?;
        self.allowance = MAX_HEADERS;
        let (mut long_path, mut long_link, mut records) = (None, None, Records::default());
        loop {
            let Some(header) = self.header()? else {
                let described = long_path.is_some() || long_link.is_some();
                return if described { Err(invalid("a member is described, but there is none")) } else { Ok(None) };
            };
            let size = header.entry_size()?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => records = Records::parse(&self.special(size)?)?,
                EntryType::GNULongName => long_path = Some(text(self.special(size)?)),
                EntryType::GNULongLink => long_link = Some(text(self.special(size)?)),
                kind => return self.member(header, kind, size, records, long_path, long_link).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        header: Header,
        mut kind: EntryType,
        size: u64,
        records: Records,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Member> {
        let named = |long: Option<Vec<u8>>, key: &str| long.or_else(|| records.get(key).map(<[u8]>::to_vec));
        let mut path = named(long_path, "path").unwrap_or_else(|| name(&header));
        let link = named(long_link, "linkpath").unwrap_or_else(|| until_nul(&header.as_old().linkname).to_vec());
        // What came before tar had directories says so by a slash.
        if header.as_old().linkflag == [0] && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let mut size = records.number("size")?.unwrap_or(size);
        use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
        let stored = if matches!(kind, Link | Symlink | Char | Block | Directory | Fifo) { 0 } else { size };
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let mut pieces = None;
        if kind == EntryType::GNUSparse {
            let gnu = header.as_gnu().ok_or_else(|| invalid("a sparse file in a header that has no map"))?;
            size = gnu.real_size()?;
            pieces = Some(self.old_map(&header)?);
        } else if kind != EntryType::XGlobalHeader
            && let Some(map) = self.pax_map(&records)?
        {
            if let Some(real) = records.get("GNU.sparse.name") {
                path = real.to_vec();
            }
            size = records.number("GNU.sparse.size")?.or(records.number("GNU.sparse.realsize")?).unwrap_or(size);
            pieces = Some(map);
        }
        if let Some(pieces) = &pieces {
            check(pieces, size, self.left)?;
        }
        Ok(Member { kind, path, link, size, records, pieces, header })
    }

    /// The next header; none at the end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if self.ended || !self.block(header.as_mut_bytes())? || header.as_bytes().iter().all(|&byte| byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let bytes = header.as_bytes();
        // Old tars summed up signed bytes.
        let (mut unsigned, mut signed) = (0u32, 0i32);
        for (index, &byte) in bytes.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { byte };
            unsigned += u32::from(byte);
            signed += i32::from(byte as i8);
        }
        let said = header.cksum()?;
        if said != unsigned && i32::try_from(said) != Ok(signed) {
            return Err(invalid("archive header checksum mismatch"));
        }
        Ok(Some(header))
    }

    /// Fills a block; false at the end.
    fn block(&mut self, block: &mut [u8]) -> io::Result<bool> {
        self.spend(block.len() as u64)?;
        let mut filled = 0;
        while filled < block.len() {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(torn()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn spend(&mut self, bytes: u64) -> io::Result<()> {
        self.allowance = self
            .allowance
            .checked_sub(bytes)
            .ok_or_else(|| invalid(format!("more than {MAX_HEADERS} bytes of headers for one file")))?;
        Ok(())
    }

    /// The content of a member that describes the next.
    fn special(&mut self, size: u64) -> io::Result<Vec<u8>> {
        self.spend(size)?;
        if size > MAX_SPECIAL {
            return Err(invalid(format!("more than {MAX_SPECIAL} bytes of headers for one file")));
        }
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let mut out = vec![0; size as usize];
        self.stream.read_exact(&mut out)?;
        self.left = 0;
        self.pass()?;
        Ok(out)
    }

    /// The map of GNU's old sparse files: four places in the header, the rest in blocks behind it.
    fn old_map(&mut self, header: &Header) -> io::Result<Vec<(u64, u64)>> {
        let gnu = header.as_gnu().ok_or_else(|| invalid("a sparse file in a header that has no map"))?;
        let mut out = Vec::new();
        let mut add = |piece: &tar::GnuSparseHeader| -> io::Result<()> {
            if !piece.is_empty() {
                out.push((piece.offset()?, piece.length()?));
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            if !self.block(block.as_mut_bytes())? {
                return Err(torn());
            }
            block.sparse.iter().try_for_each(&mut add)?;
            more = block.is_extended();
        }
        Ok(out)
    }

    /// The map of GNU's sparse files in PAX form (tar's manual, "Sparse Formats"), if it is one: in records, or before the
    /// content.
    fn pax_map(&mut self, records: &Records) -> io::Result<Option<Vec<(u64, u64)>>> {
        let version = (records.get("GNU.sparse.major"), records.get("GNU.sparse.minor"));
        match version {
            (Some(b"1"), Some(b"0")) => return self.map_in_content().map(Some),
            (Some(b"0"), Some(b"0" | b"1")) | (None, None) => {}
            // As Go: of a later version, to be unpacked as it lies there.
            _ => return Ok(None),
        }
        let malformed = || invalid("malformed map of a sparse file");
        let mut numbers = Vec::new();
        for (key, value) in &records.0 {
            // Offsets and lengths alternate.
            let expected: &[u8] = if numbers.len() % 2 == 0 { b"GNU.sparse.offset" } else { b"GNU.sparse.numbytes" };
            if matches!(&key[..], b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                numbers.push(Some(value).filter(|_| key == expected).and_then(|v| decimal(v)).ok_or_else(malformed)?);
            }
        }
        match records.get("GNU.sparse.map") {
            Some(map) if numbers.is_empty() => {
                for word in map.split(|&byte| byte == b',') {
                    numbers.push(decimal(word).ok_or_else(malformed)?);
                }
            }
            None if numbers.is_empty() => return Ok(None),
            _ => {}
        }
        let said = records.number("GNU.sparse.numblocks")?;
        if numbers.len() % 2 != 0 || said.is_some_and(|said| said != numbers.len() as u64 / 2) {
            return Err(malformed());
        }
        Ok(Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()))
    }

    /// Decimal numbers, one a line: how many pieces, then offset and length of each; up to a whole block.
    fn map_in_content(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let malformed = || invalid("malformed map of a sparse file");
        let (mut numbers, mut line): (Vec<u64>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut wanted = None;
        let mut block = [0; BLOCK];
        while wanted != Some(numbers.len()) {
            self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(malformed)?;
            if !self.block(&mut block)? {
                return Err(torn());
            }
            for &byte in &block {
                if wanted == Some(numbers.len()) {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let number = decimal(&line).ok_or_else(malformed)?;
                line.clear();
                match wanted {
                    None => {
                        // Each takes four bytes at least.
                        let count = usize::try_from(number).ok().filter(|&count| count as u64 <= MAX_HEADERS / 4);
                        wanted = Some(count.ok_or_else(malformed)? * 2);
                    }
                    Some(_) => numbers.push(number),
                }
            }
        }
        Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    /// Passes over what is left of a member.
    fn pass(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        if rest > 0 && io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())? < rest {
            return Err(torn());
        }
        Ok(())
    }
}

/// The content of the member that came last, as it lies in the archive.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        match self.stream.read(&mut buffer[..wanted])? {
            0 => Err(torn()),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

/// Whether pieces lie in a file one after the other, and the archive holds as much as they are.
fn check(pieces: &[(u64, u64)], size: u64, stored: u64) -> io::Result<()> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for &(offset, length) in pieces {
        let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
        end = next.ok_or_else(|| invalid("pieces of a sparse file lie over each other or outside"))?;
        // No more than `end`.
        sum += length;
    }
    if sum == stored { Ok(()) } else { Err(invalid("a sparse file's map and its content differ")) }
}

/// The name in a header.
fn name(header: &Header) -> Vec<u8> {
    let mut out = match header.as_ustar() {
        Some(ustar) if ustar.prefix[0] != 0 => [until_nul(&ustar.prefix), b"/"].concat(),
        _ => Vec::new(),
    };
    out.extend_from_slice(until_nul(&header.as_old().name));
    out
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(until_nul(&bytes).len());
    bytes
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`, to the nanosecond.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, &digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_by_their_lengths() {
        let records = Records::parse(b"22 SCHILY.xattr.a=x\ny\n12 path=a/b\n11 path=c\n7 k=\n").unwrap_err();
        assert_eq!(records.to_string(), "malformed PAX record");
        let records = Records::parse(b"22 SCHILY.xattr.a=x\ny\n12 path=a/b\n10 path=c\n5 k=\n").unwrap();
        assert_eq!(records.with_prefix("SCHILY.xattr.").collect::<Vec<_>>(), [("a", &b"x\ny"[..])]);
        assert_eq!((records.get("path"), records.get("k")), (Some(&b"c"[..]), None));
        for bad in ["x", "5 a=b", "6 a=b\n\n", "99 a=b\n", "4 ab\n", "5 =b\n", "0 a=b\n", "+6 a=b\n", "9 path=\0\n"] {
            assert!(Records::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, expected) in [
            ("1.5", Some((1, 500_000_000))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            ("7.1234567891", Some((7, 123_456_789))),
            ("7.", Some((7, 0))),
            (".5", None),
            ("1.-5", None),
            ("1e3", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }
}
