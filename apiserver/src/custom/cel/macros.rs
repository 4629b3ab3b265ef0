//! Calls that stand for loops and tests (the language's macros, cel-go's `ext` for two variables, and those of optional
//! values): each is replaced by what it stands for.

use super::library;
use super::parser::Nodes;
use super::source::Issue;
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, MapExpr, SelectExpr, operators,
};

/// What a loop gathers in.
pub const RESULT: &str = "@result";
/// The variable of a loop that only names a value.
pub const UNUSED: &str = "#unused";
const TARGET: &str = "@target";
const SORTED: &str = "@__sortBy_input__";
pub const SORT_BY: &str = "@sortByAssociatedKeys";
/// Puts an entry, or all of a map's, into a map.
pub const INSERT: &str = "cel.@mapInsert";

const NOT_A_NAME: &str = "argument must be a simple name";
const NOT_AN_IDENTIFIER: &str = "argument is not an identifier";

/// A call, or what the macro of that name makes of it.
pub fn call(nodes: &mut Nodes, at: u32, name: String, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> IdedExpr {
    let mut maker = Maker { nodes, at };
    let made = match (name.as_str(), target, args.len()) {
        ("has", None, 1) => maker.has(args),
        ("all" | "exists" | "exists_one", Some(target), 2 | 3) | ("existsOne", Some(target), 3) => {
            maker.quantifier(&name, target, args)
        }
        ("map", Some(target), 2 | 3) => maker.list(target, args, 1, NOT_AN_IDENTIFIER),
        ("filter", Some(target), 2) => maker.filter(target, args),
        ("transformList", Some(target), 3 | 4) => maker.list(target, args, 2, NOT_A_NAME),
        ("transformMap" | "transformMapEntry", Some(target), 3 | 4) => {
            maker.map(target, args, name == "transformMapEntry")
        }
        ("sortBy", Some(target), 2) => maker.sort_by(target, args),
        ("optMap" | "optFlatMap", Some(target), 2) => maker.optional(&name, target, args),
        ("bind", Some(target), 3) if maker.nodes.dialect.bindings && path(&target).as_deref() == Some("cel") => {
            maker.bound(args)
        }
        (_, target, _) => return maker.plain(name, target, args),
    };
    made.unwrap_or_else(|issue| {
        nodes.issues.push(issue);
        IdedExpr::default()
    })
}

/// The name that a chain of fields would be.
pub fn path(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", path(&select.operand)?, select.field)),
        _ => None,
    }
}

struct Maker<'n> {
    nodes: &'n mut Nodes,
    at: u32,
}

type Made = Result<IdedExpr, Issue>;

/// The variables of a loop, and what goes round in it.
struct Loop {
    names: Vec<String>,
    init: IdedExpr,
    condition: IdedExpr,
    step: IdedExpr,
    result: IdedExpr,
}

