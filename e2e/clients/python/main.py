"""What programs do with the Python client of Kubernetes: objects, watches, the dynamic client, exec, logs.

It works in the namespace `python`, which it makes and takes away.
"""

import sys
import time
import uuid

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

NAMESPACE = "python"
DEADLINE = 60


def step(text):
    print(f"  {text}", flush=True)


def refused(code, call):
    try:
        answer = call()
    except (ApiException, dynamic.exceptions.DynamicApiError) as error:
        assert error.status == code, f"expected {code}, got {error.status}: {error.body}"
        return error
    raise AssertionError(f"expected {code}, got {answer}")


def until(what, call):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = call()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"it does not come to be that {what}")


def config_maps(core):
    step("typed objects: create, read, list by pages, patch, replace, delete")
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="one", labels={"of": "python"}), data={"a": "1"})
    made = core.create_namespaced_config_map(NAMESPACE, body)
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo, made
    error = refused(409, lambda: core.create_namespaced_config_map(NAMESPACE, body))
    assert error.reason == "Conflict", error.reason
    refused(404, lambda: core.read_namespaced_config_map("nobody", NAMESPACE))
    patched = core.patch_namespaced_config_map("one", NAMESPACE, {"data": {"b": "2"}})
    assert patched.data == {"a": "1", "b": "2"}, patched.data
    operations = [{"op": "replace", "path": "/data/a", "value": "3"}]
    assert core.patch_namespaced_config_map("one", NAMESPACE, operations).data["a"] == "3"
    made.data = {"a": "old"}
    refused(409, lambda: core.replace_namespaced_config_map("one", NAMESPACE, made))
    patched = core.read_namespaced_config_map("one", NAMESPACE)
    patched.data = {"a": "new"}
    assert core.replace_namespaced_config_map("one", NAMESPACE, patched).data == {"a": "new"}
    for number in range(5):
        name = f"page-{number}"
        core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": name, "labels": {"of": "pages"}}})
    seen, token = [], None
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="of=pages", limit=2, _continue=token)
        seen += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert seen == [f"page-{number}" for number in range(5)], seen
    gone = core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="of=pages")
    assert gone is not None
    assert core.list_namespaced_config_map(NAMESPACE, label_selector="of=pages").items == []
    status = core.delete_namespaced_config_map("one", NAMESPACE)
    assert status["status"] == "Success", status
    refused(422, lambda: core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "Not A Name"}}))


def watches(core):
    step("watch: from a list on, to a timeout, and after a compaction of what was asked for")
    version = core.list_namespaced_secret(NAMESPACE).metadata.resource_version
    core.create_namespaced_secret(NAMESPACE, client.V1Secret(metadata={"name": "watched"}, string_data={"a": "1"}))
    core.patch_namespaced_secret("watched", NAMESPACE, {"stringData": {"a": "2"}})
    core.delete_namespaced_secret("watched", NAMESPACE)
    watcher, seen = watch.Watch(), []
    stream_of = watcher.stream(core.list_namespaced_secret, NAMESPACE, resource_version=version, timeout_seconds=20)
    for event in stream_of:
        assert event["object"].metadata.name == "watched", event
        seen.append((event["type"], event["object"].data["a"]))
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == [("ADDED", "MQ=="), ("MODIFIED", "Mg=="), ("DELETED", "Mg==")], seen
    quiet = watch.Watch().stream(core.list_namespaced_secret, NAMESPACE, field_selector="metadata.name=x", timeout_seconds=1)
    assert list(quiet) == []


def deployments(api):
    step("a deployment from YAML is rolled out, scaled, and goes with its pods")
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "nginx", "resources": {"requests": {"cpu": "10m"}}}]},
            },
        },
    }
    utils.create_from_dict(api, manifest)
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    until("two are ready", lambda: apps.read_namespaced_deployment("web", NAMESPACE).status.ready_replicas == 2)
    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    scale.spec.replicas = 1
    apps.replace_namespaced_deployment_scale("web", NAMESPACE, scale)
    until("one is left", lambda: len(core.list_namespaced_pod(NAMESPACE, label_selector="app=web").items) == 1)
    apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")
    until("none is left", lambda: not core.list_namespaced_pod(NAMESPACE, label_selector="app=web").items)
    for kind in (client.BatchV1Api(api).list_job_for_all_namespaces, client.NetworkingV1Api(api).list_ingress_for_all_namespaces):
        kind()


