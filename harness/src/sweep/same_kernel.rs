//! Cases that cannot differ: names of attention that pick the same kernel on the GPU. Of those one is run.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use engine_protocol::{AttentionKernel, Config, GpuProfile, ModelSpec};

use super::alike::text_without;
use super::expand::Case;
use crate::error::Error;
use crate::model::Models;

/// The cases of which no two are the same on `gpu`, the first of each kept; and what was left out, and why.
pub(crate) fn run_once(cases: Vec<Case>, models: &Models, gpu: &GpuProfile) -> Result<(Vec<Case>, Vec<String>), Error> {
    let mut kept: Vec<Case> = Vec::new();
    let mut seen = HashMap::new();
    let mut left_out = BTreeMap::<_, usize>::new();
    for case in cases {
        let kernel = kernel(&case.config, models.get(&case.config.model)?, gpu);
        match seen.entry((text_without(&case.config, &["attn_type"])?, kernel)) {
            Entry::Occupied(earlier) => {
                let earlier: &Case = &kept[*earlier.get()];
                *left_out.entry((case.config.attn_type.name(), earlier.config.attn_type.name(), kernel)).or_default() += 1;
            }
            Entry::Vacant(first) => {
                first.insert(kept.len());
                kept.push(case);
            }
        }
    }
    let said = left_out.into_iter().map(|((name, earlier, kernel), count)| {
        let cases = if count == 1 { "1 case is".into() } else { format!("{count} cases are") };
        format!(
            "{cases} not run, since others are the same: on compute capability {} attn_type={name} and {earlier} both pick {}.",
            gpu.compute_capability.value,
            kernel.map_or("none", AttentionKernel::name)
        )
    });
    Ok((kept, said.collect()))
}

/// None where the GPU has none: such a case fails, and says why.
fn kernel(config: &Config, model: &ModelSpec, gpu: &GpuProfile) -> Option<AttentionKernel> {
    AttentionKernel::of(config.attn_type, config.dtype, Some(gpu), model.transformer.attention_head_dim)
}

#[cfg(test)]
mod tests {
    use engine_protocol::Device;

    use super::*;
    use crate::gpu_profile::GpuProfiles;
    use crate::sweep::{Definition, Rules, expand};

    fn left(gpu: &str) -> (Vec<Case>, Vec<String>) {
        let models = Models::load().expect("models");
        let definition = Definition::load("full").expect("the full sweep");
        let cases = expand(&definition, &models, Rules { device: Device::Cuda, may_shorten: true }).expect("legal").cases;
        let profile = GpuProfiles::load().expect("profiles").budget(gpu).expect("known").profile;
        run_once(cases, &models, &profile).expect("models are known")
    }

    #[test]
    fn names_that_pick_the_same_kernel_are_one_case() {
        let (cases, said) = left("rtx-4090");
        // PyTorch picks flash attention there: of four names three are left.
        assert_eq!(cases.len(), 60);
        assert!(cases.iter().all(|case| case.config.attn_type.name() != "flash"));
        let wanted = "20 cases are not run, since others are the same: on compute capability 8.9 attn_type=flash and sdpa both pick flash attention.";
        assert_eq!(said, [wanted]);
    }

    #[test]
    fn where_pytorch_picks_a_kernel_that_no_name_has_all_are_run() {
        let (cases, said) = left("h100");
        assert_eq!((cases.len(), said.len()), (80, 0));
    }
}
