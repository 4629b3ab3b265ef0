//! What calls cost (cel-go `checker/cost.go`, apiserver `cel/library/cost.go`, cel-go `ext` for lists and sets), and how
//! large what they give can be.

use super::cost::{Costs, Path, Size, TEXT, scaled};
use super::types::Type;
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{Expr, LiteralValue, operators};

/// A part of a call.
pub struct Argument<'n> {
    pub node: &'n IdedExpr,
    pub path: Path,
    pub ty: Type,
    pub size: Option<Size>,
    pub cost: u64,
}

/// One way that a call can be meant.
pub struct Call<'c> {
    pub function: &'c str,
    pub overload: &'c str,
    pub target: Option<&'c Argument<'c>>,
    pub args: &'c [Argument<'c>],
}

/// A cost, and how large the result can be where that is known.
type Cost = (u64, Option<Size>);

/// An expression of a pattern is taken to be four characters long.
pub const PATTERN: f64 = 0.25;
const LONGEST_FORMAT: f64 = 128.0;
const NEW_LIST: u64 = 10;

impl Argument<'_> {
    fn size(&self, costs: &Costs<'_>) -> Size {
        self.size.or_else(|| costs.declared(&self.path)).unwrap_or(Size::UNKNOWN)
    }

    /// The size of the items of a list, and what they are.
    fn item(&self, costs: &Costs<'_>) -> Option<(Type, Size)> {
        let first = self.ty.parts().first().map(|part| (*part).clone())?;
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push("@items".to_owned());
        }
        let size = costs.declared(&path).unwrap_or(Size::UNKNOWN);
        Some((first, size))
    }

    /// A whole number that is written there; what is below zero is none.
    fn number(&self, otherwise: u64) -> u64 {
        match &self.node.expr {
            Expr::Literal(LiteralValue::Int(value)) => u64::try_from(*value.inner()).unwrap_or(0),
            _ => otherwise,
        }
    }
}

fn is_text(ty: &Type) -> bool {
    matches!(ty, Type::String | Type::Bytes)
}

