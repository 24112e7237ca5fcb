//! `lowmem models`: the known ones, or what a checkpoint holds.

use std::path::Path;

use engine_protocol::{CheckpointFiles, ComponentInventory, Dtype, Inventory, gib};

use super::table;
use crate::cli::{ModelsArguments, ModelsCommand};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::json;
use crate::model::{Models, text_encoder_parameters, transformer_parameters, transformers, weight_bytes};
use crate::worker;

/// Names of tensors, and faults, that are listed of each kind before the rest is only counted.
const LISTED: usize = 5;

/// Lists the models, or what a checkpoint holds.
pub(crate) fn run(arguments: ModelsArguments) -> Result<ExitCode, Error> {
    match arguments.command {
        None if arguments.list.json => {
            json::print(&Models::load()?.iter().collect::<Vec<_>>())?;
            Ok(ExitCode::Done)
        }
        None => list(),
        Some(ModelsCommand::Inspect { path, tokenizer, loras, json }) => {
            inspect(&CheckpointFiles { tokenizer, loras: loras.files, ..CheckpointFiles::folder(path) }, json)
        }
    }
}

fn list() -> Result<ExitCode, Error> {
    let titles = ["name", "title", "transformer", "text encoder", "weights in bf16 GiB", "resolution", "frames", "steps"];
    let mut table = table(&titles, &[2, 3, 4, 6, 7]);
    for model in Models::load()?.iter() {
        let [width, height] = model.sampling.resolution;
        table.add_row([
            model.name.clone(),
            model.title.clone(),
            match transformers(model) {
                1 => millions(transformer_parameters(&model.transformer)),
                n => format!("{n} x {}", millions(transformer_parameters(&model.transformer))),
            },
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

fn inspect(files: &CheckpointFiles, as_json: bool) -> Result<ExitCode, Error> {
    let inventory = worker::inspect(files)?;
    if as_json {
        json::print(&inventory)?;
    } else {
        print_inventory(files.main().unwrap_or(Path::new("")), &inventory);
    }
    match &inventory.refusal {
        None => Ok(ExitCode::Done),
        Some(refusal) => Err(Error::input(format!("no video can be made from this checkpoint: {refusal}"))),
    }
}

fn print_inventory(dir: &Path, inventory: &Inventory) {
    let layout = match inventory.layout.as_str() {
        "original" => "Wan's own layout",
        "files" => "single files",
        _ => "diffusers' layout",
    };
    let (place, model) = (untrusted::line(&dir.to_string_lossy()), &inventory.model);
    // One that is not published has no other name than its folder's.
    match model.title == model.name {
        true => say!("{place}: a model of {} blocks that is not published, {layout}", model.transformer.num_layers),
        false => say!("{place}: {} ({}), {layout}", model.title, model.name),
    }
    let mut table = table(&["component", "tensors", "parameters", "types", "weights GiB", "files"], &[1, 2, 4, 5]);
    for component in &inventory.components {
        table.add_row([
            component.name.clone(),
            component.tensors.to_string(),
            millions(component.parameters),
            component.types.keys().cloned().collect::<Vec<_>>().join(", "),
            format!("{:.2}", gib(component.bytes)),
            component.files.len().to_string(),
        ]);
    }
    let total = |of: fn(&ComponentInventory) -> u64| inventory.components.iter().map(of).sum::<u64>();
    let [tensors, files] = [total(|c| c.tensors), total(|c| c.files.len() as u64)].map(|count| count.to_string());
    table.add_row([
        "all".into(),
        tensors,
        millions(total(|c| c.parameters)),
        String::new(),
        format!("{:.2}", gib(total(|c| c.bytes))),
        files,
    ]);
    say!("{table}");
    say!("tokenizer: {}", inventory.tokenizer.as_deref().unwrap_or("missing"));
    if let Some(dtype) = inventory.model.packed_dtype() {
        say!("The transformer's blocks are packed ({}), and stay so until they are used.", dtype.name());
    }
    for (component, ranks) in &inventory.model.lora_ranks {
        say!("LoRAs change {} layers of {component}, {} ranks in all.", ranks.len(), ranks.values().sum::<i64>());
    }
    for component in &inventory.components {
        // A fault says itself which file it is in.
        component.faults.iter().take(LISTED).for_each(|fault| say!("{}: {fault}", component.name));
        if let more @ 1.. = component.faults.len().saturating_sub(LISTED) {
            say!("{}: {more} more faults", component.name);
        }
        for (what, names) in [("missing", &component.missing), ("unexpected", &component.unexpected)] {
            if !names.is_empty() {
                let listed: Vec<_> = names.iter().take(LISTED).map(|name| untrusted::shown(name)).collect();
                let more = names.len() - listed.len();
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                say!("{}: {} {what}: {}{rest}", component.name, names.len(), listed.join(", "));
            }
        }
    }
}

fn millions(parameters: u64) -> String {
    format!("{:.2} M", parameters as f64 / 1e6)
}
