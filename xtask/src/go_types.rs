//! Reads the structures that a Go program was compiled from, out of the program itself.
//!
//! A Go program carries, for `reflect`, a descriptor of every type that it may look at: for a structure the names, types and
//! tags of its fields (Go's `internal/abi`, `type.go`; `runtime/symtab.go` for `moduledata`, whose list of types is the section
//! `.typelink`). Read are programs for Linux on 64 bits, little-endian and not relocatable, as Go links them by default.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};

/// A structure's place: its package's path and its name there.
pub type Name = (String, String);

/// Structures by their place.
pub type Structures = HashMap<Name, Vec<Field>>;

/// A field of a structure.
#[derive(Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub tag: String,
    pub kind: Kind,
    /// The named type that it is, or points to.
    pub holds: Name,
}

/// What a field is, as far as it tells what its nothing looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pointer,
    List,
    Map,
    Structure,
    /// Text, a number, a boolean, an interface.
    Plain,
}

impl Field {
    /// What a key of the tag says: `json:"…"`.
    pub fn tag(&self, key: &str) -> Option<&str> {
        let at = self.tag.find(&format!("{key}:\""))?;
        self.tag[at + key.len() + 2..].split('"').next()
    }
}

// Kinds of types (`abi.Kind`) that hold others, and the flags of a type (`abi.TFlag`) and of a name.
const ARRAY: u8 = 17;
const MAP: u8 = 21;
const POINTER: u8 = 22;
const SLICE: u8 = 23;
const STRUCT: u8 = 25;
const HAS_UNCOMMON: u8 = 1;
const EXTRA_STAR: u8 = 2;
const HAS_TAG: u8 = 2;

/// More fields than any structure has: what has more is none.
const MOST_FIELDS: u64 = 1000;

/// The structures of a program.
///
/// # Errors
/// Bytes that are no such program.
pub fn read(program: &[u8]) -> Result<Structures> {
    let program = Program::open(program)?;
    let mut structures = Structures::new();
    let mut seen = HashSet::new();
    let links = program.links.chunks_exact(4).map(|link| u32::from_le_bytes([link[0], link[1], link[2], link[3]]));
    let mut open: Vec<u64> = links.map(|link| program.types + u64::from(link)).collect();
    // Each type is visited once.
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            program.visit(at, &mut open, &mut structures).with_context(|| format!("the type at {at:#x}"))?;
        }
    }
    Ok(structures)
}

struct Section {
    address: u64,
    offset: usize,
    length: usize,
}

struct Program<'p> {
    bytes: &'p [u8],
    sections: Vec<Section>,
    /// Where types lie, from which offsets of types and names count.
    types: u64,
    /// Offsets of all types that have no name of their own; through them all others are reached.
    links: &'p [u8],
}

impl<'p> Program<'p> {
    fn open(bytes: &'p [u8]) -> Result<Self> {
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "no 64-bit little-endian ELF file");
        let at = |offset, length| number(bytes, offset, length);
        let headers = usize::try_from(at(0x28, 8)?)?;
        let (count, names) = (at(0x3c, 2)?, usize::try_from(at(0x3e, 2)?)?);
        let names = usize::try_from(at(headers + 64 * names + 24, 8)?)?;
        let (mut sections, mut types, mut links) = (Vec::new(), None, None);
        for nth in 0..usize::try_from(count)? {
            let header = headers + 64 * nth;
            let name = names + usize::try_from(at(header, 4)?)?;
            let name = bytes.get(name..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
            let section = Section {
                address: at(header + 16, 8)?,
                offset: usize::try_from(at(header + 24, 8)?)?,
                length: usize::try_from(at(header + 32, 8)?)?,
            };
            match name {
                b".rodata" => types = Some(section.address),
                b".typelink" => links = bytes.get(section.offset..section.offset + section.length),
                _ => {}
            }
            // SHT_NOBITS has no bytes in the file.
            if section.address != 0 && at(header + 4, 4)? != 8 {
                sections.push(section);
            }
        }
        let (types, links) = (types.context("no .rodata")?, links.context("no .typelink: not linked by Go")?);
        Ok(Self { bytes, sections, types, links })
    }

