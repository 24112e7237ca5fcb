//! What a host's processor reaches in a model's linear layers, as it was measured: for stages on the CPU whose time is modelled.

use serde::{Deserialize, Serialize};

use crate::{Dtype, Secs};

/// Rates of one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRates {
    /// The processor's name, and how many of its threads were used: on another one these rates mean nothing.
    pub processor: String,
    /// Threads.
    pub threads: usize,
    /// Rates in each type.
    pub rates: Vec<DtypeRates>,
}

/// Rates in one type: the slowest, the median and the fastest of several measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DtypeRates {
    /// The type.
    pub dtype: Dtype,
    /// Multiplications and additions a second, where there are rows enough that arithmetic is the limit.
    pub operations_per_sec: [f64; 3],
    /// Bytes of weights a second, where there are so few rows that reading them is the limit.
    pub weight_bytes_per_sec: [f64; 3],
}

impl HostRates {
    /// How long linear layers of so many operations and so many bytes of weights take. Empty in a type that was not measured.
    pub fn linear_secs(&self, dtype: Dtype, operations: f64, weight_bytes: f64) -> Option<Secs> {
        let rates = self.rates.iter().find(|rates| rates.dtype == dtype)?;
        let secs = |which: usize| (operations / rates.operations_per_sec[which]).max(weight_bytes / rates.weight_bytes_per_sec[which]);
        Some(Secs { low: secs(2), expected: secs(1), high: secs(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_arithmetic_and_reading_decides() {
        let rates = DtypeRates { dtype: Dtype::Bf16, operations_per_sec: [50.0, 100.0, 200.0], weight_bytes_per_sec: [10.0, 20.0, 25.0] };
        let host = HostRates { processor: "one".into(), threads: 1, rates: vec![rates] };
        assert_eq!(host.linear_secs(Dtype::Bf16, 1000.0, 10.0), Some(Secs { low: 5.0, expected: 10.0, high: 20.0 }));
        assert_eq!(host.linear_secs(Dtype::Bf16, 10.0, 1000.0), Some(Secs { low: 40.0, expected: 50.0, high: 100.0 }));
        assert_eq!(host.linear_secs(Dtype::Fp32, 1.0, 1.0), None);
    }
}
