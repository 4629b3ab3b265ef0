//! What a long-running process keeps of its own program, and of the libraries, in memory.
//!
//! The program is a hundred megabytes, and each page of it that was touched once stays mapped and counts as the process's:
//! what only a start needs, a build, a pull. The pages are the file's; let go of, they lie in the page cache as before, and
//! what is needed again comes from there by a minor fault, sixteen pages at a time. Of libraries the loader alone looks at
//! much: symbols, and functions that choose among others.

use std::{
    ffi::{CStr, c_int, c_void},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use nix::{
    libc,
    sys::resource::{UsageWho, getrusage},
    sys::time::TimeValLike,
};
use tokio::{sync::Notify, time::Instant};

/// What was not touched for so long is let go of.
const PERIOD: Duration = Duration::from_secs(10);
/// In a busy moment for the first time after this long, then after twice as long, and so on: what it took to start, or to pull
/// an image, goes soon, and who is busy for minutes is not held up.
const FIRST: Duration = Duration::from_millis(250);
/// A process that has computed less than this has touched little.
const WORTH_IT_MILLISECONDS: i64 = 20;
/// One that has computed less may have touched much of its program all the same, bit by bit: this many pages.
const WORTH_IT_PAGES: usize = 1024;

/// The runtime's threads: its workers, and those that wait for disks.
static THREADS: AtomicUsize = AtomicUsize::new(0);
/// A thread that waits for disks has begun: a busy moment, perhaps.
static BUSY: Notify = Notify::const_new();
/// The last thread that waited for disks has ended: a busy moment is over.
static CALM: Notify = Notify::const_new();

pub fn thread_began() {
    THREADS.fetch_add(1, Ordering::Relaxed);
    BUSY.notify_one();
}

pub fn thread_ended() {
    THREADS.fetch_sub(1, Ordering::Relaxed);
    CALM.notify_one();
}

/// What was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// The program's pages: in the midst of a busy moment, or when they have become many again.
    Program,
    /// Free memory, too.
    All,
}

/// Lets go of what is not in use, again and again, and when a busy moment is over. A few hundred faults are what it costs each
/// time.
pub async fn keep_small() {
    keep(|_| {}).await;
}

async fn keep(mut told: impl FnMut(Given)) {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let in_the_midst = || THREADS.load(Ordering::Relaxed) > workers;
    let (mut computed, mut was_busy) = (0, false);
    let (mut last, mut patience) = (Instant::now(), FIRST);
    let mut mapped = 0;
    loop {
        let due = last + if in_the_midst() { patience } else { PERIOD };
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            // It may be due earlier now.
            () = BUSY.notified() => continue,
            () = CALM.notified() => if in_the_midst() { continue },
        }
        last = Instant::now();
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return };
        let now = usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds();
        let busy = now - computed >= WORTH_IT_MILLISECONDS;
        let given = if in_the_midst() {
            patience = (2 * patience).min(PERIOD);
            // Even if nothing more is computed until it is calm.
            was_busy |= busy;
            // Memory is soon asked for again.
            busy.then_some(Given::Program)
        } else {
            patience = FIRST;
            // Once more afterwards: threads that were busy have ended by then.
            let given = (busy || was_busy).then_some(Given::All);
            was_busy = busy;
            given.or_else(|| (mapped_pages() > mapped + WORTH_IT_PAGES).then_some(Given::Program))
        };
        if given == Some(Given::All) {
            crate::allocator::give_back();
        }
        if let Some(given) = given {
            // SAFETY: the callback has the type that is asked for, and uses nothing after it returns.
            unsafe { libc::dl_iterate_phdr(Some(let_go), std::ptr::null_mut()) };
            mapped = mapped_pages();
            told(given);
        }
        if busy {
            computed = now;
        }
    }
}

/// Pages of files that are mapped (proc_pid_statm(5), `shared`); none where that cannot be told.
fn mapped_pages() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(2).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// Unmaps what is read-only of an object: the first is the program itself, which has no name (dl_iterate_phdr(3)).
///
/// Nothing in those segments is this process's own: the linker refuses relocations in them, and what is relocated and made
/// read-only afterwards is part of a writable segment. A library that was linked otherwise says so, and is left alone; so is
/// what is no file, the kernel's own.
unsafe extern "C" fn let_go(object: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: the loader passes a description that is valid during the call, with that many headers and a string as its name.
    let (base, headers, name) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum));
        (object.dlpi_addr as usize, headers, CStr::from_ptr(object.dlpi_name).to_bytes())
    };
    if !(name.is_empty() || name.starts_with(b"/")) || has_relocated_text(base, headers) {
        return 0;
    }
    let page = usize::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096))
        .unwrap_or(4096);
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let start = (base + header.p_vaddr as usize).next_multiple_of(page);
        let end = (base + header.p_vaddr as usize + header.p_filesz as usize) / page * page;
        if start < end {
            // SAFETY: whole pages of a file mapped privately that nobody has written to: they read the same afterwards
            // (madvise(2), MADV_DONTNEED). That it fails is no harm.
            unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    0
}

