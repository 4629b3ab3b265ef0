//! Snapshots of a pod, and the actions and states that come of them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::observed::{Instance, Observed, Sandbox, State};
use crate::pod::resources;

/// A situation, changed step by step.
struct Case {
    pod: Pod,
    wanted: Wanted,
    observed: Observed,
    memory: Memory,
    last: Option<PodStatus>,
    /// What the pod asks for, where that is not what it has been given.
    desired: Option<Pod>,
    resize: Resize,
    group: Option<LinuxContainerResources>,
    seconds: i64,
    apparmor: bool,
    sysctls: Vec<SysctlPattern>,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn case(spec: Value) -> Case {
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
    let memory = Memory { volumes_ready: true, ..Memory::default() };
    Case {
        pod: serde_json::from_value(pod).unwrap(),
        wanted: Wanted::Run,
        observed: Observed::default(),
        memory,
        last: None,
        desired: None,
        resize: Resize::default(),
        group: None,
        seconds: 1000,
        apparmor: false,
        sysctls: Vec::new(),
    }
}

fn web(policy: &str) -> Case {
    case(json!({"restartPolicy": policy, "containers": [{"name": "web", "image": "i"}]})).sandbox("s", true)
}

impl Case {
    fn sandbox(mut self, id: &str, ready: bool) -> Self {
        let attempt = self.observed.sandboxes.len() as u32;
        let addresses = vec!["10.0.0.1".to_owned()];
        self.observed
            .sandboxes
            .insert(0, Sandbox { id: id.into(), attempt, ready, created: at(900), addresses, resources: None });
        self
    }

    /// A run; healthy when it runs.
    fn run(mut self, name: &str, attempt: u32, state: State, exit_code: i32, finished: i64) -> Self {
        let id = format!("{name}-{attempt}");
        let (_, container) = crate::pod::container(&self.pod, name).unwrap();
        let hash = crate::pod::definition_hash(&container);
        if state == State::Running {
            self.memory.health.insert(id.clone(), Health { started: true, ready: true, failed: None });
        }
        let instance = Instance {
            id,
            name: name.into(),
            sandbox: self.observed.sandboxes[0].id.clone(),
            attempt,
            state,
            created: at(900 + i64::from(attempt)),
            started: Some(at(900)),
            finished: (state == State::Exited).then(|| at(finished)),
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: "i".into(),
            image_id: "sha256:i".into(),
            hash,
            log_path: String::new(),
            resources: None,
        };
        self.observed.instances.insert(0, instance);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn plan(&self) -> Plan {
        plan(Input {
            pod: &self.pod,
            desired: self.desired.as_ref().unwrap_or(&self.pod),
            resize: &self.resize,
            group: self.group.as_ref(),
            wanted: self.wanted,
            observed: &self.observed,
            memory: &self.memory,
            last: self.last.as_ref(),
            apparmor: self.apparmor,
            sysctls: &self.sysctls,
            host_ip: "192.0.2.1",
            runtime: "containerd",
            now: at(self.seconds),
        })
    }

    fn actions(&self) -> Vec<String> {
        self.plan().actions.iter().map(Action::to_string).collect()
    }

    /// `phase: container=state …; Ready`
    fn status(&self) -> String {
        let status = self.plan().status;
        let mut out = status.phase.unwrap_or_default();
        for container in
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        {
            let state = container.state.clone().unwrap_or_default();
            let word = match (state.waiting, state.running, state.terminated) {
                (Some(waiting), ..) => waiting.reason.unwrap_or_default(),
                (_, Some(_), _) => "running".into(),
                (.., Some(ended)) => format!("{}({})", ended.reason.unwrap_or_default(), ended.exit_code),
                _ => "?".into(),
            };
            out.push_str(&format!(" {}={word}/{}", container.name, container.restart_count));
        }
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        out + if ready { " ready" } else { "" }
    }
}

#[test]
fn a_pod_comes_up() {
    let fresh = case(json!({"containers": [{"name": "web", "image": "i"}]})).with(|c| c.memory.volumes_ready = false);
    assert_eq!(fresh.actions(), ["prepare volumes", "create sandbox #0"]);
    assert_eq!(fresh.status(), "Pending web=ContainerCreating/0");
    let busy = fresh.with(|c| {
        c.memory.busy.volumes = true;
        c.memory.busy.sandbox = true;
    });
    assert!(busy.actions().is_empty());
    assert_eq!(web("Always").actions(), ["start web #0"]);
    let up = web("Always").run("web", 0, State::Running, 0, 0);
    assert!(up.actions().is_empty());
    assert_eq!(up.status(), "Running web=running/0 ready");
    assert_eq!(up.plan().status.container_statuses.unwrap()[0].container_id.as_deref(), Some("containerd://web-0"));
}

#[test]
fn containers_start_one_after_the_other() {
    let two =
        || case(json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})).sandbox("s", true);
    assert_eq!(two().actions(), ["start a #0"]);
    assert!(two().with(|c| c.memory.busy.starting.extend(["a".to_owned()])).actions().is_empty());
    assert_eq!(two().run("a", 0, State::Running, 0, 0).actions(), ["start b #0"]);
    // One that cannot start does not hold back the next.
    let failed = two().with(|c| {
        let failure =
            Failure { reason: "ErrImagePull", message: "no".into(), since: at(999), retry_at: at(1009), count: 1 };
        c.memory.start_failures.insert("a".into(), failure);
    });
    assert_eq!(failed.actions(), ["start b #0"]);
    assert_eq!(failed.status(), "Pending a=ErrImagePull/0 b=ContainerCreating/0");
}

