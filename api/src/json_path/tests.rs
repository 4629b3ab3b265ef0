use super::*;
use crate::json::json;

#[test]
fn paths_find_values() {
    let object = json!({"a": {"b.c": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "z", "v": 3, "ok": true}],
        "d": null, "in": {"v": 7, "deep": {"v": 8}}}});
    let rows = [
        (".a.b\\.c", json!([1])),
        (".a['b\\.c']", json!([1])),
        (".a.list[1].v", json!([2])),
        (".a.list[-1].n", json!(["z"])),
        (".a.list[-1:].n", json!(["z"])),
        (".a.list[:2].n", json!(["x", "y"])),
        (".a.list[1:].n", json!(["y", "z"])),
        (".a.list[0:3:2].n", json!(["x", "z"])),
        (".a.list[*].n", json!(["x", "y", "z"])),
        (".a.list[0,2].n", json!(["x", "z"])),
        (".a['b\\.c', 'in'].v", json!([7])),
        (".a.in..v", json!([7, 8])),
        (".a.in.*", json!([7, {"v": 8}])),
        (".a.list[?(@.n==\"y\")].v", json!([2])),
        (".a.list[?(@.n != 'y')].v", json!([1, 3])),
        (".a.list[?(@.v == 2)].n", json!(["y"])),
        (".a.list[?(@.v<2)].n", json!(["x"])),
        (".a.list[?(@.v>=2)].n", json!(["y", "z"])),
        (".a.list[?(@.v > 2)].n", json!(["z"])),
        (".a.list[?(@.ok)].n", json!(["z"])),
        (".a.list[?(@.ok==true)].n", json!(["z"])),
        (".a.list[?(@.n==')')].n", json!([])),
        ("$.a.list[0].n", json!(["x"])),
        // Null is a value, and has nothing in it.
        (".a.d", json!([null])),
        (".a.d.e", json!([])),
        (".x.y", json!([])),
    ];
    for (path, expected) in rows {
        let path = JsonPath::of_column(path).unwrap();
        let found: Value = path.find(&object).unwrap().concat().into_iter().map(Cow::into_owned).collect();
        assert_eq!(found, expected, "{path}");
        assert_eq!(path.first(&object).as_deref(), expected.get(0), "{path}");
    }
    // Beyond the end, of another type, and what means nothing.
    for path in [".a.list[7].n", ".a.list[0:9].n", ".a.list[?(@.n > 2)].n", ".a.in[0]", ".a.list[?(@.n=!'x')]", "a"] {
        let path = JsonPath::of_column(path).unwrap();
        assert!(path.find(&object).is_err(), "{path}");
        assert_eq!(path.first(&object), None, "{path}");
    }
    for wrong in [
        ".a[",
        ".a[x]",
        ".a[\"x\"]",
        ".a[?(@.b=='c'",
        "-",
        ".a[?(@.b=~'c')]",
        ".a['b",
        "{.a}",
        ".a[1:2:3:4]",
        ".a....b",
        ".a(b)[",
    ] {
        assert!(JsonPath::of_column(wrong).is_err(), "{wrong}");
    }
}

