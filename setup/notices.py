#!/usr/bin/env python3
"""Prints the licences of all crates that are linked into the programs: name, version, licence, and the texts that came with each. They ask to be kept with it."""

import collections
import json
import pathlib
import subprocess

PROGRAMS = ["harness", "engine", "virtual-gpu"]
TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")

command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]
metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

linked, open_ = set(), [id for id in metadata["workspace_members"] if packages[id]["name"] in PROGRAMS]
while open_:
    id = open_.pop()
    if id not in linked:
        linked.add(id)
        open_ += [dep["pkg"] for dep in nodes[id]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]

# Many crates bring the same text, letter by letter.
users = collections.defaultdict(list)
for package in sorted((packages[id] for id in linked - set(metadata["workspace_members"])), key=lambda it: (it["name"], it["version"])):
    print(f"{package['name']} {package['version']}: {package['license'] or 'see below'}")
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.upper().startswith(TEXTS):
            users[path.read_text(errors="replace").strip()].append(package["name"])
for text, names in users.items():
    print(f"\n{'=' * 100}\n{', '.join(dict.fromkeys(names))}:\n\n{text}")
