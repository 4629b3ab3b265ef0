//! hostPath volumes: what stands on the node already, or is made there.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Checks that the path is what the volume says it is, and makes it where the volume wants that.
pub(super) fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            return DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed);
        }
        "FileOrCreate" if !path.exists() => {
            return OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map(drop).map_err(failed);
        }
        _ => {}
    }
    let found = match fs::metadata(path) {
        // Without a type nothing is checked; the runtime makes a directory, as upstream's does.
        _ if kind.is_empty() => return Ok(()),
        Ok(found) => found.file_type(),
        Err(_) => return Err(format!("hostPath type check failed: {} is not a {}", source.path, noun(kind))),
    };
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {} is not a {}", source.path, noun(kind))) }
}

fn noun(kind: &str) -> &'static str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "directory",
        "File" | "FileOrCreate" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        _ => "block device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let source = |name: &str, kind: &str| HostPathVolumeSource {
            path: dir.path().join(name).display().to_string(),
            type_: Some(kind.into()),
        };
        assert!(check(&source("a", "Directory")).unwrap_err().contains("is not a directory"));
        check(&source("a", "DirectoryOrCreate")).unwrap();
        check(&source("a", "Directory")).unwrap();
        assert!(check(&source("a", "File")).is_err());
        check(&source("f", "FileOrCreate")).unwrap();
        check(&source("nothing", "")).unwrap();
        assert!(check(&source("a", "Shelf")).is_err());
    }
}
