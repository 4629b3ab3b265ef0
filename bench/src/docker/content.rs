//! Images to measure with.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};

pub const IMAGE: &str = "busybox:bench";

fn archive(dir: &Path, root: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    let made = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&path).arg(".").status().context("run tar")?;
    ensure!(made.success(), "tar failed");
    Ok(path.to_string_lossy().into_owned())
}

/// A file system of busybox alone, as a tar archive.
pub fn small(dir: &Path) -> Result<String> {
    let root = dir.join("small");
    fs::create_dir_all(root.join("bin"))?;
    fs::create_dir_all(root.join("etc"))?;
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("copy busybox (the package busybox-static)")?;
    for name in ["sh", "true", "sleep", "echo", "cat", "touch"] {
        symlink("/bin/busybox", root.join("bin").join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    archive(dir, &root, "small.tar")
}

/// An archive of many megabytes that compress to about half.
pub fn big(dir: &Path, megabytes: usize) -> Result<String> {
    const FILE: usize = 4;
    let root = dir.join("big");
    fs::create_dir_all(&root)?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for number in 0..megabytes / FILE {
        let mut file = BufWriter::new(File::create(root.join(number.to_string()))?);
        for _ in 0..(FILE << 20) / 16 {
            // xorshift64: nothing that gzip finds; the other half is text.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            file.write_all(&state.to_le_bytes())?;
            file.write_all(b"the same")?;
        }
        file.flush()?;
    }
    archive(dir, &root, "big.tar")
}

/// A directory with a Dockerfile of five steps.
pub fn build_context(dir: &Path) -> Result<String> {
    let context = dir.join("context");
    fs::create_dir_all(&context)?;
    fs::write(context.join("file"), "content\n")?;
    let steps =
        format!("FROM {IMAGE}\nRUN echo one > /one\nCOPY file /file\nRUN cat /file > /two\nCMD [\"cat\", \"/two\"]\n");
    fs::write(context.join("Dockerfile"), steps)?;
    Ok(context.to_string_lossy().into_owned())
}
