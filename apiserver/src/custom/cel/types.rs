//! The types of expressions, and how they are made to agree (cel-go `checker`): a type that is not known yet is a variable,
//! and stands for what it was first used as.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything: told apart only when the expression runs.
    Dyn,
    /// What is wrong already, and not told a second time.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    /// With fields of its own.
    Object(Arc<str>),
    /// With parameters, and nothing to select.
    Opaque(Arc<str>, Option<Arc<Type>>),
    /// A type as a value.
    Type(Option<Arc<Type>>),
    Variable(u32),
}

pub const OPTIONAL: &str = "optional_type";

/// Types are not told apart below so many parts: what loops put together can double with each.
const MAX_PARTS: usize = 1000;

impl Type {
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub fn optional(value: Type) -> Self {
        Self::Opaque(OPTIONAL.into(), Some(Arc::new(value)))
    }

    /// What is in an optional value.
    pub fn unwrapped(&self) -> Option<&Type> {
        match self {
            Self::Opaque(name, Some(value)) if &**name == OPTIONAL => Some(value),
            _ => None,
        }
    }

    /// The types that this one is made of.
    pub fn parts(&self) -> Vec<&Type> {
        match self {
            Self::List(item) => vec![item],
            Self::Map(entry) => vec![&entry.0, &entry.1],
            Self::Opaque(_, part) | Self::Type(part) => part.iter().map(|part| &**part).collect(),
            _ => Vec::new(),
        }
    }

    /// The same type of other parts.
    fn rebuilt(&self, mut part: impl FnMut(&Type) -> Type) -> Self {
        match self {
            Self::List(item) => Self::list(part(item)),
            Self::Map(entry) => {
                let key = part(&entry.0);
                Self::map(key, part(&entry.1))
            }
            Self::Opaque(name, inner) => Self::Opaque(name.clone(), inner.as_ref().map(|inner| Arc::new(part(inner)))),
            Self::Type(inner) => Self::Type(inner.as_ref().map(|inner| Arc::new(part(inner)))),
            other => other.clone(),
        }
    }

    /// As upstream names what an expression gives (cel-go `Type.String`).
    pub fn declared(&self) -> String {
        match self {
            Self::Null => "null_type".to_owned(),
            Self::Duration => "google.protobuf.Duration".to_owned(),
            Self::Timestamp => "google.protobuf.Timestamp".to_owned(),
            Self::List(item) => format!("list({})", item.declared()),
            Self::Map(entry) => format!("map({}, {})", entry.0.declared(), entry.1.declared()),
            Self::Opaque(name, Some(part)) => format!("{name}({})", part.declared()),
            Self::Type(Some(part)) => format!("type({})", part.declared()),
            other => other.to_string(),
        }
    }

    /// With variables from a number on.
    pub fn with_variables(&self, from: u32) -> Self {
        match self {
            Self::Variable(nth) => Self::Variable(from + nth),
            other => other.rebuilt(|part| part.with_variables(from)),
        }
    }

    /// Whether nothing in it is to be found out, nor too much to be told apart.
    pub fn is_closed(&self) -> bool {
        fn walk(ty: &Type, parts: &mut usize) -> bool {
            *parts += 1;
            *parts <= MAX_PARTS
                && match ty {
                    Type::Variable(_) => false,
                    Type::List(item) => walk(item, parts),
                    Type::Map(entry) => walk(&entry.0, parts) && walk(&entry.1, parts),
                    Type::Opaque(_, part) | Type::Type(part) => part.as_ref().is_none_or(|part| walk(part, parts)),
                    _ => true,
                }
        }
        walk(self, &mut 0)
    }

    /// Whether null can be one.
    fn takes_null(&self) -> bool {
        matches!(self, Self::Null | Self::Opaque(..) | Self::Object(_) | Self::Duration | Self::Timestamp)
    }

    fn same_kind(&self, other: &Type) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Whether this type can stand for the other one (which it is known to agree with).
    fn is_as_general(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Variable(_), _) => true,
            (_, Self::Dyn | Self::Variable(_)) => false,
            (Self::Type(_), Self::Type(_)) => true,
            (Self::Opaque(name, _), Self::Opaque(other_name, _)) if name != other_name => false,
            (Self::List(_) | Self::Map(_) | Self::Opaque(..), _) if self.same_kind(other) => {
                let (parts, others) = (self.parts(), other.parts());
                parts.len() == others.len() && parts.iter().zip(others).all(|(part, other)| part.is_as_general(other))
            }
            _ => self == other,
        }
    }

    /// Whether the type is the same but for what is not known (`IsEquivalentType`).
    pub fn is_like(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Object(name), Self::Object(other)) => name == other,
            (Self::Opaque(name, _), Self::Opaque(other_name, _)) if name != other_name => false,
            _ if self.same_kind(other) => {
                let (parts, others) = (self.parts(), other.parts());
                parts.len() == others.len() && parts.iter().zip(others).all(|(part, other)| part.is_like(other))
            }
            _ => false,
        }
    }
}

/// As messages show types (cel-go `FormatCELType`).
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Object(name) | Self::Opaque(name, None) => f.write_str(name),
            Self::Opaque(name, Some(part)) => write!(f, "{name}({part})"),
            Self::Type(None) => f.write_str("type"),
            Self::Type(Some(part)) => write!(f, "type({part})"),
            Self::Variable(number) => write!(f, "_var{number}"),
        }
    }
}

