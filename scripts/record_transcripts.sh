#!/usr/bin/env bash
# Records fixtures/transcripts anew: what kubectl asks a real cluster in the course of small stories, and what that answers.
#
#   scripts/record_transcripts.sh KUBECONFIG [STORY…]
#
# The cluster is that of a kubeconfig; it needs no controllers, and should be of nobody's use.
set -euo pipefail
cd "$(dirname "$0")/.."
upstream=${1:?usage: $0 KUBECONFIG [STORY…]}
shift
program=${FAKE_APISERVER:-target/debug/fake-apiserver}
proxy="" watcher="" work=$(mktemp -d)
stop() { [ -z "$1" ] || { kill "$1" && wait "$1"; } 2>/dev/null || true; }
trap 'stop "$watcher"; stop "$proxy"; rm -rf "$work"' EXIT

# kubectl through the proxy, in the story's namespace. What is refused is part of the story.
k() { kubectl --kubeconfig "$work/kubeconfig" --cache-dir "$work/cache" -n "$story" "$@" >/dev/null 2>>"$work/refused" || true; }
# The same without a record.
aside() { kubectl --kubeconfig "$upstream" -n "$story" "$@" >/dev/null; }
watch() {
    kubectl --kubeconfig "$work/kubeconfig" --cache-dir "$work/cache" -n "$story" get "$@" --watch >"$work/watched" 2>&1 &
    watcher=$!
    for _ in $(seq 100); do grep -q '"watch"' "$out" && return; sleep 0.1; done
    echo "no watch was recorded" && exit 1
}
watched() {
    for _ in $(seq 100); do [ "$(grep -c '"event"' "$out")" -ge "$1" ] && break; sleep 0.1; done
    stop "$watcher"
    watcher=""
}
established() { k wait --for=condition=Established "crd/$1" && aside wait --for=condition=Established "crd/$1"; }

# The stories. Each has a namespace of its own and takes it away.

kubectl_story() { # a little of everything
    watch configmaps -l app=settings
    for data in '{colour: blue}' '{colour: red, size: large}'; do
        k apply --validate=false -f - <<YAML
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: settings}}
data: $data
YAML
    done
    k apply --server-side --validate=false -f - <<'YAML'
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
    established widgets.example.com
    widget() { printf 'apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: %s}\nspec: {size: %s}\n' "$1" "$2"; }
    widget good 3 | k create --validate=false -f -
    widget bad 0 | k create --validate=false -f -
    widget good 3 | k create --validate=false -f -
    widget good 5 | k apply --server-side --validate=false --field-manager=one -f -
    widget good 5 | k apply --server-side --validate=false --force-conflicts --field-manager=one -f -
    k patch widget good --type=merge -p '{"spec": {"colour": "green"}}'
    k patch widget good --type=json -p '[{"op": "test", "path": "/spec/size", "value": 9}]'
    k get widget missing
    k get widgets -o json
    k create --validate=false -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: plain, labels: {app: plain}}
spec:
  automountServiceAccountToken: false
  containers: [{name: main, image: "busybox:1.36", command: [sleep, infinity]}]
YAML
    k create --validate=false -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: Wrong_Name}
spec: {containers: []}
YAML
    k label pod plain tier=one
    k get pods
    k delete pod plain --wait=false --grace-period=0 --force
    k delete configmap settings --wait=false
    k delete widget good --wait=false
    k delete crd widgets.example.com --wait=false
    watched 3
}

manifests_story() { # manifests of several kinds, applied twice, the second time changed
    for port in 8080 9090; do
        k apply --validate=strict -f - <<YAML
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: $port}], clusterIP: None}
---
apiVersion: v1
kind: Secret
metadata: {name: web}
stringData: {password: "$port"}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{ports: [{port: $port}]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
YAML
    done
    k apply --validate=strict -f - <<'YAML'
apiVersion: v1
kind: Service
metadata: {name: odd}
spec: {selector: {app: odd}, ports: [{port: 80}], flavour: sweet}
YAML
    k apply -f - <<'YAML'
apiVersion: v1
kind: Service
metadata: {name: odd}
spec: {selector: {app: odd}, ports: [{port: 80}, {port: 80}]}
YAML
    k apply view-last-applied networkpolicy/web
    k get networkpolicies,pdb,pvc
    k diff -f - <<'YAML'
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
YAML
    k delete service,secret,networkpolicy,pdb --all --wait=false
}

rollout_story() { # a Deployment's life, as far as it goes without controllers
    deployment() {
        cat <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: $1
  selector: {matchLabels: {app: $2}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "nginx:$3", ports: [{containerPort: 80}]}]}
