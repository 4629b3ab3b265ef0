//! The allocator. Documents are many small allocations that live shortly or very long, made by one thread and freed by
//! another: the C library's allocator took a third of the API server's time.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long, c_void};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// `mi_option_arena_eager_commit` of mimalloc 3 (its `mi_option_t`).
const ARENA_EAGER_COMMIT: c_int = 4;

/// `mi_option_purge_delay`, in milliseconds.
const PURGE_DELAY: c_int = 15;

/// What mimalloc aligns to unasked (its `MI_MAX_ALIGN_SIZE`), if a block is as large.
const NATURAL: usize = 16;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
    fn mi_malloc(size: usize) -> *mut c_void;
    fn mi_zalloc(size: usize) -> *mut c_void;
    fn mi_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn mi_collect(force: bool);
}

/// mimalloc, asked for alignment only where it has to be. Asked, it makes blocks above a kilobyte, and some below, larger than
/// they need be, and takes longer to make and to free them.
struct Allocator;

fn is_natural(size: usize, align: usize) -> bool {
    align <= NATURAL && align <= size
}

// SAFETY: everything is mimalloc's, and its blocks are freed by it whichever way they were made.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises; what is not natural is asked for with its alignment.
        unsafe {
            if is_natural(layout.size(), layout.align()) {
                mi_malloc(layout.size()).cast()
            } else {
                MiMalloc.alloc(layout)
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if is_natural(layout.size(), layout.align()) {
                mi_zalloc(layout.size()).cast()
            } else {
                MiMalloc.alloc_zeroed(layout)
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if is_natural(size, layout.align()) {
                mi_realloc(block.cast(), size).cast()
            } else {
                MiMalloc.realloc(block, layout, size)
            }
        }
    }
}

/// Memory is committed as it is needed. Where a system overcommits, mimalloc commits whole arenas at once and the kernel backs
/// them with huge pages: an idle control plane was 27 MiB larger for it.
extern "C" fn commit_on_demand() {
    // SAFETY: it stores two numbers in mimalloc's table of options, and no other thread is there yet.
    unsafe { mi_option_set(ARENA_EAGER_COMMIT, 0) };
}

/// Gives memory that is free back to the system. mimalloc does that only while it is asked for memory: what a busy moment
/// left, and its threads that have ended, would stay with a process that has nothing to do.
pub fn give_back() {
    // SAFETY: it may be called at any time, from any thread.
    unsafe { mi_collect(true) };
}

/// From now on, memory goes back as soon as it is free, and not a second later: for who has little to do, and now and then much
/// in many threads, each with a heap of its own.
pub fn keep_nothing() {
    // SAFETY: it stores a number in mimalloc's table of options, which is read as it is each time.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}

/// Run before `main`, and so before the first arena is made.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = commit_on_demand;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_aligned_as_asked() {
        let blocks = (1..300).chain([1000, 1025, 4096, 70_000, 5 << 20]);
        for (size, align) in blocks.flat_map(|size| [1, 8, 16, 64, 4096].map(|align| (size, align))) {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layouts are those that the blocks were made with, and nothing beyond them is touched.
            unsafe {
                let block = Allocator.alloc(layout);
                assert_eq!(block as usize % align, 0, "{layout:?}");
                block.write_bytes(1, size);
                let grown = Allocator.realloc(block, layout, size + 7);
                assert_eq!((grown as usize % align, *grown), (0, 1), "{layout:?}");
                Allocator.dealloc(grown, Layout::from_size_align(size + 7, align).unwrap());
                let zeros = Allocator.alloc_zeroed(layout);
                assert!(std::slice::from_raw_parts(zeros, size).iter().all(|byte| *byte == 0));
                Allocator.dealloc(zeros, layout);
            }
        }
    }
}
