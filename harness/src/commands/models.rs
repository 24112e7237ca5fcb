//! `lowmem models`.

use engine_protocol::{Dtype, gib};

use super::table;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::model::{Models, text_encoder_parameters, transformer_parameters, weight_bytes};

/// Lists the models.
pub(crate) fn run() -> Result<ExitCode, Error> {
    let titles = ["name", "title", "transformer", "text encoder", "weights in bf16 GiB", "resolution", "frames", "steps"];
    let mut table = table(&titles, &[2, 3, 4, 6, 7]);
    for model in Models::load()?.iter() {
        let [width, height] = model.sampling.resolution;
        table.add_row([
            model.name.clone(),
            model.title.clone(),
            millions(transformer_parameters(&model.transformer)),
            millions(text_encoder_parameters(&model.text_encoder)),
            format!("{:.2}", gib(weight_bytes(model, Dtype::Bf16))),
            format!("{width}x{height}"),
            model.sampling.frames.to_string(),
            model.sampling.steps.to_string(),
        ]);
    }
    say!("{table}");
    say!("Weights are those of the text encoder and the transformer, counted from their shapes; the VAE is small beside them.");
    Ok(ExitCode::Done)
}

fn millions(parameters: u64) -> String {
    format!("{:.2} M", parameters as f64 / 1e6)
}
