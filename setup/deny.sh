#!/usr/bin/env bash
# Holds the dependencies against deny.toml with cargo-deny, which is built once into the user's cache folder (two minutes on two cores).
set -euo pipefail
version=0.20.2
cd "$(dirname "$0")/.."
folder=${LOWMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lowmem}/cargo-deny-$version
if [ ! -x "$folder/bin/cargo-deny" ]; then
    echo "setup: building cargo-deny $version (once, into $folder)" >&2
    # Without optimisation: it is built in half the time, and runs for two seconds.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --version "=$version" --root "$folder" cargo-deny
fi
"$folder/bin/cargo-deny" check --hide-inclusion-graph licenses bans sources
