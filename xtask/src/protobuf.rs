//! Generates `apiserver/protobuf/v1.36.txt`: the protobuf field numbers of the API's types.
//!
//! The source is the crate `k8s-pb`, whose structures carry the numbers of upstream's published .proto files; only numbers
//! are taken. The form of the table is told in `apiserver/src/http/protobuf.rs`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const CRATE: &str = "k8s-pb";
const VERSION: &str = "0.9.0";
const SCHEMA: &str = "api/schema/v1.36.txt";
const OUTPUT: &str = "apiserver/protobuf/v1.36.txt";

/// Fields of a structure by their lower-cased name: the number, and the structure that a field holds.
type Messages = BTreeMap<String, BTreeMap<String, (u32, Option<String>)>>;

/// Writes the table. Fetches the crate with cargo.
pub fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let scratch = std::env::temp_dir().join(format!("coracle-protobuf-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let read = fetch(&scratch).and_then(|source| {
        let mut messages = Messages::new();
        read_directory(&source.join("src"), "", &mut messages)?;
        Ok(messages)
    });
    std::fs::remove_dir_all(&scratch)?;
    let table = generate(&std::fs::read_to_string(root.join(SCHEMA))?, &read?)?;
    std::fs::write(root.join(OUTPUT), table)?;
    Ok(())
}

/// Lets cargo fetch the crate and says where it put it.
fn fetch(scratch: &Path) -> Result<PathBuf> {
    let manifest = format!(
        "[package]\nname = \"fetch\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n[dependencies]\n{CRATE} = \"={VERSION}\"\n[workspace]\n"
    );
    std::fs::write(scratch.join("Cargo.toml"), manifest)?;
    std::fs::write(scratch.join("lib.rs"), "")?;
    let output = Command::new("cargo").args(["metadata", "--format-version=1"]).current_dir(scratch).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let package = packages.iter().find(|package| package["name"] == CRATE).context("cargo did not fetch the crate")?;
    let manifest = Path::new(package["manifest_path"].as_str().context("no manifest")?);
    Ok(manifest.parent().context("no directory")?.to_path_buf())
}

fn read_directory(directory: &Path, module: &str, messages: &mut Messages) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            let inner = if module.is_empty() { name } else { format!("{module}.{name}") };
            read_directory(&path, &inner, messages)?;
        } else if name == "mod.rs" {
            read_module(&std::fs::read_to_string(&path)?, module, messages);
        }
    }
    Ok(())
}

/// Structures and the `#[prost(…, tag = "N")]` of their fields.
fn read_module(source: &str, module: &str, messages: &mut Messages) {
    let mut current: Option<String> = None;
    let mut tag = None;
    for line in source.lines().map(str::trim) {
        if let Some(name) =
            line.strip_prefix("pub struct ").map(|rest| rest.trim_end_matches(" {").trim_end_matches(" {}"))
        {
            let name = format!("{module}.{name}").to_lowercase();
            messages.entry(name.clone()).or_default();
            current = Some(name);
        } else if line == "}" {
            current = None;
        } else if let Some(attribute) = line.strip_prefix("#[prost(") {
            tag = attribute
                .split("tag = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .and_then(|number| number.parse::<u32>().ok());
        } else if let (Some(owner), Some(number), Some(field)) = (&current, tag, line.strip_prefix("pub ")) {
            let (name, kind) = field.split_once(':').unwrap_or((field, ""));
            let name = name.trim_start_matches("r#").replace('_', "").to_lowercase();
            if let Some(fields) = messages.get_mut(owner) {
                fields.insert(name, (number, message_of(kind, module)));
            }
            tag = None;
        }
    }
}

/// The structure inside `Option<…>`, with its module spelled out.
fn message_of(kind: &str, module: &str) -> Option<String> {
    let inner = kind.split("Option<").nth(1)?.trim_end_matches([',', '>']);
    if inner.starts_with("::") || inner.chars().next()?.is_ascii_lowercase() && !inner.starts_with("super") {
        return None;
    }
    let mut parts: Vec<&str> = module.split('.').collect();
    for part in inner.split("::") {
        match part {
            "super" => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(parts.join(".").to_lowercase())
}

/// One line for each type of the schema that protobuf knows: `name field=numbers …`.
fn generate(schema: &str, messages: &Messages) -> Result<String> {
    let mut out =
        String::from("# Generated by `cargo xtask protobuf`; see apiserver/src/http/protobuf.rs for the form.\n");
    let mut types: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in schema.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix(' ') {
            Some(field) => {
                types.last_mut().context("a field before any type")?.1.push(field.split(' ').next().unwrap_or_default())
            }
            None => types.push((line.split(' ').next().unwrap_or_default(), Vec::new())),
        }
    }
    for (name, fields) in types {
        let Some(module) = name.strip_prefix("io.k8s.") else { continue };
        let Some(message) = messages.get(&module.to_lowercase()) else { continue };
        let mut line = String::new();
        // What JSON shows as a field of its own is not embedded, even when it is named as its type: a binding's roleRef.
        let shown: Vec<String> = fields.iter().map(|field| field.to_lowercase()).collect();
        for field in fields {
            if let Some(path) = path_of(message, &field.to_lowercase(), &shown, messages, 0) {
                write!(line, " {field}={path}")?;
            }
        }
        writeln!(out, "{name}{line}")?;
    }
    Ok(out)
}

/// The numbers that lead to a field: more than one when upstream's structure embeds another.
fn path_of(
    message: &BTreeMap<String, (u32, Option<String>)>,
    field: &str,
    shown: &[String],
    messages: &Messages,
    depth: usize,
) -> Option<String> {
    if let Some((number, _)) = message.get(field) {
        return Some(number.to_string());
    }
    if depth == 2 {
        return None;
    }
    // Only a structure that is named as its type is embedded: `volumeSource VolumeSource`, and a probe's handler.
    let embedded = message.iter().filter_map(|(name, (number, kind))| Some((name, number, kind.as_ref()?)));
    let embedded = embedded.filter(|(name, _, kind)| {
        let kind = kind.rsplit('.').next().unwrap_or(kind);
        !shown.contains(name) && *name == kind || (*name == "handler" && kind == "probehandler")
    });
    embedded.into_iter().find_map(|(_, number, kind)| {
        Some(format!("{number}.{}", path_of(messages.get(kind)?, field, shown, messages, depth + 1)?))
    })
}
