//! What expressions outside of schemas are given: those about a request (apiserver `admission/plugin/cel`), and those that
//! select devices (dynamic-resource-allocation `cel`).

use super::checker::{Environment, VARIABLES};
use super::cost::Root;
use super::library;
use super::parser::Dialect;
use super::schema::Declared;
use super::types::Type;
use super::{Compiled, Scope, Wrong};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

const OBJECTS: &str = include_str!("objects.txt");

static TABLE: LazyLock<HashMap<Arc<str>, Declared>> = LazyLock::new(|| {
    let mut table = HashMap::new();
    for line in OBJECTS.lines().filter(|line| !line.starts_with('#')) {
        let mut cells = line.split(" | ");
        let (Some(object), Some(field), Some(ty)) = (cells.next(), cells.next(), cells.next()) else { continue };
        let Some(ty) = library::read(ty) else { continue };
        let object: Arc<str> = object.into();
        let new = || Declared::simple(Type::Object(object.clone()), 0, 2);
        let declared = table.entry(object.clone()).or_insert_with(new);
        declared.fields.insert(field.to_owned(), Arc::new(Declared::simple(ty, 0, 1)));
    }
    table
});

/// What an expression about a request is given besides the request, its objects and their namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    pub params: bool,
    pub authorizer: bool,
    /// Values that the same policy names ([`Scope::declare`]).
    pub variables: bool,
    /// The types that changes are made of.
    pub patches: bool,
}

impl Scope<'static> {
    /// Of what a webhook or a policy is asked.
    pub fn of_request(given: Given) -> Self {
        let object = |name: &str| Type::Object(name.into());
        let mut variables = HashMap::from([
            ("object", Type::Dyn),
            ("oldObject", Type::Dyn),
            ("request", object("kubernetes.AdmissionRequest")),
            ("namespaceObject", object("kubernetes.Namespace")),
        ]);
        if given.params {
            variables.insert("params", Type::Dyn);
        }
        if given.authorizer {
            variables.insert("authorizer", object("kubernetes.authorization.Authorizer"));
            variables.insert("authorizer.requestResource", object("kubernetes.authorization.ResourceCheck"));
        }
        if given.variables {
            variables.insert("variables", object(VARIABLES));
        }
        let objects = TABLE.iter().map(|(name, declared)| (name.clone(), declared)).collect();
        let dialect = Dialect { patches: given.patches, ..Dialect::default() };
        let environment = Environment { variables, objects, composed: HashMap::new(), dialect };
        Self { root: None, environment }
    }

    /// Names a value for the expressions that come. One that is not known to be anything else can be anything.
    pub fn declare(&mut self, name: &str, ty: Option<&Type>) {
        let ty = ty.map_or(Type::Dyn, |ty| composed(ty, &mut 0));
        self.environment.composed.insert(name.to_owned(), ty);
    }

    /// Of a device.
    pub fn of_device() -> Self {
        static DEVICE: LazyLock<Declared> = LazyLock::new(device);
        let variables = HashMap::from([("device", DEVICE.ty.clone())]);
        let dialect = Dialect { bindings: true, ..Dialect::default() };
        let environment = Environment { variables, objects: DEVICE.objects(), composed: HashMap::new(), dialect };
        Self { root: Some(Root { declared: &DEVICE, variable: Some("device") }), environment }
    }
}

/// Parts of a named value's type: each expression can name it thousands of times.
const PARTS: usize = 50;

/// What a value's type is to others: only lists and maps of what is simple keep theirs.
fn composed(ty: &Type, parts: &mut usize) -> Type {
    *parts += 1;
    match ty {
        _ if *parts > PARTS => Type::Dyn,
        Type::List(item) => Type::list(composed(item, parts)),
        Type::Map(entry) => {
            let key = composed(&entry.0, parts);
            Type::map(key, composed(&entry.1, parts))
        }
        Type::Object(_) | Type::Opaque(..) | Type::Type(_) | Type::Variable(_) | Type::Error => Type::Dyn,
        simple => simple.clone(),
    }
}

