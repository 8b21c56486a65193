//! Which links are cut when the nodes fall apart.
//!
//! **Owns** the shapes. **Must never** know of connections. **Read next**: [`super`].

pub(super) fn both_ways(cuts: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    cuts.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// The links that are gone when each node hears only its two neighbours; of three nodes, the one from `from`.
pub(super) fn ring(nodes: usize, from: usize) -> Vec<(usize, usize)> {
    if nodes < 4 {
        return vec![(from % nodes, (from + 1) % nodes)];
    }
    // Around the circle, or along its star.
    let step = if from.is_multiple_of(2) || nodes.is_multiple_of(2) { 1 } else { 2 };
    let neighbours = |a: usize, b: usize| (a + step) % nodes == b || (b + step) % nodes == a;
    (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).filter(|(a, b)| !neighbours(*a, *b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_ring_everybody_hears_two() {
        for from in 0..5 {
            let gone = ring(5, from);
            for node in 0..5 {
                let deaf_to = gone.iter().filter(|(a, b)| *a == node || *b == node).count();
                assert_eq!(4 - deaf_to, 2, "from {from}: {gone:?}");
            }
        }
        assert_eq!(ring(3, 2), vec![(2, 0)]);
    }
}
