#!/usr/bin/env bash
# manifests/ as kubectl applies them: strictly, on the server, all of them twice.
set -euo pipefail
cd "$(dirname "$0")/.."
for _ in 1 2; do
    for file in namespace runtime-class limit-range resource-quota rbac network-policy sandbox-template sandbox-warm-pool sandbox; do
        kubectl apply --server-side --validate=strict --force-conflicts -f "manifests/$file.yaml"
    done
done
kubectl -n sandboxes wait --for=condition=Ready sandbox/workspace --timeout=60s
