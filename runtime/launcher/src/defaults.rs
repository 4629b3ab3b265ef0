//! What later processes have of their container: its filter and execution domain always, and of `process` what their own
//! configuration leaves out (runc `container_linux.go`, newInitConfig).
//!
//! It is kept with the state, since nothing that happens to `config.json` after the creation may matter (runtime.md
//! "Lifecycle").

use crate::{
    error::Result,
    json::{Json, object},
    scheduling,
    seccomp::Filter,
};

/// Members of `process` that runc takes from the container for who has none.
const OF_PROCESS: [&str; 8] = [
    "capabilities",
    "rlimits",
    "apparmorProfile",
    "selinuxLabel",
    "ioPriority",
    "scheduler",
    "execCPUAffinity",
    "oomScoreAdj",
];

/// Parts of a configuration, in its words; the filter's rules may be compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    pub seccomp: Json,
    personality: Json,
    process: Json,
}

impl Defaults {
    /// Of a container's configuration.
    pub fn of(config: &Json) -> Defaults {
        let process = config.get("process");
        let given = OF_PROCESS.iter().filter(|key| !is_absent(process.get(key)));
        Defaults {
            seccomp: config.at("linux.seccomp").clone(),
            personality: config.at("linux.personality").clone(),
            process: object(given.map(|key| (*key, process.get(key).clone()))),
        }
    }

    /// For the state file.
    pub fn keep(&self) -> Json {
        let parts = [("seccomp", &self.seccomp), ("personality", &self.personality), ("process", &self.process)];
        object(parts.into_iter().filter(|(_, part)| !part.is_null()).map(|(key, part)| (key, part.clone())))
    }

    /// From the state file; none in one of an older launcher.
    pub fn kept(json: &Json) -> Option<Defaults> {
        let part = |key: &str| json.get(key).clone();
        let defaults =
            || Defaults { seccomp: part("seccomp"), personality: part("personality"), process: part("process") };
        (!json.is_null()).then(defaults)
    }

    pub fn filter(&self) -> Result<Option<Filter>> {
        Filter::of(&self.seccomp)
    }

    pub fn personality(&self) -> Result<Option<u64>> {
        scheduling::personality(&self.personality)
    }

    /// Gives a process what it has not.
    pub fn fill(&self, process: &mut Json) {
        let missing: Vec<_> =
            self.process.members().iter().filter(|(key, _)| is_absent(process.get(key))).cloned().collect();
        if let Json::Obj(members) = process {
            members.extend(missing);
        }
    }
}

/// No set of capabilities is not an empty one; of texts and lists the empty ones say nothing (Go's zero values).
fn is_absent(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Str(text) => text.is_empty(),
        Json::Arr(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_process_has_what_it_leaves_out_of_its_container() {
        let config = parsed(
            r#"{"process":{"args":["a"],"env":["A=b"],"noNewPrivileges":true,"capabilities":{"bounding":["CAP_KILL"]},"apparmorProfile":"box",
                "rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}],"oomScoreAdj":5},"linux":{"personality":{"domain":"LINUX32"}}}"#,
        );
        let kept = Defaults::kept(&parsed(&Defaults::of(&config).keep().to_string())).unwrap();
        assert_eq!(kept, Defaults::of(&config));
        assert_eq!(kept.personality().unwrap(), Some(8));
        assert!(kept.filter().unwrap().is_none());
        let mut process = parsed(r#"{"args":["b"],"cwd":"/","rlimits":[],"apparmorProfile":""}"#);
        kept.fill(&mut process);
        assert_eq!(process.get("apparmorProfile").str(), Some("box"));
        assert_eq!(process.at("capabilities.bounding").strings(), ["CAP_KILL"]);
        assert_eq!((process.get("rlimits").items().len(), process.get("oomScoreAdj").i64()), (1, Some(5)));
        // Only its own: what it runs, and whether it may gain rights.
        assert!(process.get("env").is_null() && process.get("noNewPrivileges").is_null());
        let mut own = parsed(r#"{"capabilities":{},"apparmorProfile":"unconfined","oomScoreAdj":0}"#);
        kept.fill(&mut own);
        assert_eq!((own.get("capabilities").members().len(), own.get("oomScoreAdj").i64()), (0, Some(0)));
        assert_eq!(own.get("apparmorProfile").str(), Some("unconfined"));
        assert_eq!(Defaults::kept(&Json::Null), None);
    }
}
