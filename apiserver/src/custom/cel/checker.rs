//! Whether the types of an expression agree (cel-go `checker`): every node gets a type, every call the ways it can be meant.

use super::library::{self, Overload};
use super::macros::path;
use super::parser::{Dialect, RESERVED};
use super::schema::Declared;
use super::source::Issue;
use super::types::{Agreement, Type, most_general};
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue, SelectExpr, StructExpr,
    operators,
};
use std::collections::HashMap;
use std::sync::Arc;

/// What an expression can name: variables, and the object types that these have.
pub struct Environment<'d> {
    pub variables: HashMap<&'static str, Type>,
    pub objects: HashMap<Arc<str>, &'d Declared>,
    /// The fields of the object [`VARIABLES`], which become more.
    pub composed: HashMap<String, Type>,
    pub dialect: Dialect,
}

/// The type of what a policy names itself.
pub const VARIABLES: &str = "kubernetes.variables";
const JSON_PATCH: &str = "JSONPatch";

impl Environment<'_> {
    /// The type of objects that can be made by that name: what changes are made of (apiserver `cel/mutation`), and what
    /// requests are. Those of schemas have no name.
    fn made(&self, name: &str) -> Option<Type> {
        let changes = || name == JSON_PATCH || is_dynamic(name);
        let is_known =
            self.dialect.patches && changes() || name.starts_with("kubernetes.") && self.objects.contains_key(name);
        is_known.then(|| Type::Object(name.into()))
    }

    /// What a type's name is.
    fn type_name(&self, name: &str) -> Option<Type> {
        let made = || self.made(name).map(|ty| Type::Type(Some(Arc::new(ty))));
        library::type_name(name).or_else(made)
    }

    /// A field of an object; Err where nobody knows the object.
    fn field(&self, object: &str, field: &str) -> Result<Option<Type>, ()> {
        if object == VARIABLES {
            return Ok(self.composed.get(field).cloned());
        }
        if self.dialect.patches && is_dynamic(object) {
            return Ok(Some(Type::Dyn));
        }
        if self.dialect.patches && object == JSON_PATCH {
            return Ok(match field {
                "op" | "path" | "from" => Some(Type::String),
                "value" => Some(Type::Dyn),
                _ => None,
            });
        }
        let declared = self.objects.get(object).ok_or(())?;
        let found = declared.fields.get(field).or_else(|| {
            let reserved = RESERVED.contains(&field);
            reserved.then(|| declared.fields.get(&format!("__{field}__"))).flatten()
        });
        Ok(found.map(|field| field.ty.clone()))
    }
}

/// Types without a schema, which are named by where they stand.
fn is_dynamic(name: &str) -> bool {
    name == "Object" || name.starts_with("Object.")
}

/// What is known of each node.
#[derive(Debug, Default)]
pub struct Checked {
    pub types: HashMap<u64, Type>,
    pub overloads: HashMap<u64, Vec<&'static str>>,
    /// It names what was before.
    pub names_old: bool,
    /// It names a type that only schemas know by that name.
    pub elsewhere: Option<&'static str>,
}

/// Checks a tree, and writes names in full into it.
///
/// # Errors
/// Everything that does not agree.
pub fn check(
    tree: &mut IdedExpr,
    offsets: &HashMap<u64, u32>,
    environment: &Environment<'_>,
) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        environment,
        offsets,
        scopes: Vec::new(),
        agreement: Agreement::default(),
        found: Checked::default(),
        issues: Vec::new(),
    };
    checker.node(tree);
    let Checker { agreement, mut found, issues, .. } = checker;
    if !issues.is_empty() {
        return Err(issues);
    }
    for ty in found.types.values_mut().filter(|ty| !ty.is_closed()) {
        *ty = agreement.resolve(ty, true);
    }
    Ok(found)
}