#[test]
fn restart_policies() {
    let rows = [
        ("Always", 0, vec!["start web #1"], "Running web=Completed(0)/0"),
        ("Always", 1, vec!["start web #1"], "Running web=Error(1)/0"),
        ("OnFailure", 0, vec!["stop sandbox s"], "Succeeded web=Completed(0)/0"),
        ("OnFailure", 1, vec!["start web #1"], "Running web=Error(1)/0"),
        ("Never", 0, vec!["stop sandbox s"], "Succeeded web=Completed(0)/0"),
        ("Never", 1, vec!["stop sandbox s"], "Failed web=Error(1)/0"),
    ];
    for (policy, code, actions, status) in rows {
        let ended = web(policy).run("web", 0, State::Exited, code, 999);
        assert_eq!(
            (ended.actions(), ended.status()),
            (actions.into_iter().map(str::to_owned).collect(), status.to_owned()),
            "{policy} {code}"
        );
    }
}

#[test]
fn crashes_back_off() {
    let crashed = web("Always").run("web", 1, State::Exited, 1, 999).with(|c| {
        c.memory.restarts.insert("web".into(), Backoff::after(None, at(990)));
    });
    assert_eq!(crashed.actions(), ["tell BackOff: Back-off restarting failed container web in pod p_n(u)"]);
    assert_eq!(crashed.status(), "Running web=CrashLoopBackOff/1");
    let status = crashed.plan().status.container_statuses.unwrap().remove(0);
    assert_eq!(
        status.state.unwrap().waiting.unwrap().message.unwrap(),
        "back-off 10s restarting failed container=web pod=p_n(u)"
    );
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 1);
    assert_eq!(crashed.plan().wake, Some(at(1009)));
    let told = crashed.with(|c| drop(c.memory.told.insert("web".into(), "web-1".into())));
    assert!(told.actions().is_empty());
    assert_eq!(told.with(|c| c.seconds = 1009).actions(), ["start web #2"]);
}

#[test]
fn failed_pulls_are_shown_and_tried_again() {
    let failed = |seconds: i64| {
        web("Always").with(|c| {
            c.seconds = seconds;
            let failure = Failure {
                reason: "ErrImagePull",
                message: "rpc error".into(),
                since: at(1000),
                retry_at: at(1010),
                count: 1,
            };
            c.memory.start_failures.insert("web".into(), failure);
        })
    };
    assert_eq!((failed(1001).actions().len(), failed(1001).status()), (0, "Pending web=ErrImagePull/0".into()));
    assert_eq!(
        failed(1006).actions(),
        ["tell Failed: Error: ImagePullBackOff", "tell BackOff: Back-off pulling image \"i\""]
    );
    assert_eq!(failed(1006).status(), "Pending web=ImagePullBackOff/0");
    assert_eq!(failed(1010).actions(), ["start web #0"]);
}

