//! Equations of Einsum.

/// The axes of operands and result, each by a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Equation {
    pub(crate) operands: Vec<Vec<char>>,
    pub(crate) output: Vec<char>,
}

impl Equation {
    /// Reads an equation; `None` for one with an ellipsis, with a letter twice in a term, or that makes no sense. Without an
    /// arrow the result has the letters that occur once, in alphabetical order.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text.as_str(), None),
        };
        let term = |term: &str| -> Option<Vec<char>> {
            let letters: Vec<char> = term.chars().collect();
            let once = letters.iter().enumerate().all(|(i, letter)| !letters[..i].contains(letter));
            (once && letters.iter().all(char::is_ascii_alphabetic)).then_some(letters)
        };
        let operands: Vec<Vec<char>> = left.split(',').map(term).collect::<Option<_>>()?;
        let count = |letter: &char| operands.iter().flatten().filter(|other| *other == letter).count();
        let output = match right {
            Some(right) => term(right)?,
            None => {
                let mut once: Vec<char> =
                    operands.iter().flatten().copied().filter(|letter| count(letter) == 1).collect();
                once.sort_unstable();
                once
            }
        };
        output.iter().all(|letter| count(letter) > 0).then_some(Self { operands, output })
    }

    /// The shape of the result; `None` where shapes do not fit the equation.
    pub(crate) fn shape(&self, shapes: &[&[usize]]) -> Option<Vec<usize>> {
        let fits = shapes.len() == self.operands.len()
            && self.operands.iter().zip(shapes).all(|(letters, shape)| letters.len() == shape.len());
        let sizes: Vec<(char, usize)> =
            self.operands.iter().flatten().copied().zip(shapes.iter().copied().flatten().copied()).collect();
        let size = |letter: &char| sizes.iter().find(|(other, _)| other == letter).map(|(_, size)| *size);
        let agree = sizes.iter().all(|(letter, known)| size(letter) == Some(*known));
        if fits && agree { self.output.iter().map(size).collect() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations() {
        let equation = Equation::parse("bhqd, bhkd -> bhqk").unwrap();
        assert_eq!(equation.operands, ["bhqd".chars().collect::<Vec<_>>(), "bhkd".chars().collect()]);
        assert_eq!(equation.shape(&[&[1, 2, 3, 4], &[1, 2, 5, 4]]), Some(vec![1, 2, 3, 5]));
        assert_eq!(equation.shape(&[&[1, 2, 3, 4], &[1, 2, 5, 6]]), None);
        assert_eq!(equation.shape(&[&[1, 2, 3, 4]]), None);
        assert_eq!(Equation::parse("ba,cb").unwrap().output, ['a', 'c']);
        for bad in ["...a,ab->...b", "aab->b", "ab->c", "a1->a", "ab->aa"] {
            assert_eq!(Equation::parse(bad), None, "{bad}");
        }
    }
}
