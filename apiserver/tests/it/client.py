"""A day of the Python client: `python client.py KUBECONFIG`. Ends with an exception when the server does what it should not."""

import json
import re
import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

config.load_kube_config(sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code, error
        return error
    raise AssertionError(f"expected {code}")


assert client.VersionApi().get_code().git_version.startswith("v1.36")
assert "apps" in [group.name for group in client.ApisApi().get_api_versions().groups]

# Typed objects, there and back.
container = client.V1Container(name="c", image="i:1", ports=[client.V1ContainerPort(container_port=80)])
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels={"app": "web"}), spec=client.V1PodSpec(containers=[container])
)
spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template)
made = apps.create_namespaced_deployment(
    "default", client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec), field_manager="maker"
)
assert made.metadata.uid and made.spec.strategy.type == "RollingUpdate"
assert [entry.manager for entry in made.metadata.managed_fields] == ["maker"]
made.spec.replicas = 3
again = apps.replace_namespaced_deployment("web", "default", made)
assert again.metadata.generation == 2
assert refused(409, apps.replace_namespaced_deployment, "web", "default", made).reason == "Conflict"
scaled = apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 5}})
assert scaled.spec.replicas == 5 and scaled.status.selector == "app=web"
patch = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}}
patched = apps.patch_namespaced_deployment("web", "default", patch)
assert sorted(c.name for c in patched.spec.template.spec.containers) == ["c", "side"]
refused(404, apps.read_namespaced_deployment, "none", "default")
assert "spec.replicas" in refused(422, apps.patch_namespaced_deployment, "web", "default", {"spec": {"replicas": -1}}).body

# Pages, and a watch from where they end.
for nth in range(7):
    core.create_namespaced_config_map("default", client.V1ConfigMap(metadata={"name": f"m{nth}", "labels": {"t": "1"}}, data={"k": "v"}))
names, token = [], None
while True:
    page = core.list_namespaced_config_map("default", label_selector="t=1", limit=3, _continue=token)
    names += [item.metadata.name for item in page.items]
    token = page.metadata._continue
    if not token:
        break
assert names == [f"m{nth}" for nth in range(7)], names
core.delete_namespaced_config_map("m0", "default")
core.patch_namespaced_config_map("m1", "default", {"data": {"k": "w"}})
watcher, seen = watch.Watch(), []
for event in watcher.stream(
    core.list_namespaced_config_map, "default", label_selector="t=1", resource_version=page.metadata.resource_version, timeout_seconds=20
):
    seen.append((event["type"], event["object"].metadata.name))
    if len(seen) == 2:
        watcher.stop()
assert seen == [("DELETED", "m0"), ("MODIFIED", "m1")], seen

# Without types: discovery, server-side apply, conflicts.
untyped = dynamic.DynamicClient(client.ApiClient())
maps = untyped.resources.get(api_version="v1", kind="ConfigMap")
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
maps.server_side_apply(body=body, namespace="default", field_manager="one")
body["data"] = {"a": "2"}
try:
    maps.server_side_apply(body=body, namespace="default", field_manager="two")
    raise AssertionError("expected a conflict")
except dynamic.exceptions.ConflictError as error:
    assert "conflict with" in error.body, error.body
applied = maps.server_side_apply(body=body, namespace="default", field_manager="two", force_conflicts=True)
assert applied.data.a == "2"
core.delete_collection_namespaced_config_map("default", label_selector="t=1")
assert core.list_namespaced_config_map("default", label_selector="t=1").items == []


# Every operation that the server tells of is a method of this client, which was generated from upstream's document of this
# version; its methods take the same. (Upstream tells of `watch/` paths, too; the generator leaves them out.)
def snake(name):
    return re.sub(r"([a-z\d])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)).lower()


def upper_first(name):
    return name[0].upper() + name[1:]


answer = client.ApiClient().call_api("/openapi/v2", "GET", _preload_content=False, _return_http_data_only=True)
document = json.loads(answer.data)
operations = set()
for path, item in document["paths"].items():
    of_path = item.pop("parameters", [])
    for method, operation in item.items():
        [tag], name = operation["tags"], operation["operationId"]
        assert name not in operations, name
        operations.add(name)
        if "/watch/" in path:
            assert name.startswith("watch"), name
            continue
        middle = "".join(map(upper_first, tag.split("_")))
        api = getattr(client, middle + "Api")
        call = getattr(api, snake(name.replace(middle, "", 1)))
        parameters = [
            document["parameters"][each["$ref"].removeprefix("#/parameters/")] if "$ref" in each else each
            for each in of_path + operation.get("parameters", [])
        ]
        documented = set(re.findall(r":param (\w+):", call.__doc__)) - {"async_req", "_preload_content", "_request_timeout", "_return_http_data_only", "_request_auth", "_headers", "_content_type"}
        # Of an alpha feature.
        documented.discard("shard_selector")
        taken = {snake(each["name"]) for each in parameters}
        taken = {"_continue" if name == "continue" else name for name in taken}
        assert documented - {"path2"} == taken, (name, documented, taken)
assert len(operations) > 700, len(operations)
print("done")