#[test]
fn init_containers_go_first() {
    let pod = || {
        case(json!({"restartPolicy": "Never", "initContainers": [{"name": "i1", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always"}, {"name": "i2", "image": "i"}],
            "containers": [{"name": "web", "image": "i"}]}))
        .sandbox("s", true)
    };
    assert_eq!(pod().actions(), ["start i1 #0"]);
    let done = || pod().run("i1", 0, State::Exited, 0, 990);
    assert_eq!(done().actions(), ["start side #0"]);
    assert_eq!(
        done().status(),
        "Pending i1=Completed(0)/0 side=PodInitializing/0 i2=PodInitializing/0 web=PodInitializing/0"
    );
    let side = || done().run("side", 0, State::Running, 0, 0);
    assert_eq!(side().actions(), ["start i2 #0"]);
    let up = || side().run("i2", 0, State::Exited, 0, 995);
    assert_eq!(up().actions(), ["start web #0"]);
    assert_eq!(
        up().run("web", 0, State::Running, 0, 0).status(),
        "Running i1=Completed(0)/0 side=running/0 i2=Completed(0)/0 web=running/0 ready"
    );
    let failed = pod().run("i1", 0, State::Exited, 3, 990);
    assert_eq!(
        (failed.actions(), failed.status()),
        (
            vec!["stop sandbox s".to_owned()],
            "Failed i1=Error(3)/0 side=PodInitializing/0 i2=PodInitializing/0 web=PodInitializing/0".into()
        )
    );
    // The app has ended: the sidecar is ended too, and the pod has succeeded.
    let over = up().run("web", 0, State::Exited, 0, 999);
    assert_eq!(over.status().split(' ').next(), Some("Succeeded"));
}

#[test]
fn probes_end_containers() {
    let sick = |probe: &'static str, grace: Option<i64>| {
        web("Always").run("web", 0, State::Running, 0, 0).with(|c| {
            c.memory.health.insert(
                "web-0".into(),
                Health { started: true, ready: false, failed: Some(FailedProbe { probe, grace }) },
            );
        })
    };
    assert_eq!(
        sick("liveness", None).actions(),
        ["stop web-0 in 30s: Container web failed liveness probe, will be restarted"]
    );
    assert_eq!(
        sick("startup", Some(3)).actions(),
        ["stop web-0 in 3s: Container web failed startup probe, will be restarted"]
    );
    assert_eq!(sick("liveness", None).status(), "Running web=running/0");
    let changed = web("Always")
        .run("web", 0, State::Running, 0, 0)
        .with(|c| c.pod.spec.as_mut().unwrap().containers[0].image = Some("j".into()));
    assert_eq!(changed.actions(), ["stop web-0 in 30s: Container web definition changed, will be restarted"]);
}

#[test]
fn a_lost_sandbox_is_made_again() {
    let lost = || {
        case(json!({"containers": [{"name": "web", "image": "i"}]}))
            .sandbox("s", true)
            .run("web", 0, State::Running, 0, 0)
            .with(|c| c.observed.sandboxes[0].ready = false)
    };
    assert_eq!(lost().actions(), ["stop web-0 in 30s: Pod sandbox changed, it will be killed and re-created."]);
    let ended = || lost().with(|c| c.observed.instances[0].state = State::Unknown);
    assert_eq!(ended().actions(), ["create sandbox #1"]);
    let again = ended().sandbox("t", true);
    assert_eq!(again.actions(), ["start web #1"]);
    // What ended for good beside it stays so: its status would not be taken any more.
    let beside = || json!({"name": "job", "image": "i", "restartPolicy": "Never"});
    let both = case(json!({"containers": [beside(), {"name": "web", "image": "i"}]}))
        .sandbox("s", true)
        .run("web", 0, State::Unknown, 0, 0)
        .run("job", 0, State::Exited, 0, 0)
        .with(|c| c.observed.sandboxes[0].ready = false)
        .sandbox("t", true);
    assert_eq!(both.actions(), ["start web #1"]);
    // A job that is done is left alone.
    let job = web("Never").run("web", 0, State::Exited, 0, 990).with(|c| c.observed.sandboxes[0].ready = false);
    assert!(job.actions().is_empty());
}

/// A kubelet that died between the two calls left it: another is made, and nothing is said to have run (kuberuntime,
/// `ShouldContainerBeRestarted`).
#[test]
fn a_container_that_was_never_started_is_not_lost() {
    let created = || web("Never").run("web", 0, State::Created, 0, 0);
    assert_eq!(created().actions(), ["start web #1"]);
    assert_eq!(created().status(), "Pending web=ContainerCreating/0");
}

#[test]
fn a_pod_is_deleted_step_by_step() {
    let deleted = |running: State| {
        web("Always").run("web", 0, running, 0, 1000).with(|c| {
            c.wanted = Wanted::End;
            c.pod.metadata.deletion_grace_period_seconds = Some(30);
            c.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1020)));
        })
    };
    assert_eq!(deleted(State::Running).actions(), ["stop web-0 in 20s: Stopping container web"]);
    assert!(deleted(State::Running).with(|c| c.memory.busy.stopping.extend(["web-0".to_owned()])).actions().is_empty());
    assert_eq!(deleted(State::Exited).actions(), ["stop sandbox s"]);
    assert_eq!(deleted(State::Exited).status(), "Succeeded web=Completed(0)/0");
    let stopped = || deleted(State::Exited).with(|c| c.observed.sandboxes[0].ready = false);
    assert_eq!(stopped().actions(), ["finish"]);
    assert!(stopped().with(|c| c.memory.finished = true).actions().is_empty());
    let gone = || stopped().with(|c| c.wanted = Wanted::Gone);
    assert_eq!(gone().actions(), ["remove sandbox s"]);
    let removed = || gone().with(|c| c.observed = Observed::default());
    assert_eq!(removed().actions(), ["clean up"]);
    assert!(removed().with(|c| c.memory.cleaned = true).plan().done);
}

