//! `lowmem sweep --slurm`: a job array that runs a sweep in parts, and a last job that puts them together, as one script for `sbatch`.

use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::Device;
use reports::{shell_line, write_whole};

use super::words_without;
use crate::cli::SweepArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::model::Models;
use crate::sweep::{Definition, Rules, Testbeds, expand};
use crate::testbed::{DeviceChoice, Wanted};

/// The script, in the folder that `--out` names.
const SCRIPT: &str = "sweep.sbatch";
/// Where the parts' run directories and what they say go, in that folder.
const PARTS: &str = "parts";

/// Checks the sweep and writes the script.
pub(super) fn write(definition: &Definition, arguments: &SweepArguments, parts: usize) -> Result<ExitCode, Error> {
    let Some(out) = &arguments.execution.out else { return Err(Error::input("--slurm: name the folder of the run with --out")) };
    // This machine is not the one that the parts run on: what is here says nothing of what is there.
    let device = match arguments.device.device {
        DeviceChoice::Cuda => Device::Cuda,
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Auto | DeviceChoice::Virtual => Device::Virtual,
    };
    let wanted = arguments.device.wanted();
    let cases = expand(definition, &Models::load()?, Rules { device, may_shorten: true })?.cases;
    if device == Device::Virtual {
        Testbeds::choose(definition, Wanted { device: DeviceChoice::Virtual, ..wanted })?.with_cases(definition, &cases)?;
    }
    if parts > cases.len() {
        return Err(Error::input(format!("--slurm {parts}: the sweep has {} cases: use no more parts than that", cases.len())));
    }
    let out = std::path::absolute(out).map_err(|error| Error::io(out, error))?;
    if out.join(reports::MANIFEST).exists() {
        return Err(Error::input(format!("{} holds a run already: name another --out", out.display())));
    }
    // Slurm makes no folder for what a job says.
    let folder = out.join(PARTS);
    fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
    let here = std::env::current_dir().map_err(|error| Error::Fault(format!("this folder has no path: {error}")))?;
    let lowmem = std::env::current_exe().map_err(|error| Error::Fault(format!("this program has no path: {error}")))?;
    let script = out.join(SCRIPT);
    let job = Job { name: &definition.name, lowmem, here, out: &out, parts, device, words: words(device) };
    write_whole(&script, job.script()).map_err(|error| Error::io(&script, error))?;
    say!("{} cases in {parts} parts, on {}. Submit them:\n  {}", cases.len(), on(device), shell_line(["sbatch".into(), shown(&script)]));
    say!("The last job puts the parts together in {}.", out.display());
    Ok(ExitCode::Done)
}

/// Where the parts run, in words.
fn on(device: Device) -> &'static str {
    match device {
        Device::Cuda => "a real GPU each",
        Device::Virtual => "virtual GPUs (real ones: --device cuda)",
        Device::Cpu => "the CPU",
    }
}

/// The words of this command that each part has too.
fn words(device: Device) -> Vec<String> {
    let mut kept = words_without(&["--slurm", "--out", "--device"]);
    kept.extend(["--device".into(), device.name().into()]);
    kept
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What the script is made from.
struct Job<'a> {
    name: &'a str,
    lowmem: PathBuf,
    here: PathBuf,
    out: &'a Path,
    parts: usize,
    device: Device,
    words: Vec<String>,
}

impl Job<'_> {
    fn script(&self) -> String {
        let parts = self.parts;
        let name: String = self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let folder = self.out.join(PARTS);
        // sbatch takes a percent sign for a field.
        let log = |file: &str| format!("{}/{file}", shown(&folder).replace('%', "%%"));
        let gpu = if self.device == Device::Cuda { "#SBATCH --gres=gpu:1\n" } else { "" };
        let of_part = |number: usize| shown(&folder.join(number.to_string()));
        let lowmem = shown(&self.lowmem);
        let merge =
            shell_line([lowmem.clone(), "merge".into(), "--out".into(), shown(self.out)].into_iter().chain((1..=parts).map(of_part)));
        let jobs = match self.device {
            Device::Virtual if !self.words.iter().any(|word| word.starts_with("--jobs")) => " --jobs \"$SLURM_CPUS_ON_NODE\"",
            _ => "",
        };
        format!(
            r#"#!/bin/bash
# The sweep {name} in {parts} parts, a task each, and a job after them that puts the parts together. What sbatch is told on its command line counts over these lines.
#SBATCH --job-name=lowmem-{name}
#SBATCH --array=1-{parts}
#SBATCH --output="{log}"
{gpu}
cd {here} || exit 1
part={folder}/$SLURM_ARRAY_TASK_ID
resume=
if [ -e "$part/{manifest}" ]; then
    # The task was begun before, and requeued.
    resume=--resume
elif [ "$SLURM_ARRAY_TASK_ID" = 1 ]; then
    sbatch --job-name=lowmem-{name}-merge --dependency="afterany:$SLURM_ARRAY_JOB_ID" --output={merge_log} <<'END' || exit 1
#!/bin/bash
{merge}
END
fi
exec {sweep} --shard "$SLURM_ARRAY_TASK_ID/{parts}" --out "$part"{jobs} $resume
"#,
            log = log("%a.log").replace('"', "\\\""),
            merge_log = shell_line([log("merge.log")]),
            here = shell_line([shown(&self.here)]),
            folder = shell_line([shown(&folder)]),
            manifest = reports::MANIFEST,
            sweep = shell_line(std::iter::once(lowmem).chain(self.words.iter().cloned())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(device: Device, words: &[&str]) -> String {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        let (lowmem, here) = ("/opt/lowmem".into(), "/home/a b".into());
        Job { name: "two cards", lowmem, here, out: Path::new("/data/50% off"), parts: 3, device, words }.script()
    }

    #[test]
    fn what_a_shell_or_slurm_would_read_is_quoted() {
        let script = job(Device::Virtual, &["sweep", "my sweep.yaml", "--gpu", "24GB"]);
        for line in [
            "#SBATCH --array=1-3\n",
            "#SBATCH --job-name=lowmem-two-cards\n",
            "#SBATCH --output=\"/data/50%% off/parts/%a.log\"\n",
            "cd '/home/a b' || exit 1\n",
            "part='/data/50% off/parts'/$SLURM_ARRAY_TASK_ID\n",
            "exec /opt/lowmem sweep 'my sweep.yaml' --gpu 24GB --shard \"$SLURM_ARRAY_TASK_ID/3\" --out \"$part\" --jobs \"$SLURM_CPUS_ON_NODE\" $resume\n",
            "/opt/lowmem merge --out '/data/50% off' '/data/50% off/parts/1' '/data/50% off/parts/2' '/data/50% off/parts/3'\nEND\n",
        ] {
            assert!(script.contains(line), "`{line}` is missing in\n{script}");
        }
        assert!(!script.contains("gres"), "{script}");
    }

    #[test]
    fn a_real_gpu_is_asked_for_and_runs_one_case_at_a_time() {
        let script = job(Device::Cuda, &["sweep"]);
        assert!(script.contains("#SBATCH --gres=gpu:1\n") && !script.contains("--jobs"), "{script}");
    }
}
