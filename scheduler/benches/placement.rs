//! How long one pod takes from the queue to its node, on clusters of several sizes, without the API server.

use std::{hint::black_box, sync::Arc};

use coracle_scheduler::{
    cache::Cache, cycle::Search, plugins::Handle, pod_info::PodInfo, profile::Profile, snapshot::Snapshot,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

fn node(number: usize) -> Value {
    json!({"metadata": {"name": format!("node-{number}"), "labels": {"kubernetes.io/hostname": format!("node-{number}"),
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3)}},
        "status": {"allocatable": {"cpu": "32", "memory": "256Gi", "pods": "110"},
            "images": [{"names": ["registry.example/app:v1"], "sizeBytes": 50_000_000}]}})
}

fn pod(number: usize) -> Arc<PodInfo> {
    let pod = json!({"metadata": {"name": format!("pod-{number}"), "namespace": "default", "uid": format!("uid-{number}"), "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web", "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": "registry.example/app:v1",
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]}});
    // The shape is fixed just above.
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod"))))
}

fn placement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement");
    for nodes in [3, 100, 1000, 5000] {
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        for number in 0..nodes {
            cache.set_node(&Arc::new(serde_json::from_value(node(number)).expect("a node")));
        }
        let profile = Profile::new(&Handle { client: None });
        let mut search = Search::new(7);
        let mut number = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::from_parameter(nodes), &nodes, |bencher, nodes| {
            bencher.iter(|| {
                number += 1;
                let pod = pod(number);
                cache.count_terms(&pod);
                cache.update(&mut snapshot);
                if let Ok(at) = search.place(&profile, &pod, &snapshot) {
                    let name = snapshot.nodes[at].name.clone();
                    cache.assume(pod, &name);
                }
                // Half full at most, so that every run finds the same conditions.
                let full = nodes * 50;
                if number > full {
                    black_box(cache.remove_pod(&format!("uid-{}", number - full)));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, placement);
criterion_main!(benches);