/// Whether the loader has written to what is read-only otherwise (elf(5), `DT_TEXTREL` and `DF_TEXTREL`).
fn has_relocated_text(base: usize, headers: &[libc::Elf64_Phdr]) -> bool {
    const FLAGS: u64 = 30;
    const TEXTREL: u64 = 22;
    const FLAG_TEXTREL: u64 = 4;
    let Some(dynamic) = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC) else { return false };
    let (start, count) = (base + dynamic.p_vaddr as usize, dynamic.p_memsz as usize / size_of::<[u64; 2]>());
    // SAFETY: the segment is mapped where its header says, for as long as the object is, and holds pairs of words.
    let entries = unsafe { std::slice::from_raw_parts(start as *const [u64; 2], count) };
    let mut entries = entries.iter().take_while(|entry| entry[0] != 0);
    entries.any(|[tag, value]| *tag == TEXTREL || *tag == FLAGS && value & FLAG_TEXTREL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(kind: &str) -> usize {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn what_a_busy_moment_left_is_given_back() {
        let work = || std::thread::spawn(|| (0..16_000).map(|size| vec![1u8; 256 + size % 1024]).collect::<Vec<_>>());
        let blocks: Vec<_> = [work(), work(), work(), work()].into_iter().map(|work| work.join().unwrap()).collect();
        let busy = resident("RssAnon:");
        drop(blocks);
        crate::allocator::give_back();
        let rest = resident("RssAnon:");
        assert!(rest < busy / 2, "{busy} KiB were in use, {rest} are kept");
        // And without being told to.
        crate::allocator::keep_nothing();
        let blocks: Vec<_> = (0..64_000).map(|size| vec![1u8; 256 + size % 1024]).collect();
        let busy = resident("RssAnon:");
        drop(blocks);
        let rest = resident("RssAnon:");
        assert!(rest < busy / 2, "{busy} KiB were in use, {rest} are kept");
    }

    /// KiB of the program's file that are mapped as they are there, whether they are on the disk yet or not.
    fn mapped_of_the_program() -> usize {
        mapped_of(std::env::current_exe().unwrap().to_str().unwrap())
    }

    fn mapped_of(file: &str) -> usize {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut own, mut sum) = (false, 0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if !first.ends_with(':') {
                own = line.contains(file);
                continue;
            }
            let number = words.next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
            match first {
                "Rss:" if own => sum += number,
                "Anonymous:" if own => sum -= number,
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn the_program_is_let_go_of_and_goes_on() {
        let mapped = || [mapped_of_the_program(), mapped_of("/libc.so")];
        let before = mapped();
        // SAFETY: as above.
        unsafe { libc::dl_iterate_phdr(Some(let_go), std::ptr::null_mut()) };
        let after = mapped();
        let is_less = before.iter().zip(&after).all(|(before, after)| after < before);
        assert!(is_less, "{before:?} KiB were mapped of program and library, {after:?} still are");
        assert_eq!(format!("{:>5}", "on"), "   on");
        let caught = std::panic::catch_unwind(|| panic!("unwinding reads tables that were let go of"));
        assert!(caught.is_err());
    }

    /// As `long_running` makes it.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_keep_alive(Duration::from_millis(1))
            .on_thread_start(thread_began)
            .on_thread_stop(thread_ended)
            .build()
            .unwrap()
    }

    fn compute() {
        let cpu = || {
            let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
            usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
        };
        let begin = cpu();
        while cpu() < begin + 2 * WORTH_IT_MILLISECONDS {}
    }

    #[test]
    fn it_is_given_back_in_the_midst_and_when_it_is_calm() {
        let runtime = runtime();
        let (sender, mut given) = tokio::sync::mpsc::unbounded_channel();
        runtime.spawn(keep(move |what| {
            // Nobody listens any more once the test is over.
            let _ = sender.send((what, mapped_of_the_program()));
        }));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let before = mapped_of_the_program();
        let busy = runtime.spawn_blocking(move || {
            compute();
            // One that waits for a disk.
            let _ = held.recv();
        });
        let mut next = || {
            let limit = Duration::from_secs(30);
            runtime.block_on(async { tokio::time::timeout(limit, given.recv()).await }).unwrap().unwrap()
        };
        let (what, mapped) = next();
        assert_eq!(what, Given::Program);
        assert!(mapped < before, "{before} KiB were mapped, {mapped} still are");
        release.send(()).unwrap();
        runtime.block_on(busy).unwrap();
        while next().0 != Given::All {}
    }

    /// Touches each page of the program.
    unsafe extern "C" fn touch(object: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
        // SAFETY: as in `let_go`; the segments are readable.
        unsafe {
            let object = &*object;
            let headers = std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum));
            for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
                let start = (object.dlpi_addr + header.p_vaddr) as *const u8;
                for at in (0..header.p_memsz as usize).step_by(4096) {
                    let _ = start.add(at).read_volatile();
                }
            }
        }
        // The program is the first.
        1
    }

    #[test]
    fn what_is_touched_bit_by_bit_goes_too() {
        let runtime = runtime();
        let (sender, mut given) = tokio::sync::mpsc::unbounded_channel();
        runtime.spawn(keep(move |what| {
            // As above.
            let _ = sender.send(what);
        }));
        // SAFETY: the callback has the type that is asked for.
        unsafe { libc::dl_iterate_phdr(Some(touch), std::ptr::null_mut()) };
        let limit = Duration::from_secs(60);
        let mut next = || runtime.block_on(async { tokio::time::timeout(limit, given.recv()).await }).unwrap();
        // Starting took some time to compute; after that, nothing does.
        while next() != Some(Given::Program) {
            // SAFETY: as above.
            unsafe { libc::dl_iterate_phdr(Some(touch), std::ptr::null_mut()) };
        }
    }
}
