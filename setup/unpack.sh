#!/usr/bin/env bash
# unpack.sh LIST [NAME]: fetches the wheels that LIST names, checks them against their hashes, and unpacks them once into a folder of the user's cache, which appears
# whole or not at all. It prints where that is. The folder is called NAME, or after the list and what is in it.
set -euo pipefail
list=$1
cache=${LOWMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lowmem}
folder=$cache/${2:-$(basename "$list" .txt)-$(sha256sum "$list" | cut -c1-12)}

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

printf '%s\n' "$folder"
[ -d "$folder" ] && exit
command -v python3 >/dev/null || fail "python3 is needed to fetch packages: install it (with pip) and try again"
python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip: install it (Debian: python3-pip) and try again"
mkdir -p "$cache"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "fetching $(sed -n 's/^\([a-z0-9-]*==[0-9.]*\).*/\1/p' "$list" | paste -sd' ') (once, into $folder)"
# pip takes each platform tag literally, and the wheels name nearly all of them.
platforms=()
for tag in 1 2010 2014 _2_{5,12,17,18,24,25,26,27,28}; do platforms+=(--platform "manylinux${tag}_x86_64"); done
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --python-version 3.11 \
    --implementation cp "${platforms[@]}" --dest "$work/wheels" --requirement "$list" \
    || fail "pip could not fetch what $list names: see its message above"
# `python3 -m zipfile` would forget which files are programs.
python3 - "$work/files" "$work"/wheels/*.whl <<'PROGRAM'
import os, sys, zipfile

for name in sys.argv[2:]:
    with zipfile.ZipFile(name) as wheel:
        for member in wheel.infolist():
            path = wheel.extract(member, sys.argv[1])
            if member.external_attr >> 16 & 0o111 and not member.is_dir():
                os.chmod(path, 0o755)
PROGRAM
# Another process may have been quicker: its copy is the same.
mv -T "$work/files" "$folder" 2>/dev/null || [ -d "$folder" ] || fail "could not move $work/files to $folder"
