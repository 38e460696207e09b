//! Costs on each core, as `cargo run --release -p equant-firmware-tools --bin cores -- CORE --fit` prints them in
//! `firmware`, formatted. A new table is to be named in [`super::Core`] as well.

use super::{Class, Fit, Table};

/// Cortex-M4: `cores -- m4 --fit`.
pub(super) static M4: Table = Table {
    core: "Cortex-M4",
    layers: 90,
    median: 0.5,
    largest: 11.6,
    fits: &[
        Fit {
            class: Class::Pixels,
            bits: 8,
            layers: 22,
            median: 0.6,
            largest: 4.6,
            per: &[0.8322, 12.17, 1.154, 3.224, 15.53, 659.9, 0.5597, 39.36, 5261.7],
        },
        Fit {
            class: Class::Pixels,
            bits: 4,
            layers: 20,
            median: 1.0,
            largest: 5.6,
            per: &[0.8646, 13.32, 1.935, 4.816, 16.22, 453.7, 0.5804, 51.75, 5205.8],
        },
        Fit { class: Class::Pixel, bits: 8, layers: 9, median: 0.4, largest: 3.5, per: &[1.239, 38.48, 1.553, 1408.7] },
        Fit { class: Class::Pixel, bits: 4, layers: 9, median: 0.3, largest: 3.1, per: &[1.271, 43.21, 2.675, 1492.6] },
        Fit {
            class: Class::Depthwise,
            bits: 8,
            layers: 10,
            median: 0.5,
            largest: 2.0,
            per: &[1.257, 11.31, 1.939, 27.25, 68.06, 17.95, 3252.7],
        },
        Fit {
            class: Class::Depthwise,
            bits: 4,
            layers: 10,
            median: 0.4,
            largest: 1.8,
            per: &[1.257, 11.32, 1.947, 27.29, 68.55, 37.00, 3161.9],
        },
        Fit { class: Class::Add, bits: 8, layers: 3, median: 0.0, largest: 0.0, per: &[10.75, 1047.0] },
        Fit { class: Class::AvgPool, bits: 8, layers: 3, median: 2.8, largest: 11.6, per: &[3.849, 98.01] },
        Fit { class: Class::Softmax, bits: 8, layers: 4, median: 0.4, largest: 0.7, per: &[332.1, 1837.9] },
    ],
};
