//! `lowmem sweep --slurm`, submitted to a real slurmctld and slurmd on this machine. Without Slurm (Debian's slurm-wlm) build.rs has these tests reported as ignored.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::command::{ANSWERS, Place, executable, stderr, stdout};

/// A cluster of one node, gone when dropped.
struct Cluster {
    conf: PathBuf,
    daemons: Vec<Child>,
}

impl Cluster {
    /// Begins one in a folder, and waits until its controller answers.
    fn begin(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("spool")).expect("a folder");
        let conf = folder.join("slurm.conf");
        let name = rustix::system::uname();
        let node = name.nodename().to_string_lossy();
        let node = node.split('.').next().expect("a name");
        let taken = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
        let [controller, daemon] = taken.each_ref().map(|taken| taken.local_addr().expect("an address").port());
        drop(taken);
        let (user, at) = (getuid().as_raw(), folder.display());
        let text = format!(
            "ClusterName=test\nSlurmctldHost={node}(127.0.0.1)\nSlurmUser={user}\nSlurmdUser={user}\nAuthType=auth/none\nCredType=cred/none\n\
             SlurmctldPort={controller}\nSlurmdPort={daemon}\nStateSaveLocation={at}/spool\nSlurmdSpoolDir={at}/spool\n\
             SlurmctldPidFile={at}/slurmctld.pid\nSlurmdPidFile={at}/slurmd.pid\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\nSchedulerType=sched/builtin\nMpiDefault=none\nReturnToService=2\n\
             NodeName={node} NodeAddr=127.0.0.1 CPUs={} State=UNKNOWN\nPartitionName=all Nodes={node} Default=YES MaxTime=INFINITE State=UP\n",
            std::thread::available_parallelism().expect("processors"),
        );
        fs::write(&conf, text).expect("written");
        let start = |name: &str| {
            let log = File::create(folder.join(format!("{name}.log"))).expect("a log");
            let mut command = Command::new(program(name));
            command.arg("-D").env("SLURM_CONF", &conf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let daemons = ["slurmctld", "slurmd"].map(start).into();
        let mut cluster = Self { conf, daemons };
        // Each question waits for an answer or a refusal.
        while !cluster.slurm("scontrol").arg("ping").output().expect("scontrol starts").status.success() {
            for (daemon, name) in cluster.daemons.iter_mut().zip(["slurmctld", "slurmd"]) {
                let ended = daemon.try_wait().expect("a child");
                assert!(ended.is_none(), "{name} ended: {}", fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default());
            }
        }
        cluster
    }

    /// A program of Slurm that asks this cluster.
    fn slurm(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env("SLURM_CONF", &self.conf);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = Pid::from_raw(daemon.id().cast_signed()).is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
            let _ = daemon.wait();
        }
    }
}

/// Debian has the daemons in a folder that is in root's `PATH` alone.
fn program(name: &str) -> PathBuf {
    let daemon = Path::new("/usr/sbin").join(name);
    if daemon.exists() { daemon } else { name.into() }
}

#[test]
#[cfg_attr(without_slurm, ignore = "there is no slurmctld and slurmd here: install slurm-wlm")]
fn parts_run_in_an_array_and_are_put_together() {
    let place = Place::new().inside("a folder");
    let sweep = ["sweep", "smoke", "--gpu", "rtx-3060,24GB"];
    let assert = place.lowmem_with(ANSWERS).args(sweep).args(["--slurm", "3", "--out", "run"]).assert().success();
    let said = stdout(&assert);
    assert!(said.starts_with("16 cases in 3 parts, on virtual GPUs") && said.contains("sbatch '"), "{said}");
    // Slurm's own files take no blanks.
    let daemons = Place::new();
    let cluster = Cluster::begin(&daemons.path("slurm"));
    let submit = |arguments: &[&str]| {
        let mut sbatch = cluster.slurm("sbatch");
        sbatch.env("LOWMEM_WORKER", place.worker(ANSWERS)).current_dir(place.path("")).arg("--wait").args(arguments);
        let output = sbatch.output().expect("sbatch starts");
        let logs = fs::read_dir(place.path("run/parts")).expect("a folder").filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), logs.collect::<String>());
    };
    submit(&["run/sweep.sbatch"]);
    // The first of its name that begins does so after the job that puts the parts together.
    submit(&["--dependency=singleton", "--job-name=lowmem-smoke-merge", "--output=/dev/null", "--wrap=true"]);
    place.lowmem_with(ANSWERS).args(sweep).args(["--device", "virtual", "--out", "alone"]).assert().success();
    let cases = |run: &str| {
        let mut cases: Vec<_> = place.rows(run).iter().map(|row| format!("{} {}", &row["case"], &row["outcome"])).collect();
        cases.sort();
        cases
    };
    assert_eq!(cases("run"), cases("alone"));
    assert_eq!(["1", "2", "3"].map(|part| place.rows(&format!("run/parts/{part}")).len()), [6, 5, 5]);
    assert!(place.path("run/report.html").is_file());
}

#[test]
#[cfg_attr(without_slurm, ignore = "there is no slurmctld and slurmd here: install slurm-wlm")]
fn srun_starts_the_ranks_of_a_video() {
    let place = Place::new();
    let cluster = Cluster::begin(&place.path("slurm"));
    let mut srun = cluster.slurm("srun");
    srun.args(["--ntasks", "2", "--overcommit"]).arg(executable("lowmem")).current_dir(place.path(""));
    srun.args(["generate", "--model", "wan-tiny", "--gpu", "h100", "--device", "virtual", "cp_size=2"]);
    let output = srun.output().expect("srun starts");
    let [said, told] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && told.contains("srun started 2 ranks: cp_size=2"), "{told}");
    assert_eq!(said.matches("From prompt to video").count(), 1, "{said}");
}

#[test]
fn what_cannot_be_run_is_not_written() {
    let place = Place::new();
    for (arguments, message) in [
        (["--gpu", "24GB", "--slurm", "9", "--out", "run"].as_slice(), "--slurm 9: the sweep has 8 cases"),
        (&["--gpu", "rtx-9999", "--slurm", "2", "--out", "run"], "rtx-9999"),
        (&["--gpu", "24GB", "--slurm", "2"], "--out"),
        (&["--slurm", "2", "--out", "run", "frames=6"], "frames"),
    ] {
        let assert = place.lowmem_with(ANSWERS).args(["sweep", "smoke"]).args(arguments).assert().code(2);
        assert!(stderr(&assert).contains(message), "{arguments:?}: {}", stderr(&assert));
        assert!(!place.path("run").exists(), "{arguments:?}");
    }
    // A real GPU need not be where the script is written.
    place.lowmem_with(ANSWERS).args(["sweep", "smoke", "--device", "cuda", "--slurm", "2", "--out", "run"]).assert().success();
    let script = fs::read_to_string(place.path("run/sweep.sbatch")).expect("the script");
    assert!(script.contains("#SBATCH --gres=gpu:1\n") && script.contains(" sweep smoke --device cuda --shard "), "{script}");
}