#[test]
fn sidecars_are_stopped_last() {
    let pod = case(json!({"initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always"}], "containers": [{"name": "web", "image": "i"}]}))
        .sandbox("s", true)
        .run("side", 0, State::Running, 0, 0)
        .run("web", 0, State::Running, 0, 0)
        .with(|c| c.wanted = Wanted::Gone);
    assert_eq!(pod.actions(), ["stop web-0 in 30s: Stopping container web"]);
    let next = pod.with(|c| c.observed.instances[0].state = State::Exited);
    assert_eq!(next.actions(), ["stop side-0 in 30s: Stopping container side"]);
}

#[test]
fn a_pod_may_outlive_its_deadline() {
    let late = web("Always").run("web", 0, State::Running, 0, 0).with(|c| {
        c.pod.spec.as_mut().unwrap().active_deadline_seconds = Some(60);
        c.last = Some(PodStatus {
            start_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(930))),
            ..PodStatus::default()
        });
    });
    assert_eq!(late.actions(), ["stop web-0 in 30s: Stopping container web"]);
    let status = late.plan().status;
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    let soon = late.with(|c| c.seconds = 980);
    assert_eq!(soon.plan().wake, Some(at(990)));
}

#[test]
fn a_pod_that_needs_what_the_node_does_not_declare_is_rejected() {
    // The server takes no such pod from users: it may come from a server that has the gate on.
    let pod = case(json!({"hostNetwork": true, "hostUsers": false, "containers": [{"name": "web", "image": "i"}]}));
    const WHY: &str = "Pod requires node features that are not available: UserNamespacesHostNetworkSupport";
    assert_eq!(pod.actions(), [format!("tell PodFeatureUnsupported: {WHY}")]);
    let Plan { status, .. } = pod.plan();
    let said = |status: &PodStatus| (status.phase.clone(), status.reason.clone(), status.message.clone());
    let words = (Some("Failed".into()), Some("PodFeatureUnsupported".into()), Some(format!("Pod was rejected: {WHY}")));
    assert_eq!(said(&status), words);
    assert_eq!(said(&pod.with(|c| c.last = Some(status)).plan().status), words, "it stays so");
}

