#!/usr/bin/env python3
"""Which functions of CUDA's libraries the wheels of PyPI's most used CUDA packages are linked to, and which of them the virtual GPU has.

    setup/cuda-packages.py FOLDER    fetches what virtual-gpu/packages.csv lists into FOLDER (several GB; once), and writes that table anew

Needs pip, nm and readelf, and target/release (`make build`). A function is `answered` where it does or is told what it is for, `unsupported` where it answers that it is not
(virtual-gpu/unsupported.txt), and `missing` where a program that calls it ends. What a package looks up at run time is not seen here.
"""

import csv
import pathlib
import re
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = ROOT / "virtual-gpu" / "packages.csv"
COLUMNS = ["package", "version", "libraries", "functions", "answered", "unsupported", "missing", "names"]
# How the functions of CUDA's libraries begin.
OURS = re.compile(r"^(__cuda|cuda[A-Z]|cu[A-Z]|cublas|cudnn|cufft|cusolver|cusparse|curand|cufile|cuFile|cupti|nccl|nvml|nvrtc|nvshmem)")
LIBRARIES = re.compile(r"NEEDED.*\[(lib(?:cu|nv|nccl)[^\]]*)\]")


def lines(*command):
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.splitlines()


def names(path, which):
    return {line.split()[-1].split("@")[0] for line in lines("nm", "-D", which, str(path)) if line.split()}


def looked_at(package, version, folder, ours, unsupported):
    wheels = folder / f"{package}-{version}"
    if not wheels.is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(wheels), f"{package}=={version}"]
        subprocess.run(command, check=True)
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(wheels / "files")
    # A CUDA library that a wheel brings along is none that is asked for here.
    objects = [path for path in wheels.rglob("*.so*") if path.is_file() and not path.name.startswith(("libcu", "libnv"))]
    wanted, defined, libraries = set(), set(), set()
    for path in objects:
        wanted |= {name for name in names(path, "--undefined-only") if OURS.match(name)}
        defined |= names(path, "--defined-only")
        libraries |= {found.group(1) for line in lines("readelf", "-d", str(path)) if (found := LIBRARIES.search(line))}
    wanted -= defined
    missing = sorted(wanted - ours)
    met = wanted & ours
    return dict(zip(COLUMNS, [package, version, " ".join(sorted(libraries)), len(wanted), len(met - unsupported), len(met & unsupported), len(missing), " ".join(missing)]))


def main():
    folder = pathlib.Path(sys.argv[1])
    ours = names(ROOT / "target/release/libvirtual_gpu.so", "--defined-only")
    listed = (line.split() for line in (ROOT / "virtual-gpu/unsupported.txt").read_text().splitlines() if not line.startswith("#"))
    unsupported = {words[1] for words in listed if len(words) == 2}
    with TABLE.open() as file:
        packages = [(row["package"], row["version"]) for row in csv.DictReader(file)]
    rows = [looked_at(package, version, folder, ours, unsupported) for package, version in packages]
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


main()
