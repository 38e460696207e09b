//! Numbers as people read them.

use crate::metrics::MAX_DB;

/// Bytes: `812 B`, `95.0 KiB`, `1.20 MiB`.
pub fn bytes(n: u64) -> String {
    const KIB: f64 = 1024.0;
    let n_f = n as f64;
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{} KiB", significant(n_f / KIB)),
        1_048_576..1_073_741_824 => format!("{} MiB", significant(n_f / (KIB * KIB))),
        _ => format!("{} GiB", significant(n_f / (KIB * KIB * KIB))),
    }
}

/// A count: `812`, `95.0 k`, `1.20 M`.
pub fn count(n: u64) -> String {
    match n {
        0..1000 => n.to_string(),
        1000..1_000_000 => format!("{} k", significant(n as f64 / 1e3)),
        1_000_000..1_000_000_000 => format!("{} M", significant(n as f64 / 1e6)),
        _ => format!("{} G", significant(n as f64 / 1e9)),
    }
}

/// A share between 0 and 1 as percent with two decimals; a share that would read 0 or 100 percent but is not, says so.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.005 => "< 0.01 %".into(),
        p if (99.995..100.0).contains(&p) => "> 99.99 %".into(),
        p => format!("{p:.2} %"),
    }
}

/// Decibels with one decimal; `exact` for no error at all.
pub fn decibels(db: f64) -> String {
    if db >= MAX_DB { "exact".into() } else { format!("{db:.1} dB") }
}

/// A duration: `2.31 ms`, `4.2 s`, `2 min 05 s`.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{} µs", significant(s * 1e6)),
        s if s < 1.0 => format!("{} ms", significant(s * 1e3)),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

/// A real number with four significant digits, without exponent where that is short.
pub fn real(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    let exponent = x.abs().log10().floor() as i32;
    match exponent {
        -4..=5 => {
            let decimals = usize::try_from(3 - exponent).unwrap_or(0);
            let text = format!("{x:.decimals$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        _ => format!("{x:.3e}"),
    }
}

/// A shape: `1×28×28`.
pub fn shape<T: ToString>(dims: &[T]) -> String {
    match dims {
        [] => "scalar".into(),
        dims => dims.iter().map(T::to_string).collect::<Vec<_>>().join("×"),
    }
}

/// Three significant digits of a number below 1024, at most two of them decimals.
fn significant(x: f64) -> String {
    match x {
        x if x < 9.995 => format!("{x:.2}"),
        x if x < 99.95 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (97_280, "95.0 KiB"), (1_258_291, "1.20 MiB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes(5 << 30), "5.00 GiB");
        assert_eq!([count(999), count(78_666), count(1_570_000)], ["999", "78.7 k", "1.57 M"]);
    }

    #[test]
    fn shares_never_round_to_a_claim() {
        assert_eq!([percent(0.9135), percent(1.0), percent(0.0)], ["91.35 %", "100.00 %", "0.00 %"]);
        assert_eq!([percent(0.999_99), percent(1e-6)], ["> 99.99 %", "< 0.01 %"]);
    }

    #[test]
    fn reals_are_short() {
        let cases = [(0.0, "0"), (1.5, "1.5"), (-2.0, "-2"), (0.012_345_6, "0.01235"), (123_456.7, "123457")];
        for (x, text) in cases {
            assert_eq!(real(x), text);
        }
        assert_eq!(real(1.234_56e-9), "1.235e-9");
    }

    #[test]
    fn durations_change_their_unit() {
        let texts = [seconds(0.000_25), seconds(0.002_314), seconds(4.23), seconds(125.4)];
        assert_eq!(texts, ["250 µs", "2.31 ms", "4.2 s", "2 min 05 s"]);
    }

    #[test]
    fn decibels_name_equality() {
        assert_eq!([decibels(31.24), decibels(200.0)], ["31.2 dB", "exact"]);
    }

    #[test]
    fn shapes_are_products() {
        assert_eq!([shape(&[1, 28, 28]), shape::<usize>(&[])], ["1×28×28", "scalar"]);
    }
}