#[test]
fn a_profile_that_the_node_cannot_enforce_is_no_pod_of_it() {
    let asks = || {
        let mut pod = case(json!({"restartPolicy": "Always", "containers": [{"name": "web", "image": "i",
            "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}]}));
        pod.memory.volumes_ready = false;
        pod
    };
    const WHY: &str = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    let rejected = asks();
    assert_eq!(rejected.actions(), [format!("tell AppArmor: {WHY}")]);
    let Plan { status, .. } = rejected.plan();
    let said = |status: &PodStatus| (status.phase.clone(), status.reason.clone(), status.message.clone());
    let words = (Some("Failed".into()), Some("AppArmor".into()), Some(format!("Pod was rejected: {WHY}")));
    assert_eq!((said(&status), &status.container_statuses, &status.conditions), (words.clone(), &None, &None));
    // It is told once, and stays so: also to the next kubelet, and when the object is to go.
    let again = rejected.with(|c| c.last = Some(status.clone()));
    assert!(again.actions().is_empty());
    assert_eq!(again.plan().status, status);
    let later = asks().with(|c| c.pod.status = Some(status.clone()));
    assert_eq!((later.actions(), said(&later.plan().status)), (Vec::new(), words));
    assert_eq!(later.with(|c| c.wanted = Wanted::End).actions(), ["finish"]);
    // Where there is AppArmor it is begun, and what runs is left alone.
    assert_eq!(asks().with(|c| c.apparmor = true).actions(), ["prepare volumes", "create sandbox #0"]);
    let running = asks().sandbox("s", true).run("web", 0, State::Running, 0, 0);
    assert!(running.status().starts_with("Running"));
}

#[test]
fn a_pod_that_would_set_the_nodes_parameters_is_no_pod_of_it() {
    let asks = |name: &str| {
        let mut pod = case(json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]},
            "containers": [{"name": "web", "image": "i"}]}));
        pod.memory.volumes_ready = false;
        pod
    };
    const WHY: &str = "forbidden sysctl: \"kernel.core_pattern\" not allowlisted";
    let rejected = asks("kernel.core_pattern");
    assert_eq!(rejected.actions(), [format!("tell SysctlForbidden: {WHY}")]);
    let status = rejected.plan().status;
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("SysctlForbidden")));
    assert_eq!(status.message, Some(format!("Pod was rejected: {WHY}")));
    let later = asks("kernel.core_pattern").with(|c| c.pod.status = Some(status.clone()));
    assert_eq!((later.actions(), later.plan().status), (Vec::new(), status));
    assert_eq!(asks("kernel.shm_rmid_forced").actions(), ["prepare volumes", "create sandbox #0"]);
    assert!(asks("net.core.somaxconn").plan().status.reason.as_deref() == Some("SysctlForbidden"));
    let allowed = asks("net.core.somaxconn").with(|c| c.sysctls = vec!["net.core.*".parse().unwrap()]);
    assert_eq!(allowed.actions(), ["prepare volumes", "create sandbox #0"]);
}

#[test]
fn old_runs_are_removed() {
    let many = web("Always").run("web", 0, State::Exited, 1, 950).run("web", 1, State::Exited, 1, 960).run(
        "web",
        2,
        State::Running,
        0,
        0,
    );
    assert_eq!(many.actions(), ["remove web-0"]);
}

#[test]
fn a_phase_that_is_final_stays() {
    let done = web("Never").run("web", 0, State::Exited, 0, 990);
    let last = done.plan().status;
    let gone = done.with(|c| {
        c.last = Some(last);
        c.observed = Observed::default();
    });
    assert_eq!(gone.plan().status.phase.as_deref(), Some("Succeeded"));
    assert!(gone.actions().is_empty());
}

#[test]
fn transition_times_stay_while_nothing_changes() {
    let up = web("Always").run("web", 0, State::Running, 0, 0);
    let first = up.plan().status;
    let later = up.with(|c| {
        c.last = Some(first.clone());
        c.seconds += 60;
    });
    assert_eq!(later.plan().status, first);
}

#[test]
fn ephemeral_containers_run_once() {
    let looked_into = || {
        web("Always").run("web", 0, State::Running, 0, 0).with(|c| {
            let one = json!([{"name": "look", "image": "tools", "targetContainerName": "web", "stdin": true}]);
            c.pod.spec.as_mut().unwrap().ephemeral_containers = Some(serde_json::from_value(one).unwrap());
        })
    };
    assert_eq!(looked_into().actions(), ["start look #0"]);
    let status = |case: &Case| case.plan().status.ephemeral_container_statuses.unwrap().remove(0);
    let waiting = status(&looked_into()).state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ContainerCreating"));
    let looks = looked_into().run("look", 0, State::Running, 0, 0);
    assert!(looks.actions().is_empty());
    assert!(status(&looks).state.unwrap().running.is_some() && !status(&looks).ready);
    assert_eq!(looks.plan().status.phase.as_deref(), Some("Running"));
    let ended = looked_into().run("look", 0, State::Exited, 1, 990);
    assert!(ended.actions().is_empty(), "it is not started again");
    assert_eq!(status(&ended).state.unwrap().terminated.unwrap().exit_code, 1);
    let gone = looks.with(|c| c.wanted = Wanted::Gone);
    let stops = gone.actions();
    assert!(stops.iter().any(|action| action.starts_with("stop look-0")), "{stops:?}");
}

/// A pod that has been given `given` of what it asks for, with a run that was started with 1 CPU.
fn resized(given: Value, policy: Value) -> Case {
    let spec = json!({"containers": [{"name": "web", "image": "i", "resources": given, "resizePolicy": policy}]});
    case(spec).sandbox("s", true).run("web", 0, State::Running, 0, 0).with(|c| {
        c.pod.metadata.generation = Some(2);
        c.resize.generation = Some(2);
        let started = json!({"requests": {"cpu": "1"}});
        c.observed.instances[0].resources = Some(serde_json::from_value(started).unwrap());
    })
}

