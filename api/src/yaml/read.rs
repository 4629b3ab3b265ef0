//! Reads a document as upstream's server does: in Go, by way of a tree, into values whose mappings have keys of any kind, and
//! from there to JSON (go.yaml.in/yaml/v2 `decode.go`, sigs.k8s.io/yaml `yaml.go`). Its words are those of both.

use std::collections::{BTreeMap, HashMap};

use crate::json::{Map, Value};

use super::events::{Event, Events};
use super::scalar::{self, Key};
use super::{Error, text};

/// Deepest nesting, aliases followed. Go's reader allows 10,000; what is read here may be no deeper than JSON's 120.
const MAX_DEPTH: usize = 200;
/// The most bytes of text that aliases may repeat: Go shares them, this reader does not.
const MAX_REPEATED: usize = 16 << 20;

/// No more keys that stand twice are told than unknown fields are.
const MAX_TWICE: usize = 100;

/// What was read.
#[derive(Debug)]
pub(crate) struct Read {
    /// As JSON: of a key that stands twice, the last counts.
    pub value: Value,
    /// Keys that stand twice, with the line of the later value.
    pub twice: Vec<(u64, String)>,
}

impl Read {
    /// What the strict reader says of keys that stand twice, a line each.
    pub fn lines(&self) -> Vec<String> {
        self.twice.iter().map(|(line, key)| format!("line {line}: key {key} already set in map")).collect()
    }
}

/// Reads the first document, and no further.
pub(super) fn read(bytes: &[u8]) -> Result<Read, Error> {
    if let Some(why) = text::wrong(bytes) {
        return Err(Error::of(format!("yaml: {why}")));
    }
    let mut tree = Tree::default();
    let Some(root) = tree.document(bytes)? else { return Ok(Read { value: Value::Null, twice: Vec::new() }) };
    let mut decoder = Decoder { tree: &tree, twice: Vec::new(), inside: Vec::new(), count: 0, aliased: 0, repeated: 0 };
    let item = decoder.item(root, 0)?;
    let twice = decoder.twice;
    Ok(Read { value: json(item).map_err(Error::of)?, twice })
}

/// A node by its place in the tree.
type Id = usize;

#[derive(Debug)]
struct Node {
    /// Counted from 0.
    line: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Scalar { text: String, tag: Option<String>, implicit: bool },
    List(Vec<Id>),
    Map(Vec<(Id, Id)>),
    Alias(String, Id),
}

/// The nodes of a document.
#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
    anchors: HashMap<String, Id>,
}

impl Tree {
    fn document(&mut self, bytes: &[u8]) -> Result<Option<Id>, Error> {
        let mut source = Events::new(bytes)?;
        loop {
            match source.pull()? {
                (Event::Mark, _) => {}
                (Event::End, _) => return Ok(None),
                (event, line) => {
                    let root = self.node(&mut source, event, line, 0)?;
                    // The end of the document is looked for before its content counts.
                    source.pull()?;
                    return Ok(Some(root));
                }
            }
        }
    }

    fn node(&mut self, source: &mut Events<'_>, event: Event, line: u64, depth: usize) -> Result<Id, Error> {
        if depth > MAX_DEPTH {
            return Err(Error { line: Some(line + 1), message: format!("exceeded max depth of {MAX_DEPTH}") });
        }
        match event {
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(&target) => Ok(self.add(line, What::Alias(anchor, target), None)),
                None => Err(Error::of(format!("yaml: unknown anchor '{anchor}' referenced"))),
            },
            Event::Scalar { anchor, tag, text, implicit } => {
                Ok(self.add(line, What::Scalar { text, tag, implicit }, anchor))
            }
            Event::List(anchor) => {
                let id = self.add(line, What::List(Vec::new()), anchor);
                let mut items = Vec::new();
                loop {
                    match source.pull()? {
                        (Event::ListEnd, _) => break,
                        (event, line) => items.push(self.node(source, event, line, depth + 1)?),
                    }
                }
                Ok(self.fill(id, What::List(items)))
            }
            Event::Map(anchor) => {
                let id = self.add(line, What::Map(Vec::new()), anchor);
                let mut members = Vec::new();
                loop {
                    let key = match source.pull()? {
                        (Event::MapEnd, _) => break,
                        (event, line) => self.node(source, event, line, depth + 1)?,
                    };
                    let (event, line) = source.pull()?;
                    members.push((key, self.node(source, event, line, depth + 1)?));
                }
                Ok(self.fill(id, What::Map(members)))
            }
            Event::Mark | Event::End | Event::ListEnd | Event::MapEnd => {
                Err(Error::of("yaml: unknown problem parsing YAML content"))
            }
        }
    }

    /// An anchor names what it is in, too.
    fn add(&mut self, line: u64, what: What, anchor: Option<String>) -> Id {
        let id = self.nodes.len();
        self.nodes.push(Node { line, what });
        self.anchors.extend(anchor.map(|anchor| (anchor, id)));
        id
    }

    fn fill(&mut self, id: Id, what: What) -> Id {
        self.nodes[id].what = what;
        id
    }
}

/// A value as Go has it.
#[derive(Debug)]
pub(super) enum Item {
    /// A scalar.
    One(Key),
    List(Vec<Item>),
    Map(BTreeMap<Key, Item>),
}

struct Decoder<'t> {
    tree: &'t Tree,
    twice: Vec<(u64, String)>,
    /// The aliases that are being followed.
    inside: Vec<Id>,
    count: u64,
    aliased: u64,
    repeated: usize,
}

