//! Costs on each core, as `cargo run --release -p equant-firmware-tools --bin cores -- CORE --fit` prints them in
//! `firmware`, formatted. A new table is to be named in [`super::Core`] as well.

use super::{Class, Fit, Table};

/// Cortex-M4: `cores -- m4 --fit`.
pub(super) static M4: Table = Table {
    core: "Cortex-M4",
    layers: 90,
    median: 0.5,
    largest: 26.2,
    fits: &[
        Fit {
            class: Class::Pixels,
            bits: 8,
            layers: 22,
            median: 0.6,
            largest: 4.5,
            per: &[0.8323, 12.15, 1.159, 3.184, 17.21, 660.0, 0.5582, 39.47, 8275.0],
        },
        Fit {
            class: Class::Pixels,
            bits: 4,
            layers: 20,
            median: 1.0,
            largest: 5.5,
            per: &[0.8645, 13.31, 1.943, 4.807, 17.46, 453.5, 0.5806, 51.85, 8398.4],
        },
        Fit { class: Class::Pixel, bits: 8, layers: 9, median: 0.2, largest: 2.7, per: &[1.240, 38.50, 1.544, 3480.7] },
        Fit { class: Class::Pixel, bits: 4, layers: 9, median: 0.3, largest: 2.5, per: &[1.272, 43.22, 2.667, 3696.6] },
        Fit {
            class: Class::Depthwise,
            bits: 8,
            layers: 10,
            median: 0.5,
            largest: 2.0,
            per: &[1.257, 11.31, 1.941, 27.20, 66.74, 18.12, 6154.4],
        },
        Fit {
            class: Class::Depthwise,
            bits: 4,
            layers: 10,
            median: 0.4,
            largest: 1.8,
            per: &[1.258, 11.32, 1.948, 27.24, 66.51, 36.08, 6252.2],
        },
        Fit { class: Class::Add, bits: 8, layers: 3, median: 0.0, largest: 0.0, per: &[10.75, 2995.0] },
        Fit { class: Class::AvgPool, bits: 8, layers: 3, median: 6.3, largest: 26.2, per: &[4.152, 103.2] },
        Fit { class: Class::Softmax, bits: 8, layers: 4, median: 0.3, largest: 0.5, per: &[332.2, 2800.0] },
    ],
};