    /// Where in the file an address lies.
    fn offset(&self, address: u64) -> Result<usize> {
        let holds = |section: &&Section| {
            address.checked_sub(section.address).is_some_and(|within| within < section.length as u64)
        };
        let section = self.sections.iter().find(holds).with_context(|| format!("nothing lies at {address:#x}"))?;
        Ok(section.offset + usize::try_from(address - section.address)?)
    }

    fn at(&self, address: u64, length: usize) -> Result<u64> {
        number(self.bytes, self.offset(address)?, length)
    }

    /// Looks at a type: adds those that it holds to `open`, and itself if it is a structure with a name.
    fn visit(&self, at: u64, open: &mut Vec<u64>, structures: &mut Structures) -> Result<()> {
        match self.kind(at)? {
            POINTER | SLICE | ARRAY => open.push(self.at(at + 48, 8)?),
            MAP => open.extend([self.at(at + 48, 8)?, self.at(at + 56, 8)?]),
            STRUCT => {
                let (first, count) = (self.at(at + 56, 8)?, self.at(at + 64, 8)?);
                ensure!(count <= MOST_FIELDS, "a structure of {count} fields");
                let fields = (0..count).map(|nth| self.field(first + 24 * nth, open)).collect::<Result<_>>()?;
                if let Some(name) = self.name(at)? {
                    structures.insert(name, fields);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn field(&self, at: u64, open: &mut Vec<u64>) -> Result<Field> {
        let (name, tag) = self.text(self.at(at, 8)?)?;
        let ty = self.at(at + 8, 8)?;
        open.push(ty);
        let kind = match self.kind(ty)? {
            POINTER => Kind::Pointer,
            SLICE | ARRAY => Kind::List,
            MAP => Kind::Map,
            STRUCT => Kind::Structure,
            _ => Kind::Plain,
        };
        let held = if kind == Kind::Pointer { self.at(ty + 48, 8)? } else { ty };
        Ok(Field { name, tag, kind, holds: self.name(held)?.unwrap_or_default() })
    }

    fn kind(&self, at: u64) -> Result<u8> {
        Ok(self.at(at + 23, 1)? as u8 & 31)
    }

    /// The place of a structure or list that has a name; what other types are called is not asked.
    fn name(&self, at: u64) -> Result<Option<Name>> {
        let flags = self.at(at + 20, 1)? as u8;
        // Where their own parts end (`abi.StructType`, `abi.SliceType`).
        let uncommon = match self.kind(at)? {
            STRUCT if flags & HAS_UNCOMMON != 0 => at + 80,
            SLICE if flags & HAS_UNCOMMON != 0 => at + 56,
            _ => return Ok(None),
        };
        let (name, _) = self.text(self.types + self.at(at + 40, 4)?)?;
        let name = if flags & EXTRA_STAR == 0 { &name[..] } else { name.strip_prefix('*').unwrap_or(&name) };
        let (package, _) = self.text(self.types + self.at(uncommon, 4)?)?;
        let name = name.rsplit('.').next().unwrap_or(name).to_owned();
        Ok(Some((package, name)))
    }

    /// A name and its tag: flags, then length and bytes of each.
    fn text(&self, at: u64) -> Result<(String, String)> {
        let mut offset = self.offset(at)?;
        let tagged = number(self.bytes, offset, 1)? as u8 & HAS_TAG != 0;
        offset += 1;
        let name = self.counted(&mut offset)?;
        let tag = if tagged { self.counted(&mut offset)? } else { String::new() };
        Ok((name, tag))
    }

    fn counted(&self, offset: &mut usize) -> Result<String> {
        let mut length = 0;
        for shift in (0..28).step_by(7) {
            let byte = number(self.bytes, *offset, 1)? as usize;
            *offset += 1;
            length |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let text = self.bytes.get(*offset..*offset + length).context("a name is cut short")?;
        *offset += length;
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

fn number(bytes: &[u8], offset: usize, length: usize) -> Result<u64> {
    let found = offset.checked_add(length).and_then(|end| bytes.get(offset..end)).context("the file is cut short")?;
    Ok(found.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
