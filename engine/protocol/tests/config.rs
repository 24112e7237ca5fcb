//! From settings to a configuration: what each memory level means, and what is refused with which words.

use std::path::Path;

use engine_protocol::{
    Config, ConfigError, Device, Dtype, FLAGS, ModelSpec, OffloadTextEncoder, ResidentBlocks, Sampler, Settings, Split, parse_setting,
    parse_values,
};
use rstest::rstest;

fn model(name: &str) -> ModelSpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../sweeps/models/{name}.yaml"));
    serde_yaml::from_str(&std::fs::read_to_string(path).expect("the model definition")).expect("a model definition")
}

fn settings(texts: &[&str]) -> Result<Settings, ConfigError> {
    Settings::from_pairs(texts.iter().map(|text| parse_setting(text)).collect::<Result<Vec<_>, _>>()?)
}

fn resolve(texts: &[&str]) -> Result<Config, ConfigError> {
    Config::resolve(&settings(texts)?, &model("wan2.1-t2v-14b"))
}

#[test]
fn a_level_is_a_preset_of_the_flags() {
    let level = |n: u8| resolve(&[&format!("low_mem_level={n}")]).expect("legal");
    let flags = |c: &Config| (c.vae_tile_size.is_some(), c.offload_text_encoder == OffloadTextEncoder::Cpu, c.offload_dit);
    assert_eq!(flags(&level(0)), (false, false, false));
    assert_eq!(flags(&level(1)), (true, false, false));
    assert_eq!(flags(&level(2)), (true, true, false));
    assert_eq!(flags(&level(3)), (true, true, true));
    assert_eq!(level(3).prefetch_blocks, Some(1));
    assert_eq!(level(1).vae_tile_size, Some(8), "the page's default");
}

#[test]
fn each_flag_can_be_set_by_itself() {
    let config = resolve(&["low_mem_level=3", "offload_text_encoder=off", "vae_tiling=false"]).expect("legal");
    assert_eq!((config.offload_text_encoder, config.vae_tile_size, config.offload_dit), (OffloadTextEncoder::Off, None, true));
    let config = resolve(&["offload_dit=true", "resident_blocks=7", "vae_tiling=true", "vae_tile_size=12"]).expect("legal");
    assert_eq!((config.low_mem_level, config.resident_blocks, config.vae_tile_size), (0, Some(ResidentBlocks::Count(7)), Some(12)));
}

#[test]
fn the_pages_spelling_means_the_same() {
    let long = ["infer.diffusion.low_mem_level=2", "infer.attn_type=flash", "infer.vae_tile_size=4", "infer.offload_text_encoder=true"];
    let short = ["low_mem_level=2", "attn_type=flash", "vae_tile_size=4", "offload_text_encoder=cpu"];
    assert_eq!(resolve(&long), resolve(&short));
    assert!(resolve(&long).is_ok());
}

/// What stands under `flexcache` there has names of its own, in YAML and with dots.
#[test]
fn the_pages_names_of_caches_mean_the_same() {
    let yaml = |text: &str| serde_yaml::from_str::<Settings>(text).map_err(|error| error.to_string());
    let nested = "infer:\n  diffusion:\n    flexcache:\n      strategy: blockdance\n      boundary_block: 7\n      group_size: 3\n      warmup: 4\n      cooldown: 6\n";
    let short = ["flexcache=blockdance", "flexcache_block=7", "flexcache_interval=3", "flexcache_warmup=4", "flexcache_cooldown=6"];
    assert_eq!(yaml(nested), Ok(settings(&short).expect("legal")));
    let dotted = ["infer.diffusion.flexcache.strategy=teacache", "flexcache.teacache_thresh=0.3"];
    assert_eq!(settings(&dotted), settings(&["flexcache=teacache", "flexcache_threshold=0.3"]));
    assert_eq!(
        settings(&["flexcache.fresh_threshold=4", "flexcache.max_order=2"]),
        settings(&["flexcache_interval=4", "flexcache_order=2"])
    );
    let meancache = ["infer.diffusion.flexcache.strategy=meancache", "infer.diffusion.flexcache.fresh_steps=17"];
    assert_eq!(settings(&meancache), settings(&["flexcache=meancache", "flexcache_fresh_steps=17"]));
    assert_eq!(settings(&["flexcache.tol=0.2", "flexcache.jvp_order=2"]), settings(&["flexcache_threshold=0.2", "flexcache_order=2"]));
    assert_eq!(
        yaml("flexcache:\n  strategy: pab\n  skip_self_range: 4\n  skip_cross_range: 6\n"),
        Ok(settings(&["flexcache=pab", "flexcache_interval=4", "flexcache_cross_interval=6"]).expect("legal"))
    );
    assert!(yaml("flexcache:\n  tau_max: 2\n").is_err_and(|error| error.contains("unknown key `flexcache.tau_max`")));
    assert!(yaml("flexcache:\n  strategy: cubic\n").is_err_and(|error| error.contains("flexcache=cubic: there is no such value")));
}

