#!/usr/bin/env bash
# How near the fake is to a real control plane: its recorded answers (conformance), and the scenarios on two targets side by
# side. Writes docs/fidelity.md. Arguments go to `e2e fidelity`: `--other https` where there is no real kube-apiserver.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet -p fake-apiserver -p e2e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
target/debug/e2e fidelity --report "$work/scenarios.md" "$@" || status=$?
[ -s "$work/scenarios.md" ] || exit "$status"
bash scripts/conformance.sh >"$work/conformance" 2>&1 || status=$?
{
    echo "# Fidelity"
    echo
    echo "Written by \`just fidelity\`. What cannot be told apart is not told apart by these; what differs stands here."
    echo
    echo "## Recorded answers of a real control plane"
    echo
    echo '```text'
    tail -n 12 "$work/conformance"
    echo '```'
    echo
    echo "## Scenarios"
    echo
    cat "$work/scenarios.md"
} >docs/fidelity.md
echo "docs/fidelity.md"
exit "$status"
