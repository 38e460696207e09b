//! Observed ranges of the values that a QDQ file leaves in float, kept in the file's metadata.
//!
//! Runtimes with float kernels need none. An integer runtime that keeps such a value in 16 bits chooses its scale
//! by it: a bound proved from the weights alone is often fifty times what ever occurs.

use std::collections::BTreeMap;

use crate::graph::Graph;

/// The metadata key; its text is JSON: `{"value": [lowest, highest], ...}`.
pub const FLOAT_RANGES: &str = "equant.float_ranges";

/// Lowest and highest value that calibration saw, by the value's name.
pub type FloatRanges = BTreeMap<String, (f32, f32)>;

/// The metadata text.
pub(super) fn to_text(ranges: &FloatRanges) -> String {
    // A map of finite numbers always serializes.
    serde_json::to_string(ranges).unwrap_or_default()
}

/// The ranges a file tells; none if it has no such metadata.
///
/// # Errors
///
/// What is wrong with the text.
pub fn float_ranges(graph: &Graph) -> Result<FloatRanges, String> {
    let Some(text) = graph.metadata.get(FLOAT_RANGES) else { return Ok(FloatRanges::new()) };
    let refuse =
        |reason: String| format!("metadata `{FLOAT_RANGES}` is malformed ({reason}); remove it or quantize again");
    let ranges: FloatRanges = serde_json::from_str(text).map_err(|e| refuse(e.to_string()))?;
    match ranges.iter().find(|(_, (low, high))| !(low.is_finite() && high.is_finite() && low <= high)) {
        Some((name, range)) => Err(refuse(format!("`{name}` ranges over {range:?}"))),
        None => Ok(ranges),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_survive_the_metadata() {
        let ranges =
            FloatRanges::from([("a \"quoted\" name".to_owned(), (-1.5e-7, 3.25)), ("b".to_owned(), (0.0, 0.0))]);
        let mut graph = Graph::default();
        assert_eq!(float_ranges(&graph), Ok(FloatRanges::new()));
        graph.metadata.insert(FLOAT_RANGES.to_owned(), to_text(&ranges));
        assert_eq!(float_ranges(&graph), Ok(ranges));
    }

    #[test]
    fn malformed_metadata_is_refused() {
        for text in ["", "{", "{\"a\": [1]}", "{\"a\": [2, 1]}", "{\"a\": [0, 1e99]}"] {
            let mut graph = Graph::default();
            graph.metadata.insert(FLOAT_RANGES.to_owned(), text.to_owned());
            assert!(float_ranges(&graph).is_err(), "{text}");
        }
    }
}