#[test]
fn what_multiplies_in_8_bits_waits_so() {
    let weights = |texts: &[&str]| resolve(texts).map(|config| config.weight_dtype.name()).map_err(|error| error.to_string());
    assert_eq!(weights(&["linear_dtype=fp8"]), Ok("fp8_e4m3"));
    assert_eq!(weights(&["linear_dtype=int8", "weight_dtype=as_stored"]), Ok("int8"));
    assert_eq!(weights(&["weight_dtype=fp8_e4m3"]), Ok("fp8_e4m3"));
    for (texts, wanted) in [
        (
            &["linear_dtype=fp8", "weight_dtype=q4_k"][..],
            "linear_dtype=fp8 multiplies weights in fp8_e4m3, and these wait in q4_k: leave one of weight_dtype and linear_dtype out",
        ),
        (&["linear_dtype=int8", "weight_dtype=fp8_e4m3"], "linear_dtype=int8 multiplies weights in int8, and these wait in fp8_e4m3"),
        (
            &["linear_dtype=fp8", "dtype=fp16"],
            "linear_dtype=fp8 gives its results in bf16, and dtype=fp16: use dtype=bf16, or leave linear_dtype out",
        ),
        (&["linear_dtype=fp8", "low_mem_level=3", "stream_from=file"], "use stream_from=memory, or leave linear_dtype out"),
    ] {
        assert!(weights(texts).is_err_and(|said| said.contains(wanted)), "{:?}", weights(texts));
    }
    let tiny = |texts: &[&str]| Config::resolve(&settings(texts)?, &model("wan-tiny"));
    // A head of 24 channels is no multiple of 16, two are.
    let said = tiny(&["linear_dtype=int8", "head_chunk=1"]).expect_err("24 channels").to_string();
    assert!(said.contains("a multiple of 16, and one here has 24"), "{said}");
    assert!(tiny(&["linear_dtype=int8"]).is_ok());
    let packed = |stored: &str, texts: &[&str]| {
        let mut model = model("wan2.1-t2v-14b");
        let stored = engine_protocol::WeightDtype::ALL.iter().copied().find(|dtype| dtype.name() == stored).expect("a type");
        model.packed.entry("transformer".into()).or_default().insert("blocks.0.ffn.net.2.weight".into(), stored);
        Config::resolve(&settings(texts)?, &model).map(|config| config.weight_dtype.name().to_owned())
    };
    assert_eq!(packed("fp8_e4m3", &["linear_dtype=fp8"]), Ok("fp8_e4m3".into()));
    let said = packed("int8", &["linear_dtype=fp8"]).expect_err("another type").to_string();
    assert!(said.contains("use linear_dtype=int8, or leave it out"), "{said}");
    // The exact video has neither.
    let exact = resolve(&["linear_dtype=fp8"]).expect("legal").exact().expect("it gives something up");
    assert_eq!((exact.linear_dtype.name(), exact.weight_dtype.name()), ("dtype", "as_stored"));
}

#[test]
fn keys_are_chosen_with_sparge_alone() {
    let sparge = resolve(&["attn_type=sparge", "infer.attn_topk=0.3"]).expect("legal");
    let choice = sparge.block_choice().expect("it chooses");
    assert_eq!((choice.topk, choice.similarity, choice.pv_threshold), (0.3, -0.1, 50.0));
    assert_eq!([0, 1, 10, 1182].map(|tiles| choice.count(tiles)), [1, 1, 3, 355]);
    // It gives up quality, and what says how goes with it.
    assert_eq!(sparge.exact(), Some(resolve(&["attn_type=sdpa"]).expect("legal")));
    let sage = resolve(&["attn_type=sage", "attn_topk=0.3"]).expect("legal");
    assert_eq!((sage.block_choice(), &sage), (None, &resolve(&["attn_type=sage"]).expect("legal")));
    let texts = settings(&["attn_type=sage", "attn_topk=0.3"]).expect("settings");
    assert_eq!(sage.without_effect(&texts, Device::Cuda), ["attn_topk has no effect: only attn_type=sparge leaves keys out"]);
}

