//! What rules can call and name: the table of functions, and the names of types.

use super::types::Type;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

const FUNCTIONS: &str = include_str!("functions.txt");

/// One way to call a function.
#[derive(Debug)]
pub struct Overload {
    pub name: &'static str,
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    /// How many types can be any.
    pub variables: u32,
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut table: HashMap<_, Vec<_>> = HashMap::new();
    for line in FUNCTIONS.lines().filter(|line| !line.starts_with('#')) {
        let mut cells = line.split(" | ").map(str::trim);
        let mut next = || cells.next().unwrap_or_default();
        let (function, name, member, args, result) = (next(), next(), next() == "member", next(), next());
        let mut variables = Vec::new();
        let args = args.split(" ; ").filter(|arg| *arg != "-");
        let args = args.filter_map(|arg| parse(arg, &mut variables)).collect();
        let Some(result) = parse(result, &mut variables) else { continue };
        let variables = u32::try_from(variables.len()).unwrap_or_default();
        table.entry(function).or_default().push(Overload { name, member, args, result, variables });
    }
    table
});

/// The ways to call a function, if there is such a one.
pub fn function(name: &str) -> Option<&'static [Overload]> {
    TABLE.get(name).map(Vec::as_slice)
}

/// A type as tables write it.
pub fn read(text: &str) -> Option<Type> {
    parse(text, &mut Vec::new())
}

/// A type as the table writes it; single letters are any type.
fn parse(text: &str, variables: &mut Vec<String>) -> Option<Type> {
    if let Some((name, rest)) = text.split_once('(') {
        let inner = rest.strip_suffix(')')?;
        return Some(match name {
            "list" => Type::list(parse(inner, variables)?),
            "map" => {
                let (key, value) = inner.split_once(", ")?;
                let key = parse(key, variables)?;
                Type::map(key, parse(value, variables)?)
            }
            "type" => Type::Type(Some(Arc::new(parse(inner, variables)?))),
            name => Type::Opaque(name.into(), Some(Arc::new(parse(inner, variables)?))),
        });
    }
    if text.len() == 1 {
        let nth = variables.iter().position(|variable| variable == text).unwrap_or_else(|| {
            variables.push(text.to_owned());
            variables.len() - 1
        });
        return u32::try_from(nth).ok().map(Type::Variable);
    }
    Some(match text {
        "net.IP" | "net.CIDR" => Type::Opaque(text.into(), None),
        _ if text.starts_with("kubernetes.") => Type::Object(text.into()),
        _ => simple(text)?,
    })
}

fn simple(name: &str) -> Option<Type> {
    Some(match name {
        "dyn" => Type::Dyn,
        "null_type" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" | "google.protobuf.Duration" => Type::Duration,
        "timestamp" | "google.protobuf.Timestamp" => Type::Timestamp,
        _ => return None,
    })
}

/// The type that a name of a type has as a value.
pub fn type_name(name: &str) -> Option<Type> {
    let any = || Arc::new(Type::Dyn);
    Some(Type::Type(Some(Arc::new(match name {
        "list" => Type::List(any()),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(None),
        "optional_type" => Type::optional(Type::Dyn),
        "net.IP" | "net.CIDR" => Type::Opaque(name.into(), None),
        "dyn" => return None,
        name => simple(name)?,
    }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = FUNCTIONS.lines().filter(|line| !line.starts_with('#')).count();
        let read: usize = TABLE.values().map(Vec::len).sum();
        assert_eq!(lines, read);
        let index = &function("_[_]").unwrap()[1];
        assert_eq!((index.name, index.variables, index.args.len(), index.member), ("index_map", 2, 2, false));
        assert_eq!(function("optional.none").unwrap()[0].args, []);
        assert!(function("validate").unwrap()[0].member && function("nothing").is_none());
        for overloads in TABLE.values() {
            for overload in overloads {
                assert!(!overload.args.is_empty() || !overload.member, "{}", overload.name);
            }
        }
    }
}
