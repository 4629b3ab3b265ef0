//! The allocator. Documents are many small allocations that live shortly or very long, made by one thread and freed by
//! another: the C library's allocator took a third of the API server's time.

use std::ffi::{c_int, c_long};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_arena_eager_commit` of mimalloc 3 (its `mi_option_t`).
const ARENA_EAGER_COMMIT: c_int = 4;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Memory is committed as it is needed. Where a system overcommits, mimalloc commits whole arenas at once and the kernel backs
/// them with huge pages: an idle control plane was 27 MiB larger for it.
extern "C" fn commit_on_demand() {
    // SAFETY: it stores two numbers in mimalloc's table of options, and no other thread is there yet.
    unsafe { mi_option_set(ARENA_EAGER_COMMIT, 0) };
}

/// Run before `main`, and so before the first arena is made.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = commit_on_demand;
