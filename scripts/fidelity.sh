#!/usr/bin/env bash
# How near the fake is to a real control plane: recorded answers, recorded sessions of kubectl, and the scenarios on two
# targets side by side. Writes docs/fidelity.md.
#
#   KUBEBUILDER_ASSETS=FOLDER scripts/fidelity.sh [ARGUMENTS OF `e2e fidelity`]
#
# `--other https` compares with the fake itself, where there is no real kube-apiserver.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet -p fake-apiserver -p e2e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
target/debug/e2e fidelity --report "$work/scenarios.md" "$@" || status=$?
[ -s "$work/scenarios.md" ] || exit "$status"
bash scripts/conformance.sh >"$work/conformance" 2>&1 || status=$?
sessions=yes
cargo test --locked --quiet -p fake-apiserver --test it transcripts >"$work/sessions" 2>&1 || { sessions=no status=1; }

other="the targets that stand in the table below"
if [ -x "${KUBEBUILDER_ASSETS:-}/kube-apiserver" ]; then
    # A build without a release's flags calls itself v0.0.0; then the fixtures' README knows.
    version=$("$KUBEBUILDER_ASSETS/kube-apiserver" --version | sed -n 's/^Kubernetes \(v[1-9].*\)/\1/p')
    etcd=$("$KUBEBUILDER_ASSETS/etcd" --version | sed -n 's/^etcd Version: //p')
    other="kube-apiserver ${version:-v1.36.3 (built from source)} with etcd $etcd, our kubelet and controllers as its clients"
fi
{
    echo "# Fidelity"
    echo
    echo "How near the simulated cluster is to a real one. Compared with: $other."
    echo
    echo "Made by \`KUBEBUILDER_ASSETS=\$(setup-envtest use 1.36 -p path) just fidelity\`. What differs stands here; what is not" \
        "simulated at all is listed by \`cargo run -p fake-apiserver -- gaps\`, and answers 501."
    echo
    echo "## Scenarios"
    echo
    echo "The same stories on both. What a target does not have, such as gVisor, is not run there."
    echo
    cat "$work/scenarios.md"
    echo
    echo "## Recorded answers of a real control plane"
    echo
    echo "Cases of requests and answers (\`fixtures/conformance\`), asked of the fake over HTTPS: how many are answered alike," \
        "and how many steps of them."
    echo
    echo '```text'
    cat "$work/conformance"
    echo '```'
    echo
    echo "## Recorded sessions of kubectl"
    echo
    echo "What kubectl asked a real server in the course of a story (\`fixtures/transcripts\`), asked again."
    echo
    echo "| session | exchanges |"
    echo "|---|---|"
    for file in fixtures/transcripts/*.jsonl; do
        echo "| $(basename "$file" .jsonl) | $(grep -c '"request"' "$file") |"
    done
    echo
    if [ "$sessions" = yes ]; then echo "All are answered alike."; else grep jsonl "$work/sessions"; fi
} >docs/fidelity.md
echo "docs/fidelity.md"
exit "$status"
