#!/usr/bin/env bash
# large-package.sh NAME: prints where the package of setup/NAME.txt is, after fetching it once into the user's cache folder. For `make test-large`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${LOWMEM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lowmem}
folder=$cache/$1-$(sha256sum "$here/$1.txt" | cut -c1-12)

"$here/unpack.sh" "$here/$1.txt" "$folder"
printf '%s\n' "$folder"