impl<'t> Decoder<'t> {
    fn count(&mut self, depth: usize) -> Result<(), Error> {
        self.count += 1;
        self.aliased += u64::from(!self.inside.is_empty());
        let too_many =
            self.aliased > 100 && self.count > 1000 && self.aliased as f64 / self.count as f64 > allowed(self.count);
        if too_many || self.repeated > MAX_REPEATED {
            return Err(Error::of("yaml: document contains excessive aliasing"));
        }
        if depth > MAX_DEPTH {
            return Err(Error::of(format!("yaml: exceeded max depth of {MAX_DEPTH}")));
        }
        Ok(())
    }

    fn item(&mut self, id: Id, depth: usize) -> Result<Item, Error> {
        self.count(depth)?;
        let tree = self.tree;
        match &tree.nodes[id].what {
            What::Scalar { text, tag, implicit } => {
                if !self.inside.is_empty() {
                    self.repeated += text.len();
                }
                scalar::resolve(tag.as_deref(), text, *implicit).map(Item::One).map_err(Error::of)
            }
            What::List(items) => {
                let items = items.iter().map(|item| self.item(*item, depth + 1)).collect::<Result<_, _>>()?;
                Ok(Item::List(items))
            }
            What::Map(members) => {
                let mut map = BTreeMap::new();
                self.members(members, &mut map, depth)?;
                Ok(Item::Map(map))
            }
            What::Alias(name, target) => {
                self.follow(id, name)?;
                let item = self.item(*target, depth + 1);
                self.inside.pop();
                item
            }
        }
    }

    fn follow(&mut self, id: Id, name: &str) -> Result<(), Error> {
        if self.inside.contains(&id) {
            return Err(Error::of(format!("yaml: anchor '{name}' value contains itself")));
        }
        self.inside.push(id);
        Ok(())
    }

    fn members(&mut self, members: &'t [(Id, Id)], map: &mut BTreeMap<Key, Item>, depth: usize) -> Result<(), Error> {
        for (key, value) in members {
            if self.is_merge(*key) {
                self.merge(*value, map, depth + 1)?;
                continue;
            }
            let key = match self.item(*key, depth + 1)? {
                Item::One(key) => key,
                other => return Err(Error::of(format!("yaml: invalid map key: {}", go(&other)))),
            };
            let item = self.item(*value, depth + 1)?;
            if map.contains_key(&key) && self.twice.len() < MAX_TWICE {
                self.twice.push((self.tree.nodes[*value].line + 1, key.go()));
            }
            map.insert(key, item);
        }
        Ok(())
    }

    fn is_merge(&self, key: Id) -> bool {
        let What::Scalar { text, tag, implicit } = &self.tree.nodes[key].what else { return false };
        text == "<<" && (*implicit || tag.as_deref() == Some("tag:yaml.org,2002:merge"))
    }

    /// Takes over the members of other mappings; what stands first of several counts.
    fn merge(&mut self, id: Id, map: &mut BTreeMap<Key, Item>, depth: usize) -> Result<(), Error> {
        let tree = self.tree;
        match &tree.nodes[id].what {
            What::List(several) => several.iter().rev().try_for_each(|each| self.merge_one(*each, map, depth + 1)),
            _ => self.merge_one(id, map, depth),
        }
    }

    fn merge_one(&mut self, id: Id, map: &mut BTreeMap<Key, Item>, depth: usize) -> Result<(), Error> {
        self.count(depth)?;
        let tree = self.tree;
        let no_map = || Error::of("yaml: map merge requires map or sequence of maps as the value");
        match &tree.nodes[id].what {
            What::Map(members) => self.members(members, map, depth),
            What::Alias(name, target) => {
                let What::Map(members) = &tree.nodes[*target].what else { return Err(no_map()) };
                self.follow(id, name)?;
                self.count(depth)?;
                let merged = self.members(members, map, depth);
                self.inside.pop();
                merged
            }
            _ => Err(no_map()),
        }
    }
}

/// How much of all that is decoded may come of aliases (`allowedAliasRatio`).
fn allowed(count: u64) -> f64 {
    const LOW: f64 = 400_000.0;
    const HIGH: f64 = 4_000_000.0;
    (0.99 - 0.89 * ((count as f64 - LOW) / (HIGH - LOW))).clamp(0.10, 0.99)
}

/// As `%#v` prints it.
fn go(item: &Item) -> String {
    match item {
        Item::One(key) => key.go(),
        Item::List(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(inner).collect::<Vec<_>>().join(", "))
        }
        Item::Map(map) => {
            let members: Vec<String> = map.iter().map(|(key, item)| format!("{}:{}", key.go(), inner(item))).collect();
            format!("map[interface {{}}]interface {{}}{{{}}}", members.join(", "))
        }
    }
}

/// The same inside of something else, where nothing has the type of its place.
fn inner(item: &Item) -> String {
    if let Item::One(Key::Null) = item { "interface {}(nil)".to_owned() } else { go(item) }
}

/// What JSON has of it (`convertToJSONableObject`, and then Go's encoder).
fn json(item: Item) -> Result<Value, String> {
    Ok(match item {
        Item::One(one) => one.json()?,
        Item::List(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Item::Map(map) => {
            let mut members = Vec::with_capacity(map.len());
            for (key, item) in map {
                match key.name() {
                    Some(name) => members.push((name, json(item)?)),
                    None => {
                        let (kind, key) = (key.type_name(), key.go());
                        return Err(format!("unsupported map key of type: {kind}, key: {key}, value: {}", go(&item)));
                    }
                }
            }
            // Go's encoder sorts them.
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(Map::from_iter(members))
        }
    })
}
