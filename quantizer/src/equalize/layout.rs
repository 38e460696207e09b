//! Which channel each element of a value belongs to, through reshapes and transpositions.

/// Channels of a value: element `i₀, i₁, …` of one sample, in row-major order over `dims`, belongs to channel
/// `labels[Σ iₖ · strideₖ]`. Neighbouring dimensions that continue each other are merged, so the layout depends on the
/// order of the elements alone and a reshape leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    dims: Vec<Dim>,
    labels: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dim {
    size: usize,
    stride: usize,
}

/// Leaves out dimensions of size 1 and merges those that continue each other.
fn merged(dims: impl IntoIterator<Item = Dim>) -> Vec<Dim> {
    let mut out: Vec<Dim> = Vec::new();
    for dim in dims.into_iter().filter(|dim| dim.size != 1) {
        match out.last_mut() {
            Some(last) if last.stride == dim.stride * dim.size => {
                *last = Dim { size: last.size * dim.size, stride: dim.stride };
            }
            _ => out.push(dim),
        }
    }
    out
}

impl Layout {
    /// All elements belong to one channel.
    pub(super) fn uniform(shape: &[usize], label: usize) -> Self {
        Self { dims: merged([Dim { size: shape.iter().product(), stride: 0 }]), labels: vec![label] }
    }

    /// One channel for each index along an axis.
    pub(super) fn along(shape: &[usize], axis: usize, labels: Vec<usize>) -> Self {
        let strides: Vec<usize> = (0..shape.len()).map(|i| usize::from(i == axis)).collect();
        Self::strided(shape, &strides, labels)
    }

    /// Channels by a stride for each axis.
    pub(super) fn strided(shape: &[usize], strides: &[usize], labels: Vec<usize>) -> Self {
        Self { dims: merged(shape.iter().zip(strides).map(|(&size, &stride)| Dim { size, stride })), labels }
    }

    /// The channels, some perhaps more than once.
    pub(super) fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Number of elements of one sample.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().map(|dim| dim.size).product()
    }

    /// A stride for each axis of `shape`; `None` where an axis has no single one.
    pub(super) fn strides(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let mut rest = self.dims.iter().rev().copied();
        let mut dim = Dim { size: 1, stride: 0 };
        let mut strides = vec![0; shape.len()];
        for (axis, &size) in shape.iter().enumerate().rev() {
            if size == 1 {
                continue;
            }
            if dim.size == 1 {
                dim = rest.next()?;
            }
            if !dim.size.is_multiple_of(size) {
                return None;
            }
            strides[axis] = dim.stride;
            dim = Dim { size: dim.size / size, stride: dim.stride * size };
        }
        (dim.size == 1 && rest.next().is_none()).then_some(strides)
    }

    /// The channel of each index along an axis, if it depends on nothing else.
    pub(super) fn axis(&self, shape: &[usize], axis: usize) -> Option<Vec<usize>> {
        let size = *shape.get(axis)?;
        if size == self.len() {
            // All other axes have one index.
            return Some(self.elements());
        }
        let strides = self.strides(shape)?;
        let alone = strides.iter().enumerate().all(|(i, &stride)| i == axis || stride == 0);
        alone.then(|| (0..size).map(|i| self.labels[i * strides[axis]]).collect())
    }

    /// The layout after a transposition.
    pub(super) fn transposed(&self, shape: &[usize], perm: &[usize]) -> Option<Self> {
        let strides = self.strides(shape)?;
        let dims = perm.iter().map(|&axis| Dim { size: shape[axis], stride: strides[axis] });
        Some(Self { dims: merged(dims), labels: self.labels.clone() })
    }

    /// Position in [`Self::labels`] of runs of elements that share it: calls `run` with the number of elements of each
    /// run and the position, in the order of the elements.
    pub(super) fn runs(&self, mut run: impl FnMut(usize, usize)) {
        let (length, outer) = match self.dims.split_last() {
            Some((last, outer)) if last.stride == 0 => (last.size, outer),
            _ => (1, &self.dims[..]),
        };
        let mut index = vec![0; outer.len()];
        let mut position = 0;
        loop {
            run(length, position);
            let mut at = outer.len();
            loop {
                if at == 0 {
                    return;
                }
                at -= 1;
                index[at] += 1;
                position += outer[at].stride;
                if index[at] < outer[at].size {
                    break;
                }
                position -= outer[at].stride * outer[at].size;
                index[at] = 0;
            }
        }
    }

    /// The channel of every element of a sample.
    pub(super) fn elements(&self) -> Vec<usize> {
        let mut elements = Vec::with_capacity(self.len());
        self.runs(|count, position| elements.extend(std::iter::repeat_n(self.labels[position], count)));
        elements
    }

    /// Number of elements of a sample at each position of [`Self::labels`].
    pub(super) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.labels.len()];
        self.runs(|count, position| counts[position] += count);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_keeps_the_layout_and_a_transposition_moves_it() {
        // [1, 2 channels, 2, 3] as an image, flattened, and with channels last.
        let image = Layout::along(&[1, 2, 2, 3], 1, vec![7, 9]);
        assert_eq!(image.elements(), [[7; 6], [9; 6]].concat());
        assert_eq!(image.axis(&[1, 12], 1), Some(image.elements()));
        assert_eq!(image.axis(&[1, 2, 6], 1), Some(vec![7, 9]));
        let last = image.transposed(&[1, 2, 2, 3], &[0, 2, 3, 1]).unwrap();
        assert_eq!(last.elements(), [7, 9].repeat(6));
        assert_eq!(last.axis(&[6, 2], 1), Some(vec![7, 9]));
        assert_eq!(last.axis(&[6, 2], 0), None);
        assert_eq!(last.counts(), [6, 6]);
    }

    #[test]
    fn heads_are_split_and_joined() {
        // [1, 3 tokens, 2 heads × 2] → [1, heads, tokens, 2] → back.
        let tokens = Layout::along(&[1, 3, 4], 2, vec![0, 1, 2, 3]);
        let heads = tokens.transposed(&[1, 3, 2, 2], &[0, 2, 1, 3]).unwrap();
        assert_eq!(heads.elements(), [[0, 1].repeat(3), [2, 3].repeat(3)].concat());
        assert_eq!(heads.strides(&[1, 2, 3, 2]), Some(vec![0, 2, 0, 1]));
        assert_eq!(heads.axis(&[1, 2, 3, 2], 3), None);
        assert_eq!(heads.strides(&[3, 4]), None);
        let joined = heads.transposed(&[1, 2, 3, 2], &[0, 2, 1, 3]).unwrap();
        assert_eq!(joined, tokens);
    }

    #[test]
    fn one_channel_and_one_element() {
        let one = Layout::uniform(&[1, 2, 3], 5);
        assert_eq!((one.elements(), one.axis(&[2, 3], 1)), (vec![5; 6], Some(vec![5; 3])));
        let scalar = Layout::uniform(&[], 5);
        assert_eq!((scalar.elements(), scalar.strides(&[1, 1])), (vec![5], Some(vec![0, 0])));
    }
}