/// The expectations are the examples of upstream's JSONPath page.
#[test]
fn the_documented_examples_hold() {
    let object = json!({
        "kind": "List",
        "items": [
            {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
             "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
            {"kind": "None", "metadata": {"name": "127.0.0.2"}, "status": {"capacity": {"cpu": "8"},
             "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}},
        ],
        "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}],
        "number": 3,
    });
    for (template, expected) in [
        ("kind is {.kind}", "kind is List"),
        ("{.kind}", "List"),
        ("{['kind']}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        ("{.users[-1].name}", "e2e"),
        ("{.items[*]['metadata.name', 'kind']}", "127.0.0.1 127.0.0.2 None None"),
        ("{.users[?(@.name==\"e2e\")].user.password}", "secret"),
        ("{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}] {end}", "[127.0.0.1, 4] [127.0.0.2, 8] "),
        ("{range .items[*]}{.metadata.name}{'\\t'}{end}", "127.0.0.1\t127.0.0.2\t"),
        ("{.items[0].metadata.labels.kubernetes\\.io/hostname}", "127.0.0.1"),
        ("{.users[0:1].name}", "myself"),
        ("{.number}{\"\\n\"}", "3\n"),
        ("{.users[1].user}", "{\"password\":\"secret\",\"username\":\"admin\"}"),
        ("{.missing.field}", ""),
        ("{$.kind}", "List"),
    ] {
        assert_eq!(JsonPath::parse(template).unwrap().render(&object).unwrap(), expected, "{template}");
    }
}

fn widget() -> Value {
    json!({"kind": "Widget", "spec": {"b.c": 1, "f": 1.5, "big": 1e21, "html": "<a&b>", "nul": null,
        "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "z", "v": 3, "ok": true}],
        "in": {"deep": {"v": 8}, "s": "ab", "v": 7}, "z": {"zz": "<x>", "a": null, "m": [1, 2.5, "t"]}}})
}

/// What kubectl 1.32 showed of the same object.
#[test]
fn templates_show_what_kubectl_shows() {
    for (template, expected) in [
        ("{.}", ""),
        ("{.spec.in}{@.kind}", r#"{"deep":{"v":8},"s":"ab","v":7}Widget"#),
        ("{.spec.nul}{'x'}", "nullx"),
        ("{.spec.nul[0]}", ""),
        ("{.spec.in.s.*}", "97 98"),
        ("{.spec.in..}", r#"{"deep":{"v":8},"s":"ab","v":7} {"v":8} ab"#),
        ("{.spec.z}", r#"{"a":null,"m":[1,2.5,"t"],"zz":"\u003cx\u003e"}"#),
        ("{.spec.f} {.spec.big} {.spec.html}", "1.5 1e+21 <a&b>"),
        ("{.spec.list[?(@.n=)]}", ""),
        ("{.spec.list[]}", r#"{"n":"x","v":1}"#),
        ("{.spec['b\\.c','f']}{.spec['b.c']}", "1 1.5"),
        (
            "{3}{true}{+1}{-1.50}{3.0}{100000000000000000000000}{1234567.5}{0.00001}",
            "3true1-1.531e+231.2345675e+061e-05",
        ),
        ("{\"\\u00e9\\x41\\101\\n\"}|{'it\\'s'}|{\"\\\"x\\\"\"}", "éAA\n|it's|\"x\""),
        ("{.spec.list[?(1==@.v)].n}{.spec.list[0,?(@.v==2)].n}", "xx y"),
        ("{.spec.list[?(@.v<$.v)].n}{.spec.list[?(@.none==1)].v}", ""),
        ("{.spec.list[?(@.n[0])].n}{.spec.list[?(foo)].n}", "x y zx y z"),
        ("{.spec.list[0:0].n}{.spec.list[*].n .kind}{.spec.list.n}{.kind.x}", ""),
        ("{...v}", "1 2 3 7 8"),
        ("a}b{.kind}}", "a}bWidget}"),
        ("{range .a}x", "x"),
        ("{range .spec.list[*]}x", "xxxx"),
        ("{range .spec.list[*]}{.n}", "xyz"),
        ("{range .spec.list[*]}{.n}|{end}{.kind}", "x|y|z|Widget"),
        ("{range}{.kind}{end}{.spec.list[*] range}{.n}{end}", "Widgetxyz"),
        (
            "{range .spec['list','z.m']}{range @}[{@}]{end}|{end}",
            r#"[[{"n":"x","v":1},{"n":"y","v":2},{"n":"z","ok":true,"v":3}]]|[[1,2.5,"t"]]|"#,
        ),
        ("{range .none[*]}{.n}{range .spec[*]}{.n}{end}+{end}.", "."),
    ] {
        assert_eq!(JsonPath::parse(template).unwrap().render(&widget()).unwrap(), expected, "{template}");
    }
}

/// kubectl 1.32's words.
#[test]
fn templates_are_refused_in_upstreams_words() {
    for (template, expected) in [
        ("{.a", "unclosed action"),
        ("{.a\n}", "unclosed action"),
        ("{.a[}", "unterminated array"),
        ("{'a}", "unterminated quoted string"),
        ("{'a\n'}", "unterminated quoted string"),
        ("{\"a\\\\\"}", "unterminated quoted string"),
        ("{\"\\q\"}", "unquote string \"\\q\" error invalid syntax"),
        ("{'a\\\"b'}", "unquote string 'a\\\"b' error invalid syntax"),
        ("{\"\\400\"}", "unquote string \"\\400\" error invalid syntax"),
        ("{\"\\ud800\"}", "unquote string \"\\ud800\" error invalid syntax"),
        ("{\t.a}", "unrecognized character in action: U+0009"),
        ("{(}", "unrecognized character in action: U+0028 '('"),
        ("{²}", "unrecognized character in action: U+00B2 '²'"),
        ("{٣}", "cannot parse number ٣"),
        ("{.kind,.kind}", "unrecognized character in action: U+002C ','"),
        ("{.a[?(@.b==)]}", "unrecognized character in action: U+003D '='"),
        ("{.a[?(@.n=~\"x\")]}", "unrecognized character in action: U+007E '~'"),
        ("{.a[?(@.n==\"x\"]}", "unterminated filter"),
        ("{.a[?(@.n==\"x\") ]}", "unclosed array expect ]"),
        ("{.a[-]}", "array index - is not a number"),
        ("{.a[99999999999999999999]}", "array index 99999999999999999999 is not a number"),
        ("{.a[1-2]}", "invalid array index 1-2"),
        ("{.a[ 0 ].n}", "invalid array index  0 "),
        ("{.a[\"f\"]}", "invalid array index \"f\""),
        ("{1.2.3}", "cannot parse number 1.2.3"),
        ("{-}", "cannot parse number -"),
        ("{....a}", "invalid multiple recursive descent"),
    ] {
        assert_eq!(JsonPath::parse(template).unwrap_err().to_string(), expected, "{template}");
    }
    for (template, expected) in [
        ("{hello}", "unrecognized identifier hello"),
        ("{range .none[*]}{hello}{end}", "unrecognized identifier hello"),
        ("{end}", "not in range, nothing to end"),
        ("{range .spec.list[*]}{.n}{end}{end}", "not in range, nothing to end"),
        ("{.spec.list[7]}", "array index out of bounds: index 7, length 3"),
        ("{.spec.list[-9]}", "array index out of bounds: index -6, length 3"),
        ("{.spec.list[0:9]}", "array index out of bounds: index 8, length 3"),
        ("{.spec.list[2:1]}", "starting index 2 is greater than ending index 1"),
        ("{.spec.list[-1:0]}", "starting index 2 is greater than ending index 0"),
        ("{.spec.list[0:3:0]}", "step must be > 0"),
        ("{.spec.in[0]}", "map[string]interface {} is not array or slice"),
        ("{.spec.f[0]}", "float64 is not array or slice"),
        ("{.kind[0]}", "string is not array or slice"),
        ("{.spec.in[?(@.x)]}", "map[deep:map[v:8] s:ab v:7] is not array or slice and cannot be filtered"),
        ("{.spec.nul[?(@.x)]}", "<nil> is not array or slice and cannot be filtered"),
        ("{.spec.list[?(@.v==1.0)].n}", "incompatible types for comparison"),
        ("{.spec.list[?(@.v==true)].n}", "incompatible types for comparison"),
        ("{.spec.list[?(@.ok>false)].n}", "invalid type for comparison"),
        ("{.spec.list[?(@.n<>\"x\")]}", "unrecognized filter operator <>"),
        ("{.spec.list[?(@..==1)].v}", "can only compare one element at a time"),
    ] {
        let template = JsonPath::parse(template).unwrap();
        assert_eq!(template.render(&widget()).unwrap_err().to_string(), expected, "{template}");
    }
}

/// Neither reading nor finding goes deep or on for long, whatever a definition says.
#[test]
fn hostile_templates_end() {
    let long = "[".repeat(200_000);
    assert!(JsonPath::of_column(&long).is_err());
    assert!(JsonPath::parse(&"x".repeat(2 << 20)).unwrap_err().to_string().contains("too long"));
    // Filters stand in each other only behind a comma, each within quotes of the one before.
    let nested = (0..40).fold("@".to_owned(), |inner, _| format!("[0,?({inner})]"));
    let _ = JsonPath::of_column(&nested);
    let object = json!({"a": (0..300).map(|n| json!([n])).collect::<Vec<_>>()});
    let many = JsonPath::of_column(&"...*".repeat(50)).unwrap();
    assert_eq!(many.first(&object), None);
    let squared = JsonPath::of_column(".a[?(@.x != 1)][?(@...* == 1)]").unwrap();
    assert_eq!(squared.first(&object), None);
    let ranges = JsonPath::parse(&"{range .a}".repeat(100)).unwrap();
    assert_eq!(ranges.render(&object).unwrap_err().to_string(), "ranges nest too deeply");
    let deep = JsonPath::parse(&"{range .a[*]}".repeat(9)).unwrap();
    assert!(deep.first(&object).is_none());
    let places = JsonPath::parse("{.a[-9223372036854775808:9223372036854775807:9223372036854775807]}").unwrap();
    assert!(places.render(&object).is_err());
    assert!(JsonPath::parse("{.a[9223372036854775807]}").unwrap().render(&object).is_err());
}
