//! Tests of this program once more, on a kernel that has none of the calls that Linux 4.18 lacks: a filter answers for them.
//!
//! The containers of those tests inherit the filter, as they would have that kernel.

use std::{os::unix::process::CommandExt, process::Command};

use coracle_launcher::{json::Json, process_fd::ProcessFd, seccomp::Filter, sys};

use crate::isolation::OLDER_KERNEL;

/// Newer than 4.18: pidfd_send_signal is of 5.1, the mount calls are of 5.2, clone3 and pidfd_open of 5.3, openat2 and
/// pidfd_getfd of 5.6, faccessat2 of 5.8, close_range of 5.9, epoll_pwait2 of 5.11, mount_setattr of 5.12.
const NEWER: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
    "syscalls": [{
        "names": ["pidfd_send_signal", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "clone3",
            "pidfd_open", "openat2", "pidfd_getfd", "faccessat2", "close_range", "epoll_pwait2", "mount_setattr"],
        "action": "SCMP_ACT_ERRNO", "errnoRet": 38
    }]
}"#;

/// Runs tests of this program on the older kernel.
fn on_the_older_kernel(tests: &[&str]) {
    let filter = Filter::of(&Json::parse(NEWER.as_bytes()).unwrap()).unwrap().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(tests).arg("older_kernel::the_calls_are_missing");
    command.args(["--exact", "--nocapture", "--test-threads", "2"]).env(OLDER_KERNEL, "1");
    // SAFETY: one system call; the program was compiled before.
    unsafe {
        command.pre_exec(move || {
            filter.install().map(drop).map_err(|error| std::io::Error::from_raw_os_error(error.errno().unwrap_or(0)))
        });
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("test result: ok. {} passed", tests.len() + 1)), "{text}");
}

#[test]
fn the_calls_are_missing() {
    if std::env::var_os(OLDER_KERNEL).is_none() {
        return;
    }
    let own = ProcessFd::open(std::process::id() as i32).unwrap();
    assert_eq!(own.pidfd().unwrap_err().raw_os_error(), Some(libc::ENOSYS));
    assert!(!sys::has_mount_setattr() && !sys::close_on_exec_from(3).unwrap());
}

#[test]
fn the_launcher_follows_the_specification() {
    on_the_older_kernel(&[
        "launcher::a_container_sees_only_its_own",
        "launcher::states_follow_the_specification",
        "launcher::hostile_roots_do_not_lead_outside",
        "launcher::devices_are_refused_by_a_program",
        "launcher_features::hooks_run_in_order_with_the_state",
        "launcher_features::namespaces_are_joined_by_path",
        "launcher_features::a_tmpfs_begins_with_what_it_covers",
        "launcher_features::the_command_line_is_runcs",
        "launcher_features::memory_hogs_are_told_of",
    ]);
}

#[test]
fn pods_run_and_hostile_images_lead_nowhere() {
    on_the_older_kernel(&[
        "cri::a_pod_lives_and_leaves_nothing",
        "cri::a_killed_runtime_finds_its_containers_again",
        "cri::limits_hold_and_errors_are_told",
        "cri::containers_share_processes_only_when_asked",
        "cri::images_are_mounted_and_kept_while_they_are",
        "hostile::links_and_devices_of_images_lead_nowhere",
        "hostile::containers_get_no_descriptor_and_no_program_of_ours",
        "hostile::commands_in_a_container_that_lies_do_no_harm",
        "hostile::mount_targets_that_move_lead_nowhere",
        "hostile::sources_that_move_lead_nowhere",
        "hostile::masked_paths_that_are_links_mask_inside",
        "images::pulls_resume_share_work_and_are_collected",
        "shim::clients_share_a_terminal",
    ]);
}
