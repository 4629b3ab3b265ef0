//! `linux.seccomp` compiled to a filter.

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// Whether filters can be compiled.
pub const ENABLED: bool = false;

/// A classic BPF program for seccomp(2).
pub struct Filter {
    program: Vec<[u8; 8]>,
    flags: u64,
}

impl Filter {
    /// Compiles a configuration; none without one.
    pub fn of(seccomp: &Json) -> Result<Option<Filter>> {
        if seccomp.is_null() {
            return Ok(None);
        }
        Err(Error::new("linux.seccomp is not supported yet"))
    }

    /// Puts the filter before every later system call of this process.
    pub fn install(&self) -> Result<()> {
        sys::seccomp_filter(&self.program, self.flags).context(|| "install the seccomp filter".into())
    }
}
