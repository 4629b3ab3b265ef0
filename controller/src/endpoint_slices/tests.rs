use super::*;
use coracle_api::json::{Value, json};
use coracle_client::{Action, Step, Verb};

fn service(ports: Value) -> Service {
    coracle_api::json::from_value(
        json!({"metadata": {"name": "web", "namespace": "d", "uid": "s", "labels": {"tier": "front"}},
        "spec": {"selector": {"app": "web"}, "ports": ports, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"]}}),
    )
    .unwrap()
}

fn pod(name: &str, address: &str, ready: bool) -> Pod {
    coracle_api::json::from_value(
        json!({"metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}),
    )
    .unwrap()
}

/// Applies the plan's slices and endpoints as the server would.
#[derive(Default)]
struct World {
    services: Vec<Service>,
    pods: Vec<Pod>,
    slices: Vec<EndpointSlice>,
    endpoints: Vec<Endpoints>,
    made: usize,
}

impl World {
    fn step(&mut self) -> Vec<String> {
        let state = State {
            services: Arc::new(Snapshot::of(self.services.clone(), &[])),
            pods: Arc::new(Snapshot::of(self.pods.clone(), &[])),
            nodes: Arc::default(),
            slices: Arc::new(Snapshot::of(self.slices.clone(), &[(BY_SERVICE, by_service)])),
            endpoints: Arc::new(Snapshot::of(self.endpoints.clone(), &[])),
        };
        let plan = plan(&state, &Key::new("d", "web"));
        for action in plan.actions.iter().flat_map(Step::actions) {
            self.apply(action);
        }
        plan.describe()
    }

    fn apply(&mut self, action: &Action) {
        let slices = action.resource.kind == "EndpointSlice";
        match &action.verb {
            Verb::Create(body) if slices => {
                self.made += 1;
                let mut slice: EndpointSlice = coracle_api::json::from_value(body.clone()).unwrap();
                slice.metadata.name = Some(format!("web-{}", self.made));
                self.slices.push(slice);
            }
            Verb::Create(body) => self.endpoints.push(coracle_api::json::from_value(body.clone()).unwrap()),
            Verb::Update { body, .. } if slices => {
                let slice =
                    self.slices.iter_mut().find(|slice| slice.metadata.name.as_deref() == Some(&action.name)).unwrap();
                *slice = coracle_api::json::from_value(body.clone()).unwrap();
            }
            Verb::Update { body, .. } => self.endpoints = vec![coracle_api::json::from_value(body.clone()).unwrap()],
            Verb::Delete { .. } if slices => {
                self.slices.retain(|slice| slice.metadata.name.as_deref() != Some(&action.name))
            }
            Verb::Delete { .. } => self.endpoints.clear(),
            other => panic!("{other:?}"),
        }
    }

    fn sizes(&self) -> Vec<usize> {
        self.slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
    }
}

#[test]
fn pods_come_and_go() {
    let mut world = World { services: vec![service(json!([{"port": 80, "targetPort": "http"}]))], ..World::default() };
    assert_eq!(world.step(), ["create endpointslices.discovery.k8s.io d/", "create endpoints d/web"]);
    assert_eq!((world.sizes(), world.step()), (vec![0], vec![]));
    world.pods = vec![pod("a", "10.1.0.1", true), pod("b", "10.1.0.2", false)];
    world.step();
    assert_eq!(world.step(), Vec::<String>::new());
    let slice = &world.slices[0];
    let labels = json!({"tier": "front", SERVICE_NAME: "web", MANAGED_BY: CONTROLLER});
    assert_eq!((json!(slice.metadata.labels), slice.ports.as_ref().unwrap()[0].port), (labels, Some(8080)));
    let described: Vec<_> =
        slice.endpoints.iter().flatten().map(|endpoint| json!([endpoint.addresses, endpoint.conditions])).collect();
    assert_eq!(
        json!(described),
        json!([
            [["10.1.0.1"], {"ready": true, "serving": true, "terminating": false}],
            [["10.1.0.2"], {"ready": false, "serving": false, "terminating": false}],
        ])
    );
    let subset = json!(world.endpoints[0].subsets.as_ref().unwrap()[0]);
    assert_eq!(
        (&subset["addresses"][0]["ip"], &subset["notReadyAddresses"][0]["ip"], &subset["ports"]),
        (&json!("10.1.0.1"), &json!("10.1.0.2"), &json!([{"port": 8080, "protocol": "TCP"}]))
    );
    world.pods[1] = pod("b", "10.1.0.2", true);
    assert_eq!(world.step(), ["update endpointslices.discovery.k8s.io d/web-2", "update endpoints d/web"]);
    world.pods.clear();
    world.step();
    assert_eq!((world.sizes(), world.endpoints[0].subsets.is_none()), (vec![0], true));
    world.services.clear();
    assert_eq!(world.step(), ["delete endpoints d/web"]);
}

#[test]
fn slices_hold_a_hundred_and_are_refilled() {
    let mut world = World { services: vec![service(json!([{"port": 80}]))], ..World::default() };
    world.pods = (0..250)
        .map(|number| pod(&format!("p{number:03}"), &format!("10.1.{}.{}", number / 200, number % 200 + 1), true))
        .collect();
    world.step();
    assert_eq!(world.sizes(), [100, 100, 50]);
    world.pods.drain(..30);
    world.pods.push(pod("new", "10.2.0.1", true));
    world.step();
    assert_eq!(world.sizes(), [71, 100, 50], "the slice that is written anyway takes the new one");
    assert_eq!(world.step(), Vec::<String>::new());
}

#[test]
fn services_without_selector_are_left_alone() {
    let mut service = service(json!([{"port": 80}]));
    service.spec.as_mut().unwrap().selector = None;
    let mut world = World { services: vec![service], ..World::default() };
    assert_eq!(world.step(), Vec::<String>::new());
}
