//! Objects from files, directories and standard input.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use coracle_api::json::Value;
use coracle_api::{meta, yaml};

use crate::{
    discovery::Resource,
    error::{Error, Result},
    session::Session,
};

/// The largest manifest that is read, in bytes.
const MAX_SIZE: u64 = 64 << 20;

/// An object and where it was found.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub source: String,
    pub object: Value,
}

impl Manifest {
    /// The resource the server keeps it under.
    pub async fn resource<'a>(&self, session: &'a Session) -> Result<&'a Resource> {
        let (version, kind) = (meta::api_version(&self.object), meta::kind(&self.object));
        session.discovery().await?.of_kind(version, kind).ok_or_else(|| {
            Error::usage(format!(
                "resource mapping not found for name: \"{}\" namespace: \"{}\" from \"{}\": no matches for kind \"{kind}\" in version \"{version}\"\nensure CRDs are installed first",
                meta::name(&self.object),
                meta::namespace(&self.object),
                self.source,
            ))
        })
    }

    /// The namespace it belongs to: its own, else the session's; two that differ are a mistake.
    pub fn namespace<'a>(&'a self, session: &'a Session, said: Option<&str>) -> Result<&'a str> {
        match (meta::namespace(&self.object), said) {
            ("", _) => Ok(session.namespace()),
            (own, Some(said)) if own != said => Err(Error::usage(format!(
                "the namespace from the provided object \"{own}\" does not match the namespace \"{said}\". You must pass '--namespace={own}' to perform this operation."
            ))),
            (own, _) => Ok(own),
        }
    }
}

/// Reads every file, directory (with `recursive` what is below, too) and `-` for standard input.
pub fn read(paths: &[String], recursive: bool) -> Result<Vec<Manifest>> {
    if paths.is_empty() {
        return Err(Error::usage("must specify -f with a file, a directory, or - for standard input"));
    }
    let mut manifests = Vec::new();
    for path in paths {
        if path == "-" {
            let mut text = String::new();
            io::stdin().take(MAX_SIZE).read_to_string(&mut text)?;
            parse(&text, "STDIN", &mut manifests)?;
        } else if path.starts_with("http://") || path.starts_with("https://") {
            return Err(Error::usage(format!(
                "{path}: reading manifests from the network is not supported; download it first"
            )));
        } else {
            for file in files(Path::new(path), recursive)? {
                let text = fs::read_to_string(&file);
                let text = text.map_err(|error| Error::usage(format!("{}: {error}", file.display())))?;
                parse(&text, &file.display().to_string(), &mut manifests)?;
            }
        }
    }
    if manifests.is_empty() {
        return Err(Error::usage(format!("no objects found in {}", paths.join(", "))));
    }
    Ok(manifests)
}

fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::usage(format!("the path \"{}\" does not exist", path.display())),
        _ => Error::usage(format!("{}: {error}", path.display())),
    };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut entries: Vec<_> = fs::read_dir(path).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let manifest =
            entry.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if entry.is_dir() {
            if recursive {
                found.extend(files(&entry, true)?);
            }
        } else if manifest {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Adds the objects of `text`, those of lists one by one.
fn parse(text: &str, source: &str, manifests: &mut Vec<Manifest>) -> Result<()> {
    let documents = yaml::documents(text)
        .map_err(|error| Error::usage(format!("error parsing {source}: error converting YAML to JSON: {error}")))?;
    for document in documents {
        // kubectl does not tell of it.
        for line in &document.twice {
            eprintln!("Warning: {source}: {line}");
        }
        add(document.value, source, manifests)?;
    }
    Ok(())
}

fn add(object: Value, source: &str, manifests: &mut Vec<Manifest>) -> Result<()> {
    if object.is_null() {
        return Ok(());
    }
    let missing =
        |field| Error::usage(format!("error validating \"{source}\": error validating data: {field} not set"));
    if !object.is_object() {
        return Err(Error::usage(format!("error parsing {source}: an object was expected, not {object}")));
    }
    if meta::api_version(&object).is_empty() {
        return Err(missing("apiVersion"));
    }
    if meta::kind(&object).is_empty() {
        return Err(missing("kind"));
    }
    if meta::kind(&object) == "List" {
        for item in object["items"].as_array().into_iter().flatten() {
            add(item.clone(), source, manifests)?;
        }
        return Ok(());
    }
    manifests.push(Manifest { source: source.to_owned(), object });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_become_objects_in_order() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\n";
        let mut found = Vec::new();
        parse(text, "x.yaml", &mut found).unwrap();
        let names: Vec<_> = found.iter().map(|manifest| meta::name(&manifest.object)).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse("kind: Pod\n", "x.yaml", &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "error: error validating \"x.yaml\": error validating data: apiVersion not set");
        let error = parse("a: [\n", "x.yaml", &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("x.yaml") && error.contains("line"), "{error}");
    }

    #[test]
    fn directories_are_read_in_order_and_other_files_left() {
        let dir = std::env::temp_dir().join(format!("kubectl-lite-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        for name in ["b.yaml", "a.json", "c.txt", "sub/d.yml"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let names = |recursive| {
            files(&dir, recursive)
                .unwrap()
                .iter()
                .map(|it| it.strip_prefix(&dir).unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.json", "b.yaml"]);
        assert_eq!(names(true), ["a.json", "b.yaml", "sub/d.yml"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
