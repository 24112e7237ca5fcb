//! `lowmem on`: any program, unchanged, on a virtual GPU, and what it needed of it.

mod cards;
mod find;
mod html;
mod json;
mod need;
mod peak;
mod real_nvrtc;
mod verdict;
mod watch;

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::{env, fs};

use engine_protocol::GpuProfile;

use self::cards::{Course, Judge};
use super::smi;
use crate::cli::OnArguments;
use crate::error::Error;
use crate::gpu_profile::GpuProfiles;
use crate::host_kills::HostKills;
use crate::nesting;
use crate::scratch::Scratch;
use crate::worker::{EventOrder, Guise, VISIBLE_DEVICES, onto_virtual_gpu, put_first};
pub(super) use json::VerdictJson;
pub(super) use need::Need;
pub(super) use watch::GRACE;
use watch::{watch, watch_silently};

/// What has each Python process say at its end what PyTorch's caching allocator counted.
/// What it loads from beside it decides when texts end that transformers generates, and says what a peak was.
const HOOK: [(&str, &str); 3] = [
    ("sitecustomize.py", include_str!("on/sitecustomize.py")),
    ("generation.py", include_str!("on/generation.py")),
    ("peak.py", include_str!("on/peak.py")),
];

/// Runs the program, and says what it needed.
pub(crate) fn run(arguments: &OnArguments) -> Result<ExitCode, Error> {
    let profiles = GpuProfiles::load()?;
    let budget = profiles.budget(&arguments.gpu)?;
    // A GPU of the budget's size is what the program shall see.
    let mut profile = budget.profile.clone();
    profile.memory_bytes.value = budget.capacity_bytes;

    tell!("lowmem: {} It is virtual: nothing is computed, and what the program's results say means nothing.", budget.choice);
    let events = arguments.events.unwrap_or(EventOrder::Clock);
    tell_visible(arguments.gpus);
    let guise = Guise {
        devices: arguments.gpus,
        masks_name: arguments.mask_name,
        is_strict: arguments.strict,
        goes_beyond: arguments.beyond,
        events,
    };
    let ((status, host_peaks), mut need) = on_virtual_gpu(&arguments.program, env::var_os("PYTHONPATH"), &profile, guise, watch)?;
    need.saw(host_peaks);
    let judge = Judge { need: &need, here: &profile, course: Course::of(&need, status), went_beyond: arguments.beyond };
    verdict::tell(&judge, &profiles, arguments, status);
    let found = if arguments.find {
        let runs_on = |card: &GpuProfile| {
            let guise = Guise { goes_beyond: false, ..guise };
            let ((status, _), need) = on_virtual_gpu(&arguments.program, env::var_os("PYTHONPATH"), card, guise, watch_silently)?;
            Ok(status.success() && !need.stopped && need.unreadable.is_empty())
        };
        let found = find::find(&judge, &profiles, runs_on)?;
        verdict::tell_found(&found);
        Some(found)
    } else {
        None
    };
    if let Some(path) = &arguments.json {
        json::write(path, &judge, &profiles, found.as_ref(), status)?;
    }
    if let Some(path) = &arguments.html {
        html::write(path, &judge, &profiles, found.as_ref(), arguments)?;
    }
    if let Some(waiting_bytes) = need.waiting_bytes().filter(|_| status.success() && arguments.events.is_none()) {
        verdict::tell_dependence(waiting_bytes);
        for events in [EventOrder::Eager, EventOrder::Lazy] {
            let ((status, _), need) =
                on_virtual_gpu(&arguments.program, env::var_os("PYTHONPATH"), &profile, Guise { events, ..guise }, watch_silently)?;
            verdict::tell_end(events, &need, &profile, status);
            if status.signal().is_some() {
                break;
            }
        }
    }
    // A program that got over it must not look as if all had been well.
    Ok(if (need.stopped || !need.unreadable.is_empty()) && status.success() { ExitCode::FAILURE } else { exit_code(status) })
}

/// Says which devices the user's own environment has the program see.
fn tell_visible(devices: u16) {
    let Some(list) = env::var(VISIBLE_DEVICES).ok().filter(|list| !list.is_empty()) else { return };
    let is_there = |name: &str| name.trim().parse::<u16>().is_ok_and(|number| number < devices);
    if list.split(',').next().is_some_and(is_there) {
        tell!("lowmem: {VISIBLE_DEVICES}={list} is set, and the program sees those virtual GPUs.");
    } else {
        tell!(
            "lowmem: warning: {VISIBLE_DEVICES}={list} is set, and its first entry is no number of a virtual GPU (0 to {}): unset it, or say --gpus.",
            devices - 1
        );
    }
}

/// Has `end` run the program to its end, in an environment that leads it to the virtual GPU, and tells what it needed.
pub(super) fn on_virtual_gpu<Ended>(
    program: &[OsString],
    python_path: Option<OsString>,
    profile: &GpuProfile,
    guise: Guise,
    end: impl FnOnce(&mut Command) -> Result<Ended, Error>,
) -> Result<(Ended, Need), Error> {
    let place = Scratch::new()?;
    let [reports, hook, tools, compiler] = ["reports", "python", "bin", "nvrtc"].map(|name| place.path().join(name));
    fs::create_dir(&reports).map_err(|error| Error::io(&reports, error))?;
    let write_hook = || HOOK.iter().try_for_each(|(name, text)| fs::write(hook.join(name), text));
    fs::create_dir(&hook).and_then(|()| write_hook()).map_err(|error| Error::io(&hook, error))?;
    let [program, words @ ..] = program else { return Err(Error::input("no program is given")) };
    let mut command = Command::new(program);
    command.args(words);
    onto_virtual_gpu(&mut command, profile, guise, &reports)?;
    nesting::mark(&mut command, &profile.name);
    // An empty one is there to hide real GPUs.
    if env::var_os(VISIBLE_DEVICES).is_some_and(|list| list.is_empty()) {
        command.env_remove(VISIBLE_DEVICES);
    }
    if real_nvrtc::link_into(&compiler, python_path.as_deref())? {
        put_first(&mut command, &compiler);
    }
    command.env("PYTHONPATH", before(&hook, python_path));
    let own = env::current_exe().map_err(|error| Error::Fault(format!("cannot tell where this program is: {error}")))?;
    fs::create_dir(&tools).and_then(|()| symlink(own, tools.join(smi::NAME))).map_err(|error| Error::io(&tools, error))?;
    command.env("PATH", before(&tools, env::var_os("PATH")));
    let before = HostKills::until_now();
    let ended = end(&mut command)?;
    let mut need = Need::read(&reports);
    need.kernel_killed = HostKills::until_now().are_more_than(&before);
    Ok((ended, need))
}

/// A search path with one more folder in front. Python takes an empty part for the current folder, so none is made.
fn before(folder: &Path, path: Option<OsString>) -> OsString {
    let mut joined = folder.as_os_str().to_owned();
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        joined.push(":");
        joined.push(path);
    }
    joined
}

/// The program's own exit code, or as shells count it where a signal ended it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_gets_no_empty_part() {
        let hook = Path::new("/hook");
        assert_eq!(before(hook, None), "/hook");
        assert_eq!(before(hook, Some("".into())), "/hook");
        assert_eq!(before(hook, Some("a:b".into())), "/hook:a:b");
    }
}
