//! Whether two scores put things into the same order.

/// Spearman's rank correlation, −1 to 1: the correlation of the ranks, equal values sharing their mean rank. `None` for
/// fewer than two pairs, or where one score is the same for all.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let count = a.len().min(b.len());
    let (a, b) = (ranks(a.get(..count)?), ranks(b.get(..count)?));
    let mean = (count as f64 - 1.0) / 2.0;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(&b) {
        let (x, y) = (x - mean, y - mean);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

/// Ranks from 0 on.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let shared = first as f64 + (equal.len() as f64 - 1.0) / 2.0;
        equal.iter().for_each(|&i| ranks[i] = shared);
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_all_that_counts() {
        let a = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(spearman(&a, &[10.0, 100.0, 1e3, 1e9]), Some(1.0));
        assert_eq!(spearman(&a, &[4.0, 3.0, 2.0, 1.0]), Some(-1.0));
        // d² = 1 + 1 + 1 + 1: 1 − 6·4 / (4·15).
        assert!((spearman(&a, &[2.0, 1.0, 4.0, 3.0]).expect("ranks") - 0.6).abs() < 1e-12);
    }

    #[test]
    fn equal_values_share_a_rank() {
        // Ranks 0.5, 0.5, 2 against 0, 1, 2: covariance 1.5, variances 1.5 and 2.
        let found = spearman(&[5.0, 5.0, 9.0], &[1.0, 2.0, 3.0]).expect("ranks");
        assert!((found - 1.5 / 3.0f64.sqrt()).abs() < 1e-12);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[1.0], &[1.0]), None);
        assert_eq!(spearman(&[], &[]), None);
    }
}