#[rstest]
#[case("unipc", Sampler::Unipc)]
#[case("euler", Sampler::Euler)]
#[case("dpmpp", Sampler::Dpmpp)]
#[case("lcm", Sampler::Lcm)]
fn a_sampler_is_named_on_the_command_line_and_in_yaml(#[case] name: &str, #[case] sampler: Sampler) {
    for key in ["sampler", "infer.sampler", "infer.diffusion.sampler"] {
        assert_eq!(resolve(&[&format!("{key}={name}")]).expect("legal").sampler, sampler);
    }
    let from_yaml: Settings = serde_yaml::from_str(&format!("sampler: {name}")).expect("settings");
    assert_eq!(from_yaml.sampler, Some(sampler));
    assert_eq!(sampler.name(), name);
}

#[test]
fn an_unknown_sampler_is_refused_with_those_that_there_are() {
    let message = settings(&["sampler=heun"]).expect_err("no such sampler").to_string();
    assert_eq!(message, "sampler=heun: there is no such value: use unipc, euler, dpmpp or lcm");
}

#[test]
fn cases_that_are_the_same_in_effect_are_equal() {
    assert_eq!(resolve(&["low_mem_level=0", "vae_tile_size=4"]), resolve(&["low_mem_level=0", "vae_tile_size=16"]));
    assert_ne!(resolve(&["low_mem_level=1", "vae_tile_size=4"]), resolve(&["low_mem_level=1", "vae_tile_size=16"]));
}

#[test]
fn what_has_no_effect_is_named() {
    let given = settings(&[
        "vae_tile_size=4",
        "prefetch_blocks=2",
        "guidance_scale=1",
        "negative_prompt=rain",
        "head_chunk=40",
        "gradient_checkpointing=true",
        "guidance_batch=true",
    ])
    .expect("known keys");
    let config = Config::resolve(&given, &model("wan2.1-t2v-14b")).expect("legal");
    let idle = config.without_effect(&given, Device::Cuda);
    let named = ["vae_tile_size", "prefetch_blocks", "negative_prompt", "head_chunk", "gradient_checkpointing", "guidance_batch"];
    assert_eq!(idle.len(), named.len(), "{idle:?}");
    for key in named {
        assert!(idle.iter().any(|text| text.starts_with(&format!("{key} has no effect: "))), "{key}: {idle:?}");
    }
}

/// Nothing waits between chunks where there is one.
#[test]
fn offloading_the_feature_cache_needs_chunks() {
    let resolved = |chunk: &str| {
        let given = settings(&["frames=5", "activation_offload=true", chunk]).expect("known keys");
        let config = Config::resolve(&given, &model("wan2.1-t2v-14b")).expect("legal");
        (config.activation_offload, config.without_effect(&given, Device::Cuda))
    };
    assert_eq!(resolved("vae_temporal_chunk=1"), (true, vec![]));
    let (is_on, idle) = resolved("vae_temporal_chunk=2");
    assert!(!is_on);
    assert_eq!(idle, ["activation_offload has no effect: the VAE decodes all latent frames at once: set vae_temporal_chunk lower"]);
}

#[test]
fn latents_have_the_shape_of_the_published_models() {
    let shape = |name: &str, texts: &[&str]| {
        let model = model(name);
        Config::resolve(&settings(texts).expect("known"), &model).expect("legal").latent_shape(&model)
    };
    assert_eq!(shape("wan2.1-t2v-14b", &["resolution=720p", "frames=81"]), [16, 21, 90, 160]);
    assert_eq!(shape("wan2.1-t2v-1.3b", &["resolution=480p", "frames=1"]), [16, 1, 60, 104]);
}

