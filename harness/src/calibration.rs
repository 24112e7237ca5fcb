//! From what a GPU was measured to reach to its profile.

use engine_protocol::{Calibration, Efficiency, Figure, GpuProfile, Measured, Measurement, PeakShare, WorkKind};

/// What a measurement is a share of, in the profile's own figures: operations or bytes a second.
pub(crate) fn peak(measurement: &Measurement, profile: &GpuProfile) -> f64 {
    match measurement.what {
        Measured::PinnedToDevice | Measured::PageableToDevice | Measured::ToPinned => profile.pcie.pinned_bytes_per_sec.value,
        Measured::Work(WorkKind::Pointwise | WorkKind::Reduction) => profile.memory_bytes_per_sec.value,
        Measured::Work(_) => profile.flops.bf16.value,
    }
}

/// The share that the profile has for it. None for what has none of its own.
pub(crate) fn share(what: Measured, efficiency: &Efficiency) -> Option<&PeakShare> {
    Some(match what {
        Measured::PinnedToDevice | Measured::PageableToDevice | Measured::ToPinned | Measured::Work(WorkKind::Copy) => return None,
        Measured::Work(WorkKind::Gemm) => &efficiency.gemm,
        Measured::Work(WorkKind::Attention) => &efficiency.attention,
        Measured::Work(WorkKind::CudnnAttention) => efficiency.cudnn_attention.as_ref().unwrap_or(&efficiency.attention),
        Measured::Work(WorkKind::Convolution) => &efficiency.convolution,
        Measured::Work(WorkKind::Pointwise) => &efficiency.pointwise,
        Measured::Work(WorkKind::Reduction) => &efficiency.reduction,
    })
}

/// Least, median and largest share of the peak over all sizes that were measured. None where there was no such measurement.
pub(crate) fn reached(calibration: &Calibration, what: Measured, profile: &GpuProfile) -> Option<[f64; 3]> {
    let all: Vec<&Measurement> = calibration.measurements.iter().filter(|it| it.what == what).collect();
    let shares = |secs: fn(&Measurement) -> f64| {
        let mut shares: Vec<f64> = all.iter().map(|it| it.amount / secs(it) / peak(it, profile)).collect();
        shares.sort_by(f64::total_cmp);
        shares
    };
    // The longest time is the least share.
    let low = *shares(|it| it.secs.high).first()?;
    let high = *shares(|it| it.secs.low).last()?;
    let expected = shares(|it| it.secs.expected);
    Some([low, expected[expected.len() / 2], high])
}

/// The profile with what was measured in place of what it had. `source` says when and how.
pub(crate) fn calibrated(profile: &GpuProfile, calibration: &Calibration, source: &str) -> GpuProfile {
    let mut calibrated = profile.clone();
    let measured = |kind| {
        let [low, expected, high] = reached(calibration, Measured::Work(kind), profile)?;
        Some(PeakShare { low, expected, high, source: source.to_owned() })
    };
    let efficiency = &mut calibrated.efficiency;
    for (share, kind) in [
        (&mut efficiency.gemm, WorkKind::Gemm),
        (&mut efficiency.attention, WorkKind::Attention),
        (&mut efficiency.convolution, WorkKind::Convolution),
        (&mut efficiency.pointwise, WorkKind::Pointwise),
        (&mut efficiency.reduction, WorkKind::Reduction),
    ] {
        if let Some(measured) = measured(kind) {
            *share = measured;
        }
    }
    efficiency.cudnn_attention = measured(WorkKind::CudnnAttention);
    if let Some([_, share, _]) = reached(calibration, Measured::PinnedToDevice, profile) {
        let value = share * profile.pcie.pinned_bytes_per_sec.value;
        calibrated.pcie.pinned_bytes_per_sec = Figure { value, source: source.to_owned() };
    }
    calibrated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu_profile::GpuProfiles;
    use engine_protocol::Secs;

    #[test]
    fn what_was_measured_takes_the_place_of_what_was_there() {
        let profile = GpuProfiles::load().expect("profiles").iter().find(|profile| profile.name == "rtx-4090").expect("it").clone();
        let (bf16, link) = (profile.flops.bf16.value, profile.pcie.pinned_bytes_per_sec.value);
        let measurement = |what, amount: f64, secs: f64| Measurement { what, size: String::new(), amount, secs: Secs::measured(secs) };
        let gemm = Measured::Work(WorkKind::Gemm);
        let measurements = vec![
            measurement(gemm, bf16, 2.0),
            measurement(gemm, bf16, 1.25),
            measurement(gemm, bf16, 4.0),
            measurement(Measured::PinnedToDevice, link, 2.0),
        ];
        let calibrated = calibrated(&profile, &Calibration { device_name: String::new(), measurements }, "measured");
        let share = &calibrated.efficiency.gemm;
        assert_eq!((share.low, share.expected, share.high, share.source.as_str()), (0.25, 0.5, 0.8, "measured"));
        assert_eq!(calibrated.pcie.pinned_bytes_per_sec.value, link / 2.0);
        // What was not measured is as it was.
        assert_eq!(calibrated.efficiency.convolution, profile.efficiency.convolution);
        assert_eq!(calibrated.flops, profile.flops);
    }
}
