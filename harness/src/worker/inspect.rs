//! What a checkpoint holds, asked of the worker: reading checkpoints is the engine's part.

use std::path::Path;

use engine_protocol::{Device, Inventory};

use super::Launcher;
use crate::error::Error;

/// The worker's exit code for a checkpoint that cannot be opened, after a message on standard error.
const BAD_INPUT: i32 = 2;

/// What the checkpoint in `folder` holds.
pub(crate) fn inspect(folder: &Path) -> Result<Inventory, Error> {
    let mut command = Launcher::find(Device::Cpu)?.host_command();
    let output = command.arg("inspect").arg(folder).output();
    let output = output.map_err(|error| Error::Fault(format!("{}: {error}", command.get_program().display())))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => serde_json::from_slice(&output.stdout).map_err(|error| Error::Fault(format!("the worker's inventory is none: {error}"))),
        Some(BAD_INPUT) => Err(Error::input(said)),
        _ => Err(Error::Fault(format!("{}: the worker could not inspect it ({}): {said}", folder.display(), output.status))),
    }
}
