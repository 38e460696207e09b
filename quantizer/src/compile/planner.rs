//! Places tensors in the arena.
//!
//! Tensors whose lifetimes overlap must not overlap in memory, but for an output that may lie over an input a certain
//! distance before or behind it. The widest cut, the largest sum of sizes alive at one operator, bounds every placement from
//! below; the planner stops as soon as a placement reaches it. It tries several greedy orders (lowest gap that fits; the
//! orders are those of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020), then both ends
//! in turn, then a bounded branch and bound over orders, then a seeded local search.

use equant_runtime::plan::align16;

/// Memory needed over a span of operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer {
    /// Bytes.
    pub(super) size: usize,
    /// First operator (position in execution order) at which it is alive.
    pub(super) first: usize,
    /// Last operator at which it is alive.
    pub(super) last: usize,
}

impl Buffer {
    /// Whether the two are alive at the same time.
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Two buffers of which one may lie over the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over {
    /// What is written at the only operator at which both are alive.
    pub(super) output: usize,
    /// What is read there, for the last time.
    pub(super) input: usize,
    /// Bytes that the output must begin before the input, or else behind it.
    pub(super) leads: [usize; 2],
}

impl Over {
    /// Bytes that the two take at least.
    fn union(&self, buffers: &[Buffer]) -> usize {
        let [output, input] = [self.output, self.input].map(|i| align16(buffers[i].size));
        let [before, behind] = self.leads.map(align16);
        (output.max(before + input)).min(input.max(behind + output)).min(input + output)
    }
}

/// A placement of buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placement {
    /// Offset of each buffer, in bytes: multiples of 16.
    pub(super) offsets: Vec<usize>,
    /// Bytes of arena.
    pub(super) arena: usize,
    /// The widest cut: no placement can take less.
    pub(super) lower_bound: usize,
    /// The operator with the widest cut.
    pub(super) peak: usize,
}

/// What an order sorts by.
type Key<'a> = dyn Fn(&Buffer) -> (usize, usize) + 'a;

/// Nodes of the search tree visited at most.
const SEARCH_LIMIT: usize = 20_000;
/// Steps of the local search.
const LOCAL_STEPS: usize = 3_000;

/// Bytes alive at each operator, sizes rounded up to 16.
pub(super) fn live_bytes(buffers: &[Buffer], overs: &[Over], ops: usize) -> Vec<usize> {
    let mut live = vec![0; ops.max(1)];
    for buffer in buffers {
        for bytes in live.iter_mut().take(buffer.last + 1).skip(buffer.first) {
            *bytes += align16(buffer.size);
        }
    }
    for over in overs {
        let apart = align16(buffers[over.output].size) + align16(buffers[over.input].size);
        live[buffers[over.output].first] -= apart - over.union(buffers);
    }
    live
}

/// Places `buffers`, which live within `ops` operators.
pub(super) fn place(buffers: &[Buffer], overs: &[Over], ops: usize) -> Placement {
    let live = live_bytes(buffers, overs, ops);
    let (peak, lower_bound) = live
        .iter()
        .copied()
        .enumerate()
        .fold((0, 0), |best, (op, bytes)| if bytes > best.1 { (op, bytes) } else { best });
    let search = Search::new(buffers, overs);
    let mut orders: Vec<Vec<usize>> = Vec::new();
    let all: Vec<usize> = (0..buffers.len()).collect();
    let span = |b: &Buffer| b.last + 1 - b.first;
    let keys: [&Key<'_>; 5] = [
        &|b| (usize::MAX - b.size, b.first),
        &|b| (usize::MAX - span(b), usize::MAX - b.size),
        &|b| (b.first, usize::MAX - b.size),
        &|b| (usize::MAX - b.size * span(b), b.first),
        // Breadth first: buffers of the widest operator before the others.
        &|b| (usize::from(!(b.first <= peak && peak <= b.last)), usize::MAX - b.size),
    ];
    for key in keys {
        let mut order = all.clone();
        order.sort_by_key(|&i| key(&buffers[i]));
        orders.push(order);
    }
    let mut best = (usize::MAX, Vec::new(), all.clone());
    for order in orders {
        let (arena, offsets) = search.greedy(&order);
        if arena < best.0 {
            best = (arena, offsets, order);
        }
    }
    if best.0 > lower_bound
        && let Some(offsets) = search.two_ended(lower_bound)
    {
        best = (lower_bound, offsets, best.2);
    }
    if best.0 > lower_bound
        && let Some((arena, offsets)) = search.branch_and_bound(lower_bound, best.0)
    {
        best = (arena, offsets, best.2);
    }
    if best.0 > lower_bound && buffers.len() > 1 {
        best = search.local(best, lower_bound);
    }
    let arena = if buffers.is_empty() { 0 } else { best.0 };
    Placement { offsets: best.1, arena, lower_bound, peak }
}

