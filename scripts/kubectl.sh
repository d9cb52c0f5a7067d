#!/usr/bin/env bash
# Runs the commands of kubectl against the cluster that KUBECONFIG names, checks what each one answers, and stops at the
# first answer that is not the real server's.
#
#   cargo run -p fake-apiserver -- run -- bash scripts/kubectl.sh
#
# It works in the namespace `commands`, which it creates and deletes, as it does a CustomResourceDefinition
# `gauges.commands.example.com` and a PriorityClass `commands`; it refuses to start if the namespace exists.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TIMEOUT=${TOUR_TIMEOUT:-60s}

source scripts/steps.sh

# kubectl in the namespace of this script.
n() {
    k -n commands "$@"
}

# The value of a JSONPath of an object.
value() {
    n get "$1" -o "jsonpath=$2"
}

# kubectl with a manifest on its standard input. Without the dashes, kubectl takes what starts with a brace for JSON.
send() {
    local manifest=$1
    shift
    kubectl -n commands "$@" <<<"---
$manifest"
}

with() {
    ok send "$@"
}

# What the last command printed must contain a text.
has() {
    [[ $out == *"$1"* ]] || fail "expected: $1
got:      $out"
}

command -v kubectl >/dev/null || fail "kubectl is not on the PATH"
workspace=$(mktemp -d)
trap 'rm -rf "$workspace"' EXIT

step "what there is"
k version
matches '^Server Version: v1\.'
if kubectl get namespace commands >/dev/null 2>&1; then
    fail "namespace commands exists; this script would delete it"
fi
k api-versions
matches '^apps/v1$'
k api-resources --namespaced=true --api-group=apps -o name
is "controllerrevisions.apps
daemonsets.apps
deployments.apps
replicasets.apps
statefulsets.apps"
k api-resources --verbs=bind
k api-resources --categories=all --no-headers
matches '^pods +po +v1 +true +Pod$'
k explain deployment.spec.strategy.rollingUpdate.maxSurge
matches '^FIELD: maxSurge <IntOrString>$'
k explain pods --recursive
matches '^  spec	<PodSpec>$'
refused 'field "nothing" does not exist' kubectl explain pods.nothing
k get --raw /readyz
is "ok"
k get --raw '/readyz?verbose'
matches '^\[\+\]etcd ok$'
k get --raw /metrics
matches '^apiserver_request_total\{.*resource="namespaces".*\} [0-9]+$'
k get --raw /api/v1/namespaces/default
has '"kind":"Namespace"'
k cluster-info
matches 'Kubernetes control plane.* is running at '
refused "Metrics API not available" kubectl top pods
refused "Metrics API not available" kubectl top nodes

