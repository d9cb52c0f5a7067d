#!/usr/bin/env bash
# Runs the commands of guides: the blocks fenced as ```sh, each file in a shell of its own. Blocks fenced as ```sh elsewhere
# need what not every machine has, and are read for their grammar alone.
set -euo pipefail
cd "$(dirname "$0")/.."
blocks() { awk -v fence="$1" '$0 == "```" { on = 0 } on { print } $0 == fence { on = 1 }' "$2"; }
for guide in "${@:-docs/guides/*.md}"; do
    for file in $guide; do
        blocks '```sh elsewhere' "$file" | bash -n
        echo "-- $file"
        blocks '```sh' "$file" | bash -euo pipefail
    done
done