YAML
    }
    deployment 2 web 1.27 | k apply --validate=false -f -
    deployment 3 web 1.28 | k apply --validate=false -f -
    deployment 3 other 1.28 | k apply --validate=false -f -
    k set image deployment/web main=nginx:1.29
    k set env deployment/web COLOUR=blue
    k set resources deployment/web --limits=cpu=200m --requests=cpu=100m
    k scale deployment/web --replicas=5
    k scale deployment/web --current-replicas=9 --replicas=1
    k rollout pause deployment/web
    k rollout pause deployment/web
    k rollout resume deployment/web
    k annotate deployment/web kubernetes.io/change-cause=tried
    k autoscale deployment/web --min=1 --max=4 --cpu-percent=80
    k expose deployment/web --port=80 --cluster-ip=None
    k get deployment/web
    k get deployment/web -o 'jsonpath={.spec.replicas}'
    k delete deployment/web service/web hpa/web --wait=false
}

patches_story() { # the kinds of patches, on what is built in and on lists with keys
    k create --validate=false -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: plain, labels: {app: plain}, finalizers: [example.com/held]}
spec:
  automountServiceAccountToken: false
  containers: [{name: main, image: "busybox:1.36"}, {name: side, image: "busybox:1.36"}]
  tolerations: [{key: one, operator: Exists}]
YAML
    k patch pod plain --type=strategic -p '{"spec":{"containers":[{"name":"side","image":"busybox:1.37"}]}}'
    k patch pod plain --type=strategic -p '{"metadata":{"labels":{"tier":"one"},"$deleteFromPrimitiveList/finalizers":["none"]}}'
    k patch pod plain --type=strategic -p '{"spec":{"containers":[{"name":"new","image":"busybox:1.37"}]}}'
    k patch pod plain --type=merge -p '{"metadata":{"labels":{"tier":null}}}'
    k patch pod plain --type=merge -p '{"spec":{"containers":[{"name":"main","image":"busybox:1.37"}]}}'
    k patch pod plain --type=json -p '[{"op":"replace","path":"/spec/containers/0/image","value":"busybox:1.38"}]'
    k patch pod plain --type=json -p '[{"op":"remove","path":"/spec/nothing"}]'
    k patch pod plain --type=json -p '[{"op":"add","path":"/metadata/labels/a~1b","value":"slash"}]'
    k patch pod plain --subresource=status --type=strategic \
        -p '{"status":{"conditions":[{"type":"example.com/Checked","status":"True"}]}}'
    k patch pod plain --type=merge -p '{"metadata":{"name":"other"}}'
    k patch pod plain --type=merge -p '[]'
    k label pod plain app=other
    k label pod plain app=other --overwrite
    k annotate pod plain note-
    k delete pod plain --wait=false --grace-period=0 --force
    k patch pod plain --type=merge -p '{"metadata":{"labels":{"late":"yes"}}}'
    k patch pod plain --type=json -p '[{"op":"remove","path":"/metadata/finalizers"}]'
    k get pod plain
}

conflicts_story() { # several managers of one object
    settings() {
        printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared, labels: {%s}}\ndata: {%s}\n' "$1" "$2"
    }
    apply() { k apply --server-side --validate=false --field-manager="$@" -f -; }
    settings 'a: "1"' 'colour: blue, size: large' | apply one
    settings 'a: "1"' 'colour: blue' | apply two
    settings 'a: "2"' 'colour: red' | apply two
    settings 'a: "2"' 'colour: red' | apply two --force-conflicts
    settings 'a: "1"' 'size: small' | apply one
    settings '' 'size: small' | apply one
    k patch configmap shared --type=merge -p '{"data":{"colour":"green"}}'
    settings 'a: "2"' 'colour: red' | apply two
    settings '' '' | apply two
    k get configmap shared -o yaml --show-managed-fields
    k delete configmap shared --wait=false
}

watch_story() { # what watchers are told, those with a selector and those of one object
    watch configmaps -l kind=lamp
    lamp() { printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, labels: {kind: %s}}\n' "$1" "$2"; }
    lamp one lamp | k create --validate=false -f -
    lamp two chair | k create --validate=false -f -
    k label configmap two kind=lamp --overwrite
    k label configmap one kind=chair --overwrite
    k patch configmap two --type=merge -p '{"data":{"on":"yes"}}'
    k delete configmap two --wait=false
    k delete configmap one --wait=false
    watched 5
}

cel_story() { # a definition with rules
    k create --validate=false -f - <<'YAML'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: lamps, singular: lamp, kind: Lamp, listKind: LampList, shortNames: [lp]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.bulbs, statusReplicasPath: .status.bulbs}}
    additionalPrinterColumns:
    - {name: Bulbs, type: integer, jsonPath: .spec.bulbs}
    - {name: Colour, type: string, jsonPath: .spec.colour}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: "self.bulbs <= self.sockets", messageExpression: "self.sockets > 4 ? 'too many bulbs' : 'too few sockets'"}
            - {rule: "!has(oldSelf.colour) || has(self.colour)", message: "a colour stays"}
            properties:
              bulbs: {type: integer, minimum: 0, maximum: 10}
              sockets: {type: integer, default: 4, maximum: 10}
              colour:
                type: string
                maxLength: 20
                x-kubernetes-validations:
                - {rule: "self == oldSelf", message: "is painted once", reason: FieldValueForbidden}
          status: {type: object, properties: {bulbs: {type: integer}}}
