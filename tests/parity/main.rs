//! Parity with the reference implementations, from fixtures that `tests/fixtures/generate.py` made with them: `make reference` makes them anew.

mod attention;
mod image_to_video;
mod linear;
mod pipeline;
mod resident;
mod scheduler;
mod several_ranks;
mod text_encoder;
mod tokenizer;
mod transformer;
mod vae;
