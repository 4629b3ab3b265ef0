//! `features`.

use crate::{
    capabilities,
    json::{Json, object},
    mount_options, seccomp,
};

/// What this launcher can (OCI runtime specification, features.md).
pub fn features() -> Json {
    let list = |words: &[&str]| Json::Arr(words.iter().map(|word| Json::from(*word)).collect());
    let flag = |enabled: bool| object([("enabled", enabled.into())]);
    let capabilities = Json::Arr(capabilities::names().map(Json::from).collect());
    let options = Json::Arr(mount_options::words().map(Json::from).collect());
    let cgroup = object([
        ("v1", true.into()),
        ("v2", true.into()),
        ("systemd", true.into()),
        ("systemdUser", false.into()),
        ("rdma", true.into()),
    ]);
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    let linux = object([
        ("namespaces", list(&namespaces)),
        ("capabilities", capabilities),
        ("cgroup", cgroup),
        ("seccomp", seccomp::features()),
        ("apparmor", flag(true)),
        ("selinux", flag(true)),
        ("intelRdt", flag(true)),
        ("mountExtensions", object([("idmap", flag(true))])),
    ]);
    object([
        ("ociVersionMin", "1.0.0".into()),
        ("ociVersionMax", "1.2.0".into()),
        ("hooks", list(&hooks)),
        ("mountOptions", options),
        ("linux", linux),
        ("potentiallyUnsafeConfigAnnotations", list(&[])),
    ])
}