struct Checker<'e> {
    environment: &'e Environment<'e>,
    offsets: &'e HashMap<u64, u32>,
    scopes: Vec<HashMap<String, Type>>,
    agreement: Agreement,
    found: Checked,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn wrong(&mut self, id: u64, message: String) {
        self.issues.push(Issue { at: self.offsets.get(&id).copied().unwrap_or_default(), message });
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Type {
        self.wrong(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, id: u64, expected: &Type, found: &Type) {
        self.wrong(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn resolved(&self, ty: &Type) -> Type {
        self.agreement.resolve(ty, false)
    }

    fn node(&mut self, node: &mut IdedExpr) -> Type {
        let id = node.id;
        let mut renamed = None;
        let ty = match &mut node.expr {
            Expr::Unspecified => Type::Error,
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => self.variable(id, name),
            Expr::Select(select) => match self.qualified(select) {
                Some((name, ty)) => {
                    renamed = Some(Expr::Ident(name));
                    ty
                }
                None => self.select(id, select),
            },
            Expr::Call(call) => self.call(id, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(&mut map.entries),
            Expr::Struct(of) => self.message(id, of),
            Expr::Comprehension(of) => self.comprehension(of),
        };
        if let Some(renamed) = renamed {
            node.expr = renamed;
        }
        self.found.types.insert(id, ty.clone());
        ty
    }

    fn local(&self, name: &str) -> Option<&Type> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    fn global(&mut self, name: &str) -> Option<Type> {
        let variable = self.environment.variables.get(name).cloned();
        self.found.names_old |= variable.is_some() && name == "oldSelf";
        if variable.is_none() && self.environment.dialect.rules {
            let known = ["timestamp", "duration"].into_iter().find(|known| *known == name);
            self.found.elsewhere = self.found.elsewhere.or(known);
        }
        variable.or_else(|| self.environment.type_name(name))
    }

    fn variable(&mut self, id: u64, name: &mut String) -> Type {
        if let Some(ty) = self.local(name) {
            return ty.clone();
        }
        // A point before a name passes by the variables of loops.
        let plain = name.strip_prefix('.').unwrap_or(name).to_owned();
        match self.global(&plain) {
            Some(ty) => {
                if self.local(&plain).is_none() {
                    *name = plain;
                }
                ty
            }
            None => self.undeclared(id, &name.clone()),
        }
    }

    /// A name with points in it, as the types of other packages have.
    fn qualified(&mut self, select: &SelectExpr) -> Option<(String, Type)> {
        if select.test {
            return None;
        }
        let prefix = path(&select.operand)?;
        let first = prefix.split('.').next().unwrap_or_default();
        if self.local(first).is_some() {
            return None;
        }
        let name = format!("{}.{}", prefix.trim_start_matches('.'), select.field);
        let variable = self.environment.variables.get(name.as_str()).cloned();
        let ty = variable.or_else(|| self.environment.type_name(&name))?;
        Some((name, ty))
    }

    fn select(&mut self, id: u64, select: &mut SelectExpr) -> Type {
        let ty = self.field(id, &mut select.operand, &select.field, false);
        if select.test { Type::Bool } else { self.resolved(&ty) }
    }

    fn field(&mut self, id: u64, operand: &mut IdedExpr, field: &str, optional: bool) -> Type {
        let operand = self.node(operand);
        let operand = self.resolved(&operand);
        let (of, wrapped) = match operand.unwrapped() {
            Some(inner) => (inner.clone(), true),
            None => (operand, optional),
        };
        let ty = match &of {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(name) => self.object_field(id, name, field),
            Type::Variable(_) => {
                self.agreement.agree(&[(&Type::Dyn, &of)]);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.wrong(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if wrapped { Type::optional(ty) } else { ty }
    }

    fn object_field(&mut self, id: u64, object: &str, field: &str) -> Type {
        match self.environment.field(object, field) {
            Ok(Some(ty)) => ty,
            Ok(None) => {
                self.wrong(id, format!("undefined field '{field}'"));
                Type::Error
            }
            Err(()) => {
                self.wrong(id, format!("unexpected failed resolution of '{object}'"));
                Type::Error
            }
        }
    }

    fn call(&mut self, id: u64, call: &mut CallExpr) -> Type {
        if call.func_name == operators::OPT_SELECT {
            return self.optional_field(id, call);
        }
        let mut args: Vec<Type> = call.args.iter_mut().map(|arg| self.node(arg)).collect();
        if let Some(target) = &mut call.target {
            args.insert(0, self.node(target));
        }
        let name = call.func_name.strip_prefix('.').filter(|_| call.target.is_none()).unwrap_or(&call.func_name);
        match library::function(name) {
            Some(overloads) => {
                call.func_name = name.to_owned();
                self.overload(id, call, overloads, &args)
            }
            None => self.undeclared(id, &call.func_name.clone()),
        }
    }

    fn optional_field(&mut self, id: u64, call: &mut CallExpr) -> Type {
        let [operand, name] = call.args.as_mut_slice() else {
            self.wrong(id, "unsupported optional field selection: incorrect signature".to_owned());
            return Type::Error;
        };
        let Expr::Literal(LiteralValue::String(field)) = &name.expr else {
            self.wrong(id, "unsupported optional field selection".to_owned());
            return Type::Error;
        };
        let field = field.inner().to_owned();
        let ty = self.field(id, operand, &field, true);
        self.found.overloads.insert(id, vec!["select_optional_field"]);
        self.found.types.insert(name.id, Type::String);
        self.resolved(&ty)
    }

    fn overload(&mut self, id: u64, call: &CallExpr, overloads: &'static [Overload], args: &[Type]) -> Type {
        let member = call.target.is_some();
        if matches!(call.func_name.as_str(), operators::LOGICAL_AND | operators::LOGICAL_OR) && !member {
            return self.logic(id, call, overloads, args);
        }
        let (mut result, mut names) = (None, Vec::new());
        let closed = args.iter().all(Type::is_closed);
        let ways = overloads.iter().filter(|overload| overload.member == member && overload.args.len() == args.len());
        for overload in ways {
            let Some(gives) = self.way(overload, args, closed) else { continue };
            names.push(overload.name);
            // What can be meant in more than one way is known only when it runs.
            result = Some(match result {
                Some(before) if before != Type::Dyn && before != gives => Type::Dyn,
                Some(before) => before,
                None => gives,
            });
        }
        match result {
            Some(result) => {
                self.found.overloads.insert(id, names);
                result
            }
            None => self.no_overload(id, &call.func_name, args, member),
        }
    }

    /// What one way to call a function gives, if it can be meant. `closed`: nothing of the arguments is to be found out.
    fn way(&mut self, overload: &Overload, args: &[Type], closed: bool) -> Option<Type> {
        if closed && overload.variables == 0 {
            return self.agreement.agree_closed(args, &overload.args).then(|| overload.result.clone());
        }
        let from = self.agreement.variables(overload.variables);
        let wanted: Vec<Type> = overload.args.iter().map(|arg| arg.with_variables(from)).collect();
        let pairs: Vec<_> = args.iter().zip(&wanted).collect();
        self.agreement.agree(&pairs).then(|| self.resolved(&overload.result.with_variables(from)))
    }

    fn no_overload(&mut self, id: u64, name: &str, args: &[Type], member: bool) -> Type {
        let shown: Vec<String> = args.iter().map(|arg| self.agreement.resolve(arg, true).to_string()).collect();
        let (target, shown) = if member { shown.split_at(1) } else { shown.split_at(0) };
        let target = target.first().map(|target| format!("{target}.")).unwrap_or_default();
        self.wrong(id, format!("found no matching overload for '{name}' applied to '{target}({})'", shown.join(", ")));
        Type::Error
    }

    /// `&&` and `||` name the side that is no bool.
    fn logic(&mut self, id: u64, call: &CallExpr, overloads: &'static [Overload], args: &[Type]) -> Type {
        let before = self.issues.len();
        for (arg, ty) in call.args.iter().zip(args) {
            if !self.agreement.agree(&[(ty, &Type::Bool)]) {
                self.mismatch(arg.id, &Type::Bool, ty);
            }
        }
        self.found.overloads.insert(id, overloads.iter().map(|overload| overload.name).collect());
        if self.issues.len() > before { Type::Error } else { Type::Bool }
    }

    fn join(&mut self, before: Option<Type>, ty: Type) -> Type {
        let Some(before) = before.filter(|before| *before != ty) else { return ty };
        if self.agreement.agree(&[(&before, &ty)]) {
            return most_general(before, ty);
        }
        // Whether parts are alike is told once all types are known.
        Type::Dyn
    }

    /// What an optional part holds.
    fn unwrapped(&mut self, id: u64, ty: Type) -> Type {
        match ty.unwrapped() {
            Some(inner) => inner.clone(),
            None => {
                if ty != Type::Dyn {
                    self.mismatch(id, &Type::optional(ty.clone()), &ty);
                }
                ty
            }
        }
    }

    fn list(&mut self, list: &mut ListExpr) -> Type {
        let mut item_type = None;
        for (nth, item) in list.elements.iter_mut().enumerate() {
            let mut ty = self.node(item);
            if list.optional_indices.contains(&nth) {
                ty = self.unwrapped(item.id, ty);
            }
            item_type = Some(self.join(item_type, ty));
        }
        Type::list(item_type.unwrap_or_else(|| self.agreement.variable()))
    }

    fn map(&mut self, entries: &mut [IdedEntryExpr]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &mut entry.expr else { continue };
            let key = self.node(&mut entry.key);
            keys = Some(self.join(keys, key));
            let mut value = self.node(&mut entry.value);
            if entry.optional {
                value = self.unwrapped(entry.value.id, value);
            }
            values = Some(self.join(values, value));
        }
        match (keys, values) {
            (Some(key), Some(value)) => Type::map(key, value),
            _ => {
                let key = self.agreement.variable();
                Type::map(key, self.agreement.variable())
            }
        }
    }

    fn message(&mut self, id: u64, of: &mut StructExpr) -> Type {
        if let Some(ty) = self.environment.made(of.type_name.strip_prefix('.').unwrap_or(&of.type_name)) {
            self.initialized(&ty, &mut of.entries);
            return ty;
        }
        match library::type_name(&of.type_name) {
            Some(Type::Type(Some(ty))) => {
                self.wrong(id, format!("'{ty}' is not a message type"));
                Type::Error
            }
            _ => self.undeclared(id, &of.type_name),
        }
    }

    /// The fields that an object is made with.
    fn initialized(&mut self, object: &Type, entries: &mut [IdedEntryExpr]) {
        let Type::Object(name) = object else { return };
        for entry in entries {
            let id = entry.id;
            let EntryExpr::StructField(field) = &mut entry.expr else { continue };
            let mut value = self.node(&mut field.value);
            let wanted = self.object_field(id, name, &field.field);
            if field.optional {
                value = self.unwrapped(field.value.id, value);
            }
            if !self.agreement.agree(&[(&wanted, &value)]) {
                let (field, value) = (&field.field, self.agreement.resolve(&value, true));
                self.wrong(
                    id,
                    format!("expected type of field '{field}' is '{wanted}' but provided type is '{value}'"),
                );
            }
        }
    }

    fn comprehension(&mut self, of: &mut ComprehensionExpr) -> Type {
        let range = self.node(&mut of.iter_range);
        let gathered = self.node(&mut of.accu_init);
        let range = self.resolved(&range);
        let (first, second) = match &range {
            Type::List(item) => match &of.iter_var2 {
                Some(_) => (Type::Int, (**item).clone()),
                None => ((**item).clone(), Type::Error),
            },
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Variable(_) => {
                self.agreement.agree(&[(&Type::Dyn, &range)]);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let what = "cannot be range of a comprehension (must be list, map, or dynamic)";
                self.wrong(of.iter_range.id, format!("expression of type '{other}' {what}"));
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push(HashMap::from([(of.accu_var.clone(), gathered.clone())]));
        let mut inner = HashMap::from([(of.iter_var.clone(), first)]);
        inner.extend(of.iter_var2.clone().map(|name| (name, second)));
        self.scopes.push(inner);
        let condition = self.node(&mut of.loop_cond);
        self.must_be(&of.loop_cond, &Type::Bool, &condition);
        let step = self.node(&mut of.loop_step);
        self.must_be(&of.loop_step, &gathered, &step);
        self.scopes.pop();
        let result = self.node(&mut of.result);
        self.scopes.pop();
        self.resolved(&result)
    }

    fn must_be(&mut self, node: &IdedExpr, wanted: &Type, ty: &Type) {
        if !self.agreement.agree(&[(wanted, ty)]) {
            self.mismatch(node.id, wanted, ty);
        }
    }
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}
