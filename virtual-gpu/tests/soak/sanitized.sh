#!/bin/sh
# Runs the soak under address sanitizer with leak detection, which Rust's own toolchain brings; else under valgrind; else as it is. The first line says which it was, the
# last one how long it took. SOAK_WITH=address: nothing but address sanitizer will do.
set -eu
begun=$(date +%s)
cd "$(dirname "$0")/../../.."

# In a folder of its own: nothing that was built otherwise fits.
target=$(rustc -vV | sed -n 's/^host: //p')
folder=target/sanitized
probe=$folder/probe
mkdir -p "$probe"
printf 'fn main() {}\n' > "$probe/probe.rs"
# The symbols have to be the program's to give: the library under test is loaded later and has none of its own.
flags="-Zsanitizer=address -Clink-arg=-rdynamic"

# shellcheck disable=SC2086 # the flags are words
if RUSTC_BOOTSTRAP=1 rustc $flags --target "$target" -o "$probe/probe" "$probe/probe.rs" 2> "$probe/errors" && "$probe/probe" 2>> "$probe/errors"; then
    echo "soak: under address sanitizer, with leak detection"
    CARGO_PROFILE_DEV_DEBUG=line-tables-only RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags ASAN_OPTIONS=detect_leaks=1 \
        cargo test --quiet --package virtual-gpu --target "$target" --target-dir "$folder" --test virtual_gpu -- soak::
elif [ "${SOAK_WITH:-}" = address ]; then
    echo "soak: SOAK_WITH=address, and this toolchain has no address sanitizer:" >&2
    cat "$probe/errors" >&2
    exit 1
elif command -v valgrind > "$probe/errors"; then
    echo "soak: under valgrind, since this toolchain has no address sanitizer"
    runner="valgrind --quiet --trace-children=yes --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --error-exitcode=23"
    cargo test --quiet --config "target.$target.runner = '$runner'" --package virtual-gpu --target "$target" --target-dir "$folder" --test virtual_gpu -- soak::
else
    echo "soak: without a sanitizer, since there is neither address sanitizer nor valgrind"
    cargo build --quiet --release --package virtual-gpu
    cargo test --quiet --release --package virtual-gpu --test virtual_gpu -- soak::
fi
echo "soak: no fault in 3 times 10,000 operations of 4 threads on 2 devices; built and run in $(($(date +%s) - begun)) s"
