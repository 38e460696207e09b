//! Einsum of one operand is a Transpose, of two a MatMul between Transposes and Reshapes.
//!
//! Sums of axes that one operand alone has, and products of more than two operands, stay as they are.

use super::rewrite::{Rewrite, each, target};
use crate::graph::Graph;
use crate::graph::einsum::Equation;
use crate::graph::shape::{Shapes, infer_partial};

pub(super) fn run(graph: &mut Graph) -> usize {
    if !graph.nodes.iter().any(|node| node.op_type == "Einsum" && node.domain.is_empty()) {
        return 0;
    }
    let shapes = [infer_partial(graph, 2), infer_partial(graph, 3)];
    each(graph, |graph, index| {
        let node = &graph.nodes[index];
        let found = node.op_type == "Einsum" && node.domain.is_empty();
        found.then(|| product(graph, index, &shapes)).flatten()
    })
}

/// Where each of `letters` stands in `among`.
fn places(letters: &[char], among: &[char]) -> Option<Vec<usize>> {
    letters.iter().map(|letter| among.iter().position(|other| other == letter)).collect()
}

fn product(graph: &mut Graph, index: usize, shapes: &[Shapes; 2]) -> Option<usize> {
    let node = graph.nodes[index].clone();
    let equation = Equation::parse(node.string("equation")?)?;
    let types = |batch: usize| -> Option<Vec<&[usize]>> {
        node.inputs.iter().map(|name| Some(shapes[batch].types.get(name)?.shape.as_slice())).collect()
    };
    let (two, three) = (types(0)?, types(1)?);
    // What follows takes for granted that every letter has an axis.
    equation.shape(&two).and(equation.shape(&three))?;
    let Equation { operands, output } = equation;
    let ([a, b], [a_name, b_name]) = (&operands[..], &node.inputs[..]) else {
        let [only] = &operands[..] else { return None };
        let perm = places(&output, only).filter(|perm| perm.len() == only.len() && !perm.is_sorted())?;
        let mut rewrite = Rewrite::new(graph, index);
        rewrite.transpose(node.input(0)?, &perm);
        return Some(rewrite.finish());
    };
    let pick = |from: &[char], in_other: bool, in_output: bool, other: &[char]| -> Vec<char> {
        let wanted = |letter: &&char| other.contains(letter) == in_other && output.contains(letter) == in_output;
        from.iter().filter(wanted).copied().collect()
    };
    let (batch, depth) = (pick(a, true, true, b), pick(a, true, false, b));
    let (rows, columns) = (pick(a, false, true, b), pick(b, false, true, a));
    if !pick(a, false, false, b).is_empty() || !pick(b, false, false, a).is_empty() {
        return None;
    }
    let size = |letter: &char, shapes: &[&[usize]]| -> Option<usize> {
        let of = |i: usize| Some(shapes[i][operands[i].iter().position(|other| other == letter)?]);
        of(0).or_else(|| of(1))
    };
    let whole = |letters: &[char], shapes: &[&[usize]]| -> Option<usize> {
        letters.iter().map(|letter| size(letter, shapes)).product()
    };
    let mut rewrite = Rewrite::new(graph, index);
    let mut operand = |name: &str, letters: &[char], [outer, inner]: [&[char]; 2]| -> Option<String> {
        let order = [&batch[..], outer, inner].concat();
        let x = rewrite.transpose(name, &places(&order, letters)?);
        if outer.len() == 1 && inner.len() == 1 {
            return Some(x);
        }
        let sizes = |shapes: &[&[usize]]| -> Option<Vec<usize>> {
            let mut sizes: Vec<usize> = batch.iter().map(|letter| size(letter, shapes)).collect::<Option<_>>()?;
            sizes.extend([whole(outer, shapes)?, whole(inner, shapes)?]);
            Some(sizes)
        };
        Some(rewrite.reshape(&x, &target(&sizes(&two)?, &sizes(&three)?)?))
    };
    let a = operand(a_name, a, [&rows, &depth])?;
    let b = operand(b_name, b, [&depth, &columns])?;
    let mut y = rewrite.main("MatMul", &[&a, &b], &[]);
    let order = [&batch[..], &rows, &columns].concat();
    if rows.len() != 1 || columns.len() != 1 {
        let sizes = |shapes: &[&[usize]]| order.iter().map(|letter| size(letter, shapes)).collect::<Option<Vec<_>>>();
        y = rewrite.reshape(&y, &target(&sizes(&two)?, &sizes(&three)?)?);
    }
    rewrite.transpose(&y, &places(&output, &order)?);
    Some(rewrite.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::*;
    use crate::graph::Attr;

    fn equation(text: &str) -> (&'static str, Attr) {
        ("equation", Attr::String(text.into()))
    }

    #[test]
    fn sums_of_products_are_products_of_matrices() {
        // Shapes without the batch; of a constant, whole.
        let cases: [(&str, &[usize], &[usize], bool); 7] = [
            ("nhqd,nhkd->nhqk", &[2, 3, 4], &[2, 5, 4], false),
            ("nqhd,nkhd->nhqk", &[3, 2, 4], &[5, 2, 4], false),
            ("ntc,cd->ntd", &[3, 4], &[4, 6], true),
            ("ntc,chd->nhtd", &[3, 4], &[4, 2, 5], true),
            ("nhtd,hdc->ntc", &[2, 3, 4], &[2, 4, 5], true),
            ("ntc,c->nt", &[3, 4], &[4], true),
            ("nq,nk->nqk", &[3], &[5], false),
        ];
        for (text, x, other, constant) in cases {
            let mut model = Model::new(x);
            let name = if constant { model.constant(other) } else { "k".to_owned() };
            if !constant {
                model.input("k", other);
            }
            let y = model.node("Einsum", &["x", &name], &[equation(text)]);
            model.outputs(&[&y]);
            model.same_after(run);
        }
    }

    #[test]
    fn one_operand_is_transposed() {
        let mut model = Model::new(&[2, 3]);
        let y = model.node("Einsum", &["x"], &[equation("nab->bna")]);
        model.outputs(&[&y]);
        assert_eq!(model.same_after(run).nodes[0].op_type, "Transpose");
    }

    #[test]
    fn other_sums_stay() {
        for text in ["nab,nbc->nc", "nab,nbc,ncd->nd", "...ab,...bc->...ac", "nab->na"] {
            let mut model = Model::new(&[3, 3]);
            let inputs = vec!["x"; text.split("->").next().unwrap().split(',').count()];
            model.node("Einsum", &inputs, &[equation(text)]);
            assert_eq!(run(&mut model.graph), 0, "{text}");
        }
    }
}
