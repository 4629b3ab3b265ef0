//! The small static programs that run inside and beside containers, embedded.
//!
//! They are run from a sealed memory file: nothing to install, nothing on disk that a container could overwrite
//! (CVE-2019-5736), and the same pages shared by every process that runs one.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// The OCI launcher (`runtime/launcher`).
pub static LAUNCHER: Program =
    Program { name: "coracle-launcher", bytes: include_bytes!(env!("CORACLE_PROGRAM_LAUNCHER")) };
/// The shim that keeps a pod's containers (`runtime/shim`).
pub static SHIM: Program = Program { name: "coracle-shim", bytes: include_bytes!(env!("CORACLE_PROGRAM_SHIM")) };
/// The first process of a lab's node (`coracle/init`).
pub static INIT: Program = Program { name: "coracle-init", bytes: include_bytes!(env!("CORACLE_PROGRAM_INIT")) };
/// The first process of a container with `--init` (`runtime/init`).
pub static CONTAINER_INIT: Program =
    Program { name: "coracle-container-init", bytes: include_bytes!(env!("CORACLE_PROGRAM_CONTAINER_INIT")) };
/// The one program of the test image (`tests/hello`).
pub static HELLO: Program = Program { name: "coracle-hello", bytes: include_bytes!(env!("CORACLE_PROGRAM_HELLO")) };

/// An embedded static executable.
pub struct Program {
    name: &'static str,
    bytes: &'static [u8],
}

impl Program {
    /// The name the program goes by in process lists.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The ELF file.
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
    }

    /// A memory file with the program that nobody can change any more. It is close-on-exec: a child that runs it by
    /// [`exec_path`] must be given the descriptor on purpose.
    pub fn memfd(&self) -> io::Result<OwnedFd> {
        let name = CString::new(self.name)?;
        let fd = memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut file = File::from(fd);
        file.write_all(self.bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
        Ok(file.into())
    }
}

/// The path by which this process executes an open program.
pub fn exec_path(program: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", program.as_fd().as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_from_its_sealed_file_and_cannot_be_written() {
        let fd = HELLO.memfd().unwrap();
        let status = std::process::Command::new(exec_path(&fd)).args(["exit", "7"]).status().unwrap();
        assert_eq!(status.code(), Some(7));
        let refused = File::from(fd).write_all(b"x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::EPERM));
    }
}
