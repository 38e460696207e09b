//! Views: how a logical (ONNX) tensor lies in dense memory.
//!
//! A view is a list of logical axes, each a list of atoms (size, stride), outermost first. Reshape
//! splits and merges atoms, transpose permutes axes; neither touches memory.

/// A run of `size` elements, `stride` elements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Atom {
    pub(super) size: usize,
    pub(super) stride: usize,
}

/// A logical tensor over dense memory. Atoms of size 1 are left out and neighbours that continue
/// each other are merged, so that equal layouts compare equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    axes: Vec<Vec<Atom>>,
}

/// Removes atoms of size 1 and merges an atom with the next one when they continue each other.
fn normalized(atoms: impl IntoIterator<Item = Atom>) -> Vec<Atom> {
    let mut out: Vec<Atom> = Vec::new();
    for atom in atoms {
        if atom.size == 1 {
            continue;
        }
        match out.last_mut() {
            Some(last) if last.stride == atom.stride * atom.size => {
                *last = Atom { size: last.size * atom.size, stride: atom.stride };
            }
            _ => out.push(atom),
        }
    }
    out
}

impl View {
    /// The view whose memory holds the axes in `order`, outermost first.
    pub(super) fn ordered(shape: &[usize], order: &[usize]) -> Self {
        let mut axes = vec![Vec::new(); shape.len()];
        let mut stride = 1;
        for &axis in order.iter().rev() {
            let size = shape[axis];
            axes[axis] = normalized([Atom { size, stride }]);
            stride *= size;
        }
        Self { axes }
    }

    /// Memory in the order of the logical axes.
    pub(super) fn row_major(shape: &[usize]) -> Self {
        Self::ordered(shape, &(0..shape.len()).collect::<Vec<_>>())
    }

    /// Channels last for rank 3 and above (`[N, C, spatial...]` stored `[N, spatial..., C]`).
    pub(super) fn channels_last(shape: &[usize]) -> Self {
        if shape.len() < 3 {
            return Self::row_major(shape);
        }
        let mut order: Vec<usize> = (0..shape.len()).filter(|&axis| axis != 1).collect();
        order.push(1);
        Self::ordered(shape, &order)
    }

    /// Builds a view from atoms per axis.
    pub(super) fn from_axes(axes: Vec<Vec<Atom>>) -> Self {
        Self { axes: axes.into_iter().map(normalized).collect() }
    }

    /// The axes.
    pub(super) fn axes(&self) -> &[Vec<Atom>] {
        &self.axes
    }