/// What variables stand for.
#[derive(Debug, Default)]
pub struct Agreement {
    bound: HashMap<u32, Type>,
    /// What was bound before, for taking back what did not come to agree.
    undo: Vec<(u32, Option<Type>)>,
    next: u32,
}

impl Agreement {
    /// So many new variables; the number of the first.
    pub fn variables(&mut self, count: u32) -> u32 {
        let first = self.next;
        self.next += count;
        first
    }

    pub fn variable(&mut self) -> Type {
        Type::Variable(self.variables(1))
    }

    /// Whether types can agree with others; they do from now on.
    pub fn agree(&mut self, pairs: &[(&Type, &Type)]) -> bool {
        let agreed = pairs.iter().all(|(one, other)| self.unify(one, other));
        while !agreed && let Some((variable, before)) = self.undo.pop() {
            match before {
                Some(before) => drop(self.bound.insert(variable, before)),
                None => drop(self.bound.remove(&variable)),
            }
        }
        self.undo.clear();
        agreed
    }

    /// The same of types in which nothing is to be found out.
    pub fn agree_closed(&mut self, types: &[Type], others: &[Type]) -> bool {
        types.iter().zip(others).all(|(one, other)| self.unify(one, other))
    }

    fn bind(&mut self, variable: u32, to: Type) {
        let before = self.bound.insert(variable, to);
        self.undo.push((variable, before));
    }

    fn unify(&mut self, one: &Type, other: &Type) -> bool {
        if let Type::Variable(variable) = other {
            match self.stands_for(*variable, one) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Variable(variable) = one {
            return self.stands_for(*variable, other).0;
        }
        match (one, other) {
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) => true,
            (Type::Null, other) => other.takes_null(),
            (one, Type::Null) => one.takes_null(),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Opaque(name, _), Type::Opaque(other_name, _)) if name != other_name => false,
            (Type::List(_) | Type::Map(_) | Type::Opaque(..), _) if one.same_kind(other) => {
                let (parts, others) = (one.parts(), other.parts());
                parts.len() == others.len() && parts.iter().zip(others).all(|(part, other)| self.unify(part, other))
            }
            _ => one == other,
        }
    }

    /// Whether a variable can stand for a type, and whether it stood for one before.
    fn stands_for(&mut self, variable: u32, ty: &Type) -> (bool, bool) {
        if *ty == Type::Variable(variable) {
            return (true, true);
        }
        if let Some(bound) = self.bound.get(&variable).cloned() {
            if *ty == bound {
                return (true, true);
            }
            if self.unify(ty, &bound) {
                let general = if ty.is_as_general(&bound) { ty.clone() } else { bound };
                if !self.is_within(variable, &general) {
                    self.bind(variable, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.is_within(variable, ty) {
            return (false, false);
        }
        self.bind(variable, ty.clone());
        (true, false)
    }

    fn is_within(&self, variable: u32, ty: &Type) -> bool {
        match ty {
            Type::Variable(other) if *other == variable => true,
            Type::Variable(other) => self.bound.get(other).is_some_and(|bound| self.is_within(variable, bound)),
            other => other.parts().iter().any(|part| self.is_within(variable, part)),
        }
    }

    /// A type with what its variables stand for; `open`: what stands for nothing yet is anything.
    pub fn resolve(&self, ty: &Type, open: bool) -> Type {
        let mut parts = 0;
        self.resolve_part(ty, open, &mut parts)
    }

    fn resolve_part(&self, ty: &Type, open: bool, parts: &mut usize) -> Type {
        *parts += 1;
        if *parts > MAX_PARTS {
            return Type::Dyn;
        }
        match ty {
            Type::Variable(variable) => match self.bound.get(variable) {
                Some(bound) => self.resolve_part(bound, open, parts),
                None if open => Type::Dyn,
                None => ty.clone(),
            },
            other => other.rebuilt(|part| self.resolve_part(part, open, parts)),
        }
    }
}

/// The more general of two types that agree.
pub fn most_general(one: Type, other: Type) -> Type {
    if one.is_as_general(&other) { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_for_what_they_were_first_used_as() {
        let mut agreement = Agreement::default();
        let (a, b) = (agreement.variable(), agreement.variable());
        assert!(agreement.agree(&[(&Type::list(Type::Int), &Type::list(a.clone())), (&b, &a)]));
        assert!(!agreement.agree(&[(&Type::String, &a)]));
        assert_eq!(agreement.resolve(&Type::map(a.clone(), b.clone()), true), Type::map(Type::Int, Type::Int));
        // What did not agree left nothing behind.
        let c = agreement.variable();
        assert!(!agreement.agree(&[(&Type::Bool, &c), (&Type::Bool, &Type::Int)]));
        assert_eq!(agreement.resolve(&c, false), c);
        assert!(!agreement.agree(&[(&Type::list(c.clone()), &c)]));
        assert!(agreement.agree(&[(&Type::Null, &Type::Timestamp)]) && !agreement.agree(&[(&Type::Null, &Type::Int)]));
        assert_eq!(most_general(Type::list(Type::Dyn), Type::list(Type::Int)), Type::list(Type::Dyn));
    }
}
