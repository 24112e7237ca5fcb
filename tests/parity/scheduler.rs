//! UniPC against diffusers, over all steps.

use engine::scheduler::UniPc;
use tch::Tensor;

use crate::resident::{Fixture, assert_close};

#[test]
fn every_step_of_every_schedule() {
    let fixture = Fixture::open("scheduler");
    let predictions = fixture.tensor("input.predictions");
    let (steps, shifts): (Vec<usize>, Vec<f64>) = (fixture.fact("steps"), fixture.fact("shifts"));
    for (&steps, &shift) in steps.iter().flat_map(|steps| shifts.iter().map(move |shift| (steps, shift))) {
        let mut sampler = UniPc::new(steps, shift);
        let output = |name: &str| fixture.tensor(&format!("output.{steps}.{shift}.{name}"));
        let sigmas: Vec<f32> = output("sigmas").try_into().unwrap();
        assert_eq!(sampler.sigmas().iter().map(|&sigma| sigma as f32).collect::<Vec<_>>(), sigmas, "{steps} steps, shift {shift}");
        let timesteps: Vec<i64> = output("timesteps").try_into().unwrap();
        assert_eq!(sampler.timesteps().iter().map(|&time| time as i64).collect::<Vec<_>>(), timesteps, "{steps} steps, shift {shift}");

        let mut sample = fixture.tensor("input.start");
        let mut samples = Vec::new();
        for index in 0..steps {
            // The prediction that the generator answers with.
            let prediction = predictions.get(index as i64) + 0.3 * &sample;
            sample = sampler.step(&prediction, &sample).unwrap();
            samples.push(sample.shallow_clone());
        }
        assert_close(&format!("UniPC, {steps} steps, shift {shift}"), &Tensor::stack(&samples, 0), &output("samples"), 1e-5);
    }
}