#[rstest]
#[case("low_mem_level=4", "low_mem_level=4 is out of range: use 0 to 3")]
#[case("low_mem_level=-1", "low_mem_level=-1 is out of range")]
#[case("low_mem_level=two", "low_mem_level=two: there is no such value: use 0 to 3")]
#[case("low_mem_level=2,3", "low_mem_level takes one value here")]
#[case("vae_tile_size=-3", "vae_tile_size=-3 is out of range: use 2 to")]
#[case("vae_tile_overlap=5", "vae_tile_overlap=5 is out of range: use 0 to 4")]
#[case("vae_temporal_chunk=0", "vae_temporal_chunk=0 is out of range")]
#[case("frames=80", "use 1 more than a multiple of 4: 77 or 81")]
#[case("frames=0", "frames=0 is out of range")]
#[case("resolution=1280x721", "height=721 does not fit the model: use a multiple of 16")]
#[case("resolution=0x480", "width=0 does not fit the model")]
#[case("resolution=big", "resolution=big: there is no such value: use WIDTHxHEIGHT, 480p, 720p or 1080p")]
#[case("resident_blocks=some", "resident_blocks=some: there is no such value: use a whole number or auto")]
#[case("max_pinned_gib=-1", "max_pinned_gib=-1 is out of range: use 0 or more GiB")]
#[case(
    "weight_dtype=int4",
    "weight_dtype=int4: there is no such value: use as_stored, fp8_e4m3, fp8_e5m2, int8, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, iq4_xs, q3_k or q2_k"
)]
#[case("steps=0", "steps=0 is out of range")]
#[case("steps_measured=51", "steps_measured=51 is out of range: use 1 to 50")]
#[case("guidance_scale=0.5", "guidance_scale=0.5 is out of range")]
#[case("flow_shift=0", "flow_shift=0 is out of range")]
#[case("resident_blocks=41", "resident_blocks=41 is out of range: use 0 to 40")]
#[case("cp_size=0", "cp_size=0 is out of range: use 1 to 1024 GPUs")]
#[case(
    "cp_ulysses=3",
    "cp_ulysses=3: the 40 heads of wan2.1-t2v-14b do not divide by it: use one of 1, 2, 4, 5, 8, 10, 20, 40, or cp_ring"
)]
#[case("cfg_size=3", "cfg_size=3 is out of range: use 1 to 2 groups of GPUs")]
#[case("flexcache=cubic", "flexcache=cubic: there is no such value: use none, teacache, magcache")]
#[case("flexcache_speedup=9", "flexcache_speedup=9 is out of range: use 1 to 8")]
#[case("sigmas=1", "sigmas=1: there is no such value: use two or more falling numbers")]
#[case("sigmas=1, 0.5", "sigmas are for sampler=euler and sampler=lcm: set one of them")]
#[case("attn_type=xformers", "attn_type=xformers: there is no such value: use sdpa, flash, cudnn, mem_efficient, sage, sparge or math")]
#[case("attn_topk=1.5", "attn_topk=1.5 is out of range: use 0 to 1")]
#[case("offload_text_encoder=gpu", "offload_text_encoder=gpu: there is no such value: use off, cpu or stream")]
#[case("offload_vae=maybe", "offload_vae=maybe: there is no such value: use true or false")]
#[case("vae_tyle_size=3", "did you mean `vae_tile_size`?")]
#[case("infer.low_mem_levl=3", "did you mean `low_mem_level`?")]
#[case("low_mem_level", "is not key=value")]
fn what_is_wrong_is_said(#[case] setting: &str, #[case] message: &str) {
    let error = resolve(&[setting]).expect_err("refused").to_string();
    assert!(error.contains(message), "{error}");
}

/// What is left out of a split comes from the rest: as many ranks exchange heads as may.
#[rstest]
#[case(&["cp_size=1"], Split::ONE)]
#[case(&["cp_size=4"], Split { cp_ulysses: 4, ..Split::ONE })]
#[case(&["cp_size=3"], Split { cp_ring: 3, ..Split::ONE })]
#[case(&["cp_size=6"], Split { cp_ulysses: 2, cp_ring: 3, ..Split::ONE })]
#[case(&["cp_size=16"], Split { cp_ulysses: 8, cp_ring: 2, ..Split::ONE })]
#[case(&["cp_size=8", "head_chunk=4"], Split { cp_ulysses: 4, cp_ring: 2, ..Split::ONE })]
#[case(&["cp_size=8", "cp_ring=2"], Split { cp_ulysses: 4, cp_ring: 2, ..Split::ONE })]
#[case(&["cp_ulysses=5", "cp_ring=7"], Split { cp_ulysses: 5, cp_ring: 7, ..Split::ONE })]
#[case(&["cfg_size=2", "cp_size=2"], Split { cfg_size: 2, cp_ulysses: 2, cp_ring: 1 })]
fn a_split_is_made_whole(#[case] settings: &[&str], #[case] split: Split) {
    let config = resolve(settings).expect("legal");
    assert_eq!(config.split(), split);
    assert_eq!(config.cp_size.unwrap_or(1), split.cp_size());
}