step "create: what kubectl makes itself, and sends as protobuf"
k create namespace commands
is "namespace/commands created"
refused 'namespaces "commands" already exists' kubectl create namespace commands
n create configmap settings --from-literal=color=red --from-literal=size=1
is "configmap/settings created"
value configmap/settings '{.data.color}{.data.size}'
is "red1"
n create secret generic keys --from-literal=key=value
value secret/keys '{.data.key} {.type}'
is "dmFsdWU= Opaque"
n create secret docker-registry registry --docker-server=a.example --docker-username=u --docker-password=p
value secret/registry '{.type}'
is "kubernetes.io/dockerconfigjson"
n create serviceaccount robot
n create role reader --verb=get,list --resource=pods,deployments.apps
value role/reader '{.rules[*].verbs}'
is '["get","list"] ["get","list"]'
n create rolebinding readers --role=reader --serviceaccount=commands:robot
value rolebinding/readers '{.roleRef.name} {.subjects[0].kind}'
is "reader ServiceAccount"
n create quota bounds --hard=pods=50,requests.storage=10Gi
value quota/bounds '{.spec.hard}'
is '{"pods":"50","requests.storage":"10Gi"}'
n create poddisruptionbudget budget --selector=app=web --min-available=50%
value pdb/budget '{.spec.minAvailable} {.spec.selector.matchLabels.app}'
is "50% web"
n create job once --image=busybox -- echo hello
value job/once '{.spec.template.spec.containers[0].command} {.spec.template.spec.restartPolicy}'
is '["echo","hello"] Never'
n create cronjob often --image=busybox --schedule='*/5 * * * *' -- echo hello
n create job again --from=cronjob/often
value job/again '{.metadata.ownerReferences[0].kind} {.metadata.annotations.cronjob\.kubernetes\.io/instantiate}'
is "CronJob manual"
n create ingress front --rule=example.com/api=web:80
value ingress/front '{.spec.rules[0].http.paths[0].backend.service.port.number} {.spec.rules[0].http.paths[0].pathType}'
is "80 Exact"
k create priorityclass commands --value=7 --description="of a script"
k create clusterrole commands-none --verb=get --resource=nodes --dry-run=server -o name
is "clusterrole.rbac.authorization.k8s.io/commands-none"
refused 'not found' kubectl get clusterrole commands-none
n create deployment web --image=nginx --replicas=2 --port=80
is "deployment.apps/web created"
n create service nodeport port --tcp=80:8080
n create service externalname elsewhere --external-name=example.com
n get service elsewhere
matches '^elsewhere +ExternalName +<none> +example\.com +<none> '
n run lone --image=busybox --port=80 --labels=app=lone --env=A=b
value pod/lone '{.spec.containers[0].env[0].value} {.metadata.labels.app}'
is "b lone"
n expose deployment web --port=80 --target-port=http
is "service/web exposed"
value service/web '{.spec.selector.app} {.spec.ports[0].targetPort} {.spec.type}'
is "web http ClusterIP"
n expose pod lone --name=lone-service
n autoscale deployment web --max=4 --cpu-percent=80
value horizontalpodautoscalers.v1.autoscaling/web '{.spec.maxReplicas} {.spec.targetCPUUtilizationPercentage}'
is "4 80"

step "get: the forms of an answer"
n wait --for=condition=Ready pod/lone --timeout="$TIMEOUT"
is "pod/lone condition met"
n wait --for=jsonpath='{.status.phase}'=Running pod/lone --timeout="$TIMEOUT"
n get pod lone
matches '^NAME +READY +STATUS +RESTARTS +AGE$'
matches '^lone +1/1 +Running +0 +[0-9]+[smh]'
n get pod lone -o wide
matches '^NAME +READY +STATUS +RESTARTS +AGE +IP +NODE +NOMINATED NODE +READINESS GATES$'
n get pods --show-labels --no-headers -l app=lone
matches ' app=lone$'
n get pod lone -L app
matches '^NAME .* APP$'
n get configmap settings -o yaml
matches '^  color: red$'
n get configmap settings -o json
matches '^    "kind": "ConfigMap",$'
n get configmap,secret -o name
has "configmap/settings"
has "secret/keys"
n get configmap settings -o custom-columns=NAME:.metadata.name,COLOR:.data.color
is "NAME       COLOR
settings   red"
n get configmap settings -o go-template='{{.data.size}}'
is "1"
n get pods --field-selector=metadata.name=lone -o name
is "pod/lone"
n get pods --field-selector=metadata.name=nobody
is "No resources found in commands namespace."
n get services --sort-by=.metadata.name -o jsonpath='{.items[*].metadata.name}'
is "elsewhere lone-service port web"
n get deployments --chunk-size=1
matches '^web +[0-9]+/2 '
n get all --ignore-not-found
matches '^deployment\.apps/web +[0-9]+/2 '
refused 'pods "nobody" not found' kubectl -n commands get pod nobody
refused "the server doesn't have a resource type \"nothings\"" kubectl get nothings
n describe pod lone
matches '^Name: +lone$'
matches '^Status: +Running$'
n describe deployment web
matches '^Replicas: +2 desired '
n describe service web
matches '^Selector: +app=web$'
n describe node
matches '^Name: '
n events --for pod/lone
matches 'Started|Scheduled'
n get events --field-selector=involvedObject.name=lone
matches 'pod/lone'

step "get --watch: changes as they come"
exec 5< <(exec kubectl -n commands get configmaps --watch --output-watch-events \
    -o jsonpath='{.type} {.object.metadata.name} {.object.data.a}{"\n"}')