    /// The logical shape.
    pub(super) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.iter().map(|atom| atom.size).product()).collect()
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.axes.iter().flatten().map(|atom| atom.size).product()
    }

    /// Output axis `i` is input axis `perm[i]`.
    pub(super) fn transpose(&self, perm: &[usize]) -> Self {
        Self { axes: perm.iter().map(|&axis| self.axes[axis].clone()).collect() }
    }

    /// The same elements in logical order under another shape, or `None` when an atom would have to
    /// be cut where it does not divide.
    pub(super) fn reshape(&self, shape: &[usize]) -> Option<Self> {
        // Axes that continue each other in memory may be cut anywhere.
        let mut atoms: Vec<Atom> = normalized(self.atoms());
        atoms.reverse();
        let mut axes = Vec::with_capacity(shape.len());
        for &size in shape {
            let mut axis = Vec::new();
            let mut rest = size;
            while rest > 1 {
                let atom = atoms.pop()?;
                if rest % atom.size == 0 {
                    axis.push(atom);
                    rest /= atom.size;
                } else if atom.size % rest == 0 {
                    let inner = atom.size / rest;
                    axis.push(Atom { size: rest, stride: atom.stride * inner });
                    atoms.push(Atom { size: inner, stride: atom.stride });
                    rest = 1;
                } else {
                    return None;
                }
            }
            axes.push(axis);
        }
        if atoms.is_empty() { Some(Self::from_axes(axes)) } else { None }
    }

    /// All atoms in logical order.
    pub(super) fn atoms(&self) -> Vec<Atom> {
        self.axes.iter().flatten().copied().collect()
    }

    /// Whether memory has the order of the logical axes.
    pub(super) fn is_row_major(&self) -> bool {
        *self == Self::row_major(&self.shape())
    }

    /// Whether memory has the channels last.
    pub(super) fn is_channels_last(&self) -> bool {
        *self == Self::channels_last(&self.shape())
    }

    /// The stride of an axis if it has one (0 for an axis of size 1).
    pub(super) fn stride(&self, axis: usize) -> Option<usize> {
        match self.axes[axis].as_slice() {
            [] => Some(0),
            [atom] => Some(atom.stride),
            _ => None,
        }
    }

    /// The position in memory of every element of `axis`, if the axis occupies `0..size` densely.
    pub(super) fn inner_positions(&self, axis: usize) -> Option<Vec<usize>> {
        let mut sorted = self.axes[axis].clone();
        sorted.sort_by_key(|atom| atom.stride);
        let mut next = 1;
        for atom in &sorted {
            if atom.stride != next {
                return None;
            }
            next *= atom.size;
        }
        Some(positions(&self.axes[axis]))
    }

    /// The position in memory of every element in logical order.
    pub(super) fn positions(&self) -> Vec<usize> {
        positions(&self.atoms())
    }

    /// The position in memory of every element of this tensor broadcast to `shape`.
    pub(super) fn positions_over(&self, shape: &[usize]) -> Option<Vec<usize>> {
        let missing = shape.len().checked_sub(self.axes.len())?;
        let mut atoms: Vec<Atom> = shape[..missing].iter().map(|&size| Atom { size, stride: 0 }).collect();
        for ((axis, size), &target) in self.axes.iter().zip(self.shape()).zip(&shape[missing..]) {
            match size {
                _ if size == target => atoms.extend(axis),
                1 => atoms.push(Atom { size: target, stride: 0 }),
                _ => return None,
            }
        }
        Some(positions(&atoms))
    }

    /// Axes in the order of memory, outermost first, if each is one run.
    pub(super) fn memory_order(&self) -> Option<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.axes.len()).collect();
        if self.axes.iter().any(|axis| axis.len() > 1) {
            return None;
        }
        order.sort_by_key(|&axis| std::cmp::Reverse(self.axes[axis].first().map_or(usize::MAX, |atom| atom.stride)));
        Some(order)
    }

    /// A dense view of `shape`, which broadcasts to this one's, in the order of this memory.
    pub(super) fn restricted(&self, shape: &[usize]) -> Option<Self> {
        let order = self.memory_order()?;
        let missing = order.len().checked_sub(shape.len())?;
        let order: Vec<usize> = order.into_iter().filter_map(|axis| axis.checked_sub(missing)).collect();
        Some(Self::ordered(shape, &order))
    }

    /// The permutation that turns this memory layout into `target`'s: sizes of the source's memory
    /// axes (outermost first), and for each of the target's memory axes its source axis.
    /// `None` if the two cannot be cut into common atoms.
    pub(super) fn permutation_to(&self, target: &Self) -> Option<(Vec<usize>, Vec<usize>)> {
        let mut from: Vec<Atom> = self.atoms().into_iter().rev().collect();
        let mut to: Vec<Atom> = target.atoms().into_iter().rev().collect();
        let mut common: Vec<(usize, usize, usize)> = Vec::new(); // size, source stride, target stride
        while let (Some(a), Some(b)) = (from.pop(), to.pop()) {
            let size = a.size.min(b.size);
            if a.size % size != 0 || b.size % size != 0 {
                return None;
            }
            common.push((size, a.stride * (a.size / size), b.stride * (b.size / size)));
            if a.size > size {
                from.push(Atom { size: a.size / size, stride: a.stride });
            }
            if b.size > size {
                to.push(Atom { size: b.size / size, stride: b.stride });
            }
        }
        common.sort_by_key(|&(_, source, _)| std::cmp::Reverse(source));
        let mut merged: Vec<(usize, usize, usize)> = Vec::new();
        for atom in common {
            match merged.last_mut() {
                Some(last) if last.1 == atom.1 * atom.0 && last.2 == atom.2 * atom.0 => {
                    *last = (last.0 * atom.0, atom.1, atom.2);
                }
                _ => merged.push(atom),
            }
        }
        let mut perm: Vec<usize> = (0..merged.len()).collect();
        perm.sort_by_key(|&i| std::cmp::Reverse(merged[i].2));
        Some((merged.iter().map(|atom| atom.0).collect(), perm))
    }
}

/// The memory position of each element of nested loops over `atoms`.
fn positions(atoms: &[Atom]) -> Vec<usize> {
    let mut out = vec![0];
    for atom in atoms {
        out = out.iter().flat_map(|&base| (0..atom.size).map(move |i| base + i * atom.stride)).collect();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_embedding_needs_no_copy() {
        // Conv output [1, 64, 7, 7] with channels last, flattened to tokens and transposed.
        let tokens = View::channels_last(&[1, 64, 7, 7]).reshape(&[1, 64, 49]).unwrap().transpose(&[0, 2, 1]);
        assert_eq!(tokens, View::row_major(&[1, 49, 64]));
    }

    #[test]
    fn heads_keep_single_strides() {
        let keys = View::row_major(&[1, 49, 64]).reshape(&[1, 49, 4, 16]).unwrap().transpose(&[0, 2, 3, 1]);
        assert_eq!(keys.shape(), [1, 4, 16, 49]);
        assert_eq!((1..4).map(|axis| keys.stride(axis)).collect::<Vec<_>>(), [Some(16), Some(1), Some(64)]);
    }

    #[test]
    fn flattened_channels_last_keeps_a_dense_inner_axis() {
        let flat = View::channels_last(&[1, 3, 2, 2]).reshape(&[1, 12]).unwrap();
        assert_eq!(flat.inner_positions(1).unwrap(), [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        assert!(!flat.is_row_major());
    }

    #[test]
    fn reshape_refuses_uneven_cuts() {
        let view = View::ordered(&[4, 6], &[1, 0]);
        assert!(view.reshape(&[3, 8]).is_none());
        assert!(view.reshape(&[2, 2, 3, 2]).is_some());
        assert_eq!(View::row_major(&[2, 3, 4]).reshape(&[4, 2, 3]).unwrap(), View::row_major(&[4, 2, 3]));
    }

    #[test]
    fn permutation_covers_the_same_elements() {
        let source = View::channels_last(&[2, 3, 4, 5]);
        let target = View::row_major(&[2, 3, 4, 5]);
        let (sizes, perm) = source.permutation_to(&target).unwrap();
        assert_eq!((sizes, perm), (vec![2, 20, 3], vec![0, 2, 1]));
    }
}