/// A buffer alive at the same time as another one.
struct Neighbour {
    index: usize,
    /// Bytes that the other one must begin before it, or else behind it.
    distances: [usize; 2],
}

/// Buffers with, for each, those alive at the same time.
struct Search<'a> {
    buffers: &'a [Buffer],
    neighbours: Vec<Vec<Neighbour>>,
}

impl<'a> Search<'a> {
    fn new(buffers: &'a [Buffer], overs: &[Over]) -> Self {
        let size = |i: usize| align16(buffers[i].size);
        // Bytes that `i` must begin before `j`, if it does.
        let ahead = |i: usize, j: usize| {
            let lead = overs.iter().find_map(|over| match (over.output, over.input) {
                (output, input) if (output, input) == (i, j) => Some(over.leads[0]),
                (output, input) if (output, input) == (j, i) => Some(over.leads[1]),
                _ => None,
            });
            lead.map_or(size(i), |lead| align16(lead).min(size(i)))
        };
        let meeting = |i: usize| (0..buffers.len()).filter(move |&j| j != i && buffers[i].meets(&buffers[j]));
        let neighbours = (0..buffers.len())
            .map(|i| meeting(i).map(|j| Neighbour { index: j, distances: [ahead(i, j), ahead(j, i)] }).collect())
            .collect();
        Self { buffers, neighbours }
    }

    /// The offsets that buffer `i` may not have, between two each, because of the placed ones.
    fn taken(&self, i: usize, offsets: &[usize]) -> Vec<(isize, isize)> {
        let placed = self.neighbours[i].iter().filter(|neighbour| offsets[neighbour.index] != usize::MAX);
        let around = placed.map(|&Neighbour { index, distances: [before, behind] }| {
            let offset = offsets[index] as isize;
            (offset - before as isize, offset + behind as isize)
        });
        around.collect()
    }

