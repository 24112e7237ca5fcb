#!/usr/bin/env bash
# Prints where axe-core's script is, after fetching it into .reference (once a version). Tests of pages run it; nothing that is built has it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
read -r name version hash < <(grep -v '^#' "$here/axe.txt")
script=$root/.reference/$name-$version/axe.min.js

say() { printf 'axe: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

if [ ! -f "$script" ]; then
    command -v npm >/dev/null || fail "npm is needed to fetch $name: install it, or build the tests with LOWMEM_WITHOUT_BROWSER=1"
    mkdir -p "$root/.reference"
    # Another process may be fetching it too: each into a folder of its own, and the first one to be done has made it.
    partial=$(mktemp -d "$root/.reference/$name.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    say "fetching $name $version"
    archive=$partial/$(cd "$partial" && npm pack --silent "$name@$version")
    sha512sum --quiet --check <<<"$hash  $archive" || fail "$name $version is not what setup/axe.txt names"
    tar -xzf "$archive" -C "$partial" --strip-components=1 package/axe.min.js package/LICENSE
    rm "$archive"
    chmod 755 "$partial"
    mv -T "$partial" "$(dirname "$script")" 2>/dev/null || [ -f "$script" ] || fail "$script cannot be made"
fi
echo "$script"