fn resize_conditions(case: &Case) -> Vec<String> {
    let conditions = case.plan().status.conditions.unwrap();
    let resize = conditions.iter().filter(|c| c.type_.starts_with("PodResize"));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    resize.map(|c| format!("{} {} {}", c.type_, text(&c.reason), text(&c.message)).trim().to_owned()).collect()
}

/// Since v1.36 also one that ends, while it runs (kubernetes #137352).
#[test]
fn a_running_init_container_is_resized() {
    let init = |state: State| {
        let spec = json!({"containers": [{"name": "web", "image": "i"}],
            "initContainers": [{"name": "first", "image": "i", "resources": {"requests": {"cpu": "2"}}}]});
        case(spec).sandbox("s", true).run("first", 0, state, 0, 990).with(|c| {
            c.pod.metadata.generation = Some(2);
            c.resize.generation = Some(2);
            c.observed.instances[0].resources = serde_json::from_value(json!({"requests": {"cpu": "1"}})).unwrap();
        })
    };
    let runs = init(State::Running);
    let started = "tell ResizeStarted: Pod resize started: {\"initContainers\":[{\"name\":\"first\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}],\"containers\":[{\"name\":\"web\",\"resources\":{}}],\"generation\":2}";
    assert_eq!(runs.actions(), ["resize first-0", started]);
    assert_eq!(resize_conditions(&runs), ["PodResizeInProgress"]);
    assert_eq!(init(State::Exited).actions(), ["start web #0"], "what is over has nothing to change");
}

#[test]
fn a_running_container_is_resized() {
    let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
    assert!(resized(cpu("1000m"), json!([])).actions().is_empty(), "another way to write the same");
    let bigger = || resized(cpu("2"), json!([]));
    let started = "tell ResizeStarted: Pod resize started: {\"containers\":[{\"name\":\"web\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}],\"generation\":2}";
    assert_eq!(bigger().actions(), ["resize web-0", started]);
    assert_eq!(resize_conditions(&bigger()), ["PodResizeInProgress"]);
    let status = bigger().plan().status.container_statuses.unwrap().remove(0);
    assert_eq!(serde_json::to_value(status.resources).unwrap(), cpu("1"));
    assert_eq!(serde_json::to_value(status.allocated_resources).unwrap(), json!({"cpu": "2"}));

    let failed = bigger().with(|c| {
        c.last = Some(c.plan().status);
        c.memory.resize_failure = Some(Failure::again(None, "Error", "no".into(), at(999)));
        c.seconds = 999;
    });
    assert_eq!(resize_conditions(&failed), ["PodResizeInProgress Error no"]);
    assert!(failed.actions()[0].starts_with("tell ResizeError: Pod resize error: "), "{:?}", failed.actions());
    assert_eq!(failed.plan().wake, Some(at(1000)));

    let done = bigger().with(|c| {
        c.last = Some(c.plan().status);
        c.resize.actuated.insert("web-0".into(), serde_json::from_value(cpu("2")).unwrap());
    });
    assert_eq!(done.actions().len(), 1);
    assert!(done.actions()[0].starts_with("tell ResizeCompleted: Pod resize completed: "), "{:?}", done.actions());
    assert!(resize_conditions(&done).is_empty());
    let status = done.plan().status.container_statuses.unwrap().remove(0);
    assert_eq!(serde_json::to_value(status.resources).unwrap(), cpu("2"));
}

#[test]
fn a_container_that_wants_it_is_restarted_to_be_resized() {
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let bigger = || resized(json!({"requests": {"cpu": "2"}}), policy.clone());
    assert_eq!(bigger().actions()[0], "stop web-0 in 30s to resize it");
    // Whatever the restart policy says of a container that has ended well, and without a pause.
    let ended = bigger().with(|c| {
        c.pod.spec.as_mut().unwrap().restart_policy = Some("OnFailure".into());
        c.observed.instances[0].state = State::Exited;
        c.observed.instances[0].finished = Some(at(1000));
        c.memory.restarts.insert("web".into(), Backoff::after(None, at(999)));
        c.memory.resized.insert("web-0".into());
    });
    assert_eq!(ended.actions()[0], "start web #1");
    assert_eq!(resize_conditions(&ended), ["PodResizeInProgress"], "it is not done before the next run");
    let other = resized(json!({"requests": {"cpu": "1", "memory": "1Gi"}}), policy);
    assert_eq!(other.actions()[0], "resize web-0", "the policy is for the other resource");
}

