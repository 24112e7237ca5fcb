//! `lowmem validate`: published figures, what is skipped, and what is refused.

use assert_cmd::assert::Assert;

use crate::command::{Place, lowmem, stderr, stdout};
use crate::python::{PYTHON, path_to_torch};

const TITLES: &str = "model,task,gpu,width,height,frames,steps,gpus,options,total_secs,peak_memory_gib,source";

/// Wan's official code as far as `wan.py` looks at it, and a model of 3 GiB: a gigabyte of weights on the CPU, moved and given back, and two more. Each step
/// is ten products of matrices of 16384 x 16384. Of several ranks each has its part of the weights and gathers all of them, and the first decodes.
fn wan(place: &Place) {
    for folder in ["wan/modules", "wan/utils", "wan/configs"] {
        std::fs::create_dir_all(place.path("Wan2.1").join(folder)).expect("a folder");
    }
    let file = |name: &str, text: &str| std::fs::write(place.path("Wan2.1/wan").join(name), text).expect("a file");
    file("text2video.py", "");
    file(
        "configs/__init__.py",
        "WAN_CONFIGS = {'t2v-1.3B': dict.fromkeys(('dim', 'ffn_dim', 'freq_dim', 'num_heads', 'num_layers', 'window_size', 'qk_norm', 'cross_attn_norm', 'eps'), 1)}\n",
    );
    file("utils/__init__.py", "");
    file("utils/fm_solvers_unipc.py", "class FlowUniPCMultistepScheduler:\n    def set_timesteps(self): pass\n    def step(self): pass\n");
    file("modules/__init__.py", "");
    file("modules/t5.py", "class T5EncoderModel:\n    def __call__(self): pass\n");
    file(
        "modules/model.py",
        "
import torch, torchvision.transforms, flash_attn
class WanModel(torch.nn.Module):
    def __init__(self, **shape):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1 << 28))
        torch.nn.init.normal_(self.weight)
",
    );
    file(
        "__init__.py",
        "
import torch
import torch.distributed as dist
from . import configs
from .modules.model import WanModel
from .utils.fm_solvers_unipc import FlowUniPCMultistepScheduler
class WanT2V:
    def __init__(self, config, checkpoint_dir, t5_cpu, device_id=0, rank=0, t5_fsdp=False, dit_fsdp=False, use_usp=False):
        self.model, self.rank = WanModel.from_pretrained(checkpoint_dir), rank
        if dit_fsdp:
            weight = self.model.weight
            weight.data = weight.data.chunk(dist.get_world_size())[rank].to(f'cuda:{device_id}')
        if use_usp:
            from xfuser.core.distributed import get_sequence_parallel_world_size, get_sp_group
            from xfuser.core.long_ctx_attention import xFuserLongContextAttention
            assert get_sequence_parallel_world_size() == 2
            query = torch.empty(1, 64, 4, 64, dtype=torch.bfloat16, device='cuda')
            assert xFuserLongContextAttention()(None, query=query, key=query, value=query).shape == query.shape
            self.gather = lambda: get_sp_group().all_gather(self.model.weight.data, dim=0)
            self.gather()
    def generate(self, prompt, size, frame_num, shift, sampling_steps, guide_scale, seed, offload_model):
        self.model.to('cuda')
        solver = FlowUniPCMultistepScheduler()
        square = torch.empty(1 << 14, 1 << 14, dtype=torch.bfloat16, device='cuda')
        for _ in range(sampling_steps):
            for _ in range(10):
                square @ square
            solver.step()
        del square
        if offload_model:
            self.model.cpu()
        if self.rank == 0:
            torch.empty(size[0] * size[1] * frame_num, dtype=torch.uint8, device='cuda')
",
    );
}

/// 32768 x 32768 bytes a frame: a gibibyte.
fn row(frames: u32, options: &str, peak: &str) -> String {
    format!("wan2.1-t2v-1.3b,t2v,RTX 4090,32768,32768,{frames},50,1,{options},1.5,{peak},a test\n")
}