/// Unlike parts are of a sequence that is in parts; one GPU has nothing to share out.
#[test]
fn splits_that_are_left_open_agree_with_what_is_given() {
    let open = |ranks: u32, setting: &str| -> Vec<String> {
        let (key, value) = parse_setting(setting).expect("key=value");
        let settings = Settings::from_pairs([(key, value)]).expect("legal");
        Split::all_over(ranks).into_iter().filter(|split| split.agrees_with(&settings)).map(|split| split.to_string()).collect()
    };
    assert_eq!(open(2, "cp_split=even").len(), 3);
    assert!(open(2, "cp_split=speed").iter().all(|split| split.starts_with("cp_size=2")), "{:?}", open(2, "cp_split=speed"));
    assert_eq!(open(2, "cp_split=3:1"), open(2, "cp_split=speed"));
    assert_eq!((open(1, "cp_split=speed").len(), open(2, "cfg_size=2").len()), (1, 1));
}

#[rstest]
#[case(&["cp_size=8", "cp_ulysses=3"], "cp_size=8 cp_ulysses=3: cp_size is cp_ulysses times cp_ring")]
#[case(&["cp_size=8", "cp_ulysses=2", "cp_ring=2"], "cp_size=8 cp_ulysses=2 cp_ring=2: cp_size is")]
#[case(&["cp_ulysses=4", "head_chunk=6"], "cp_ulysses=4: the 6 heads of head_chunk do not divide by it: use one of 1, 2, or cp_ring")]
#[case(&["cp_size=3", "attn_type=sage"], "cp_ring=3: attn_type=sage cannot take keys in parts, as a ring brings them: use cp_size with one of 1, 2, 4, 5, 8, 10, 20, 40 and no cp_ring")]
#[case(&["cp_ring=2", "attn_type=sparge"], "cp_ring=2: attn_type=sparge cannot take keys in parts")]
#[case(&["cp_ring=2", "attn_type=math"], "or attn_type with one of sdpa, flash, mem_efficient")]
#[case(&["cp_ulysses=8", "cp_ring=1000"], "cp_ulysses=8 cp_ring=1000 are 8000 parts: use 1024 at most")]
#[case(&["cfg_size=2", "guidance_scale=1"], "cfg_size=2: without guidance there is one prediction")]
#[case(&["cfg_size=2", "guidance_batch=true"], "cfg_size=2 guidance_batch=true")]
fn an_illegal_split_is_refused(#[case] settings: &[&str], #[case] message: &str) {
    let error = resolve(settings).expect_err("refused").to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn flash_and_cudnn_attention_need_sixteen_bits() {
    for name in ["flash", "cudnn"] {
        let error = resolve(&[&format!("attn_type={name}"), "dtype=fp32"]).expect_err("refused").to_string();
        assert!(error.contains(&format!("attn_type={name} has no fp32 kernel: use dtype=bf16")), "{error}");
    }
}

#[test]
fn sigmas_say_how_many_steps_there_are() {
    let sigmas = ["sampler=euler", "sigmas=1, 0.9375, 0.8333, 0.625"];
    assert_eq!(resolve(&sigmas).expect("legal").steps, 4);
    assert_eq!(resolve(&[&sigmas[..], &["steps=4"]].concat()).expect("legal").steps, 4);
    let error = resolve(&[&sigmas[..], &["steps=5"]].concat()).expect_err("refused").to_string();
    assert!(error.contains("steps=5, and sigmas has 4 levels: leave steps out"), "{error}");
}

#[test]
fn a_cache_of_steps_is_for_models_that_it_was_published_for() {
    let pool = model("wan2.2-t2v-a14b");
    let refused = |words: &[&str]| Config::resolve(&settings(words).expect("known"), &pool).expect_err("refused").to_string();
    assert!(refused(&["flexcache=teacache"]).contains("use flexcache=magcache"));
    assert!(Config::resolve(&settings(&["flexcache=magcache"]).expect("known"), &pool).is_ok());
    assert!(refused(&["flexcache=blockdance", "flexcache_block=39"]).contains("leaves no block to compute: use 0 to 38"));
    let mut unknown = model("wan2.1-t2v-14b");
    unknown.name = "mine".into();
    let error = Config::resolve(&settings(&["flexcache=magcache"]).expect("known"), &unknown).expect_err("refused").to_string();
    assert!(error.contains("no numbers are published for mine: use flexcache=firstblock"), "{error}");
    // What means nothing is empty, so that cases that are the same are equal.
    let with = |words: &[&str]| resolve(words).expect("legal");
    assert_eq!(with(&["flexcache_order=2", "flexcache_offload=cpu"]), with(&[]));
    assert_eq!(with(&["flexcache=teacache", "flexcache_block=3"]), with(&["flexcache=teacache"]));
    assert_eq!(with(&["flexcache=freecache", "flexcache_offload=cpu"]), with(&["flexcache=freecache"]));
    assert!(refused(&["flexcache=freecache", "flexcache_order=0"]).contains("freecache goes by one computed step at least: use 1 to 3"));
    assert_eq!(with(&["flexcache=meancache", "flexcache_offload=cpu", "flexcache_interval=3"]), with(&["flexcache=meancache"]));
    assert_eq!(with(&["flexcache=freecache", "flexcache_fresh_steps=17"]), with(&["flexcache=freecache"]));
    assert!(refused(&["flexcache=meancache", "flexcache_fresh_steps=20"]).contains("there is no such table: use 30, 25, 17 or 10"));
    assert_eq!(with(&["flexcache=taylorseer", "flexcache_cross_interval=4"]), with(&["flexcache=taylorseer"]));
    assert_eq!(with(&["flexcache=pab", "steps_measured=4"]), with(&["flexcache=pab"]), "whose steps are of four kinds");
}

#[test]
fn a_pool_has_a_guidance_scale_each() {
    let model = model("wan2.2-t2v-a14b");
    let config = |texts: &[&str]| Config::resolve(&settings(texts).expect("known"), &model).expect("legal");
    assert_eq!((config(&[]).guidance_scale, config(&[]).low_noise_guidance_scale), (4.0, Some(3.0)));
    assert!(config(&["guidance_scale=1"]).has_guidance(), "the low-noise transformer still guides");
    assert!(!config(&["guidance_scale=1", "low_noise_guidance_scale=1"]).has_guidance());
    assert_eq!(resolve(&["low_noise_guidance_scale=2"]).expect("legal").low_noise_guidance_scale, None);
}

#[test]
fn switches_are_what_people_write() {
    for (words, is_on) in [(["true", "True", "yes", "on", "1"], true), (["false", "False", "no", "off", "0"], false)] {
        for word in words {
            let config = resolve(&[&format!("offload_vae={word}")]).expect("legal");
            assert_eq!(config.offload_vae, is_on, "{word}");
        }
    }
    let from_yaml: Settings = serde_yaml::from_str("offload_vae: yes\noffload_text_encoder: true\nsteps: \"7\"\n").expect("settings");
    assert_eq!((from_yaml.offload_vae, from_yaml.offload_text_encoder), (Some(true), Some(OffloadTextEncoder::Cpu)));
    assert_eq!(from_yaml.steps, Some(7));
}

#[rstest]
#[case("480*832", 480, 832)]
#[case("480x832", 480, 832)]
#[case("832X480", 832, 480)]
#[case("480p", 832, 480)]
#[case("720P", 1280, 720)]
#[case("1080p", 1920, 1088)]
fn sizes_are_what_people_write(#[case] text: &str, #[case] width: u32, #[case] height: u32) {
    let config = resolve(&[&format!("resolution={text}")]).expect("legal");
    assert_eq!(config.resolution, [width, height].into());
}

#[test]
fn the_pages_yaml_may_be_nested() {
    let nested: Settings = serde_yaml::from_str("infer:\n  attn_type: flash\n  diffusion:\n    low_mem_level: 2\n").expect("settings");
    assert_eq!(nested, settings(&["attn_type=flash", "low_mem_level=2"]).expect("settings"));
    let alone: Settings = serde_yaml::from_str("diffusion:\n  low_mem_level: 2\n").expect("settings");
    assert_eq!(alone.low_mem_level, Some(2));
    let wrong = serde_yaml::from_str::<Settings>("infer:\n  low_mem_levle: 2\n").expect_err("no such key").to_string();
    assert!(wrong.contains("unknown key `infer.low_mem_levle`: did you mean `low_mem_level`?"), "{wrong}");
}

#[test]
fn a_list_has_commas_and_a_prompt_keeps_its_own() {
    assert_eq!(parse_values("infer.diffusion.low_mem_level=2,3").expect("a list"), ("low_mem_level".into(), vec![2.into(), 3.into()]));
    assert_eq!(parse_values("resolution=480p, 640*640").expect("a list").1, ["832x480", "640x640"]);
    assert_eq!(parse_values("prompt=a cat, a dog").expect("a prompt").1, ["a cat, a dog"]);
}

/// Where nothing else is said the table's words must be what `resolve` does.
#[test]
fn a_value_that_is_left_out_is_what_the_table_says() {
    let model = model("wan2.1-t2v-14b");
    for device in [Device::Cuda, Device::Cpu] {
        for level in 0..=3u8 {
            let settings = Settings { low_mem_level: Some(level), ..Settings::default() };
            let config = Config::resolve_on(device, &settings, &model).expect("legal");
            for flag in FLAGS.iter() {
                let Some(value) = flag.of(&config) else { continue };
                let value = engine_protocol::told(&value);
                let from = flag.default.split_once("; ").filter(|(_, rest)| rest.contains(" from level ") || rest.ends_with(" on the CPU"));
                let expected = match (flag.default.as_str(), from) {
                    (words, _) if words.starts_with("the model's") || words.contains(' ') && from.is_none() => continue,
                    (_, Some((gpu, rest))) if rest.ends_with(" on the CPU") => {
                        if device == Device::Cpu {
                            rest.trim_end_matches(" on the CPU")
                        } else {
                            gpu
                        }
                    }
                    (_, Some((below, rest))) => {
                        let (from, first) = rest.split_once(" from level ").expect("a level");
                        if level >= first.parse::<u8>().expect("a number") { from } else { below }
                    }
                    ("nothing", _) => "",
                    (value, None) if flag.key != "low_mem_level" => value,
                    _ => continue,
                };
                assert_eq!(value, expected, "{} at level {level} on {device:?}", flag.key);
            }
        }
    }
    let on_cpu = Config::resolve_on(Device::Cpu, &Settings::default(), &model).expect("legal");
    assert_eq!(on_cpu.dtype, Dtype::Fp32);
}

#[test]
fn the_fewest_settings_are_the_level_and_what_differs_from_it() {
    let model = model("wan2.1-t2v-14b");
    let said = |texts: &[&str]| resolve(texts).expect("legal").flags_beside_level(Device::Cuda, &model);
    assert_eq!(said(&["low_mem_level=3"]), [""; 0]);
    assert_eq!(said(&["low_mem_level=3", "resolution=480p", "seed=7", "vae_tile_size=8"]), [""; 0]);
    let all = [
        "head_chunk=2",
        "offload_vae=false",
        "prefetch_blocks=3",
        "resident_blocks=10",
        "sequence_chunk=0",
        "stream_from=memory",
        "steps=20",
    ];
    let mut found = said(&[&["low_mem_level=3"], all.as_slice()].concat());
    found.sort();
    let mut all = all.to_vec();
    all.sort_unstable();
    assert_eq!(found, all);
}

#[test]
fn keys_are_unique_and_every_flag_is_explained() {
    for (index, flag) in FLAGS.iter().enumerate() {
        assert!(FLAGS[..index].iter().all(|other| other.key != flag.key), "{}", flag.key);
        assert!(flag.doc.ends_with('.') && !flag.doc.contains('\n') && !flag.default.is_empty() && !flag.values().is_empty(), "{flag:?}");
        for prefix in ["infer.diffusion.", "infer.", "diffusion.", ""] {
            assert_eq!(engine_protocol::flag(&format!("{prefix}{}", flag.key)).expect("a key").key, flag.key);
        }
    }
}