    /// The lowest offset at which buffer `i` fits among the placed ones.
    fn lowest(&self, i: usize, offsets: &[usize]) -> usize {
        let mut taken = self.taken(i, offsets);
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if start >= at {
                break;
            }
            at = at.max(end);
        }
        at as usize
    }

    /// The highest offset at which buffer `i` fits among the placed ones in an arena of `limit` bytes.
    fn highest(&self, i: usize, offsets: &[usize], limit: usize) -> Option<usize> {
        let mut taken = self.taken(i, offsets);
        taken.sort_unstable_by_key(|&(_, end)| std::cmp::Reverse(end));
        let mut at = limit as isize - align16(self.buffers[i].size) as isize;
        for (start, end) in taken {
            if end <= at {
                break;
            }
            at = at.min(start);
        }
        usize::try_from(at).ok()
    }

    /// Places in `order`, each at the lowest offset that fits.
    fn greedy(&self, order: &[usize]) -> (usize, Vec<usize>) {
        let mut offsets = vec![usize::MAX; self.buffers.len()];
        let mut arena = 0;
        for &i in order {
            offsets[i] = self.lowest(i, &offsets);
            arena = arena.max(offsets[i] + align16(self.buffers[i].size));
        }
        (arena, offsets)
    }

    /// Places in order of time in an arena of `limit` bytes, each buffer at the other end than the one before it that
    /// is still alive: what a chain of operators needs.
    fn two_ended(&self, limit: usize) -> Option<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|&i| (self.buffers[i].first, usize::MAX - self.buffers[i].size));
        let mut offsets = vec![usize::MAX; order.len()];
        let mut at_top = vec![false; order.len()];
        for (place, &i) in order.iter().enumerate() {
            let meets = |j: usize| self.neighbours[i].iter().any(|neighbour| neighbour.index == j);
            let before = order[..place].iter().rev().find(|&&j| meets(j));
            at_top[i] = before.is_some_and(|&j| !at_top[j]);
            let size = align16(self.buffers[i].size);
            let low = self.lowest(i, &offsets);
            let high = self.highest(i, &offsets, limit);
            offsets[i] = match high {
                Some(high) if at_top[i] => high,
                _ => low,
            };
            if offsets[i] + size > limit {
                return None;
            }
        }
        Some(offsets)
    }

    /// Searches orders depth first for a placement below `best`; gives up after [`SEARCH_LIMIT`] nodes.
    fn branch_and_bound(&self, lower_bound: usize, best: usize) -> Option<(usize, Vec<usize>)> {
        let mut state = Tree { search: self, lower_bound, best, found: None, visited: 0 };
        let mut offsets = vec![usize::MAX; self.buffers.len()];
        state.descend(&mut offsets, 0, 0);
        state.found.map(|offsets| (state.best, offsets))
    }

    /// Moves one buffer of the order at a time, keeping what is not worse.
    fn local(&self, start: (usize, Vec<usize>, Vec<usize>), lower_bound: usize) -> (usize, Vec<usize>, Vec<usize>) {
        let mut best = start;
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = |below: usize| {
            // xorshift64: any sequence will do, it only has to be the same every time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..LOCAL_STEPS {
            let mut order = best.2.clone();
            let moved = order.remove(random(order.len()));
            order.insert(random(order.len() + 1), moved);
            let (arena, offsets) = self.greedy(&order);
            if arena <= best.0 {
                best = (arena, offsets, order);
                if arena == lower_bound {
                    break;
                }
            }
        }
        best
    }
}

/// State of the branch and bound.
struct Tree<'s, 'a> {
    search: &'s Search<'a>,
    lower_bound: usize,
    best: usize,
    found: Option<Vec<usize>>,
    visited: usize,
}

