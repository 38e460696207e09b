//! The fuzz targets on their seeds and on every input that once broke them, and the mutator itself.

use equant_tests::fuzz::{Rng, Target, mutate, outcome_shape, seeds};

#[test]
fn seeds_and_regressions_are_taken() {
    for target in Target::ALL {
        for (path, bytes) in seeds(target) {
            println!("{}: {}", path.display(), target.run(&bytes));
        }
    }
}

#[test]
fn plan_seeds_are_valid() {
    for (path, bytes) in seeds(Target::Plan).iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "plan")) {
        assert!(!Target::Plan.run(bytes).starts_with("refused"), "{}", path.display());
    }
}

/// A mutator that never gets past the first check would test nothing.
#[test]
fn mutations_are_repeatable_and_reach_deep() {
    for (target, least) in [(Target::Plan, 15), (Target::Onnx, 100), (Target::Package, 6)] {
        let pool = seeds(target);
        let outcomes = |seed: u64| -> Vec<String> {
            let mut rng = Rng::new(seed);
            (0..1500)
                .map(|_| {
                    let (one, other) = (rng.pick(&pool).1.clone(), rng.pick(&pool).1.clone());
                    outcome_shape(&target.run(&mutate(target, &one, &other, &mut rng)))
                })
                .collect()
        };
        let first = outcomes(3);
        assert_eq!(first, outcomes(3), "{}: the same seed gives the same inputs", target.name());
        let shapes: std::collections::BTreeSet<&String> = first.iter().collect();
        assert!(shapes.len() >= least, "{}: {} shapes of outcome", target.name(), shapes.len());
    }
}
