#!/usr/bin/env bash
# Holds the server as built against the recorded answers of a real control plane, and its table against the floor.
#
#   scripts/conformance.sh [--release] [--raise] [CASE…]
#
# --release  builds and takes the release binary
# --raise    writes what holds now as the new floor (it never lowers a figure)
# CASE…      shows how these cases differ instead of the table
set -euo pipefail
cd "$(dirname "$0")/.."

cases=../shared/conformance
floor=fixtures/conformance-floor.json
profile=dev target=debug raise="" chosen=()
for argument in "$@"; do
    case $argument in
        --release) profile=release target=release ;;
        --raise) raise=--raise ;;
        *) chosen+=("$cases/cases/${argument%.json}.json") ;;
    esac
done

for need in python3 kubectl; do
    command -v "$need" >/dev/null || { echo "skipped: conformance needs $need"; exit 0; }
done
[ -d "$cases" ] || { echo "skipped: no recorded cases at $cases"; exit 0; }

cargo build --locked --quiet -p fake-apiserver --profile "$profile"
dir=$(mktemp -d)
server=""
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
"${CARGO_TARGET_DIR:-target}/$target/fake-apiserver" serve --no-kubelet --kubeconfig "$dir/kubeconfig" >"$dir/out" 2>"$dir/err" &
server=$!
for _ in $(seq 200); do grep -q '^ready ' "$dir/out" && break; sleep 0.05; done
grep -q '^ready ' "$dir/out" || { echo "the server did not start:"; cat "$dir/err"; exit 1; }

check=(python3 "$cases/conformance.py" check --kubeconfig "$dir/kubeconfig" --jobs 16)
if [ ${#chosen[@]} -gt 0 ]; then
    "${check[@]}" "${chosen[@]}" || true
    exit 0
fi
"${check[@]}" --summary "$cases"/cases/*.json | tee "$dir/table" || true
python3 scripts/conformance_floor.py $raise "$floor" "$dir/table"
