//! The records of sweeps on the virtual GPU.

use engine_protocol::RunRecord;

use lowmem_tests::root;
pub(crate) use lowmem_tests::sweep::Swept;

/// Large enough for level 0 of each model.
const GPU: &str = "h100";

/// The records of a sweep, on a GPU large enough for level 0 of each model.
pub(crate) fn sweep(definition: &str) -> Vec<RunRecord> {
    sweep_on(GPU, definition)
}

/// The records of a sweep, in the order of its cases. Always on the virtual GPU: a real one's peaks depend on its kernels.
pub(crate) fn sweep_on(gpu: &str, definition: &str) -> Vec<RunRecord> {
    Swept::new(definition, gpu, "virtual", &[]).run().records
}

/// A picture for videos that begin with one.
pub(crate) fn picture() -> String {
    root().join("tests/fixtures/picture.png").display().to_string()
}
