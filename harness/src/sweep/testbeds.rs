//! What the cases of a sweep run on: one testbed for all, or a virtual GPU for each that the definition names.

use engine_protocol::Split;
use reports::{Manifest, RunGpu};

use super::definition::Definition;
use super::expand::Case;
use crate::error::Error;
use crate::testbed::{DeviceChoice, Testbed, Wanted};

/// The testbeds of a sweep.
pub(crate) struct Testbeds {
    /// The one, or the first of several, with a label for all: they differ in the GPU alone.
    pub(crate) first: Testbed,
    /// All of several, as they are asked for; empty where there is one.
    pub(crate) several: Vec<(String, Testbed)>,
}

impl Testbeds {
    /// Those that the definition names, where it names any.
    pub(crate) fn choose(definition: &Definition, wanted: Wanted<'_>) -> Result<Self, Error> {
        let asked = definition.gpus();
        let with_place =
            |gpu: &str, testbed: Result<Testbed, Error>| testbed.map_err(|error| definition.refuse_gpu(gpu, &error.to_string()));
        let planned = |gpu: &str| with_place(gpu, Testbed::planned_for_ranks(Wanted { gpu: Some(gpu), ..wanted }));
        match asked.as_slice() {
            [] => Ok(Self { first: Testbed::for_ranks(wanted)?, several: Vec::new() }),
            [gpu] => {
                let first = with_place(gpu, Testbed::for_ranks(Wanted { gpu: Some(gpu), ..wanted }))?;
                Ok(Self { first, several: Vec::new() })
            }
            [first, others @ ..] => {
                if [DeviceChoice::Cuda, DeviceChoice::Cpu].contains(&wanted.device) {
                    let why = "several GPUs in one sweep are virtual ones: name one GPU, or use --device virtual";
                    return Err(definition.refuse_gpu(first, why));
                }
                let mut several = vec![(first.clone(), planned(first)?)];
                for gpu in others {
                    let testbed = planned(gpu)?;
                    let is_it = |other: &Testbed| (&other.profile, other.capacity_bytes) == (&testbed.profile, testbed.capacity_bytes);
                    if let Some((same, _)) = several.iter().find(|(_, other)| is_it(other)) {
                        return Err(definition.refuse_gpu(gpu, &format!("gpu={gpu} and {same} are the same GPU: remove one")));
                    }
                    several.push((gpu.clone(), testbed));
                }
                let label = format!("{}-gpus", several.len());
                Ok(Self { first: Testbed { label, ..planned(first)? }, several })
            }
        }
    }

    /// Every testbed with the cases that run on it. A case that names no GPU where another one does is refused.
    pub(crate) fn with_cases<'a>(&'a self, definition: &Definition, cases: &'a [Case]) -> Result<Vec<(&'a Testbed, Vec<&'a Case>)>, Error> {
        if let (Some(gpu), Some(case)) = (definition.gpus().first(), cases.iter().find(|case| case.gpu.is_none())) {
            let why = format!("{} names no GPU, and others do: name one for all with --gpu, or one for each", case.name);
            return Err(definition.refuse_gpu(gpu, &why));
        }
        let with_cases = if self.several.is_empty() {
            vec![(&self.first, cases.iter().collect())]
        } else {
            let of = |asked: &String| cases.iter().filter(|case| case.gpu.as_ref() == Some(asked)).collect::<Vec<_>>();
            self.several.iter().map(|(asked, testbed)| (testbed, of(asked))).collect()
        };
        with_cases.iter().try_for_each(|(testbed, cases)| one_for_each_rank(testbed, cases))?;
        Ok(with_cases)
    }

    /// How they were chosen, a sentence or two each.
    pub(crate) fn choices(&self) -> Vec<&str> {
        let several = self.several.iter().map(|(_, testbed)| testbed.choice.as_str());
        if self.several.is_empty() { vec![&self.first.choice] } else { several.collect() }
    }

    /// The manifest of a run on the first, as that of a run on all.
    pub(crate) fn in_manifest(&self, manifest: Manifest) -> Manifest {
        let gpu = |(asked, testbed): &(String, Testbed)| {
            Some(RunGpu {
                asked: asked.clone(),
                profile: testbed.profile.clone()?,
                choice: testbed.choice.clone(),
                capacity_bytes: testbed.capacity_bytes?,
                smaller: testbed.smaller.clone(),
                memory_limit_bytes: testbed.memory_limit_bytes,
            })
        };
        let gpus: Vec<RunGpu> = self.several.iter().filter_map(gpu).collect();
        if gpus.is_empty() {
            return manifest;
        }
        let choice = format!("{} GPUs, each a virtual one.", gpus.len());
        Manifest { gpu: None, capacity_bytes: None, smaller: Vec::new(), memory_limit_bytes: None, choice, gpus, ..manifest }
    }
}

/// Refuses cases on several GPUs where others were named: of those on one GPU the first one is it.
fn one_for_each_rank(testbed: &Testbed, cases: &[&Case]) -> Result<(), Error> {
    let of_several = cases.iter().filter(|case| case.config.split() != Split::ONE);
    of_several.map(|case| (case, testbed.of_each_rank(case.config.split().ranks() as usize))).try_for_each(|(case, each)| match each {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::input(format!("{}: {error}", case.name))),
    })
}
