//! Streamed groups reach the model whole and in order, whichever buffer they pass through.

use engine::Result;
use engine::memory::{PageLocking, Place, Residency, Waits};
use engine::weights::{Group, GroupName, Groups, Source, WeightTypes, Weights};
use rstest::rstest;
use tch::{Device, Kind, Tensor};

const GROUPS: usize = 5;

fn name(index: usize) -> GroupName {
    GroupName::numbered("blocks", index as u32, "")
}

fn groups() -> Vec<Group> {
    // Of unlike sizes, as the ends of a transformer and its blocks are.
    let group = |index| Group::new(name(index), format!("blocks.{index}.")).linear("proj", 3, 2 + 40 * (index as i64 % 3));
    (0..GROUPS).map(group).collect()
}

fn residency(places: &[Place]) -> Residency {
    Residency::new(groups(), places, WeightTypes::plain(Kind::Float), Device::Cpu, &Source::Seeded(5)).expect("fits on the CPU")
}

fn values(weights: &Weights) -> Result<Tensor> {
    Ok(weights.get("proj.weight").f_alias_copy()?)
}

#[rstest]
fn each_pass_sees_each_group_as_if_it_were_resident(#[values(0, 1, 2, 4, 9)] prefetch: u32, #[values(0, 2)] resident: usize) {
    let mut all_resident = residency(&[Place::Resident; GROUPS]);
    let streamed = Place::Streamed { prefetch, waits: Waits::Pageable { ring: PageLocking::Never } };
    let places: Vec<Place> = (0..GROUPS).map(|index| if index < resident { Place::Resident } else { streamed }).collect();
    let mut mixed = residency(&places);
    for _pass in 0..3 {
        for index in 0..GROUPS {
            let expected = all_resident.with(name(index), values).expect("resident");
            assert_eq!(mixed.with(name(index), values).expect("streamed"), expected, "group {index}");
        }
    }
}

#[test]
fn a_group_that_is_asked_for_out_of_order_still_comes() {
    let mut all_resident = residency(&[Place::Resident; GROUPS]);
    let mut streamed = residency(&[Place::Streamed { prefetch: 1, waits: Waits::Pageable { ring: PageLocking::Never } }; GROUPS]);
    for index in [3, 0, 4, 1, 1, 2] {
        let expected = all_resident.with(name(index), values).expect("resident");
        assert_eq!(streamed.with(name(index), values).expect("streamed"), expected, "group {index}");
    }
}

#[test]
fn an_error_of_the_model_leaves_the_buffers_usable() {
    let mut streamed = residency(&[Place::Streamed { prefetch: 1, waits: Waits::Pageable { ring: PageLocking::Never } }; GROUPS]);
    let failed = streamed.with(name(0), |_| Err::<(), _>(engine::Error::Input("stop".into())));
    assert!(failed.is_err());
    assert!(streamed.with(name(0), values).is_ok());
}
