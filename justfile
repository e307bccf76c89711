# One-liners for people; .ci/run holds the commands, so that both check the same.

[private]
default:
    @just --list

# Format everything
fmt:
    cargo fmt --all && cargo fmt --manifest-path fuzz/Cargo.toml

# Clippy, warnings refused
lint:
    .ci/run lint

# Build the documentation, warnings refused
docs:
    .ci/run docs

# Licences, bans, sources and advisories of dependencies
deny:
    .ci/run deny

# All tests
test:
    cargo test --workspace

# What the OpenAPI document says, tried on a real server by Schemathesis
api:
    .ci/run api

# Everything quick
check:
    .ci/run fmt lint docs deny

# Simulate clusters: `just sim 0..10000`
sim seeds="0..400":
    cargo run --release -p knot-sim -- run --seeds {{seeds}}

# Simulate short runs from a random seed on until Ctrl-C; `just soak --length medium` for longer ones
soak *args="--length tiny":
    #!/usr/bin/env bash
    set -euo pipefail
    first=$((RANDOM * 32768 + RANDOM))
    echo "seeds $first.. $(echo {{args}})"
    cargo run --release -p knot-sim -- run --seeds "$first..$((first + 1000000000))" {{args}}

# Seeds until each planted bug is found: `just matrix --area deletes`
matrix *args:
    cargo run --release -p knot-sim -- matrix {{args}}

# Change the engine on purpose, and see whether a short campaign notices: `just mutants --sample 50`; needs cargo-mutants
mutants *args:
    cargo run --quiet -p knot-mutants -- {{args}}

# Fuzz what peers, clients, disks and people may send, each target for so long: `just fuzz 7200`
fuzz seconds="60":
    KNOT_CI_FUZZ_SECONDS={{seconds}} .ci/run fuzz

# Durable writes, time to visible, catching up: ratios against etcd and Corrosion
bench:
    cargo bench -p knot-server --bench cluster

# Take pictures of all pages anew, for docs/pages.md; needs Chromium, Node and pngquant
pictures:
    rm -rf target/pictures docs/images/pages && mkdir -p docs/images/pages
    KNOT_SCREENSHOTS=$PWD/target/pictures cargo test -p knot-server --test browser
    for name in $(grep -o 'images/pages/[a-z0-9-]*.png' docs/pages.md | sort -u); do \
        pngquant --speed 1 --strip --output "docs/$name" 32 "target/pictures/$(basename "$name")"; done

# Logins, lists and requests of a server with 10,000 users, 100,000 tokens and 1,000 templates
bench-accounts:
    cargo bench -p knot-server --bench accounts

# Three servers on this machine until Ctrl-C
demo *args:
    cargo run --release -- demo {{args}}
