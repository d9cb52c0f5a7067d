#!/usr/bin/env bash
# Runs the session that README.md shows and writes what came out into it.
#
#   cargo run -p fake-apiserver -- run -- bash scripts/record_readme.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

session=$(mktemp)
trap 'rm -f "$session"' EXIT
say() {
    printf '$ %s\n' "$1" >>"$session"
    bash -c "$1" >>"$session" 2>&1
}

say 'kubectl apply -f fixtures/samples/with-volume.yaml'
say 'kubectl wait --for=condition=Ready sandbox/with-volume'
say 'kubectl get sandboxes,pods,pvc'
say "kubectl exec with-volume -- sh -c 'echo kept > /data/note'"
say "kubectl patch sandbox with-volume --type=merge -p '{\"spec\":{\"operatingMode\":\"Suspended\"}}'"
say 'kubectl wait --for=condition=Suspended sandbox/with-volume'
say 'kubectl get sandboxes,pods,pvc'
say "kubectl patch sandbox with-volume --type=merge -p '{\"spec\":{\"operatingMode\":\"Running\"}}'"
say 'kubectl wait --for=condition=Ready sandbox/with-volume'
say 'kubectl exec with-volume -- cat /data/note'
say 'kubectl delete sandbox with-volume'

{
    sed '/^<!-- recorded:/q' README.md
    printf '```console\n'
    cat "$session"
    printf '```\n'
    sed -n '/^<!-- end of the recording/,$p' README.md
} >"$session.md"
mv "$session.md" README.md
