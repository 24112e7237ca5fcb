//! Whatever is read of a staging buffer was copied there for it: buffers are written over with NaN as each group lets go of them.

use engine::memory::{PageLocking, Place, Residency, Waits};
use engine::pipeline::Pipeline;
use engine::weights::{Group, GroupName, Groups, Source, WeightTypes, Weights};
use proptest::prelude::*;
use rstest::rstest;
use tch::{Device, Kind, Tensor};

use super::levels_agree::run_as;

fn name(index: usize) -> GroupName {
    GroupName::numbered("blocks", index as u32, "")
}

/// Groups of unlike sizes: what is left of a larger one before it lies behind a smaller one in its buffer.
fn residency(kind: Kind, place: Place) -> Residency {
    let group = |index| Group::new(name(index), format!("blocks.{index}.")).linear("proj", 3, 2 + 40 * (index as i64 % 3));
    let groups = (0..5).map(group).collect();
    Residency::new(groups, &[place; 5], WeightTypes::plain(kind), Device::Cpu, &Source::Seeded(5)).expect("fits on the CPU")
}

fn streamed(prefetch: u32) -> Place {
    Place::Streamed { prefetch, waits: Waits::Pageable { ring: PageLocking::Never } }
}

fn view(weights: &Weights) -> engine::Result<Tensor> {
    Ok(weights.get("proj.weight").shallow_clone())
}

fn copy(weights: &Weights) -> engine::Result<Tensor> {
    Ok(weights.get("proj.weight").f_alias_copy()?)
}

fn is_all_nan(tensor: &Tensor) -> bool {
    bool::try_from(tensor.isnan().all()).expect("one answer")
}

#[rstest]
fn a_streamed_run_is_the_resident_one(#[values(0, 1, 2, 3, 4)] prefetch: u32, #[values(0, 1, 2, 3)] resident: u32) {
    let settings = [format!("prefetch_blocks={prefetch}"), format!("resident_blocks={resident}")];
    let settings = [&["offload_dit=true", "offload_vae=true"], &settings.each_ref().map(String::as_str)[..]].concat();
    let (expected, video) = run_as(&[], |pipeline| pipeline);
    let (latents, pixels) = run_as(&settings, Pipeline::with_poisoned_buffers);
    assert!(bool::try_from(latents.isfinite().all()).expect("one answer"), "something was read that was not copied");
    assert_eq!((latents, pixels), (expected, video));
}

/// The test above can fail: a model that keeps a tensor of a group is found out, in each type.
#[rstest]
fn a_view_that_is_kept_reads_nan(#[values(0, 1, 4)] prefetch: u32, #[values(Kind::Float, Kind::BFloat16, Kind::Half)] kind: Kind) {
    let mut poisoned = residency(kind, streamed(prefetch));
    poisoned.poison_buffers();
    for index in [0, 1, 2, 3, 4, 0] {
        let kept = poisoned.with(name(index), view).expect("streamed");
        assert_eq!(kept.kind(), kind);
        assert!(is_all_nan(&kept), "group {index} is still there");
    }
    // Without poison it would go unseen here, and show on a GPU, where the next copy comes while it is read.
    let kept = residency(kind, streamed(prefetch)).with(name(0), view).expect("streamed");
    assert!(!is_all_nan(&kept));
}

#[test]
fn a_group_is_copied_whole_after_an_error_of_the_model_too() {
    let expected = residency(Kind::Float, Place::Resident).with(name(1), copy).expect("resident");
    let mut poisoned = residency(Kind::Float, streamed(1));
    poisoned.poison_buffers();
    let mut kept = None;
    let failed = poisoned.with(name(1), |weights| {
        kept = Some(view(weights)?);
        Err::<(), _>(engine::Error::Input("stop".into()))
    });
    assert!(failed.is_err() && is_all_nan(&kept.expect("it ran")));
    assert_eq!(poisoned.with(name(1), copy).expect("streamed"), expected);
}

proptest! {
    /// Whatever the order in which groups are asked for, and with any number of buffers.
    #[test]
    fn any_order_sees_each_group_whole(order in prop::collection::vec(0_usize..5, 1..40), prefetch in 0_u32..7, poison: bool) {
        let mut resident = residency(Kind::Float, Place::Resident);
        let mut streamed = residency(Kind::Float, streamed(prefetch));
        if poison {
            streamed.poison_buffers();
        }
        for index in order {
            prop_assert_eq!(streamed.with(name(index), copy).expect("streamed"), resident.with(name(index), copy).expect("resident"));
        }
    }
}
