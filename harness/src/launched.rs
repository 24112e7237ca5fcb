//! This process as one of several that torchrun, mpirun or srun started for one video: which rank it is, by their environment variables.
//!
//! torchrun's are those of PyTorch's `torch.distributed.run`; mpirun's are Open MPI's; srun's are of `man srun`, "OUTPUT ENVIRONMENT VARIABLES".

use std::env;
use std::os::unix::process::parent_id;

use crate::error::Error;

/// A rank among those that were started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launched {
    /// What started them.
    pub(crate) by: &'static str,
    pub(crate) rank: u32,
    /// How many they are; more than one.
    pub(crate) count: u32,
    /// What they have in common, and those that were started another time have not.
    pub(crate) job: String,
}

/// The variables of one kind of launcher.
struct Names {
    by: &'static str,
    rank: &'static str,
    count: &'static str,
    /// How many of them are on this machine.
    here: &'static str,
    /// Without these the others are left over from something else.
    needed: &'static [&'static str],
    /// What else tells one start from another.
    more: &'static [&'static str],
}

/// The innermost one counts: torchrun may have been started by srun, and mpirun uses an allocation of Slurm's.
const LAUNCHERS: [Names; 3] = [
    Names {
        by: "torchrun",
        rank: "RANK",
        count: "WORLD_SIZE",
        here: "LOCAL_WORLD_SIZE",
        needed: &["MASTER_ADDR", "MASTER_PORT"],
        more: &["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"],
    },
    Names {
        by: "mpirun",
        rank: "OMPI_COMM_WORLD_RANK",
        count: "OMPI_COMM_WORLD_SIZE",
        here: "OMPI_COMM_WORLD_LOCAL_SIZE",
        needed: &[],
        more: &["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"],
    },
    // A batch script is in a job, and in no step: it is one process, however many tasks the job has.
    Names {
        by: "srun",
        rank: "SLURM_PROCID",
        count: "SLURM_NTASKS",
        here: "SLURM_STEP_TASKS_PER_NODE",
        needed: &["SLURM_JOB_ID", "SLURM_STEP_ID"],
        more: &[],
    },
];

impl Launched {
    /// What this process is; nothing where it is the only one.
    pub(crate) fn here() -> Result<Option<Self>, Error> {
        Self::of(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        for Names { by, rank, count, here, needed, more } in LAUNCHERS {
            let (Some(rank_said), Some(count_said)) = (variable(rank), variable(count)) else { continue };
            let Some(mut job) = needed.iter().map(|name| variable(name)).collect::<Option<Vec<String>>>() else { continue };
            job.extend(more.iter().filter_map(|name| variable(name)));
            if job.is_empty() {
                // What started this process has started the others too.
                job.push(parent_id().to_string());
            }
            let numbers = (rank_said.parse::<u32>().ok()).zip(count_said.parse::<u32>().ok());
            let Some((rank, count)) = numbers.filter(|(rank, count)| rank < count) else {
                let said = format!("{rank}={rank_said} {count}={count_said}: a rank is below the number of ranks");
                return Err(Error::input(format!("{said}: start this by {by}, or unset both")));
            };
            // `4` or, of several machines, `4(x2)` and `4,3`.
            let on_several = variable(here).is_some_and(|here| here != count.to_string());
            if on_several {
                return Err(Error::input(format!(
                    "{by} started {count} ranks on several machines: ranks of one video are on one machine. Start them all there"
                )));
            }
            return Ok((count > 1).then(|| Self { by, rank, count, job: job.join("-") }));
        }
        Ok(None)
    }

    /// Whether this is the one that speaks and writes.
    pub(crate) fn is_first(&self) -> bool {
        self.rank == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &str) -> Result<Option<(&'static str, u32, u32, String)>, String> {
        let value = |name: &str| variables.split(' ').find_map(|pair| Some(pair.strip_prefix(name)?.strip_prefix('=')?.to_owned()));
        let launched = Launched::of(value).map_err(|error| error.to_string())?;
        Ok(launched.map(|found| (found.by, found.rank, found.count, found.job)))
    }

    #[test]
    fn each_launcher_says_which_rank_this_is() {
        let torchrun = "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=29500";
        assert_eq!(found(torchrun), Ok(Some(("torchrun", 1, 2, "localhost-29500".into()))));
        let mpirun = "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_SIZE=4 PMIX_NAMESPACE=prte-7@1";
        assert_eq!(found(mpirun), Ok(Some(("mpirun", 0, 4, "prte-7@1".into()))));
        let srun = "SLURM_PROCID=3 SLURM_NTASKS=4 SLURM_LOCALID=3 SLURM_STEP_TASKS_PER_NODE=4 SLURM_JOB_ID=12 SLURM_STEP_ID=0";
        assert_eq!(found(srun), Ok(Some(("srun", 3, 4, "12-0".into()))));
        assert_eq!(found(&format!("{torchrun} {srun}")).map(|found| found.map(|found| found.0)), Ok(Some("torchrun")));
    }

    #[test]
    fn one_rank_is_none_and_so_is_a_batch_script() {
        assert_eq!(found(""), Ok(None));
        assert_eq!(found("RANK=0 WORLD_SIZE=1 MASTER_ADDR=localhost"), Ok(None));
        assert_eq!(found("RANK=1 WORLD_SIZE=2"), Ok(None), "of something else");
        assert_eq!(found("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=12"), Ok(None), "no step");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let several = "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_TASKS_PER_NODE=2(x2) SLURM_JOB_ID=1 SLURM_STEP_ID=0";
        assert!(found(several).is_err_and(|said| said.starts_with("srun started 4 ranks on several machines")));
        let wrong = "RANK=2 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=1";
        assert!(
            found(wrong).is_err_and(|said| said.starts_with("RANK=2 WORLD_SIZE=2: a rank is below the number of ranks: start this by"))
        );
    }
}