/// KEP-5419: what has no limit has the pod's, and is changed with it; the group grows before a container that restarts for
/// it, and shrinks after it.
#[test]
fn a_whole_pod_is_resized() {
    let pod = |memory: &str, policy: Value| {
        let spec = json!({"resources": {"requests": {"cpu": "2"}, "limits": {"memory": memory}},
            "containers": [{"name": "web", "image": "i", "resizePolicy": policy}]});
        case(spec).sandbox("s", true).run("web", 0, State::Running, 0, 0).with(|c| {
            c.pod.metadata.generation = Some(2);
            c.resize.generation = Some(2);
            let told = json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}});
            let limits = json!({"limits": {"memory": "1Gi"}});
            c.observed.instances[0].resources = Some(serde_json::from_value(limits).unwrap());
            let had = resources::of_pod(&c.pod);
            c.group = Some(LinuxContainerResources { memory_limit_in_bytes: 1 << 30, ..had });
            c.last = Some(PodStatus { resources: Some(serde_json::from_value(told).unwrap()), ..Default::default() });
        })
    };
    let told = |case: &Case| {
        let status = case.plan().status;
        (serde_json::to_value(status.resources).unwrap(), serde_json::to_value(status.allocated_resources).unwrap())
    };
    let limits = |memory: &str| json!({"requests": {"cpu": "2"}, "limits": {"memory": memory}});
    let same = pod("1024Mi", json!([]));
    assert!(same.actions().is_empty(), "{:?}", same.actions());
    assert_eq!(told(&same), (limits("1024Mi"), json!({"cpu": "2"})));

    let bigger = pod("2Gi", json!([]));
    let started = "tell ResizeStarted: Pod resize started: {\"resources\":{\"limits\":{\"memory\":\"2Gi\"},\"requests\":{\"cpu\":\"2\"}},\"containers\":[{\"name\":\"web\",\"resources\":{}}],\"generation\":2}";
    assert_eq!(bigger.actions(), ["resize web-0", started]);
    assert_eq!(resize_conditions(&bigger), ["PodResizeInProgress"]);
    assert_eq!(told(&bigger).0, limits("1Gi"), "what it has still");
    let own = &bigger.plan().status.container_statuses.unwrap()[0].resources;
    assert_eq!(serde_json::to_value(own).unwrap(), json!({}), "the limit is not the container's");

    let grown = |c: &mut Case| c.group = Some(resources::of_pod(&c.pod));
    let done = bigger.with(|c| {
        let limits = json!({"limits": {"memory": "2Gi"}});
        c.resize.actuated.insert("web-0".into(), serde_json::from_value(limits).unwrap());
        grown(c);
    });
    assert!(done.actions().is_empty() && resize_conditions(&done).is_empty());
    assert_eq!(told(&done).0, limits("2Gi"));

    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let whole = |case: &Case| {
        let actions = case.plan().actions;
        actions.iter().find_map(|action| if let Action::Resize { whole, .. } = action { Some(*whole) } else { None })
    };
    let restarted = pod("2Gi", policy.clone());
    assert_eq!(restarted.actions()[..2], ["stop web-0 in 30s to resize it", "resize the pod"]);
    assert_eq!(whole(&restarted), Some(false));
    assert_eq!(whole(&restarted.with(grown)), None);
    let smaller = pod("512Mi", policy);
    assert_eq!(whole(&smaller), None, "not before it has let go");
    let ended = smaller.with(|c| c.observed.instances[0].resources = None);
    assert_eq!((ended.actions()[0].as_str(), whole(&ended)), ("resize the pod", Some(true)));
}

#[test]
fn a_resize_that_has_to_wait_says_why() {
    let waiting = resized(json!({"requests": {"cpu": "1"}}), json!([])).with(|c| {
        let mut desired = c.pod.clone();
        let wanted = json!({"requests": {"cpu": "3"}});
        desired.spec.as_mut().unwrap().containers[0].resources = Some(serde_json::from_value(wanted).unwrap());
        c.desired = Some(desired);
        c.resize.pending = Some(crate::allocation::Pending { reason: "Deferred", message: "full".into() });
    });
    assert_eq!(resize_conditions(&waiting), ["PodResizePending Deferred full"]);
    let told = "tell ResizeDeferred: Pod resize Deferred: {\"containers\":[{\"name\":\"web\",\"resources\":{\"requests\":{\"cpu\":\"3\"}}}],\"generation\":2,\"error\":\"full\"}";
    assert_eq!(waiting.actions(), [told]);
    assert!(waiting.with(|c| c.last = Some(c.plan().status)).actions().is_empty(), "it is told once");
}

