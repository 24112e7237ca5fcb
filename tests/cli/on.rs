//! `lowmem on`: programs that nobody changed, on a virtual GPU, and what is said of them.

use assert_cmd::Command;
use assert_cmd::assert::Assert;

use crate::command::{Place, as_its_schema_says, lowmem, stderr, stdout};
use crate::python::{PYTHON, path_to_torch};

/// `lowmem on ARGUMENTS -- python program.py WORDS`, with PyTorch on the path.
pub(crate) fn on(place: &Place, arguments: &[&str], program: &str, words: &[&str]) -> Command {
    place.file("program.py", program);
    let mut command = lowmem();
    command.current_dir(place.path("")).env("PYTHONPATH", path_to_torch()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg("on").args(arguments).args(["--", PYTHON, "program.py"]).args(words);
    command
}

fn assert_says(assert: &Assert, parts: &[&str]) {
    let said = stderr(assert);
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

/// The last row of the table, as words.
pub(crate) fn last_row(assert: &Assert) -> Vec<String> {
    let said = stderr(assert);
    let mut rows = said.lines().skip_while(|line| !line.starts_with('─')).skip(1);
    let is_row = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let row = rows.by_ref().take_while(is_row).last().unwrap_or_else(|| panic!("no table in: {said}"));
    row.split_whitespace().map(str::to_owned).collect()
}

/// 2 GiB, and 1 GiB more for a while; then the peaks are reset, and it fails.
const FAILS: &str = "
import torch
print(torch.cuda.get_device_name())
kept = torch.zeros(2 << 30, dtype=torch.uint8, device='cuda')
for_a_while = torch.zeros(1 << 30, dtype=torch.uint8, device='cuda')
del for_a_while
torch.cuda.reset_peak_memory_stats()
values = [kept[0].item(), kept.any().item()]
raise SystemExit(3)
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_exit_code_is_the_programs_and_one_that_says_that_it_failed_is_no_verdict() {
    let place = Place::new();
    let mut command = on(&place, &["rtx-4090"], FAILS, &[]);
    let assert = command.assert().code(3);
    assert_eq!(stdout(&assert), "Virtual NVIDIA GeForce RTX 4090\n");
    assert_says(
        &assert,
        &[
            "lowmem: GPU=rtx-4090 is rtx-4090 (NVIDIA GeForce RTX 4090, 23.65 GiB as CUDA reports it). It is virtual: nothing is computed",
            "the program ended with exit code 3",
            // The context of 0.46 GiB on top.
            "Whether it fits is not known, since a program that failed may not have come to its end: it needs at least 3.46 of 23.65 GiB.\n",
            "The program read 2 values back from the GPU, with item (2).",
        ],
    );
    assert!(!stderr(&assert).contains("Fits"), "{}", stderr(&assert));
    assert_eq!(last_row(&assert)[1..], ["0", "3.00", "3.00", "3.46"], "{}", stderr(&assert));
    assert_eq!(stderr(&assert).matches("lowmem: ").count(), 2, "one banner, one word on the exit code: {}", stderr(&assert));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_mask_and_a_size() {
    let place = Place::new();
    let program = "
import sys, torch
print(torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1] >> 30, sys.argv[1:])
";
    let mut command = on(&place, &["20GB", "--mask-name"], program, &["--mask-name", "-x"]);
    let assert = command.assert().success();
    assert_eq!(stdout(&assert), "NVIDIA GeForce RTX 4090 20 ['--mask-name', '-x']\n");
    assert_says(&assert, &["capped to 20.00 GiB", "Fits: 0.46 of 20.00 GiB"]);
}

/// The second tensor fits once the first one's memory is given back. With it and the context's 0.46 GiB, 9.19 of 23.65 GiB are left for the third.
const RUNS_OUT: &str = "
import torch
def ask(gib):
    return torch.empty(gib << 30, dtype=torch.uint8, device='cuda')
first = ask(12)
del first
second = ask(14)
third = ask(30)
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_does_not_fit_is_named_with_its_line_and_what_is_missing() {
    let place = Place::new();
    let mut command = on(&place, &["24GB"], RUNS_OUT, &[]);
    let assert = command.assert().code(1);
    assert_says(
        &assert,
        &[
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 30.00 GiB.",
            "Does not fit: program.py:4 asked for 30.00 GiB, and 9.19 GiB were free. 20.81 GiB are missing.",
            "It needs at least 44.46 GiB. What would have come after that is not known.",
            "Fits on: none. Not known: l20, l40s, rtx-6000-ada, rtx-a6000 and 6 larger. Too small: a100-40gb, ",
            // The largest: a nearer one may be too small for what comes next.
            "To see all that it needs, run: lowmem on b200 -- python3.11 program.py",
        ],
    );
    assert_eq!(last_row(&assert)[1..], ["0", "14.00", "14.00", "14.46"], "{}", stderr(&assert));
    let mut command = on(&place, &["24GB"], RUNS_OUT, &[]);
    let assert = command.env("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True").assert().code(1);
    // Here the device is asked in pieces of 20 MiB, of which the second tensor has 717.
    assert_says(&assert, &["program.py:4 asked for 30.00 GiB, and 9.18 GiB were free. 20.82 GiB are missing."]);
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_program_that_catches_it_went_on() {
    let place = Place::new();
    let program = "
import torch
kept = torch.empty(14 << 30, dtype=torch.uint8, device='cuda')
del kept
kept = torch.empty(20 << 30, dtype=torch.uint8, device='cuda')
try:
    torch.empty(30 << 30, dtype=torch.uint8, device='cuda')
except torch.OutOfMemoryError:
    pass
";
    let mut command = on(&place, &["24GB"], program, &[]);
    let said = [
        "Ran out of memory and went on: program.py:7 asked for 30.00 GiB, and 3.19 GiB were free",
        "Fits on: rtx-4090. Not known: rtx-4060, ",
        "Too small: none.",
    ];
    assert_says(&command.assert().success(), &said);
    let retries = program.split("try").next().expect("the beginning");
    let mut command = on(&place, &["24GB"], retries, &[]);
    let assert = command.assert().success();
    assert_says(&assert, &["Fits: 20.46 of 23.65", "1 of its allocations fitted only after PyTorch had given back unused memory"]);
    let limited = "
import torch
torch.cuda.set_per_process_memory_fraction(0.1)
torch.empty(4 << 30, dtype=torch.uint8, device='cuda')
";
    let mut command = on(&place, &["24GB"], limited, &[]);
    assert_says(&command.assert().code(1), &["and 23.19 GiB were free: the program limits itself."]);
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn processes_are_listed_and_summed_even_where_one_is_killed() {
    let place = Place::new();
    let program = "
import multiprocessing, os, signal, sys, torch
def work(gib):
    kept = torch.empty(gib << 30, dtype=torch.uint8, device='cuda')
    if gib == 14:
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == '__main__':
    context = multiprocessing.get_context('spawn')
    for gib in 12, 14:
        process = context.Process(target=work, args=(gib,))
        process.start()
        process.join()
        print(process.exitcode)
";
    let mut command = on(&place, &["rtx-4090"], program, &[]);
    let assert = command.assert().success();
    assert_eq!(stdout(&assert), "0\n-9\n");
    assert_says(
        &assert,
        &[
            "Allocated and reserved are PyTorch's own counters",
            "Whether it fits is not known: it held 26.92 of 23.65 GiB, 3.27 GiB are missing. This is the sum of all processes' peaks",
        ],
    );
    // The one that was killed told nothing itself.
    assert_eq!(last_row(&assert)[1..], ["0", "14.46"], "{}", stderr(&assert));
    assert_eq!(stderr(&assert).matches("12.00").count(), 3, "{}", stderr(&assert));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_program_for_which_the_machines_memory_does_not_do_has_no_verdict() {
    let place = Place::new();
    let begin = "
import os, resource, signal, torch
pinned = torch.empty(1 << 30, dtype=torch.uint8, pin_memory=True)
kept = torch.empty(1 << 30, dtype=torch.uint8, device='cuda')
";
    let killed = format!("{begin}os.kill(os.getpid(), signal.SIGKILL)\n");
    let refused = format!("{begin}resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))\ntorch.ones(8 << 30, dtype=torch.uint8)\n");
    let locked = format!(
        "{begin}resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))\ntorch.empty(100 << 30, dtype=torch.uint8, pin_memory=True)\n"
    );
    for (program, code, said) in [
        (locked, 1, "the machine's own memory (RAM) ran out, which ended the program."),
        (killed, 128 + 9, "signal 9 ended the program: mostly the kernel sends it, when the machine's own memory (RAM) runs out."),
        (refused, 1, "the machine's own memory (RAM) ran out, which ended the program."),
    ] {
        let file = place.path("verdict.json");
        let json = format!("--json={}", file.display());
        let assert = on(&place, &["rtx-4090", &json], &program, &[]).assert().code(code);
        assert_says(&assert, &[said, "Whether it fits is not known", "it held 1.00 GiB page-locked"]);
        let verdict = as_its_schema_says(&std::fs::read_to_string(file).expect("written"), "on");
        assert_eq!([&verdict["course"], &verdict["verdict"]], ["cut", "not known"]);
        assert!(!stderr(&assert).contains("Fits"), "{}", stderr(&assert));
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn without_pytorch_nothing_is_in_the_way() {
    let place = Place::new();
    place.file("sitecustomize.py", "print('the own one')\n");
    place.file("program.py", "import sys; print([m for m in sys.modules if 'torch' in m], 'sitecustomize' in sys.modules)\nsys.exit(5)\n");
    let mut command = lowmem();
    command.current_dir(place.path("")).env("PYTHONPATH", place.path("")).env("PYTHONDONTWRITEBYTECODE", "1");
    let assert = command.args(["on", "24GB", "python3", "program.py"]).assert().code(5);
    assert_eq!(stdout(&assert), "the own one\n[] True\n");
    assert_says(&assert, &["no process of the program used the GPU."]);
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_is_not_supported_is_listed_and_where_asked_for_an_error() {
    let place = Place::new();
    place.file(
        "program.py",
        "import ctypes
nccl, nvml, cudart = [ctypes.CDLL(name) for name in ('libnccl.so.2', 'libnvidia-ml.so.1', 'libcudart.so.13')]
print([nvml.nvmlDeviceGetTemperature(), cudart.cudaDeviceSynchronize(), nccl.ncclGroupSimulateEnd(), nccl.ncclGroupSimulateEnd(), cudart.cudaDeviceSynchronize()])
",
    );
    let on = |arguments: &[&str]| {
        lowmem().current_dir(place.path("")).args(["on", "24GB"]).args(arguments).args(["python3", "program.py"]).assert()
    };
    let listed =
        "Calls that the virtual GPU does not support, and how often they came: ncclGroupSimulateEnd (2), nvmlDeviceGetTemperature (1).";
    let assert = on(&[]).success();
    assert_eq!(stdout(&assert), "[3, 0, 5, 5, 0]\n");
    assert_says(&assert, &["lowmem: virtual GPU: not supported: ncclGroupSimulateEnd\n", listed]);
    let assert = on(&["--strict"]).code(1);
    assert_eq!(stdout(&assert), "[3, 0, 5, 5, 801]\n");
    assert_says(&assert, &["not supported: ncclGroupSimulateEnd. Since --strict was asked for, the GPU fails from here on\n", listed]);
}

/// Blocks of growing size, one after the other: those of the earlier ones are a cache.
const GROWING: &str = "
import torch
for gib in (4, 5, 6):
    block = torch.empty(gib << 30, dtype=torch.uint8, device='cuda')
    del block
";

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_card_that_would_have_to_do_with_less_cache_is_not_known() {
    let place = Place::new();
    let file = place.path("verdict.json");
    let json = format!("--json={}", file.display());
    let mut command = on(&place, &["rtx-4090", &json], GROWING, &[]);
    let assert = command.assert().success();
    assert_says(
        &assert,
        &["Too small: none.", "It needs at least 6.46 GiB, and held 15.46.", "Where it is not known, run it there: lowmem on rtx-4060 -- "],
    );
    let verdict: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
    assert_eq!((&verdict["verdict"], &verdict["course"]), (&"fits".into(), &"ended".into()));
    for (card, word) in [("rtx-4060", "not known"), ("rtx-3060", "not known"), ("t4", "not known"), ("rtx-3090", "fits"), ("h100", "fits")]
    {
        assert_eq!(verdict["gpus"][card], word, "{card}: {verdict}");
    }
    // Where it is not known, it is run there: it fits on the smallest.
    let mut command = on(&place, &["rtx-4060"], GROWING, &[]);
    assert_says(&command.assert().success(), &["Fits: 6.", "Fits on: rtx-4060, "]);
    // What lives at the same time has no way out.
    let together = GROWING.replace("    del block\n", "    kept.append(block)\n").replace("for gib", "kept = []\nfor gib");
    let mut command = on(&place, &["rtx-4090", "--json"], &together, &[]);
    let verdict = as_its_schema_says(&stdout(&command.assert().success()), "on");
    for (card, word) in [("rtx-4060", "too small"), ("rtx-3060", "too small"), ("rtx-3090", "fits"), ("t4", "too small")] {
        assert_eq!(verdict["gpus"][card], word, "{card}: {verdict}");
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_program_that_looks_at_a_gpus_memory_is_known_where_it_ran_alone() {
    for asked in ["mem_get_info()[0]", "get_device_properties(0).total_memory"] {
        let place = Place::new();
        let program = format!("import torch\nkept = torch.empty(torch.cuda.{asked} // 2, dtype=torch.uint8, device='cuda')\n");
        let mut command = on(&place, &["rtx-4090"], &program, &[]);
        let said = ["Fits on: rtx-4090. Not known: ", "Too small: none.", "The program asked how much memory there is, or is free"];
        assert_says(&command.assert().success(), &said);
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn reserved_and_unused_memory_is_named_with_the_way_out() {
    // Small tensors that live on are cut from a large block, which is asked for again.
    let place = Place::new();
    let program = "
import torch
G = 1 << 30
big = torch.empty(7 * G, dtype=torch.uint8, device='cuda')
del big
kept = [torch.empty(G // 64, dtype=torch.uint8, device='cuda') for _ in range(8)]
big = torch.empty(7 * G, dtype=torch.uint8, device='cuda')
";
    let mut command = on(&place, &["rtx-3060"], program, &[]);
    let said = [
        "Does not fit: program.py:7",
        "were not used. That is more than is missing",
        "with PYTORCH_ALLOC_CONF=expandable_segments:True it may fit here",
    ];
    let assert = command.assert().code(1);
    assert_says(&assert, &said);
    assert_says(&assert, &["It needs at least 7.25 GiB."]);
    let mut command = on(&place, &["rtx-3060"], program, &[]);
    assert_says(&command.env("PYTORCH_ALLOC_CONF", "expandable_segments:True").assert().success(), &["Fits: 7."]);
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn one_run_beyond_the_end_shows_all_that_is_needed() {
    let place = Place::new();
    let mut command = on(&place, &["rtx-4090", "--beyond"], RUNS_OUT, &[]);
    let assert = command.assert().success();
    // 12 GiB of it are a cache.
    assert_eq!(last_row(&assert)[1..], ["0", "44.00", "56.00", "56.46"], "{}", stderr(&assert));
    assert_says(
        &assert,
        &["Does not fit: at least 44.46 of 23.65 GiB are needed.", "Fits on: a100-80gb, ", "Not known: l20, ", "Too small: a100-40gb, "],
    );
    let seen =
        "import torch; kept = torch.empty(30 << 30, dtype=torch.uint8, device='cuda'); print([n >> 30 for n in torch.cuda.mem_get_info()])";
    let mut command = on(&place, &["rtx-4090", "--beyond"], seen, &[]);
    assert_eq!(stdout(&command.assert().success()), "[0, 23]\n");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn devices_have_the_numbers_that_the_user_gave_them() {
    let place = Place::new();
    let program = "
import os, sys
if len(sys.argv) > 1:
    os.environ['CUDA_VISIBLE_DEVICES'] = sys.argv[1]
import torch
for number in range(torch.cuda.device_count()):
    torch.empty(2 * number + 1 << 30, dtype=torch.uint8, device=f'cuda:{number}')
";
    let mut command = on(&place, &["12GB", "--gpus", "2"], program, &["1,0"]);
    let assert = command.assert().success();
    assert_eq!(last_row(&assert)[1..4], ["1", "1.00", "1.00"], "{}", stderr(&assert));
    assert_says(&assert, &["knows device 0 as cuda:1, ", "knows device 1 as cuda:0."]);
    let mut command = on(&place, &["12GB", "--gpus", "2"], program, &["1"]);
    assert_eq!(last_row(&command.assert().success())[1..4], ["1", "1.00", "1.00"]);
    let mut command = on(&place, &["12GB", "--gpus", "2"], program, &[]);
    let assert = command.env("CUDA_VISIBLE_DEVICES", "1").assert().success();
    assert_eq!(last_row(&assert)[1..4], ["1", "1.00", "1.00"]);
    assert_says(&assert, &["CUDA_VISIBLE_DEVICES=1 is set, and the program sees those virtual GPUs."]);
    let mut command = on(&place, &["12GB"], program, &[]);
    let assert = command.env("CUDA_VISIBLE_DEVICES", "3").assert().success();
    assert_says(
        &assert,
        &["its first entry is no number of a virtual GPU (0 to 0): unset it", "used the GPU: CUDA_VISIBLE_DEVICES was 3, "],
    );
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn what_a_program_hides_before_it_uses_a_device_is_hidden() {
    let place = Place::new();
    let program = "
import os, torch
before = torch.cuda.device_count()
os.environ['CUDA_VISIBLE_DEVICES'] = '1'
print(before, torch.cuda.device_count())
held = torch.empty(1 << 30, dtype=torch.uint8, device='cuda')
print(torch.cuda.device_count())
";
    let assert = on(&place, &["12GB", "--gpus", "2"], program, &[]).assert().success();
    assert_eq!(stdout(&assert), "2 1\n1\n");
    assert_eq!(last_row(&assert)[1..3], ["1", "1.00"]);
}

#[test]
fn a_program_that_a_signal_ends_ends_as_in_a_shell() {
    let assert = lowmem().args(["on", "24GB", "--", "sh", "-c", "kill -TERM $$"]).assert().code(128 + 15);
    assert_says(&assert, &["signal 15 ended the program"]);
    lowmem().args(["on", "24GB", "--", "sh", "-c", "exit 77"]).assert().code(77);
}

#[test]
fn what_cannot_be_run_is_refused() {
    let place = Place::new();
    place.file("program.py", "");
    let refused = |arguments: &[&str]| stderr(&lowmem().current_dir(place.path("")).arg("on").args(arguments).assert().code(2));
    for (said, part) in [
        (refused(&["potato", "--", "true"]), "GPU=potato is neither a size nor a known GPU"),
        (refused(&["24GB"]), "<PROGRAM>"),
        (refused(&["24GB", "--"]), "<PROGRAM>"),
        (refused(&["24GB", "--", "no-such-program"]), "no-such-program: there is no such program"),
        (
            refused(&["24GB", "--", "./program.py"]),
            "./program.py: it may not be executed: name the program that runs it, as in `python ./program.py`",
        ),
        (refused(&["24GB", "--gpus", "0", "--", "true"]), "--gpus"),
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn all_processes_see_what_all_hold_of_the_device() {
    // A child holds 2 GiB until its standard input ends, its parent 1 GiB; both have a context of 0.46 GiB. The child's end is seen as well.
    let place = Place::new();
    let program = "
import subprocess, sys, torch
def ask(*options):
    return subprocess.run(['nvidia-smi', *options], check=True, capture_output=True, text=True).stdout
def used():
    return ask('--query-gpu=memory.used', '--format=csv,noheader,nounits').splitlines()
print(used())
kept = torch.empty(1 << 30, dtype=torch.uint8, device='cuda:1')
code = \"import torch; kept = torch.empty(2 << 30, dtype=torch.uint8, device='cuda:1'); print(flush=True); input()\"
child = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(used(), torch.cuda.mem_get_info(1)[0] >> 30)
print(ask('--query-gpu=index,name,memory.total,temperature.gpu', '--format=csv', '-i', '1'), end='')
processes = ask('--query-compute-apps=pid,used_memory', '--format=csv,noheader,nounits').splitlines()
print(len(processes), f'{child.pid}, 2520' in processes)
print('[N/A]' in ask('--query-gpu=power.draw', '--format=csv'), str(child.pid) in ask(), ask('-L').count('GPU-'))
one = kept[:1]
for _ in range(10000):
    one.neg_()
# Of a byte kernels take 2 microseconds, and each is asked for in 4; the first is loaded as well.
print(ask('--query-gpu=utilization.gpu', '--format=csv').splitlines())
child.communicate(b'go\\n')
print(used())
del kept, one
torch.cuda.empty_cache()
print(used())
print(subprocess.run(['nvidia-smi', '--query-gpu=colour'], capture_output=True, text=True).returncode)
";
    let mut command = on(&place, &["rtx-4090", "--gpus", "2"], program, &[]);
    let expected = "['0', '0']
['0', '4016'] 22
index, name, memory.total [MiB], temperature.gpu
1, Virtual NVIDIA GeForce RTX 4090, 24217 MiB, [N/A]
2, True
True True 2
['utilization.gpu [%]', '0 %', '48 %']
['0', '1496']
['0', '472']
2
";
    assert_eq!(stdout(&command.assert().success()), expected.replace("2, True", "2 True"));
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn the_real_run_time_compiler_is_used_where_it_is_installed() {
    // A stand-in of another version, in a folder with a runtime that must not win.
    let place = Place::new();
    let installed = place.path("site/nvidia/cu13/lib");
    std::fs::create_dir_all(&installed).expect("a folder");
    let source = place.file("nvrtc.c", "int nvrtcVersion(int *major, int *minor) { *major = 77; *minor = 1; return 0; }\n");
    for name in ["libnvrtc.so.13", "libcudart.so.13"] {
        let made = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(installed.join(name)).arg(&source).status();
        assert!(made.expect("a C compiler").success());
    }
    let program = "
import ctypes
major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
ctypes.CDLL('libnvrtc.so.13').nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
ctypes.CDLL('libcudart.so.13').cudaGetDeviceCount(ctypes.byref(count))
print(major.value, count.value)
";
    place.file("program.py", program);
    let run = |path: &std::path::Path| {
        let mut command = lowmem();
        command.current_dir(place.path("")).env("PYTHONPATH", path).args(["on", "rtx-4090", "--", "python3", "program.py"]);
        stdout(&command.assert().success())
    };
    assert_eq!(run(&place.path("site")), "77 1\n");
    assert_eq!(run(&place.path("")), "13 1\n", "ours, where there is none");
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_limit_of_the_programs_own_is_smaller_on_a_smaller_gpu() {
    let place = Place::new();
    // 6 GiB at once of 9 GiB reserved, in half of the card: 11.8 GiB of 23.65, and 5.8 of 11.6.
    let program = "
import torch
torch.cuda.set_per_process_memory_fraction(0.5)
first = torch.empty(3 << 30, dtype=torch.uint8, device='cuda')
second = torch.empty(3 << 30, dtype=torch.uint8, device='cuda')
del first
third = torch.empty((3 << 30) + (64 << 20), dtype=torch.uint8, device='cuda')
";
    let mut command = on(&place, &["rtx-4090", "--json"], program, &[]);
    let assert = command.assert().success();
    let verdict = as_its_schema_says(&stdout(&assert), "on");
    for (card, word) in [("rtx-3060", "too small"), ("rtx-4080", "not known"), ("rtx-4090", "fits"), ("a100-40gb", "fits")] {
        assert_eq!(verdict["gpus"][card], word, "{card}: {verdict}");
    }
    assert_says(&assert, &["The program allows itself 50% of a GPU's memory"]);
}
