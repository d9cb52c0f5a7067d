#!/usr/bin/env bash
# Walks kubectl through manifests/ and fixtures/samples/ against the cluster that KUBECONFIG names, says what happens, and
# stops at the first thing that is not as it should be.
#
#   cargo run -p fake-apiserver -- run -- bash scripts/tour.sh
#
# It works in two namespaces, `sandboxes` and `tour`, which it creates and deletes; it refuses to start if they exist.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TIMEOUT=${TOUR_TIMEOUT:-60s}
readonly SAMPLES=fixtures/samples

source scripts/steps.sh

# The value of a JSONPath of an object.
value() {
    ok kubectl get "$1" -n "${3:-tour}" -o "jsonpath=$2"
}

ready() {
    k wait --for=condition=Ready "sandbox/$1" -n "${2:-tour}" --timeout="$TIMEOUT"
    is "sandbox.agents.x-k8s.io/$1 condition met"
}

gone() {
    k wait --for=delete "$1" -n "${2:-tour}" --timeout="$TIMEOUT"
}

command -v kubectl >/dev/null || fail "kubectl is not on the PATH"

step "the cluster"
k version
matches '^Server Version: v1\.'
for namespace in tour sandboxes; do
    if kubectl get namespace "$namespace" >/dev/null 2>&1; then
        fail "namespace $namespace exists; the tour would delete it"
    fi
done
if ! run kubectl get crd sandboxes.agents.x-k8s.io; then
    k apply --server-side -f manifests/crds
fi
k wait --for=condition=Established crd/sandboxes.agents.x-k8s.io --timeout="$TIMEOUT"
k api-resources --api-group=agents.x-k8s.io
matches '^sandboxes +sandbox +agents\.x-k8s\.io/v1beta1 +true +Sandbox$'
k explain sandbox.spec.operatingMode
matches 'Suspended'

step "manifests/: a namespace, what a caller may do, a first Sandbox"
k apply -f manifests/namespace.yaml
is "namespace/sandboxes created"
k apply -f manifests/rbac.yaml
matches '^role\.rbac\.authorization\.k8s\.io/sandbox-user created$'
k apply -f manifests/sandbox.yaml
is "sandbox.agents.x-k8s.io/workspace created"
ready workspace sandboxes
k exec -n sandboxes workspace -- sh -c 'echo "kept" > /workspace/note; cat /workspace/note'
is "kept"
k get pvc -n sandboxes
matches '^workspace-workspace '

step "fixtures/samples/: four Sandboxes"
ok bash -c 'printf "apiVersion: v1\nkind: Namespace\nmetadata: {name: tour}\n" | kubectl apply -f -'
k apply -n tour -f "$SAMPLES"
for name in minimal two-containers with-service with-volume; do
    matches "^sandbox\.agents\.x-k8s\.io/$name created\$"
done
for name in minimal two-containers with-service with-volume; do
    ready "$name"
done
k get sandboxes -n tour
matches '^NAME +READY +REASON +AGE$'
for name in minimal two-containers with-service with-volume; do
    matches "^$name +True +DependenciesReady +[0-9]+[smh]"
done
k get pods -n tour
matches '^minimal +1/1 +Running +0 '
matches '^two-containers +2/2 +Running +0 '
k apply -n tour -f "$SAMPLES/minimal.yaml"
is "sandbox.agents.x-k8s.io/minimal unchanged"

step "what is refused"
refused 'spec.operatingMode: Unsupported value: "Asleep"' \
    kubectl patch sandbox minimal -n tour --type=merge -p '{"spec":{"operatingMode":"Asleep"}}'
refused 'volumeClaimTemplates is immutable' \
    kubectl patch sandbox with-volume -n tour --type=merge -p '{"spec":{"volumeClaimTemplates":[]}}'
refused 'sandboxes.agents.x-k8s.io "nobody" not found' kubectl get sandbox nobody -n tour

step "exec and logs"
k exec -n tour minimal -- echo "hello from inside"
is "hello from inside"
k exec -n tour minimal -- sh -c 'echo "$HOSTNAME"'
is "minimal"
refused 'command terminated with exit code 7' kubectl exec -n tour minimal -- sh -c 'exit 7'
k exec -n tour two-containers -c helper -- echo "the other one"
is "the other one"
ok bash -c 'printf "one\ntwo\n" | kubectl exec -i -n tour minimal -- wc -l'
matches '^ *2$'
k logs -n tour minimal
is "minimal is up"
k logs -n tour two-containers -c helper
is "helper speaks"
k logs -n tour --prefix --all-containers two-containers
matches 'main speaks$'
matches 'helper speaks$'

step "the Service"
value service/with-service '{.spec.clusterIP} {.spec.ports[0].name} {.spec.ports[0].port}'
is "None http 8080"
value sandbox/with-service '{.status.service} {.status.serviceFQDN}'
matches '^with-service with-service\.tour\.svc\.'

step "suspend: the pod goes, the volume and the Service stay"
k exec -n tour with-volume -- sh -c 'echo "still here" > /data/note'
value pvc/data-with-volume '{.metadata.uid}'
claim=$out
for name in with-volume with-service; do
    k patch sandbox "$name" -n tour --type=merge -p '{"spec":{"operatingMode":"Suspended"}}'
    is "sandbox.agents.x-k8s.io/$name patched"
    k wait --for=condition=Suspended "sandbox/$name" -n tour --timeout="$TIMEOUT"
    refused "pods \"$name\" not found" kubectl get pod "$name" -n tour
done
k get sandboxes -n tour
matches '^with-volume +False +SandboxSuspended '
value pvc/data-with-volume '{.metadata.uid}'
is "$claim"
k get service with-service -n tour

step "resume: a new pod on the same volume"
k patch sandbox with-volume -n tour --type=merge -p '{"spec":{"operatingMode":"Running"}}'
ready with-volume
value pvc/data-with-volume '{.metadata.uid}'
is "$claim"
k exec -n tour with-volume -- cat /data/note
is "still here"

step "delete: what a Sandbox owns goes with it"
k delete sandbox with-volume with-service -n tour
for object in pod/with-volume pvc/data-with-volume service/with-service; do
    gone "$object"
done
k delete namespace tour sandboxes --wait=false
for namespace in tour sandboxes; do
    k wait --for=delete "namespace/$namespace" --timeout="$TIMEOUT"
done

printf '\nThe tour is complete: all was as it should be.\n'
