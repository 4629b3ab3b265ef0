//! The test images, packed from the one program that is embedded here.

use anyhow::{Context, Result};
use coracle_programs::HELLO;
use coracle_runtime::images::{
    Images,
    manifest::RunConfig,
    pack::{PackedContent, PackedFile, PackedImage},
};

const VERSIONS: [&str; 2] = ["v1", "v2"];

/// Makes sure that `coracle/hello:v1` and `:v2` are there.
pub async fn pack(images: &Images) -> Result<()> {
    for version in VERSIONS {
        let name = format!("coracle/hello:{version}");
        images.pack(&name, image(version)).await.with_context(|| format!("pack {name}"))?;
    }
    Ok(())
}

fn image(version: &str) -> PackedImage {
    let program =
        PackedFile { path: "/hello".into(), mode: 0o755, content: PackedContent::File(HELLO.bytes().to_vec()) };
    let users = PackedFile {
        path: "/etc/passwd".into(),
        mode: 0o644,
        content: PackedContent::File(b"root:x:0:0:root:/:/hello\nhello:x:1000:1000:hello:/:/hello\n".to_vec()),
    };
    let groups = PackedFile {
        path: "/etc/group".into(),
        mode: 0o644,
        content: PackedContent::File(b"root:x:0:\nhello:x:1000:\n".to_vec()),
    };
    let directories = ["/tmp", "/proc", "/sys", "/dev"].map(|path| PackedFile {
        path: path.into(),
        mode: if path == "/tmp" { 0o1777 } else { 0o755 },
        content: PackedContent::Directory,
    });
    let config = RunConfig {
        entrypoint: vec!["/hello".into()],
        cmd: vec!["serve".into()],
        env: vec![format!("HELLO_VERSION={version}"), "PATH=/".into()],
        working_dir: "/".into(),
        ..RunConfig::default()
    };
    PackedImage { files: [program, users, groups].into_iter().chain(directories).collect(), config }
}
