//! `lab demo`: the main job, told by its own commands.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::{
    down,
    paths::Paths,
    story::{self, Expect, Step},
    up::{self, Wish},
};

/// The sample application.
pub const GUESTBOOK: &str = concat!(
    include_str!("../../../manifests/guestbook/backend.yaml"),
    "---\n",
    include_str!("../../../manifests/guestbook/frontend.yaml"),
);

const STORY: &[Step] = &[
    Step { arguments: "get nodes -o wide", expect: Expect::Lines(3, " Ready ") },
    Step {
        arguments: "create deployment web --image=coracle/hello:v1 --replicas=3",
        expect: Expect::Shows(&["deployment.apps/web created"]),
    },
    Step { arguments: "rollout status deployment/web", expect: Expect::Shows(&["successfully rolled out"]) },
    Step { arguments: "get pods -o wide", expect: Expect::Lines(3, " Running ") },
    Step { arguments: "scale deployment web --replicas=9", expect: Expect::Shows(&["deployment.apps/web scaled"]) },
    Step { arguments: "rollout status deployment/web", expect: Expect::Shows(&["successfully rolled out"]) },
    Step { arguments: "get pods -o wide", expect: Expect::Lines(9, " Running ") },
    Step {
        arguments: "set image deployment/web hello=coracle/hello:v2",
        expect: Expect::Shows(&["deployment.apps/web image updated"]),
    },
    Step { arguments: "rollout status deployment/web", expect: Expect::Shows(&["successfully rolled out"]) },
    Step { arguments: "logs deployment/web", expect: Expect::Shows(&["hello v2 listens"]) },
    Step { arguments: "rollout history deployment/web", expect: Expect::Shows(&["REVISION", "1", "2"]) },
    Step { arguments: "rollout undo deployment/web", expect: Expect::Shows(&["deployment.apps/web rolled back"]) },
    Step { arguments: "rollout status deployment/web", expect: Expect::Shows(&["successfully rolled out"]) },
    Step { arguments: "logs deployment/web", expect: Expect::Shows(&["hello v1 listens"]) },
    Step {
        arguments: "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}",
        expect: Expect::Shows(&["coracle/hello:v1"]),
    },
    Step { arguments: "apply -f -", expect: Expect::Shows(&["deployment.apps/frontend created"]) },
    Step { arguments: "rollout status deployment/frontend", expect: Expect::Shows(&["successfully rolled out"]) },
    Step {
        arguments: "get deployments,services",
        expect: Expect::Shows(&["deployment.apps/frontend", "service/frontend"]),
    },
    Step { arguments: "describe deployment web", expect: Expect::Shows(&["ScalingReplicaSet"]) },
    Step {
        arguments: "get pod missing",
        expect: Expect::Fails("Error from server (NotFound): pods \"missing\" not found"),
    },
    Step { arguments: "delete deployment web", expect: Expect::Shows(&["deployment.apps \"web\" deleted"]) },
];

/// Brings up a lab of three nodes, tells the story, and takes the lab down again unless it is to be kept.
pub async fn demo(paths: &Paths, keep: bool) -> Result<ExitCode> {
    let existed = super::spec::Spec::load(paths)?;
    if let Some(spec) = existed {
        bail!("there is a lab {:?} already; name another one for the demo: coracle lab demo --name demo", spec.name);
    }
    println!("$ coracle lab up --nodes 3 --name {}", paths.name());
    up::up(paths, &Wish { nodes: 3, servers: 1, etcd: Vec::new(), publish: Vec::new(), agent: Vec::new() }).await?;
    let told = tokio::select! {
        told = story::tell(paths, STORY) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if keep {
        println!("\nThe lab stays. Take it down with: coracle lab down --name {}", paths.name());
    } else {
        println!("\n$ coracle lab down --name {}", paths.name());
        down::down(paths).await.context("take the lab down")?;
    }
    told?;
    println!("\nThe story is told: every step showed what it should.");
    Ok(ExitCode::SUCCESS)
}