watching=$!
# The next line of the watch that names an object must be $2.
next() {
    local line=""
    until [[ $line == *" $1 "* ]]; do
        IFS= read -r -t 30 line <&5 || fail "the watch shows no line for $1"
    done
    [[ $line == "$2" ]] || fail "expected of the watch: $2
got:                   $line"
    printf '    %s\n' "$line"
}
next settings "ADDED settings "
n create configmap watched --from-literal=a=1
next watched "ADDED watched 1"
n patch configmap watched --type=merge -p '{"data":{"a":"2"}}'
next watched "MODIFIED watched 2"
n delete configmap watched
next watched "DELETED watched 2"
kill "$watching"
exec 5<&-

step "patch, label, annotate, set, scale"
n patch configmap settings -p '{"data":{"shape":"round"}}'
is "configmap/settings patched"
n patch configmap settings --type=merge -p '{"data":{"shape":null}}'
n patch configmap settings --type=merge -p '{"data":{"color":"red"}}'
is "configmap/settings patched (no change)"
n patch configmap settings --type=json -p '[{"op":"replace","path":"/data/color","value":"blue"}]'
value configmap/settings '{.data}'
is '{"color":"blue","size":"1"}'
refused 'the server rejected our request due to an error in our request' \
    kubectl -n commands patch configmap settings --type=json -p '[{"op":"remove","path":"/data/nothing"}]'
n patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"nginx","imagePullPolicy":"Never"}]}}}}'
value deployment/web '{.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].imagePullPolicy}'
is "nginx Never"
n patch ingress front --subresource=status --type=merge -p '{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}'
value ingress/front '{.status.loadBalancer.ingress[0].ip}'
is "192.0.2.1"
n patch deployment web --subresource=scale --type=merge -p '{"spec":{"replicas":3}}'
value deployment/web '{.spec.replicas}'
is "3"
n label configmap settings tier=front
is "configmap/settings labeled"
refused "'tier' already has a value (front), and --overwrite is false" kubectl -n commands label configmap settings tier=back
n label configmap settings tier=back --overwrite
n label configmaps -l tier=back tier-
is "configmap/settings unlabeled"
n annotate configmap settings note="a text" --overwrite
value configmap/settings '{.metadata.annotations.note}'
is "a text"
n set image deployment/web nginx=nginx:1.27
is "deployment.apps/web image updated"
n set env deployment/web COLOR=green
n set resources deployment web --limits=cpu=200m,memory=64Mi
n set serviceaccount deployment web robot
n set selector service lone-service app=other
value deployment/web '{.spec.template.spec.containers[0].env[0].value} {.spec.template.spec.containers[0].resources.limits} {.spec.template.spec.serviceAccountName}'
is 'green {"cpu":"200m","memory":"64Mi"} robot'
n scale deployment web --replicas=5
is "deployment.apps/web scaled"
refused "error: Expected replicas to be 2, was 5" kubectl -n commands scale deployment web --current-replicas=2 --replicas=1
n rollout pause deployment/web
is "deployment.apps/web paused"
n rollout resume deployment/web
n rollout restart deployment/web
is "deployment.apps/web restarted"

step "replace and edit"
n get configmap settings -o yaml
sed 's/color: blue/color: yellow/' <<<"$out" >"$workspace/settings.yaml"
n replace -f "$workspace/settings.yaml"
is "configmap/settings replaced"
refused 'the object has been modified; please apply your changes to the latest version and try again' \
    kubectl -n commands replace -f "$workspace/settings.yaml"
n replace --force -f "$workspace/settings.yaml"
matches '^configmap/settings replaced$'
value configmap/settings '{.data.color}'
is "yellow"
ok env EDITOR='sed -i s/yellow/violet/' kubectl -n commands edit configmap settings
is "configmap/settings edited"
value configmap/settings '{.data.color}'
is "violet"
ok env EDITOR=true kubectl -n commands edit configmap settings
is "Edit cancelled, no changes made."

step "apply by the client"
applied='{apiVersion: v1, kind: ConfigMap, metadata: {name: applied, labels: {set: one}}, data: {a: "1", b: "2"}}'
with "$applied" apply -f -
is "configmap/applied created"
with "$applied" apply -f -
is "configmap/applied unchanged"
n patch configmap applied --type=merge -p '{"data":{"other":"kept"}}'
changed='{apiVersion: v1, kind: ConfigMap, metadata: {name: applied, labels: {set: one}}, data: {a: "3"}}'
refused '-  b: "2"' send "$changed" diff -f -
has '+  a: "3"'
with "$changed" apply -f -
is "configmap/applied configured"
value configmap/applied '{.data}'
is '{"a":"3","other":"kept"}'
with "$changed" diff -f -
is ""
with "$changed" apply -f - --dry-run=server
is "configmap/applied unchanged (server dry run)"
n apply view-last-applied configmap applied
matches '^  a: "3"$'
refused 'strict decoding error: unknown field "datum"' \
    send '{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}, datum: {}}' apply -f -
