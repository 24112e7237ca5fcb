//! Names of the tensors that stand beside a weight that waits packed: its scales, and the two matrices of its LoRAs.

/// Names of the two matrices that LoRAs of a weight have.
pub(super) fn lora_of(name: &str) -> [String; 2] {
    FACTORS.map(|factor| format!("{name}{factor}"))
}

const FACTORS: [&str; 2] = ["_lora_up", "_lora_down"];

/// The weight that the tensor of that name of a packed group is added to by LoRAs, and which of their two matrices it is; nothing where it is another one.
pub(super) fn factor_of(name: &str) -> Option<(&str, usize)> {
    FACTORS.iter().enumerate().find_map(|(which, factor)| Some((name.strip_suffix(factor)?, which)))
}

/// The name of the scales of a weight.
pub(super) fn scale_of(name: &str) -> String {
    format!("{name}{SCALE}")
}

/// The weight that the tensor of that name of a packed group has the scales of; nothing where it is another one.
pub(super) fn scaled_by(name: &str) -> Option<&str> {
    name.strip_suffix(SCALE)
}

const SCALE: &str = "_scale";