YAML
    established lamps.example.com
    lamp() { printf 'apiVersion: example.com/v1\nkind: Lamp\nmetadata: {name: %s}\nspec: {%s}\n' "$1" "$2"; }
    lamp one 'bulbs: 2, colour: red' | k create --validate=false -f -
    lamp dark 'bulbs: 9' | k create --validate=false -f -
    lamp worse 'bulbs: 2, sockets: many' | k create --validate=false -f -
    k patch lamp one --type=merge -p '{"spec":{"colour":"green"}}'
    k patch lamp one --type=merge -p '{"spec":{"colour":null}}'
    k patch lamp one --type=merge -p '{"spec":{"bulbs":3,"shade":"wide"}}'
    lamp one 'bulbs: 3, shade: wide' | k replace --validate=strict -f -
    k scale lamp one --replicas=4
    k scale lamp one --replicas=5
    k patch lamp one --subresource=status --type=merge -p '{"status":{"bulbs":4},"spec":{"bulbs":1}}'
    k get lamps
    k get lp one -o 'jsonpath={.spec.bulbs}'
    k create --validate=false -f - <<'YAML'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: broken.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: broken, singular: broken, kind: Broken, listKind: BrokenList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        x-kubernetes-validations: [{rule: "self.nothing == 3"}, {rule: "self.metadata.name +"}]
        properties:
          size:
            type: integer
            x-kubernetes-validations:
            - {rule: "self > 3", messageExpression: "'too small by ' + string(4 - self)"} # its cost has no bound
YAML
    k delete lamp one --wait=false
    k delete crd lamps.example.com --wait=false
}

access_story() { # what a user with few rights may do, and is told
    k create serviceaccount visitor
    k create role reader --verb=get,list --resource=configmaps
    k create rolebinding reader --role=reader --serviceaccount="$story:visitor"
    visitor() { k --as="system:serviceaccount:$story:visitor" "$@"; }
    visitor get configmaps
    visitor get secrets
    visitor get pods plain
    visitor get nodes
    visitor create configmap one
    visitor delete configmap one
    visitor get --raw /version
    visitor get --raw /metrics
    visitor auth can-i get configmaps
    visitor auth can-i delete configmaps
    visitor auth can-i get nodes
    visitor auth whoami
    visitor create role greedy --verb='*' --resource=secrets
    visitor create rolebinding mine --clusterrole=cluster-admin --serviceaccount="$story:visitor"
    k --as=nobody get configmaps
    k --as=nobody --as-group=system:masters get configmaps
    k patch rolebinding reader --type=merge -p '{"roleRef":{"name":"other"}}'
    k delete rolebinding reader --wait=false
    visitor get configmaps
}

# Takes the namespace away, also where no controller would.
tidy() {
    for claim in $(kubectl --kubeconfig "$upstream" -n "$story" get pvc -o name); do
        aside patch "$claim" --type=merge -p '{"metadata":{"finalizers":null}}' # nobody else takes it away
    done
    aside delete configmaps,secrets,services,pvc,pods,deployments,pdb,networkpolicies,hpa,roles,rolebindings,serviceaccounts \
        --all --wait=false --ignore-not-found
    aside delete namespace "$story" --wait=false
    printf '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "%s"}, "spec": {"finalizers": []}}' "$story" |
        aside replace --raw "/api/v1/namespaces/$story/finalize" -f - 2>/dev/null || true
}

record() {
    story=$1 out=fixtures/transcripts/$1.jsonl
    "$program" record --upstream "$upstream" --out "$out" --kubeconfig "$work/kubeconfig" >"$work/ready" &
    proxy=$!
    for _ in $(seq 100); do grep -q ready "$work/ready" && break; sleep 0.1; done
    k create namespace "$story"
    # Clusters with controllers make it themselves.
    aside create serviceaccount default 2>/dev/null || true
    "${story}_story"
    stop "$proxy"
    proxy=""
    rm -rf "$work/cache" "$work/ready"
    # What else the cluster serves is its own affair: discovery is left to the conformance cases.
    grep -vE '"path":"/(api|apis|openapi/[^"]*|version[^"]*|apis/[^/"]*/[^/"?]*|api/v1)(\?[^"]*)?"' "$out" >"$work/kept" || true
    cp "$work/kept" "$out"
    tidy
    echo "$(wc -l <"$out") lines, $(wc -c <"$out") bytes in $out"
}

[ $# -gt 0 ] || set -- kubectl manifests rollout patches conflicts watch cel access
for one in "$@"; do record "$one"; done