second='{apiVersion: v1, kind: ConfigMap, metadata: {name: second, labels: {set: one}}}'
with "$second" apply -f -
with "$changed" apply -f - --prune -l set=one --prune-allowlist=core/v1/ConfigMap
has "configmap/second pruned"
refused 'configmaps "second" not found' kubectl -n commands get configmap second

step "apply by the server"
with '{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {a: "1"}}' apply --server-side --field-manager=one -f -
is "configmap/shared serverside-applied"
refused 'Apply failed with 1 conflict: conflict with "one": .data.a' \
    send '{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {a: "2"}}' \
    apply --server-side --field-manager=two -f -
with '{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {a: "2"}}' \
    apply --server-side --field-manager=two --force-conflicts -f -
value configmap/shared '{.data.a}'
is "2"
n get configmap shared -o jsonpath='{.metadata.managedFields[*].manager}' --show-managed-fields
is "two"
with '{apiVersion: v1, kind: ConfigMap, metadata: {name: shared}, data: {b: "1"}}' apply --server-side --field-manager=two -f -
value configmap/shared '{.data}'
is '{"b":"1"}'

step "a kind of one's own"
with '
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gauges.commands.example.com}
spec:
  group: commands.example.com
  scope: Namespaced
  names: {plural: gauges, singular: gauge, kind: Gauge, shortNames: [gg]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.level, statusReplicasPath: .status.level}}
    additionalPrinterColumns: [{name: Level, type: integer, jsonPath: .spec.level}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {level: {type: integer, minimum: 0, description: "How high it stands."}}}
          status: {type: object, properties: {level: {type: integer}}}
' create -f -
is "customresourcedefinition.apiextensions.k8s.io/gauges.commands.example.com created"
k wait --for=condition=Established crd/gauges.commands.example.com --timeout="$TIMEOUT"
with '{apiVersion: commands.example.com/v1, kind: Gauge, metadata: {name: one}, spec: {level: 3}}' apply -f -
is "gauge.commands.example.com/one created"
n get gg
matches '^NAME +LEVEL$'
matches '^one +3$'
k explain gauge.spec.level
matches 'How high it stands\.'
n scale gauge one --replicas=6
is "gauge.commands.example.com/one scaled"
refused 'spec.level: Invalid value: -1: spec.level in body should be greater than or equal to 0' \
    kubectl -n commands patch gauge one --type=merge -p '{"spec":{"level":-1}}'
n delete gauge --all
is 'gauge.commands.example.com "one" deleted'

step "into pods: exec, cp, debug, port-forward, proxy"
with '
apiVersion: v1
kind: Pod
metadata:
  name: served
  annotations:
    fake-apiserver.dev/script: |
      ports:
        8080: [sh, -c, "read line; printf \"HTTP/1.0 200 OK\\r\\n\\r\\n$line\\n\""]
spec:
  containers:
  - {name: main, image: busybox, stdin: true, command: [sh, -c, "while read line; do echo heard $line; done"], ports: [{containerPort: 8080}]}
' create -f -
n wait --for=condition=Ready pod/served --timeout="$TIMEOUT"
# In a file, because what stands before a pipe cannot stop this script.
typed() {
    local text=$1
    shift
    printf '%s\n' "$text" >"$workspace/typed"
    ok "$@" <"$workspace/typed"
}
# Older clients speak SPDY; newer ones can be asked to.
for websockets in true false; do
    export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=$websockets KUBECTL_PORT_FORWARD_WEBSOCKETS=$websockets
    n exec served -- sh -c 'echo out; pwd'
    is "out
