//! The samplers against diffusers, over all steps.

use engine::scheduler::Scheduler;
use engine_protocol::Sampler;
use tch::Tensor;

use crate::resident::{Fixture, assert_close};

/// Values that fp32 holds exactly, as fp32.
fn in_fp32(values: &[f64]) -> Vec<f32> {
    let rounded: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    assert!(rounded.iter().zip(values).all(|(&a, &b)| f64::from(a) == b), "{values:?}");
    rounded
}

#[test]
fn every_step_of_every_schedule() {
    let fixture = Fixture::open("scheduler");
    let predictions = fixture.tensor("input.predictions");
    let samplers: Vec<Sampler> = fixture.fact("samplers");
    // That of the noise which LCM draws.
    let seed: i64 = fixture.fact("seed");
    let (steps, shifts): (Vec<usize>, Vec<f64>) = (fixture.fact("steps"), fixture.fact("shifts"));
    assert_eq!(samplers.len(), 4);
    let schedules = steps.iter().flat_map(|steps| shifts.iter().map(move |shift| (steps, shift)));
    for (sampler, (&steps, &shift)) in samplers.iter().flat_map(|&sampler| schedules.clone().map(move |schedule| (sampler, schedule))) {
        let case = format!("{}.{steps}.{shift}", sampler.name());
        let output = |name: &str| fixture.tensor(&format!("output.{case}.{name}"));
        let mut scheduler = Scheduler::new(sampler, steps, shift, seed);
        let sigmas: Vec<f32> = output("sigmas").try_into().unwrap();
        assert_eq!(in_fp32(scheduler.sigmas()), sigmas, "{case}: sigmas");
        let timesteps: Vec<f32> = output("timesteps").try_into().unwrap();
        assert_eq!(in_fp32(scheduler.timesteps()), timesteps, "{case}: timesteps");

        let mut sample = fixture.tensor("input.start");
        let mut samples = Vec::new();
        for index in 0..steps {
            // The prediction that the generator answers with.
            let prediction = predictions.get(index as i64) + 0.3 * &sample;
            sample = scheduler.step(&prediction, &sample).unwrap();
            samples.push(sample.shallow_clone());
        }
        assert_close(&format!("sampler.steps.shift {case}"), &Tensor::stack(&samples, 0), &output("samples"), 1e-5);
    }
}
