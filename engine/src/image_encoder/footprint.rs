//! What the encoder holds beside its weights, from shapes.

use super::clip::ImageEncoder;

impl ImageEncoder {
    /// The most bytes that [`ImageEncoder::forward`] holds at once beside weights, the picture included; `bytes` are those of one number in the compute type.
    pub fn activation_bytes(&self, bytes: i64) -> i64 {
        let spec = &self.spec;
        let wide = |width: i64| spec.tokens() * width * bytes;
        let pixels = 3 * spec.image_size * spec.image_size * bytes;
        // Beside the hidden state: its norm with queries, keys, values and what they attend to; or its norm, and the inner tensor with what goes out.
        let attention = 5 * wide(spec.hidden_size);
        let mlp = wide(spec.intermediate_size) + wide(spec.hidden_size);
        pixels + wide(spec.hidden_size) + attention.max(mlp)
    }
}