/"
    refused "command terminated with exit code 3" kubectl -n commands exec served -- sh -c 'exit 3'
    typed "from here" kubectl -n commands exec -i served -- cat
    is "from here"
    kubectl -n commands port-forward pod/served :8080 >"$workspace/forward" 2>&1 &
    forwarding=$!
    for _ in $(seq 100); do
        grep -q '^Forwarding from 127' "$workspace/forward" && break
        sleep 0.1
    done
    port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$workspace/forward")
    exec 6<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET /asked HTTP/1.0\r\n\r\n' >&6
    ok cat <&6
    has "GET /asked HTTP/1.0"
    exec 6<&-
    kill "$forwarding"
done
unset KUBECTL_REMOTE_COMMAND_WEBSOCKETS KUBECTL_PORT_FORWARD_WEBSOCKETS
mkdir "$workspace/folder"
printf 'copied\n' >"$workspace/folder/file"
n cp "$workspace/folder" served:/tmp
n exec served -- cat /tmp/folder/file
is "copied"
n cp served:/tmp/folder "$workspace/back"
ok cat "$workspace/back/file"
is "copied"
n debug served --image=busybox --container=looking -- sh -c 'echo looking'
n wait --for=jsonpath='{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}'=0 pod/served --timeout="$TIMEOUT"
n logs served -c looking
is "looking"
n expose pod served --port=80 --target-port=8080 --name=served --selector=none=such
refused 'no endpoints available for service "served"' kubectl get --raw /api/v1/namespaces/commands/services/served:80/proxy/
k get --raw /api/v1/namespaces/commands/pods/served/proxy/some/path
matches '^GET /some/path HTTP/1.1'
k get --raw /api/v1/namespaces/commands/pods/http:served:8080/proxy/
matches '^GET / HTTP/1.1'
refused 'connect: connection refused' kubectl get --raw /api/v1/namespaces/commands/pods/served:1/proxy/
n delete pod served --now

step "nodes: cordon, drain, taint"
node=$(kubectl get nodes -o jsonpath='{.items[0].metadata.name}')
k cordon "$node"
is "node/$node cordoned"
k get node "$node"
matches 'Ready,SchedulingDisabled'
k drain "$node" --ignore-daemonsets --force --delete-emptydir-data --pod-selector=app=lone --timeout="$TIMEOUT"
matches '^pod/lone evicted$'
k uncordon "$node"
is "node/$node uncordoned"
k taint nodes "$node" commands=here:PreferNoSchedule
is "node/$node tainted"
k taint nodes "$node" commands-
is "node/$node untainted"

step "delete: what goes with what"
for kind in foreground background orphan; do
    n create configmap "owner-$kind"
    value "configmap/owner-$kind" '{.metadata.uid}'
    with "{apiVersion: v1, kind: ConfigMap, metadata: {name: owned-$kind, ownerReferences: [{apiVersion: v1, kind: ConfigMap,
        name: owner-$kind, uid: $out, blockOwnerDeletion: true}]}}" create -f -
    n delete configmap "owner-$kind" --cascade="$kind"
    is "configmap \"owner-$kind\" deleted"
done
for kind in foreground background; do
    n wait --for=delete "configmap/owned-$kind" --timeout="$TIMEOUT"
done
value configmap/owned-orphan '{.metadata.ownerReferences}'
is ""
with '{apiVersion: v1, kind: ConfigMap, metadata: {name: held, finalizers: [example.com/held]}}' create -f -
n delete configmap held --wait=false
value configmap/held '{.metadata.deletionGracePeriodSeconds}'
is "0"
n patch configmap held --type=json -p '[{"op":"remove","path":"/metadata/finalizers"}]'
n wait --for=delete configmap/held --timeout="$TIMEOUT"
n delete configmap nobody --ignore-not-found
is ""
n delete configmap -l set=one --dry-run=server
is 'configmap "applied" deleted (server dry run)'
n delete deployment,service,hpa,ingress --all
n get deployment,service -o name
is ""
n run short --image=busybox
n delete pod short --now
is 'pod "short" deleted'
n run short --image=busybox
n delete pod short --grace-period=0 --force
matches 'pod "short" force deleted'

step "the end"
k delete crd gauges.commands.example.com
k delete priorityclass commands
k delete namespace commands --timeout="$TIMEOUT"
is 'namespace "commands" deleted'
refused 'namespaces "commands" not found' kubectl get namespace commands

printf '\nkubectl got what it would get of the real server.\n'
