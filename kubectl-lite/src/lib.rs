//! kubectl-lite as a library: `coracle kubectl` is the same program.