impl Maker<'_> {
    fn make(&mut self, expr: Expr) -> IdedExpr {
        self.nodes.node(self.at, expr)
    }

    fn call(&mut self, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.nodes.call(self.at, name, args)
    }

    /// What is no macro. A name with points in it can be a function's: `sets.contains`.
    fn plain(&mut self, name: String, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> IdedExpr {
        let full = target.as_ref().and_then(path).map(|prefix| format!("{}.{name}", prefix.trim_start_matches('.')));
        let patches = self.nodes.dialect.patches;
        let known = |full: &String| library::function(full).is_some() && (patches || !full.starts_with("jsonpatch."));
        let (func_name, target) = match full.filter(known) {
            Some(full) => (full, None),
            None => (name, target.map(Box::new)),
        };
        self.make(Expr::Call(CallExpr { func_name, target, args }))
    }

    fn name(&mut self, name: &str) -> IdedExpr {
        self.make(Expr::Ident(name.to_owned()))
    }

    fn gathered(&mut self) -> IdedExpr {
        self.name(RESULT)
    }

    fn flag(&mut self, value: bool) -> IdedExpr {
        self.make(Expr::Literal(LiteralValue::Boolean(value.into())))
    }

    fn number(&mut self, value: i64) -> IdedExpr {
        self.make(Expr::Literal(LiteralValue::Int(value.into())))
    }

    /// The names that a loop's variables have.
    fn variables(&self, args: &[IdedExpr], why: &str) -> Result<Vec<String>, Issue> {
        let mut names: Vec<String> = Vec::new();
        let issue = |arg: &IdedExpr, message: String| Issue { at: self.nodes.offset(arg), message };
        for arg in args {
            let Expr::Ident(name) = &arg.expr else { return Err(issue(arg, why.to_owned())) };
            if names.contains(name) {
                return Err(issue(arg, format!("duplicate variable name: {name}")));
            }
            names.push(name.clone());
        }
        match args.iter().zip(&names).find(|(_, name)| matches!(name.as_str(), RESULT | "__result__")) {
            Some((arg, _)) => Err(issue(arg, "iteration variable overwrites accumulator variable".to_owned())),
            None => Ok(names),
        }
    }

    fn comprehension(&mut self, range: IdedExpr, of: Loop) -> IdedExpr {
        let mut names = of.names.into_iter();
        self.make(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: range,
            iter_var: names.next().unwrap_or_default(),
            iter_var2: names.next(),
            accu_var: RESULT.to_owned(),
            accu_init: of.init,
            loop_cond: of.condition,
            loop_step: of.step,
            result: of.result,
        })))
    }

    fn has(&mut self, mut args: Vec<IdedExpr>) -> Made {
        let arg = args.pop().unwrap_or_default();
        let at = self.nodes.offset(&arg);
        match arg.expr {
            Expr::Select(select) => Ok(self.make(Expr::Select(SelectExpr { test: true, ..select }))),
            _ => Err(Issue { at, message: "invalid argument to has() macro".to_owned() }),
        }
    }

    fn quantifier(&mut self, kind: &str, target: IdedExpr, mut args: Vec<IdedExpr>) -> Made {
        let test = args.pop().unwrap_or_default();
        let names = self.variables(&args, NOT_A_NAME)?;
        let of = match kind {
            "all" => {
                let init = self.flag(true);
                let so_far = self.gathered();
                let condition = self.call(operators::NOT_STRICTLY_FALSE, vec![so_far]);
                let so_far = self.gathered();
                let step = self.call(operators::LOGICAL_AND, vec![so_far, test]);
                Loop { names, init, condition, step, result: self.gathered() }
            }
            "exists" => {
                let init = self.flag(false);
                let so_far = self.gathered();
                let none = self.call(operators::LOGICAL_NOT, vec![so_far]);
                let condition = self.call(operators::NOT_STRICTLY_FALSE, vec![none]);
                let so_far = self.gathered();
                let step = self.call(operators::LOGICAL_OR, vec![so_far, test]);
                Loop { names, init, condition, step, result: self.gathered() }
            }
            _ => {
                let (init, condition) = (self.number(0), self.flag(true));
                let (so_far, one) = (self.gathered(), self.number(1));
                let more = self.call(operators::ADD, vec![so_far, one]);
                let so_far = self.gathered();
                let step = self.call(operators::CONDITIONAL, vec![test, more, so_far]);
                let (so_far, one) = (self.gathered(), self.number(1));
                let result = self.call(operators::EQUALS, vec![so_far, one]);
                Loop { names, init, condition, step, result }
            }
        };
        Ok(self.comprehension(target, of))
    }

    /// `map` and `transformList`: the loop's variables, a test that may be left out, and what goes into the list.
    fn list(&mut self, target: IdedExpr, mut args: Vec<IdedExpr>, variables: usize, why: &str) -> Made {
        let rest = args.split_off(variables);
        let names = self.variables(&args, why)?;
        let mut rest = rest.into_iter();
        let (first, second) = (rest.next().unwrap_or_default(), rest.next());
        let (test, value) = match second {
            Some(value) => (Some(first), value),
            None => (None, first),
        };
        let init = self.make(Expr::List(ListExpr::default()));
        let condition = self.flag(true);
        let item = self.make(Expr::List(ListExpr::new(vec![value])));
        let so_far = self.gathered();
        let step = self.call(operators::ADD, vec![so_far, item]);
        let step = self.where_so(test, step);
        let result = self.gathered();
        Ok(self.comprehension(target, Loop { names, init, condition, step, result }))
    }

    fn where_so(&mut self, test: Option<IdedExpr>, step: IdedExpr) -> IdedExpr {
        let Some(test) = test else { return step };
        let so_far = self.gathered();
        self.call(operators::CONDITIONAL, vec![test, step, so_far])
    }

    fn filter(&mut self, target: IdedExpr, mut args: Vec<IdedExpr>) -> Made {
        let test = args.pop().unwrap_or_default();
        let names = self.variables(&args, NOT_AN_IDENTIFIER)?;
        let init = self.make(Expr::List(ListExpr::default()));
        let condition = self.flag(true);
        let item = self.make(Expr::List(ListExpr::new(args)));
        let so_far = self.gathered();
        let step = self.call(operators::ADD, vec![so_far, item]);
        let step = self.where_so(Some(test), step);
        let result = self.gathered();
        Ok(self.comprehension(target, Loop { names, init, condition, step, result }))
    }

    /// `transformMap`, whose keys stay, and `transformMapEntry`, which makes whole entries.
    fn map(&mut self, target: IdedExpr, mut args: Vec<IdedExpr>, entries: bool) -> Made {
        let rest = args.split_off(2);
        let names = self.variables(&args, NOT_A_NAME)?;
        let mut rest = rest.into_iter();
        let (first, second) = (rest.next().unwrap_or_default(), rest.next());
        let (test, value) = match second {
            Some(value) => (Some(first), value),
            None => (None, first),
        };
        let init = self.make(Expr::Map(MapExpr::default()));
        let condition = self.flag(true);
        let so_far = self.gathered();
        let parts = match names.first().filter(|_| !entries) {
            Some(key) => {
                let key = self.name(key);
                vec![so_far, key, value]
            }
            None => vec![so_far, value],
        };
        let step = self.call(INSERT, parts);
        let step = self.where_so(test, step);
        let result = self.gathered();
        Ok(self.comprehension(target, Loop { names, init, condition, step, result }))
    }

    /// A value by a name, in an expression.
    fn bind(&mut self, name: &str, value: IdedExpr, inside: IdedExpr) -> IdedExpr {
        let (range, stop) = (self.make(Expr::List(ListExpr::default())), self.flag(false));
        let step = self.name(name);
        self.make(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: range,
            iter_var: UNUSED.to_owned(),
            iter_var2: None,
            accu_var: name.to_owned(),
            accu_init: value,
            loop_cond: stop,
            loop_step: step,
            result: inside,
        })))
    }

    /// `cel.bind`.
    fn bound(&mut self, args: Vec<IdedExpr>) -> Made {
        let mut args = args.into_iter();
        let (variable, value, inside) = (args.next(), args.next(), args.next());
        let variable = variable.unwrap_or_default();
        let Expr::Ident(name) = &variable.expr else {
            let message = "cel.bind() variable names must be simple identifiers".to_owned();
            return Err(Issue { at: self.nodes.offset(&variable), message });
        };
        Ok(self.bind(name, value.unwrap_or_default(), inside.unwrap_or_default()))
    }

    /// A list in the order of what its items are mapped to.
    fn sort_by(&mut self, target: IdedExpr, args: Vec<IdedExpr>) -> Made {
        if matches!(target.expr, Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_)) {
            let message =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression".to_owned();
            return Err(Issue { at: self.nodes.offset(&target), message });
        }
        let items = self.name(SORTED);
        let keys = self.list(items, args, 1, NOT_AN_IDENTIFIER)?;
        let items = Some(Box::new(self.name(SORTED)));
        let call = CallExpr { func_name: SORT_BY.to_owned(), target: items, args: vec![keys] };
        let sorted = self.make(Expr::Call(call));
        Ok(self.bind(SORTED, target, sorted))
    }

    fn of_optional(&mut self, name: &str, target: &str) -> IdedExpr {
        let target = Some(Box::new(self.name(target)));
        self.make(Expr::Call(CallExpr { func_name: name.to_owned(), target, args: Vec::new() }))
    }

    fn optional(&mut self, kind: &str, target: IdedExpr, mut args: Vec<IdedExpr>) -> Made {
        let inside = args.pop().unwrap_or_default();
        let arg = args.pop().unwrap_or_default();
        let Expr::Ident(name) = &arg.expr else {
            let message = format!("{kind}() variable name must be a simple identifier");
            return Err(Issue { at: self.nodes.offset(&arg), message });
        };
        let (of, outer) = match &target.expr {
            Expr::Ident(name) => (name.clone(), None),
            _ => (TARGET.to_owned(), Some(target)),
        };
        let there = self.of_optional("hasValue", &of);
        let value = self.of_optional("value", &of);
        let mut inside = self.bind(name, value, inside);
        if kind == "optMap" {
            inside = self.call("optional.of", vec![inside]);
        }
        let none = self.call("optional.none", Vec::new());
        let chosen = self.call(operators::CONDITIONAL, vec![there, inside, none]);
        Ok(match outer {
            Some(target) => self.bind(TARGET, target, chosen),
            None => chosen,
        })
    }
}