impl Tree<'_, '_> {
    /// Places one more buffer; true when the search is over.
    fn descend(&mut self, offsets: &mut [usize], placed: usize, arena: usize) -> bool {
        self.visited += 1;
        if placed == offsets.len() {
            self.best = arena;
            self.found = Some(offsets.to_vec());
            return arena == self.lower_bound;
        }
        // The lowest free place first: any placement can be made bottom up.
        let mut choices: Vec<(usize, usize)> = (0..offsets.len())
            .filter(|&i| offsets[i] == usize::MAX)
            .map(|i| (self.search.lowest(i, offsets), i))
            .collect();
        choices.sort_by_key(|&(at, i)| (at, std::cmp::Reverse(self.search.buffers[i].size)));
        // A buffer that does not fit below the best height anywhere ends this branch.
        if choices.iter().any(|&(at, i)| at + align16(self.search.buffers[i].size) >= self.best) {
            return false;
        }
        for (at, i) in choices {
            if self.visited >= SEARCH_LIMIT {
                return true;
            }
            offsets[i] = at;
            let height = arena.max(at + align16(self.search.buffers[i].size));
            if height < self.best && self.descend(offsets, placed + 1, height) {
                return true;
            }
            offsets[i] = usize::MAX;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(buffers: &[Buffer], overs: &[Over], ops: usize) -> Placement {
        let placement = place(buffers, overs, ops);
        let offset = |i: usize| placement.offsets[i];
        for (i, a) in buffers.iter().enumerate() {
            assert_eq!(offset(i) % 16, 0);
            assert!(offset(i) + a.size <= placement.arena);
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                let apart = offset(i) + a.size <= offset(j) || offset(j) + b.size <= offset(i);
                let over = overs
                    .iter()
                    .filter(|over| [over.output, over.input] == [j, i])
                    .any(|over| offset(j) + over.leads[0] <= offset(i) || offset(i) + over.leads[1] <= offset(j));
                assert!(apart || over || !a.meets(b), "buffers {i} and {j} overlap");
            }
        }
        assert!(placement.arena >= placement.lower_bound);
        placement
    }

    /// A chain of operators, each of which may write over what the one before it has written.
    fn chain(sizes: &[usize], leads: &[[usize; 2]]) -> (Vec<Buffer>, Vec<Over>) {
        let buffers = sizes.iter().enumerate().map(|(i, &size)| Buffer { size, first: i, last: i + 1 }).collect();
        let overs = (1..sizes.len()).zip(leads).map(|(i, &leads)| Over { output: i, input: i - 1, leads }).collect();
        (buffers, overs)
    }

    proptest! {
        #[test]
        fn live_buffers_never_overlap(spec in proptest::collection::vec((1usize..500, 0usize..12, 0usize..5), 1..24)) {
            let buffers: Vec<Buffer> =
                spec.iter().map(|&(size, first, span)| Buffer { size, first, last: (first + span).min(11) }).collect();
            check(&buffers, &[], 12);
        }

        #[test]
        fn chains_reach_the_bound(sizes in proptest::collection::vec(1usize..500, 2..20)) {
            let (buffers, _) = chain(&sizes, &[]);
            let placement = check(&buffers, &[], sizes.len() + 1);
            prop_assert_eq!(placement.arena, placement.lower_bound);
        }

        #[test]
        fn chains_keep_their_distances(
            spec in proptest::collection::vec((1usize..500, 1usize..200, 1usize..200), 2..20),
        ) {
            let sizes: Vec<usize> = spec.iter().map(|&(size, ..)| size).collect();
            let leads: Vec<[usize; 2]> = spec.iter().map(|&(_, before, behind)| [before, behind]).collect();
            let (buffers, overs) = chain(&sizes, &leads);
            let placement = check(&buffers, &overs, sizes.len() + 1);
            prop_assert!(placement.arena <= place(&buffers, &[], sizes.len() + 1).arena);
        }
    }

    #[test]
    fn chains_of_equal_tensors_go_to_and_fro() {
        let (buffers, overs) = chain(&[12544; 9], &[[1792, 1792]; 8]);
        let placement = check(&buffers, &overs, 10);
        assert_eq!((placement.arena, placement.lower_bound), (12544 + 1792, 12544 + 1792));
    }

    #[test]
    fn a_skip_connection_reaches_the_bound() {
        let buffers = [
            Buffer { size: 784, first: 0, last: 0 },
            Buffer { size: 12544, first: 0, last: 3 },
            Buffer { size: 12544, first: 1, last: 2 },
            Buffer { size: 12544, first: 2, last: 3 },
        ];
        let placement = check(&buffers, &[], 4);
        assert_eq!((placement.arena, placement.lower_bound), (37632, 37632));
        let over = Over { output: 3, input: 2, leads: [896, 896] };
        let placement = check(&buffers, &[over], 4);
        assert_eq!((placement.arena, placement.lower_bound), (25984, 25984));
    }

    #[test]
    fn nothing_takes_nothing() {
        assert_eq!(place(&[], &[], 0).arena, 0);
    }
}
