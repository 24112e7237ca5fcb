//! Kernels of ours that are compiled and loaded when they are first asked for, and stay so.
#![expect(unsafe_code, reason = "the driver is given machine code by address")]

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use super::driver::{self, Function};
use super::image_cache;
use super::nvrtc::Source;
use crate::error::Result;

/// The kernels of one source, for each variant that it was compiled for.
#[derive(Debug)]
pub(super) struct Loaded<Variant, const COUNT: usize> {
    functions: Mutex<Option<HashMap<Variant, [Function; COUNT]>>>,
}

impl<Variant: Copy + Eq + Hash, const COUNT: usize> Loaded<Variant, COUNT> {
    pub(super) const fn new() -> Self {
        Self { functions: Mutex::new(None) }
    }

    /// The kernels `names` of `variant`, which the compiler is told of by options for the GPU's compute capability. `name` is that of their files in the cache.
    ///
    /// # Errors
    /// The compiler's and the driver's.
    pub(super) fn get(
        &self,
        variant: Variant,
        name: &str,
        source: &Source,
        names: [&str; COUNT],
        options: impl FnOnce((u32, u32)) -> Vec<String>,
    ) -> Result<[Function; COUNT]> {
        let mut loaded = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_default();
        if let Some(&functions) = loaded.get(&variant) {
            return Ok(functions);
        }
        let image = image_cache::image(name, source, &options(driver::capability()?))?;
        // SAFETY: the image is what NVRTC made, whole.
        let functions = unsafe { driver::load(&image, names) }?;
        loaded.insert(variant, functions);
        Ok(functions)
    }
}