/// `lowmem validate cases.csv` with that file, and the Python that has PyTorch.
fn validate(place: &Place, rows: &str, arguments: &[&str]) -> Assert {
    place.file("cases.csv", &format!("{TITLES}\n{rows}"));
    let mut command = lowmem();
    command.current_dir(place.path("")).env("PYTHONPATH", path_to_torch()).args(["validate", "cases.csv", "--python", PYTHON]);
    command.args(arguments).assert()
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn errors_are_printed_and_skipped_rows_count_for_nothing() {
    let place = Place::new();
    wan(&place);
    let rows = [
        // Offloaded, the weights are gone when the frames come: 2 GiB. Kept, 3. cuBLAS holds 8.1 MiB besides.
        row(2, "--offload_model True --t5_cpu", "2"),
        row(2, "--offload_model False", "2.9"),
        row(2, "--dit_fsdp", "2"),
        row(2, "", ""),
        row(2, "--ulysses_size 4", "2").replace(",50,1,", ",50,8,"),
        row(2, "", "2").replace(",t2v,", ",i2v,"),
        row(2, "", "2").replace("wan2.1-t2v-1.3b", "wan2.2-ti2v-5b"),
        row(2, "", "2").replace("wan2.1-t2v-1.3b", "hunyuan"),
    ];
    let assert = validate(&place, &rows.concat(), &["--wan", "."]);
    let said = stdout(&assert.success());
    for part in [
        "2.01   +0.40%",
        "3.01   +3.72%",
        "Line 4: skipped: --t5_fsdp and --dit_fsdp are for several GPUs.",
        "Line 5: skipped: no peak of memory was published.",
        "Line 6: skipped: --ulysses_size times --ring_size is 4, and 8 GPUs were used.",
        "Line 7: skipped: only text to video (t2v) is run, not i2v.",
        "Line 8: skipped: --wan names no checkout of Wan2.2.",
        "Line 9: skipped: there is no program for hunyuan: only for wan2.1-t2v-1.3b,",
        "worst error 3.72%, median 2.06%, of 2 rows; 6 skipped, 0 failed or off by more than their tolerance.",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn several_gpus_have_a_process_each_and_the_fullest_counts() {
    let place = Place::new();
    wan(&place);
    // Half of the weights and all of them once more; then, on the first rank, half of them and the frames.
    let several = |frames: u32, options: &str, peak: &str| row(frames, options, peak).replace(",50,1,", ",50,2,");
    let rows = [several(1, "--dit_fsdp --ulysses_size 2", "1.5"), several(2, "--dit_fsdp --ring_size 2", "2.5")];
    let said = stdout(&validate(&place, &rows.concat(), &["--wan", "."]).success());
    for part in ["1.51", "2.51", "of 2 rows; 0 skipped"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_few_steps_count_for_all() {
    let place = Place::new();
    wan(&place);
    // 20 x 2^42 operations a step at 0.9 of 165.2 TFLOP/s: 0.5916 s. 1 GiB each way from ordinary memory, at 9 GB/s: 0.239 s. cuBLAS begins in 0.17 s. So 50 steps take 29.99 s
    // and 100 take 59.57 s, which is 0.2 s more than is published here.
    let row = |steps: u32, secs: &str| row(2, "", "").replace(",50,1,", &format!(",{steps},1,")).replace(",1.5,", &format!(",{secs},"));
    let rows = [row(50, "29.79"), row(100, "59.37"), row(100, "45"), row(50, "")];
    let assert = validate(&place, &rows.concat(), &["--wan", ".", "--times"]);
    let said = stdout(&assert.code(1));
    for part in [
        "30.0 s (28.0 to 34.6)",
        "+0.7%",
        "59.6 s (55.7 s to 1 min 8)",
        "+0.3%",
        "+32.4%",
        "Line 4: off by more than 20%.",
        "Line 5: skipped: no time was published.",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
#[cfg_attr(without_python, ignore = "LOWMEM_WITHOUT_PYTHON=1")]
fn a_row_that_is_off_or_fails_is_an_error() {
    let place = Place::new();
    wan(&place);
    let assert = validate(&place, &(row(2, "", "2.2") + &row(30, "", "30")), &["--wan", "Wan2.1"]);
    let said = stdout(&assert.code(1));
    for part in ["-8.73%", "Line 2: off by more than 5%.", "Line 3: failed: it does not fit.", "of 1 rows; 0 skipped, 2 failed"] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn where_nothing_was_checked_that_is_no_success() {
    let place = Place::new();
    let rows = format!("{}x,t2v,H20,1,1,1,1,1,,,1,a test,other\n", row(1, "", "1").replace("a test\n", "a test,\n"));
    place.file("cases.csv", &format!("{TITLES},program\n{rows}"));
    let assert = lowmem().current_dir(place.path("")).args(["validate", "cases.csv", "--python", "python3"]).assert().code(2);
    let said = stdout(&assert);
    for part in [
        "Line 2: skipped: the official code is needed: --wan DIR.",
        "Line 3: skipped: there is no program `other`.",
        "no row was checked; 2 skipped, 0 failed",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    let place = Place::new();
    let refused = |rows: &str, arguments: &[&str]| {
        place.file("cases.csv", rows);
        stderr(&lowmem().current_dir(place.path("")).arg("validate").args(arguments).assert().code(2))
    };
    let good = format!("{TITLES}\n{}", row(1, "", "1"));
    for (said, part) in [
        (refused(&good.replace("RTX 4090", "V100"), &["cases.csv"]), "cases.csv:2: gpu: there is no profile of `V100`"),
        (refused(&good.replace(",32768,", ",wide,"), &["cases.csv"]), "cases.csv:2: width: `wide` is no whole number above 0"),
        (refused(&good.replace("peak_memory_gib", "peak"), &["cases.csv"]), "cases.csv:1: there is no column `peak_memory_gib`"),
        (refused(&good, &["none.csv"]), "none.csv: no such file"),
        (refused(&good, &["cases.csv", "--wan", "nowhere"]), "--wan nowhere: there is no such folder"),
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
}
