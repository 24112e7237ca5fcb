#!/usr/bin/env bash
# Makes target/dist/lowmem-VERSION-x86_64.tar.gz of what `make build` built: all that a machine without Rust needs, but for PyTorch, which `lowmem setup` fetches there.
set -euo pipefail
cd "$(dirname "$0")/.."
built=target/release
version=$("$built/lowmem" --version | cut -d' ' -f2)
name=lowmem-$version-x86_64
dist=target/dist

rm -rf "${dist:?}/$name"
mkdir -p "$dist/$name/completions" "$dist/$name/virtual-gpu"
cp "$built"/{lowmem,lowmem-worker,libvirtual_gpu.so,liblowmem_observer.so} LICENSE README.md CHANGELOG.md "$dist/$name/"
cp "$built"/virtual-gpu/*.so* "$dist/$name/virtual-gpu/"
for shell in bash zsh fish; do "$built/lowmem" completions "$shell" > "$dist/$name/completions/lowmem.$shell"; done
"$built/lowmem" man "$dist/$name/man/man1"
setup/notices.py > "$dist/$name/THIRD-PARTY-LICENSES"
printf '\n' | cat - reports/fonts/LICENSE >> "$dist/$name/THIRD-PARTY-LICENSES"
# The same files make the same archive.
tar --create --directory "$dist" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=u+w,go-w "$name" | gzip --no-name > "$dist/$name.tar.gz.part"
mv "$dist/$name.tar.gz.part" "$dist/$name.tar.gz"
echo "$dist/$name.tar.gz"