impl Call<'_> {
    pub fn cost(&self, costs: &Costs<'_>) -> Cost {
        let of_args = self.args.iter().fold(0_u64, |sum, arg| sum.saturating_add(arg.cost));
        match (self.function, self.args) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, _) => (of_args, None),
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let size = yes.size.unwrap_or(Size::UNKNOWN).or(no.size.unwrap_or(Size::UNKNOWN));
                (condition.cost.saturating_add(yes.cost.max(no.cost)), Some(size))
            }
            _ => {
                let own = self.of_lists(costs).or_else(|| self.of_kubernetes(costs));
                let (cost, size) = own.or_else(|| self.of_language()).unwrap_or((1, None));
                (cost.saturating_add(of_args), size)
            }
        }
    }

    /// Lists that are made anew, and sets.
    fn of_lists(&self, costs: &Costs<'_>) -> Option<Cost> {
        let made = |size: Size, factor: f64| Some((size.at(factor).saturating_add(NEW_LIST + 1), Some(size)));
        let target = || self.target.map(|target| target.size(costs));
        match (self.overload, self.args) {
            ("list_slice", [start, end]) => {
                let end = end.number(target()?.max);
                made(Size::exactly(end.wrapping_sub(start.number(0))), 1.0)
            }
            ("lists_range", [count]) => made(Size::exactly(count.number(u64::MAX)), 1.0),
            ("list_reverse", []) => made(target()?, 1.0),
            ("list_flatten", []) => made(target()?, 1.0),
            ("list_flatten_int", [depth]) => made(target()?, depth.number(u64::MAX) as f64),
            ("list_distinct", []) => {
                let text = self.target?.ty.parts().first().is_some_and(|part| is_text(part));
                let size = target()?;
                made(size.times(size), if text { 2.0 + TEXT } else { 2.0 })
            }
            (_, args) if matches!(self.function, "sort" | "@sortByAssociatedKeys") => {
                let size = args.first().or(self.target)?.size(costs);
                let text = self.overload.starts_with("list_string") || self.overload.starts_with("list_bytes");
                made(size.times(size), if text { 2.0 + TEXT } else { 2.0 })
            }
            (_, [one, other]) if self.function.starts_with("sets.") => {
                let factor = if self.function == "sets.equivalent" { 2.0 } else { 1.0 };
                let size = one.size(costs).times(other.size(costs));
                Some((size.at(factor).saturating_add(1), None))
            }
            _ => None,
        }
    }

    fn of_kubernetes(&self, costs: &Costs<'_>) -> Option<Cost> {
        let first = || self.args.first().map(|arg| arg.size(costs));
        let target = || self.target.map(|target| target.size(costs));
        Some(match self.function {
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => self.gone_through(costs)?,
            "url" => (first()?.at(TEXT), first()),
            "lowerAscii" | "upperAscii" | "substring" | "trim" => (target()?.at(TEXT), target()),
            "replace" => self.replace(costs)?,
            "split" => {
                let size = target()?;
                let max = self.args.get(1).map_or(size.max, |limit| self.split_limit(limit, size.max));
                (size.at(2.0 * TEXT), Some(Size { min: 0, max }))
            }
            "join" => self.join(costs)?,
            "find" | "findAll" => {
                let size = target()?;
                let text = size.plus(Size::exactly(1)).at(TEXT);
                (text.saturating_mul(first()?.at(PATTERN)), Some(Size { min: 0, max: size.max }))
            }
            "ip" if self.overload == "cidr_ip" => (1, None),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                (first()?.at(TEXT), None)
            }
            "ip.isCanonical" => (first()?.at(2.0 * TEXT), None),
            "containsIP" | "containsCIDR" => self.contains(costs)?,
            "validate" => (scaled(first()?.at(TEXT), LONGEST_FORMAT * PATTERN), None),
            "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => (1, None),
            operators::EQUALS => (self.equal_kinds()?, None),
            _ => return None,
        })
    }

    fn split_limit(&self, limit: &Argument<'_>, otherwise: u64) -> u64 {
        match &limit.node.expr {
            // As upstream counts, a limit below zero is none.
            Expr::Literal(LiteralValue::Int(value)) => value.inner().cast_unsigned(),
            _ => otherwise,
        }
    }

    /// Lists are compared item by item, texts character by character.
    fn gone_through(&self, costs: &Costs<'_>) -> Option<Cost> {
        let target = self.target?;
        let size = target.size(costs);
        let Some((ty, item)) = target.item(costs) else { return Some((size.at(TEXT), None)) };
        let each = if is_text(&ty) { item.at(TEXT).saturating_add(1) } else { 1 };
        Some((size.max.saturating_mul(each), None))
    }

    fn replace(&self, costs: &Costs<'_>) -> Option<Cost> {
        let [what, with, ..] = self.args else { return None };
        let (size, what, with) = (self.target?.size(costs), what.size(costs), with.size(costs));
        let times = |size: u64, each: u64| (size as f64 / each as f64).ceil() as u64;
        let (most, kept_most) = match what.min {
            // Between all characters, which stay.
            0 => (size.max.saturating_add(1), size.max),
            shortest if with.max <= shortest => (0, size.max),
            shortest => (times(size.max, shortest), 0),
        };
        let (least, kept_least) = match what.max {
            0 => (size.min.saturating_add(1), size.min),
            longest if longest <= with.min => (0, size.min),
            longest => (times(size.min, longest), 0),
        };
        let result = Size { min: least, max: most }.times(with).plus(Size { min: kept_least, max: kept_most });
        Some((size.at(2.0 * TEXT), Some(result)))
    }

    fn join(&self, costs: &Costs<'_>) -> Option<Cost> {
        let target = self.target?;
        let count = target.size(costs);
        let mut size = target.item(costs).map_or(Size::exactly(0), |(_, item)| count.times(item));
        if let Some(between) = self.args.first() {
            let gaps = Size { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
            size = size.plus(between.size(costs).times(gaps));
        }
        Some((size.at(TEXT), Some(size)))
    }

    /// Addresses are of 16 bytes at most; a text is read first.
    fn contains(&self, costs: &Costs<'_>) -> Option<Cost> {
        let arg = self.args.first()?;
        let read = if self.overload.ends_with("_string") { arg.size(costs).at(TEXT) } else { 0 };
        let address = Size::exactly(16);
        let compared = address.plus(address).at(TEXT);
        let masked = if self.function == "containsCIDR" { address.at(TEXT) + 1 } else { 0 };
        Some((compared.saturating_add(masked).saturating_add(read), None))
    }

    /// What is compared at once, however large the texts were that it was made of.
    fn equal_kinds(&self) -> Option<u64> {
        let [one, other] = self.args else { return None };
        if one.ty != other.ty {
            return None;
        }
        match &one.ty {
            Type::Opaque(name, None) if matches!(&**name, "net.IP" | "net.CIDR") => Some(1),
            Type::Object(name) => match &**name {
                "kubernetes.Quantity" | "kubernetes.Semver" => Some(1),
                "kubernetes.NamedFormat" => Some(scaled(64, TEXT)),
                "kubernetes.URL" => Some(scaled(other.size.map_or(1, |size| size.max), TEXT)),
                _ => None,
            },
            _ => None,
        }
    }

    fn of_language(&self) -> Option<Cost> {
        let size = |arg: &Argument<'_>| arg.size.unwrap_or(Size::UNKNOWN);
        Some(match (self.overload, self.args) {
            ("string_format", _) => (size(self.target?).at(TEXT), None),
            ("string_to_bytes", [arg]) => {
                let Size { min, max } = size(arg);
                (size(arg).at(TEXT), Some(Size { min, max: max.wrapping_mul(4) }))
            }
            ("bytes_to_string", [arg]) => {
                let Size { min, max } = size(arg);
                (size(arg).at(TEXT), Some(Size { min: min / 4, max }))
            }
            ("strings_quote", [arg]) => {
                let Size { min, max } = size(arg);
                let result = Size { min: min.wrapping_add(2), max: max.wrapping_mul(2).wrapping_add(2) };
                (size(arg).at(TEXT), Some(result))
            }
            ("starts_with_string" | "ends_with_string", [arg]) => (size(arg).at(TEXT), None),
            ("in_list", [_, list]) => (size(list).max, None),
            ("matches_string", [pattern]) => (matched(size(self.target?), size(pattern)), None),
            ("matches", [text, pattern]) => (matched(size(text), size(pattern)), None),
            ("contains_string", [part]) => (size(self.target?).at(TEXT).saturating_mul(size(part).at(TEXT)), None),
            ("add_list", [one, other]) => (1, Some(size(one).plus(size(other)))),
            ("add_string" | "add_bytes", [one, other]) => {
                let sum = size(one).plus(size(other));
                (sum.at(TEXT), Some(sum))
            }
            (overload, [one, other]) if is_compared(overload) => {
                (scaled(size(one).max.min(size(other).max), TEXT), None)
            }
            _ => return None,
        })
    }
}

fn matched(text: Size, pattern: Size) -> u64 {
    text.plus(Size::exactly(1)).at(TEXT).saturating_mul(pattern.at(PATTERN))
}

/// Comparing costs what the shorter of two texts is long.
fn is_compared(overload: &str) -> bool {
    let order = overload.strip_prefix("less_").or_else(|| overload.strip_prefix("greater_"));
    matches!(overload, "equals" | "not_equals")
        || order.is_some_and(|rest| matches!(rest.strip_prefix("equals_").unwrap_or(rest), "string" | "bytes"))
}
