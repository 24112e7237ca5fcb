"""Our models beside diffusers' on the CPU: one forward of the transformer and one decode of the VAE, on the same weights and inputs.

Each side is a process of its own that runs its model once a line. They take turns, so that whatever else slows the machine falls on both, and
the one that waits does nothing. The clock is here, for both alike: wall time from the line to the answer, and CPU time of the process.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent.parent / "sweeps" / "models"
TIMESTEP = 500.0
HEAD = """# Our models beside diffusers' on the CPU

One forward of the transformer and one untiled decode of the VAE: the same libtorch, threads, type, weights and inputs. `make bench` adds a run.

A ratio below one: ours is faster. By turns: the median of each turn's ratio of wall times. Least: the ratio of the shortest runs. CPU time: the
ratio of the median CPU times, all threads together. Results differ by so much of the largest value.

Where other work shares the cores, threads wait for each other at the end of every parallel loop, and both wall and CPU time of one side swing by a
third and more from run to run. `ARGS="--threads 1"` has no such waits: then the three ratios must agree.
"""


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="wan2.1-t2v-1.3b", help="a file of sweeps/models")
    options.add_argument("--part", nargs="+", choices=["transformer", "vae"], default=["transformer", "vae"])
    options.add_argument("--dtype", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--repetitions", type=int, default=5, help="a side, after one that is not counted")
    options.add_argument("--layers", type=int, help="fewer transformer blocks than the model has, for a quick look")
    options.add_argument("--transformer-latents", type=int, nargs=3, default=[3, 32, 32], metavar=("FRAMES", "HEIGHT", "WIDTH"))
    options.add_argument("--vae-latents", type=int, nargs=3, default=[3, 16, 16], metavar=("FRAMES", "HEIGHT", "WIDTH"))
    options.add_argument("--write", action="store_true", help="add the result to beside_diffusers.md too")
    options.add_argument("--ours", required=True, help=argparse.SUPPRESS)
    options.add_argument("--work", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    options = options.parse_args()

    rows = []
    # Runs are kept, one below the other: on a machine with other work they differ, and the reader should see by how much.
    file = HERE / "beside_diffusers.md"
    before = file.read_text() if file.exists() else HEAD
    for dtype in options.dtype:
        for part in options.part:
            rows.append(compare(options, part, dtype))
            text = table(options, rows)
            # After each case: a later one that fails takes nothing with it.
            if options.write:
                file.write_text(before + text)
            print(text.splitlines()[-1], file=sys.stderr)
    print(text)


def compare(options, part, dtype):
    """Runs both sides by turns and gives the row of a table."""
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    frames, height, width = getattr(options, f"{part}_latents")
    case = {
        "folder": str(options.work),
        "model": str(MODELS / f"{options.model}.yaml"),
        "part": part,
        "dtype": dtype,
        "threads": options.threads,
        "layers": options.layers,
        "latents": [1, 16, frames, height, width],
    }
    # Ours first: it makes the weights.
    sides = [Side(command + [json.dumps(case)]) for command in ([options.ours], [sys.executable, __file__])]
    for side in sides:
        side.run("run")
    times = [[], []]
    for repetition in range(options.repetitions):
        for index in (0, 1) if repetition % 2 == 0 else (1, 0):
            times[index].append(sides[index].run("run"))
    for side in sides:
        side.run("write")
        side.end()
    wall, cpu = ([[time[kind] for time in side] for side in times] for kind in (0, 1))
    row = {"part": part, "dtype": dtype, "layers": options.layers, "pixels": [4 * (frames - 1) + 1, 8 * height, 8 * width]}
    row |= {"median": [statistics.median(side) for side in wall], "least": [min(side) for side in wall]}
    # Neighbours in time share what else the machine does: their ratio says more than the medians'.
    row["turns"] = statistics.median(ours / theirs for ours, theirs in zip(*wall))
    row |= {"cpu": [statistics.median(side) for side in cpu], "difference": difference(options.work)}
    shutil.rmtree(options.work)
    return row


class Side:
    """A process that runs its model once a line."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.wait_for("ready")

    def run(self, line):
        """Wall and CPU seconds of what `line` starts."""
        cpu, wall = self.cpu_secs(), time.perf_counter()
        self.process.stdin.write(line + "\n")
        self.wait_for("done")
        return time.perf_counter() - wall, self.cpu_secs() - cpu

    def wait_for(self, answer):
        line = self.process.stdout.readline().strip()
        if line != answer:
            sys.exit(f"{self.process.args[0]} said '{line}' where '{answer}' was expected: see its message above")

    def cpu_secs(self):
        """User and system time so far, from the fields behind the process's name."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def difference(work):
    """How far the two results are from each other, as a share of the largest value."""
    import numpy

    ours, theirs = (numpy.fromfile(work / name, dtype=numpy.float32) for name in ("ours", "theirs"))
    return float(abs(ours - theirs).max() / abs(theirs).max())


def table(options, rows):
    """The result as Markdown, without anything that says which machine it was beyond its processor."""
    import diffusers
    import torch

    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1].strip()
    threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
    lines = [
        "",
        f"## {datetime.date.today()}, `{options.model}`, {threads}",
        "",
        f"{cpu}; diffusers {diffusers.__version__}; torch {torch.__version__}. {options.repetitions} runs a side, after one that is not counted. "
        f"Other work on the machine: load average {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores.",
        "",
        "| what | type | frames x height x width | ours, median s (least) | diffusers, median s (least) | ratio, by turns | ratio, least | ratio, CPU time "
        "| results differ by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        what = {"transformer": "DiT forward", "vae": "VAE decode"}[row["part"]]
        if row["layers"] and row["part"] == "transformer":
            what += f", {row['layers']} blocks"
        times = [f"{median:.2f} ({least:.2f})" for median, least in zip(row["median"], row["least"])]
        ratios = [row["turns"], *(row[kind][0] / row[kind][1] for kind in ("least", "cpu"))]
        ratios = [f"{ratio:.2f}" for ratio in ratios]
        cells = [what, row["dtype"], "x".join(map(str, row["pixels"])), *times, *ratios, f"{row['difference']:.1e}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def theirs(case):
    """Diffusers' half: its model on the file that our half made, once a line."""
    import torch
    import yaml
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    torch.set_num_threads(case["threads"])
    folder = pathlib.Path(case["folder"])
    definition = yaml.safe_load(pathlib.Path(case["model"]).read_text())
    compute = {"fp32": torch.float32, "bf16": torch.bfloat16}[case["dtype"]]

    # 1. The model without values, and the values where they lie.
    with torch.device("meta"):
        if case["part"] == "transformer":
            spec = {name: value for name, value in definition["transformer"].items()}
            spec["num_layers"] = case["layers"] or spec["num_layers"]
            model = WanTransformer3DModel(**spec)
        else:
            spec = {name.replace("temporal", "temperal"): value for name, value in definition["vae"].items()}
            model = AutoencoderKLWan(**spec)
            model.encoder = model.quant_conv = None
    tensors = mapped(folder, compute)
    inputs = {name: tensors.pop(f"input.{name}") for name in ("latents", "prompt")}
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    # As a checkpoint has them and `from_pretrained` leaves them. Ours keeps the weights of convolutions channels last.
    tensors = {name: value.reshape(shapes[name]).contiguous() for name, value in tensors.items()}
    model.load_state_dict(tensors, assign=True)
    model.eval().requires_grad_(False)
    if case["part"] == "transformer":
        # What has no values is not in a checkpoint either: the table of turns is computed.
        model.rope = type(model.rope)(spec["attention_head_dim"], tuple(spec["patch_size"]), 1024)
    print("ready", flush=True)

    # 2. A run a line, and at the end what came out.
    with torch.no_grad():
        for line in sys.stdin:
            if line.strip() == "write":
                output.float().contiguous().numpy().tofile(folder / "theirs")
            elif case["part"] == "transformer":
                timestep = torch.tensor([TIMESTEP])
                output = model(inputs["latents"], timestep, inputs["prompt"], return_dict=False)[0]
            else:
                output = model.decode(inputs["latents"], return_dict=False)[0]
            print("done", flush=True)


def mapped(folder, compute):
    """Name to tensor, each a view of the file of weights."""
    import torch

    file = folder / "weights"
    flat = torch.from_file(str(file), shared=True, size=file.stat().st_size, dtype=torch.uint8)
    tensors = {}
    for entry in json.loads((folder / "tensors.json").read_text()):
        kind = torch.float32 if entry["fp32"] else compute
        count = torch.Size(entry["shape"]).numel()
        values = flat[entry["start"] : entry["start"] + count * kind.itemsize].view(kind)
        tensors[entry["name"]] = values.as_strided(entry["shape"], entry["stride"])
    return tensors


if __name__ == "__main__":
    if sys.argv[1].startswith("{"):
        theirs(json.loads(sys.argv[1]))
    else:
        main()
