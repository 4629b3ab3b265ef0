//! How a process is scheduled.

use std::io;

use super::{check, check_long};

/// personality(2).
pub fn personality(domain: u64) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::personality(domain as _) }).map(drop)
}

/// ioprio_set(2) for this process.
pub fn ioprio_set(priority: u16) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no pointers.
    check_long(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, i32::from(priority)) }).map(drop)
}

/// What sched_setattr(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_setattr(2) for this process.
pub fn sched_setattr(scheduler: &Scheduler) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    };
    // SAFETY: the kernel's structure of version 0, with its size in it.
    check_long(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) }).map(drop)
}

/// Most processors that [`set_affinity`] can name.
pub const MAX_PROCESSORS: usize = 8192;

/// Processors, a bit each.
pub type ProcessorMask = [u64; MAX_PROCESSORS / 64];

/// Of which the kernel takes those that there are and the group has.
pub const ALL_PROCESSORS: ProcessorMask = [u64::MAX; MAX_PROCESSORS / 64];

/// sched_getaffinity(2) for this process.
pub fn affinity() -> io::Result<ProcessorMask> {
    let mut mask = [0; MAX_PROCESSORS / 64];
    // SAFETY: the mask is valid for its length.
    check_long(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) })?;
    Ok(mask)
}

/// sched_setaffinity(2) for this process.
pub fn set_affinity(processors: &[usize]) -> io::Result<()> {
    let mut mask = [0u64; MAX_PROCESSORS / 64];
    for &processor in processors.iter().filter(|&&processor| processor < MAX_PROCESSORS) {
        mask[processor / 64] |= 1 << (processor % 64);
    }
    set_affinity_mask(&mask)
}

pub fn set_affinity_mask(mask: &ProcessorMask) -> io::Result<()> {
    // SAFETY: the mask is valid for its length.
    check_long(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}