#[test]
fn a_container_restarts_by_its_own_rules() {
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let container = json!({"name": "web", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules});
    let ended = |code: i32| {
        let spec = json!({"restartPolicy": "Always", "containers": [container.clone()]});
        case(spec).sandbox("s", true).run("web", 0, State::Exited, code, 990)
    };
    assert_eq!(
        (ended(42).actions(), ended(42).status()),
        (vec!["start web #1".into()], "Running web=Error(42)/0".into())
    );
    assert_eq!(ended(1).actions(), ["stop sandbox s"]);
    assert_eq!(
        (ended(1).status(), ended(0).status()),
        ("Failed web=Error(1)/0".into(), "Succeeded web=Completed(0)/0".into())
    );
}

#[test]
fn all_containers_run_anew_when_a_rule_says_so() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}]);
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "setup", "image": "i"},
            {"name": "watcher", "image": "i", "restartPolicy": "Always", "restartPolicyRules": rules}],
        "containers": [{"name": "web", "image": "i"}, {"name": "once", "image": "i"}]});
    let condition = |case: &Case| {
        let conditions = case.plan().status.conditions.unwrap();
        let found = conditions.into_iter().find(|condition| condition.type_ == "AllContainersRestarting").unwrap();
        (found.status, found.reason.unwrap_or_default())
    };
    let up = || {
        let case = case(spec.clone()).sandbox("s", true).run("setup", 0, State::Exited, 0, 990);
        let case = case.run("watcher", 0, State::Running, 0, 0).run("web", 0, State::Running, 0, 0);
        case.run("once", 0, State::Exited, 0, 990)
    };
    assert_eq!((up().actions(), condition(&up()).0.as_str()), (Vec::<String>::new(), "False"));
    let ended = |mut case: Case, name: &str, code: i32| {
        let instance = case.observed.instances.iter_mut().find(|instance| instance.name == name).unwrap();
        (instance.state, instance.exit_code, instance.finished) = (State::Exited, code, Some(at(999)));
        case
    };
    // Any other code is the policy's.
    assert_eq!(ended(up(), "watcher", 1).actions(), ["start watcher #1"]);
    let begun = ended(up(), "watcher", 88);
    assert_eq!(begun.actions(), ["stop web-0 in 0s: Stopping container web, all containers will be restarted"]);
    assert_eq!(condition(&begun), ("True".to_owned(), "ContainerExited".to_owned()));
    // All that ended goes, whatever it came to; what began it last.
    let quiet = ended(begun.with(|c| c.last = Some(c.plan().status)), "web", 137);
    let mut removed = quiet.actions();
    removed.sort();
    assert_eq!(removed, ["remove once-0", "remove setup-0", "remove web-0"]);
    assert_eq!(quiet.plan().status.phase.as_deref(), Some("Pending"), "the policy says never, but it has not failed");
    let last = quiet.with(|c| {
        c.last = Some(c.plan().status);
        c.observed.instances.retain(|instance| instance.name == "watcher");
    });
    assert_eq!(last.actions(), ["reset watcher-0"]);
    // Had it done so just before, it would wait.
    let waits = last.with(|c| _ = c.memory.restarts.insert("watcher".into(), Backoff::after(None, at(998))));
    assert!(waits.actions().iter().all(|action| !action.starts_with("reset")), "{:?}", waits.actions());
    assert_eq!(waits.plan().wake, Some(at(1009)));
    let empty = waits.with(|c| {
        c.memory.restarts.clear();
        c.last = Some(c.plan().status);
        c.observed.instances.clear();
    });
    // From the start, counted, and with what the runs came to.
    assert_eq!((empty.actions(), condition(&empty).0.as_str()), (vec!["start setup #1".to_owned()], "False"));
    let status = empty.plan().status;
    for told in status.init_container_statuses.iter().chain(&status.container_statuses).flatten() {
        let end = told.last_state.as_ref().and_then(|state| state.terminated.as_ref()).map(|end| end.exit_code);
        let expected = [("setup", 0), ("watcher", 88), ("web", 137), ("once", 0)];
        assert!(expected.contains(&(told.name.as_str(), end.unwrap())) && told.restart_count == 1, "{told:?}");
    }
}
