#!/usr/bin/env bash
# Programs with other languages' clients, as their users write them, against the cluster that KUBECONFIG names: the Python
# client and client-go, in versions that e2e/clients locks. What cannot be run here is skipped, and said.
#
#   cargo run -p fake-apiserver -- run -- bash scripts/clients.sh
#
# They work in the namespaces `python` and `go`, which they make and take away. The first run fetches their packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BUILT=target/clients

step() { printf '\n== %s\n' "$*"; }

skip() { printf 'skipped: %s\n' "$*"; }

# Makes $1 anew if a file that it depends on ($2) is newer.
is_current() {
    [[ -e $1 && ! $2 -nt $1 ]]
}

python_client() {
    local venv=$BUILT/python wanted=e2e/clients/python/requirements.txt
    command -v python3 >/dev/null || { skip "python3 is not installed"; return; }
    if ! is_current "$venv/fetched" "$wanted"; then
        rm -rf "$venv"
        python3 -m venv "$venv" 2>/dev/null || { skip "python3 has no venv"; return; }
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted" ||
            { skip "the packages of $wanted cannot be fetched"; return; }
        touch "$venv/fetched"
    fi
    "$venv/bin/python" e2e/clients/python/main.py
}

go_client() {
    local program=$PWD/$BUILT/go wanted=e2e/clients/go
    command -v go >/dev/null || { skip "go is not installed"; return; }
    if ! is_current "$program" "$wanted/main.go" || ! is_current "$program" "$wanted/go.sum"; then
        (cd "$wanted" && go mod download) || { skip "the modules of $wanted/go.mod cannot be fetched"; return; }
        (cd "$wanted" && go build -mod=readonly -o "$program" .)
    fi
    "$program"
}

mkdir -p "$BUILT"
step "the Python client"
python_client
step "client-go"
go_client
printf '\nThe clients got what they would get of the real server.\n'
