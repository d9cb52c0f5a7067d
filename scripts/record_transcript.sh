#!/usr/bin/env bash
# Records fixtures/transcripts/kubectl.jsonl anew: what kubectl asks a real cluster in the course of a small story, and what
# that answers. The cluster is that of a kubeconfig; it needs no controllers, and should be of nobody's use.
set -euo pipefail
cd "$(dirname "$0")/.."
upstream=${1:?usage: $0 KUBECONFIG}
program=${FAKE_APISERVER:-target/debug/fake-apiserver}
out=fixtures/transcripts/kubectl.jsonl
work=$(mktemp -d)
trap 'kill "$proxy" 2>/dev/null || true; rm -rf "$work"' EXIT

"$program" record --upstream "$upstream" --out "$out" --kubeconfig "$work/kubeconfig" >"$work/ready" &
proxy=$!
for _ in $(seq 100); do grep -q ready "$work/ready" && break; sleep 0.1; done
k() { kubectl --kubeconfig "$work/kubeconfig" --cache-dir "$work/cache" "$@"; }
raw() { k "$@" >/dev/null; }

raw create namespace transcript
# Clusters with controllers make it themselves.
kubectl --kubeconfig "$upstream" -n transcript create serviceaccount default >/dev/null
k -n transcript get configmaps -l app=settings --watch >"$work/watched" &
watcher=$!
for _ in $(seq 50); do grep -q '"watch"' "$out" && break; sleep 0.1; done
raw apply --validate=false -f - <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: transcript, labels: {app: settings}}
data: {colour: blue}
YAML
raw apply --validate=false -f - <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: transcript, labels: {app: settings}}
data: {colour: red, size: large}
YAML
raw apply --server-side --validate=false -f - <<'YAML'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1}
              colour: {type: string, default: blue}
          status: {type: object, properties: {ready: {type: boolean}}}
YAML
k wait --for=condition=Established crd/widgets.example.com >/dev/null
widget() {
    cat <<YAML
apiVersion: example.com/v1
kind: Widget
metadata: {name: $1, namespace: transcript}
spec: {size: $2}
YAML
}
for _ in $(seq 50); do k get --raw /apis/example.com/v1/widgets >/dev/null 2>&1 && break; sleep 0.2; done
widget good 3 | raw create --validate=false -f -
widget bad 0 | raw create --validate=false -f - 2>/dev/null || true
widget good 3 | raw create --validate=false -f - 2>/dev/null || true
widget good 5 | raw apply --server-side --validate=false --field-manager=one -f - 2>/dev/null || true
widget good 5 | raw apply --server-side --validate=false --force-conflicts --field-manager=one -f -
raw -n transcript patch widget good --type=merge -p '{"spec": {"colour": "green"}}'
raw -n transcript patch widget good --type=json -p '[{"op": "test", "path": "/spec/size", "value": 9}]' 2>/dev/null || true
raw -n transcript get widget missing 2>/dev/null || true
raw -n transcript get widgets -o json
raw create --validate=false -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: transcript, labels: {app: plain}}
spec:
  automountServiceAccountToken: false
  containers: [{name: main, image: "busybox:1.36", command: [sleep, infinity]}]
YAML
raw create --validate=false -f - 2>/dev/null <<'YAML' || true
apiVersion: v1
kind: Pod
metadata: {name: Wrong_Name, namespace: transcript}
spec: {containers: []}
YAML
raw -n transcript label pod plain tier=one
raw -n transcript get pods
raw -n transcript delete pod plain --wait=false --grace-period=0 --force 2>/dev/null
raw -n transcript delete configmap settings --wait=false
raw -n transcript delete widget good --wait=false
raw delete crd widgets.example.com --wait=false
for _ in $(seq 50); do [ "$(grep -c '"event"' "$out")" -ge 3 ] && break; sleep 0.1; done
kill "$watcher" 2>/dev/null || true
sleep 0.5
kill "$proxy"; wait "$proxy" || true
# What else the cluster serves is its own affair: discovery is left to the conformance cases.
grep -vE '"path":"/(api|apis|openapi/[^"]*|version[^"]*)(\?[^"]*)?"' "$out" >"$work/kept"
cp "$work/kept" "$out"
echo "$(wc -l <"$out") lines in $out"
