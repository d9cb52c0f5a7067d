# A menu; each recipe is one line that a person could type.

# what there is
default:
    @just --list

# the simulated cluster, until Ctrl-C
serve *ARGS:
    cargo run --locked -p fake-apiserver -- serve {{ARGS}}

# kubectl through a Sandbox's life, on the simulated cluster
tour:
    cargo run --locked -p fake-apiserver -- run -- bash scripts/tour.sh

# all tests
test:
    cargo test --locked --workspace

# how fast it is
bench:
    cargo bench --locked -p fake-apiserver

# what CI runs
ci:
    bash .ci/run

# the recorded answers of a real control plane, held against the simulated one
conformance *ARGS:
    bash scripts/conformance.sh {{ARGS}}

# write manifests/crds anew from the SDK's types
crds:
    UPDATE=1 cargo test --locked -p agent-sandbox-sdk --test it manifest

# licences, bans and sources of all dependencies (needs cargo-deny)
deny:
    cargo deny check licenses bans sources

# the scenarios on a target (memory, https, processes, outside, kube-apiserver, kubeconfig, k3s, minikube)
scenarios *ARGS:
    cargo run --locked -p e2e -- run {{ARGS}}

# a minikube with gVisor, the controller and manifests/
minikube-up *ARGS:
    scripts/minikube-up {{ARGS}}

# takes down what minikube-up made
minikube-down *ARGS:
    scripts/minikube-down {{ARGS}}

# what sandboxes that are bare pods would become as Sandboxes; changes nothing
migration *ARGS:
    cargo run --locked -p e2e -- migration {{ARGS}}

# conformance, sessions and scenarios on two targets, and where they differ: docs/fidelity.md
fidelity *ARGS:
    bash scripts/fidelity.sh {{ARGS}}

# what kubectl asks a real cluster and what that answers, anew: fixtures/transcripts
record KUBECONFIG *STORIES:
    bash scripts/record_transcripts.sh {{KUBECONFIG}} {{STORIES}}