/// Limits of what drivers say of a device (resource/v1 `types.go`).
const ENTRIES: u64 = 32;
const DOMAIN: u64 = 63;
const IDENTIFIER: u64 = 32;
const DRIVER: u64 = 63;
const VALUE: u64 = 64;

fn device() -> Declared {
    let text = |most| Declared::simple(Type::String, most, 2);
    let of_domains = |value: Declared| {
        let inner = Declared::map_of(text(IDENTIFIER), value, ENTRIES);
        Declared::map_of(text(DOMAIN), inner, ENTRIES)
    };
    let quantity = Declared::simple(Type::Object("kubernetes.Quantity".into()), 0, 8);
    let mut device = Declared::simple(Type::Object("kubernetes.DRADevice".into()), 0, 2);
    for (name, field) in [
        ("driver", text(DRIVER)),
        ("allowMultipleAllocations", Declared::simple(Type::Bool, 1, 4)),
        // Whatever a value is, it is no longer than this.
        ("attributes", of_domains(Declared { by_name: true, ..Declared::simple(Type::Dyn, VALUE, 1) })),
        ("capacity", of_domains(quantity)),
    ] {
        device.fields.insert(name.to_owned(), Arc::new(field));
    }
    device
}

/// What an expression about a request must give, one of these types (apiserver `CompileCELExpression`).
///
/// # Errors
/// What is wrong with it, or what it gives instead.
pub fn compile_to(scope: &Scope<'_>, text: &str, wanted: &[Type]) -> Result<Compiled, Wrong> {
    let compiled = scope.compile(text)?;
    if wanted.is_empty() || wanted.contains(&compiled.ty) {
        return Ok(compiled);
    }
    let names: Vec<String> = wanted.iter().map(Type::declared).collect();
    let what = match names.as_slice() {
        [one] => one.clone(),
        several => format!("one of [{}]", several.join(" ")),
    };
    Err(Wrong { why: format!("must evaluate to {what} but got {}", compiled.ty.declared()), internal: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = OBJECTS.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(lines, TABLE.values().map(|object| object.fields.len()).sum::<usize>());
        // What is named is there.
        for field in TABLE.values().flat_map(|object| object.fields.values()) {
            for ty in std::iter::once(&field.ty).chain(field.ty.parts()) {
                assert!(!matches!(ty, Type::Object(name) if !TABLE.contains_key(name)), "{ty}");
            }
        }
    }

    fn request(given: Given) -> Scope<'static> {
        Scope::of_request(given)
    }

    const ALL: Given = Given { params: true, authorizer: true, variables: true, patches: true };

    /// What an expression gives, or the first line of what is wrong.
    fn gives(scope: &Scope<'_>, text: &str) -> String {
        match scope.compile(text) {
            Ok(compiled) => compiled.ty.declared(),
            Err(wrong) => wrong.why.lines().next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn what_is_asked_about_a_request_fits() {
        let scope = request(Given { patches: false, variables: false, ..ALL });
        for text in [
            "object.spec.replicas <= 5 && oldObject == null || params.max > 3",
            "has(object.metadata.labels) && 'a' in object.metadata.labels",
            "!has(object.spec.a) || object.spec.a.matches('^b') && object.spec.b.all(k, v, k != v)",
            "request.userInfo.groups.exists(g, g == 'system:masters') && request.dryRun",
            "request.userInfo.extra['a'][0].startsWith('b') && request.options.x == 1",
            "request.requestResource.group in ['', 'apps'] && request.subResource == ''",
            "namespaceObject.metadata.labels['a'] == 'b' && namespaceObject.metadata.?annotations['c'].hasValue()",
            "namespaceObject.status.conditions.all(c, c.lastTransitionTime < timestamp('2030-01-01T00:00:00Z'))",
            "authorizer.requestResource.check('update').allowed()",
            "authorizer.group('apps').resource('d').subresource('s').namespace('n').name('x').check('get').allowed()",
            "authorizer.group('').resource('pods').fieldSelector('a=b').labelSelector('c').check('list').errored()",
            "authorizer.path('/healthz').check('get').reason() == authorizer.requestResource.check('get').error()",
            "authorizer.serviceAccount('a', 'b').group('').resource('pods').check('get').allowed()",
            "object.spec.containers.all(c, quantity(c.resources.limits.memory).isLessThan(quantity('1Gi')))",
            "type(object) == type(oldObject) && type(object.a) == timestamp && dyn(1) == dyn('a')",
            "kubernetes.UserInfo{username: 'a'}.username == 'a'",
        ] {
            assert_eq!(gives(&scope, text), "bool", "{text}");
        }
        assert_eq!(gives(&scope, "object.spec.paused"), "dyn");
        assert_eq!(gives(&scope, "namespaceObject.metadata.creationTimestamp"), "google.protobuf.Timestamp");
    }

    #[test]
    fn what_is_not_given_is_told() {
        let scope = request(Given::default());
        let at = |column: usize, why: &str| format!("compilation failed: ERROR: <input>:1:{column}: {why}");
        let undeclared =
            |column: usize, name: &str| at(column, &format!("undeclared reference to '{name}' (in container '')"));
        for (text, wrong) in [
            ("params.a", undeclared(1, "params")),
            ("authorizer.requestResource.check('a').allowed()", undeclared(1, "authorizer")),
            ("variables.a", undeclared(1, "variables")),
            ("self.a", undeclared(1, "self")),
            ("Object{}", undeclared(7, "Object")),
            ("jsonpatch.escapeKey('a')", undeclared(1, "jsonpatch")),
            ("cel.bind(x, 1, x == 1)", undeclared(1, "cel")),
            ("request.object.a", at(8, "undefined field 'object'")),
            ("request.name == 1", at(14, "found no matching overload for '_==_' applied to '(string, int)'")),
            ("object.exists(x)", undeclared(14, "exists")),
        ] {
            assert_eq!(gives(&scope, text), wrong, "{text}");
        }
        let why = "unexpected failed resolution of 'kubernetes.authorization.Authorizer'";
        assert_eq!(gives(&request(ALL), "authorizer.group"), at(11, why));
    }

    #[test]
    fn changes_are_made_of_types_of_their_own() {
        let scope = request(ALL);
        for (text, ty) in [
            ("Object{spec: Object.spec{replicas: object.a + 1, t: Object.spec.t{}}}", "Object"),
            ("Object{?a: optional.of(1), b: [Object.b{c: 1}]}", "Object"),
            ("[JSONPatch{op: 'add', path: '/' + jsonpatch.escapeKey('b/c'), value: {'x': 1}}]", "list(JSONPatch)"),
            ("object.a ? [JSONPatch{op: 'test', from: '/a'}] : []", "list(JSONPatch)"),
            ("[]", "list(dyn)"),
            ("JSONPatch{op: 'add'}.path", "string"),
            ("Object{}.spec.a", "dyn"),
            ("Object.spec == type(object)", "bool"),
        ] {
            assert_eq!(gives(&scope, text), ty, "{text}");
        }
        for (text, wrong) in [
            ("JSONPatch{op: 1}", "1:13: expected type of field 'op' is 'string' but provided type is 'int'"),
            ("JSONPatch{a: 1}", "1:12: undefined field 'a'"),
            ("Object{a: b}", "1:11: undeclared reference to 'b' (in container '')"),
            ("Object{a: [1, 'b']}", "1:15: expected type 'int' but found 'string'"),
            ("Objects{}", "1:8: undeclared reference to 'Objects' (in container '')"),
            ("Object{?a: 1}", "1:12: expected type 'optional_type(int)' but found 'int'"),
        ] {
            assert_eq!(gives(&scope, text), format!("compilation failed: ERROR: <input>:{wrong}"), "{text}");
        }
    }

    #[test]
    fn values_that_are_named_keep_simple_types() {
        let mut scope = request(ALL);
        for (name, text) in [("a", "['b']"), ("c", "optional.of(1)"), ("d", "{variables.a[0]: duration('1s')}")] {
            let ty = scope.compile(text).unwrap().ty;
            scope.declare(name, Some(&ty));
        }
        scope.declare("e", None);
        assert_eq!(gives(&scope, "variables.a"), "list(string)");
        assert_eq!(gives(&scope, "variables.c"), "dyn");
        assert_eq!(gives(&scope, "variables.d"), "map(string, google.protobuf.Duration)");
        assert_eq!(gives(&scope, "variables.e"), "dyn");
        assert!(gives(&scope, "variables.f").ends_with("undefined field 'f'"));
        // One that is made of itself twice, again and again.
        let mut last = "a".to_owned();
        for nth in 0..200 {
            let ty = scope.compile(&format!("{{variables.{last}: [variables.{last}]}}")).unwrap().ty;
            last = format!("v{nth}");
            scope.declare(&last, Some(&ty));
        }
        assert!(gives(&scope, &format!("variables.{last}")).len() < 20 * PARTS);
    }

    #[test]
    fn what_an_expression_must_give() {
        let scope = request(ALL);
        let told = |text: &str, wanted: &[Type]| compile_to(&scope, text, wanted).unwrap_err().why;
        assert!(
            compile_to(&scope, "1", &[]).is_ok() && compile_to(&scope, "null", &[Type::String, Type::Null]).is_ok()
        );
        assert_eq!(told("object.a", &[Type::Bool]), "must evaluate to bool but got dyn");
        let wanted = [Type::String, Type::Null];
        assert_eq!(told("{'a': 1}", &wanted), "must evaluate to one of [string null_type] but got map(string, int)");
        let unmade = scope.compile("int('a') == 1").unwrap_err();
        assert!(unmade.internal && unmade.why.starts_with("program instantiation failed: "), "{unmade:?}");
    }

    /// As upstream measures them (dynamic-resource-allocation `cel/compile_test.go`).
    #[test]
    fn selectors_cost_what_devices_can_hold() {
        let scope = Scope::of_device();
        let digits = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
        let mut deep = "int('1'.find('[0-9]*')) < 100".to_owned();
        for name in ["z5", "z4", "z3", "z2", "z", "y", "x"] {
            deep = format!("{digits}.all({name}, {deep})");
        }
        let (attributes, capacity) = ("device.attributes[\"d.e\"]", "device.capacity[\"d.e\"]");
        for (text, cost) in [
            ("true", 0),
            ("A.name", 4),
            ("A[\"name\"]", 4),
            ("A.name.isGreaterThan(quantity(\"0\"))", 6),
            ("\"d.e\" in device.attributes", 3),
            ("device.driver == \"\"", 2),
            ("device.driver == \"dra.example.com\"", 4),
            ("device.allowMultipleAllocations == true", 3),
            ("cel.bind(dra, A, dra.name)", 15),
            ("A.name > 0", 5),
            ("A.name == \"fish\"", 5),
            ("A.name.exists(x, x > 0)", 5 + 6 * 64),
            ("A.names.all(x, x != \"\")", 5 + 4 * 64),
            ("A.names.size() == 2", 6),
            ("1 in A.names", 68),
            ("A.name.isGreaterThan(semver(\"v0.0.1\", true)) && isSemver(\"v1.0.0\", true)", 7),
            ("C.name.isGreaterThan(quantity(\"1Ki\"))", 6),
            ("!(\"name\" in C) || C.name.isGreaterThan(quantity(\"1Ki\"))", 11),
            ("device.attributes.exists_one(x, x == \"dra.example.com\")", 164),
            ("A.exists_one(x, x == \"services\")", 133),
            ("A.services.split(\"example\").size() >= 2", 19),
            ("A.services.matches(\"[^a]?sym\")", 18),
            (deep.as_str(), 85_555_551),
        ] {
            let text = text.replace("A.", &format!("{attributes}.")).replace("C.", &format!("{capacity}."));
            let text = text.replace("A[", &format!("{attributes}[")).replace("A,", &format!("{attributes},"));
            let text = text.replace("in C)", &format!("in {capacity})"));
            assert_eq!(
                scope.compile(&text).map(|compiled| compiled.cost).map_err(|wrong| wrong.why),
                Ok(cost),
                "{text}"
            );
        }
    }
}