def dynamic_client(api):
    step("the dynamic client finds a kind of its user's own, and applies to it on the server")
    group = "python.example.com"
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "properties": {"level": {"type": "integer", "minimum": 0}}},
                    "status": {"type": "object", "properties": {"level": {"type": "integer"}}},
                },
            }
        },
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gauges.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gauges", "singular": "gauge", "kind": "Gauge"},
            "versions": [version],
        },
    }
    found = dynamic.DynamicClient(api)
    definitions = found.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    definitions.create(body=definition)
    try:
        def established():
            conditions = definitions.get(name=f"gauges.{group}").status.conditions or []
            return any(one.type == "Established" and one.status == "True" for one in conditions)

        until("the kind is served", established)
        found.resources.invalidate_cache()
        gauges = found.resources.get(api_version=f"{group}/v1", kind="Gauge")
        body = {"apiVersion": f"{group}/v1", "kind": "Gauge", "metadata": {"name": "one"}, "spec": {"level": 1}}
        applied = gauges.server_side_apply(body=body, name="one", namespace=NAMESPACE, field_manager="python")
        assert applied.spec.level == 1, applied
        body["spec"]["level"] = 2
        error = refused(409, lambda: gauges.server_side_apply(body=body, name="one", namespace=NAMESPACE, field_manager="other"))
        assert "conflict with" in str(error.body), error.body
        gauges.patch(body={"spec": {"level": 3}}, name="one", namespace=NAMESPACE, content_type="application/merge-patch+json")
        status = {"status": {"level": 3}}
        gauges.status.patch(body=status, name="one", namespace=NAMESPACE, content_type="application/merge-patch+json")
        assert gauges.get(name="one", namespace=NAMESPACE).status.level == 3
        refused(422, lambda: gauges.create(body={**body, "metadata": {"name": "two"}, "spec": {"level": -1}}, namespace=NAMESPACE))
        events = gauges.watch(namespace=NAMESPACE, timeout=2, resource_version="0")
        assert [event["type"] for event in events][:1] == ["ADDED"]
        custom = client.CustomObjectsApi(api)
        listed = custom.list_namespaced_custom_object(group, "v1", NAMESPACE, "gauges")
        assert [item["metadata"]["name"] for item in listed["items"]] == ["one"]
        gauges.delete(name="one", namespace=NAMESPACE)
    finally:
        definitions.delete(name=f"gauges.{group}")


def pods(core):
    step("a pod runs, is looked into, logs, and goes")
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", "echo started; sleep 3600"]}
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": "shell"}, "spec": {"containers": [container]}})
    for event in watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=shell", timeout_seconds=DEADLINE):
        if event["object"].status.phase == "Running":
            break
    call = core.connect_get_namespaced_pod_exec
    say = ["sh", "-c", "echo out; echo err >&2"]
    out = stream(call, "shell", NAMESPACE, command=say, stdout=True, stderr=True, stdin=False, tty=False)
    assert sorted(out.split()) == ["err", "out"], out
    session = stream(
        call, "shell", NAMESPACE, command=["cat"], stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False
    )
    session.write_stdin("hello\n")
    until("what was sent comes back", lambda: session.update(timeout=1) or session.peek_stdout())
    assert session.read_stdout() == "hello\n"
    session.close()
    failing = stream(call, "shell", NAMESPACE, command=["sh", "-c", "exit 3"], stdout=True, _preload_content=False)
    failing.run_forever(timeout=DEADLINE)
    assert failing.returncode == 3, failing.returncode
    assert core.read_namespaced_pod_log("shell", NAMESPACE) == "started\n"
    core.delete_namespaced_pod("shell", NAMESPACE, grace_period_seconds=0)
    until("the pod is gone", lambda: not core.list_namespaced_pod(NAMESPACE, field_selector="metadata.name=shell").items)


def who(api):
    step("versions, discovery, and who one is")
    assert client.VersionApi(api).get_code().minor.startswith("3"), "a minor version in the thirties"
    assert any(group.name == "apps" for group in client.ApisApi(api).get_api_versions().groups)
    review = client.AuthenticationV1Api(api).create_self_subject_review({})
    assert "system:masters" in review.status.user_info.groups, review
    attributes = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": NAMESPACE}}}
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(attributes).status.allowed
    core = client.CoreV1Api(api)
    token = core.create_namespaced_service_account_token("default", NAMESPACE, {"spec": {"audiences": [], "expirationSeconds": 600}})
    own = client.Configuration.get_default_copy()
    own.cert_file = own.key_file = None
    own.api_key = {"authorization": f"Bearer {token.status.token}"}
    mine = client.AuthenticationV1Api(client.ApiClient(own)).create_self_subject_review({})
    assert mine.status.user_info.username == f"system:serviceaccount:{NAMESPACE}:default", mine
    refused(403, lambda: client.CoreV1Api(client.ApiClient(own)).list_namespaced_secret(NAMESPACE))
    lease = {"metadata": {"name": f"lease-{uuid.uuid4().hex[:6]}"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 5}}
    leases = client.CoordinationV1Api(api)
    held = leases.create_namespaced_lease(NAMESPACE, lease)
    assert held.spec.holder_identity == "me"


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    try:
        until("its account is there", lambda: core.list_namespaced_service_account(NAMESPACE).items)
        config_maps(core)
        watches(core)
        deployments(api)
        dynamic_client(api)
        pods(core)
        who(api)
    finally:
        core.delete_namespace(NAMESPACE)
    until("its namespace is gone", lambda: all(one.metadata.name != NAMESPACE for one in core.list_namespace().items))


if __name__ == "__main__":
    sys.exit(main())
