//! Any combination of flags computes what level 0 computes: drawn at random, with odd sizes, on the CPU.

use proptest::prelude::*;

use super::levels_agree::{relative_error, run_as};

/// What decides about the result, whatever the memory flags are: size, length, guidance and the type in which weights wait.
fn results() -> impl Strategy<Value = Vec<String>> {
    let resolution = prop::sample::select(vec!["48x32", "80x48", "32x112"]);
    let (frames, guidance) = (prop::sample::select(vec![1, 5, 9]), prop::sample::select(vec![1, 5]));
    let weights = prop::sample::select(vec!["as_stored", "fp8_e4m3"]);
    (resolution, frames, guidance, weights).prop_map(|(resolution, frames, guidance, weights)| {
        let settings = [format!("resolution={resolution}"), format!("frames={frames}"), format!("guidance_scale={guidance}")];
        let rest = [format!("weight_dtype={weights}"), "steps=2".to_owned()];
        settings.into_iter().chain(rest).collect()
    })
}

/// `key=value`, or nothing, which leaves it to the level.
fn maybe<V: ToString + Clone + std::fmt::Debug + 'static>(key: &'static str, values: Vec<V>) -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop::sample::select(values)).prop_map(move |value| Some(format!("{key}={}", value?.to_string())))
}

/// What decides about memory alone. wan-tiny has 4 blocks in three parts each, and 42 tokens at most.
fn flags() -> impl Strategy<Value = Vec<String>> {
    let level = (0..=3).prop_map(|level| Some(format!("low_mem_level={level}")));
    let places = (
        maybe("offload_text_encoder", vec!["off", "cpu", "stream"]),
        maybe("offload_vae", vec![true, false]),
        maybe("offload_dit", vec![true, false]),
        maybe("resident_blocks", vec![0, 1, 3, 4]),
        maybe("prefetch_blocks", vec![0, 2, 4, 12]),
        maybe("pinned_memory", vec![true, false]),
        maybe("max_pinned_gib", vec![0.0, 0.00005]),
        maybe("stream_from", vec!["memory", "auto"]),
    );
    let sizes = (
        maybe("guidance_batch", vec![true, false]),
        maybe("sequence_chunk", vec![0, 1, 5, 41]),
        maybe("head_chunk", vec![0, 1, 2]),
        maybe("vae_temporal_chunk", vec![1, 2, 3]),
        maybe("activation_offload", vec![true, false]),
        maybe("attn_type", vec!["sdpa", "math"]),
    );
    (level, places, sizes).prop_map(|(level, places, sizes)| {
        let (a, b, c, d, e, f, g, h) = places;
        let (i, j, k, l, m, n) = sizes;
        [level, a, b, c, d, e, f, g, h, i, j, k, l, m, n].into_iter().flatten().chain(["vae_tiling=false".to_owned()]).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_result_is_that_of_level_0(result in results(), flags in flags(), poisoned: bool) {
        let texts = |settings: &[String]| settings.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let run = |settings: Vec<String>, poisoned: bool| {
            let settings: Vec<_> = settings.iter().map(String::as_str).collect();
            run_as(&settings, |pipeline| if poisoned { pipeline.with_poisoned_buffers() } else { pipeline })
        };
        let (reference, video) = run([result.clone(), vec!["low_mem_level=0".into()]].concat(), false);
        let (latents, ours) = run([result.clone(), flags.clone()].concat(), poisoned);
        let error = relative_error(&latents, &reference);
        prop_assert!(error <= 1e-5, "{} with {}: latents differ by {error:e}", texts(&result), texts(&flags));
        let furthest = ours.iter().zip(&video).map(|(a, b)| a.abs_diff(*b)).max();
        prop_assert!(furthest <= Some(1) && ours.len() == video.len(), "{}: pixels differ by {furthest:?}", texts(&flags));
    }
}
