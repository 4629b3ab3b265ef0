//! A structural schema: `openAPIV3Schema` of a definition, read into a tree that pruning, defaulting and validation walk
//! (apiextensions `apiserver/schema`).

use super::patterns;
use super::rules::Rule;
use coracle_api::json::Value;
use regex::Regex;
use std::collections::BTreeMap;

/// Deepest nesting that is read; validation refuses what is deeper.
pub const MAX_DEPTH: usize = 100;

/// `type` of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Type {
    /// None given: any value.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => Self::Any,
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What a map's values are.
#[derive(Debug, Default)]
pub enum Additional {
    #[default]
    None,
    Any,
    Schema(Box<Node>),
}

/// How the items of a list are told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Items {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// One node of a schema.
#[derive(Debug, Default)]
pub struct Node {
    pub ty: Type,
    pub int_or_string: bool,
    pub nullable: bool,
    pub preserves: bool,
    pub embedded: bool,
    pub atomic_map: bool,
    pub list: Items,
    pub properties: BTreeMap<String, Node>,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    pub default: Option<Value>,
    pub checks: Checks,
    pub rules: Vec<Rule>,
    /// This node or one below it has rules.
    pub ruled: bool,
    /// This node or one below it is a resource.
    pub embeds: bool,
    /// This node or one below it is a list whose items must differ.
    pub listed: bool,
}

/// What a value must satisfy beside its type.
#[derive(Debug, Default)]
pub struct Checks {
    pub format: String,
    pub maximum: Option<(f64, Value)>,
    pub exclusive_maximum: bool,
    pub minimum: Option<(f64, Value)>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<(f64, Value)>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<(String, Regex)>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub allowed: Vec<Value>,
    pub required: Vec<String>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

impl Node {
    /// Reads a schema that has been validated; what validation would have refused is left out.
    pub fn parse(schema: &Value) -> Self {
        Self::read(schema, 0)
    }

    fn read(schema: &Value, depth: usize) -> Self {
        if depth > MAX_DEPTH {
            return Self { preserves: true, ..Self::default() };
        }
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
        let child = |name: &str| schema.get(name).filter(|child| child.is_object());
        let properties = child("properties").and_then(Value::as_object).into_iter().flatten();
        let keys = texts(schema, "x-kubernetes-list-map-keys");
        let mut node = Self {
            ty: Type::parse(text("type")).unwrap_or_default(),
            int_or_string: flag("x-kubernetes-int-or-string"),
            nullable: flag("nullable"),
            preserves: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            list: match text("x-kubernetes-list-type") {
                "set" => Items::Set,
                "map" => Items::Map(keys),
                _ => Items::Atomic,
            },
            properties: properties.map(|(name, schema)| (name.to_string(), Self::read(schema, depth + 1))).collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => Additional::Any,
                Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(Self::read(schema, depth + 1))),
                _ => Additional::None,
            },
            items: child("items").map(|schema| Box::new(Self::read(schema, depth + 1))),
            default: schema.get("default").cloned(),
            checks: Checks::read(schema, depth),
            rules: Rule::read_all(schema),
            ruled: false,
            embeds: false,
            listed: false,
        };
        node.ruled = !node.rules.is_empty() || node.children().any(|child| child.ruled);
        node.embeds = node.embedded || node.children().any(|child| child.embeds);
        node.listed = node.list != Items::Atomic || node.children().any(|child| child.listed);
        node
    }

    /// Whether anything below here has a default.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some() || self.children().any(Node::has_defaults)
    }

    /// The nodes of the values inside this one's.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        let additional = match &self.additional {
            Additional::Schema(node) => Some(&**node),
            _ => None,
        };
        self.properties.values().chain(additional).chain(self.items.as_deref())
    }

    /// The node of a field of an object.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        })
    }

    /// Null does not count as a value here.
    pub fn refuses_null(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable
    }
}

impl Checks {
    fn read(schema: &Value, depth: usize) -> Self {
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let number = |name: &str| {
            let value = schema.get(name)?;
            Some((value.as_f64()?, value.clone()))
        };
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
        let list = |name: &str| {
            let nodes = schema.get(name).and_then(Value::as_array).into_iter().flatten();
            nodes.map(|schema| Node::read(schema, depth + 1)).collect()
        };
        let pattern = text("pattern");
        Self {
            format: text("format").to_owned(),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: patterns::compile(pattern)
                .ok()
                .filter(|_| !pattern.is_empty())
                .map(|regex| (pattern.to_owned(), regex)),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            allowed: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            required: texts(schema, "required"),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(Node::read(not, depth + 1))),
        }
    }
}

fn texts(schema: &Value, name: &str) -> Vec<String> {
    let texts = schema.get(name).and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}
