//! The launcher's program on bundles, as those who call it see it. Needs root, busybox and unshare(1).

mod accounts;
mod bundle;
mod commands;
mod groups;
mod mount_namespaces;
mod readiness;
mod roots;
