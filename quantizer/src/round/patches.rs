//! The inputs that each output of a layer reads, as rows of a matrix.

use super::Rows;
use crate::graph::Node;
use crate::graph::shape::{Window, transposed_windows, windows};

/// Cuts patches out of a layer's input.
#[derive(Debug, Clone)]
pub struct Patches {
    rows: Rows,
    image: Option<Image>,
    /// Output positions of one sample.
    positions: usize,
}

#[derive(Debug, Clone)]
struct Image {
    height: usize,
    width: usize,
    y: Window,
    x: Window,
    /// Channels of a group.
    channels: usize,
    /// Whether the windows are those of a ConvTranspose.
    transposed: bool,
}

impl Patches {
    /// For a node whose input has this shape (one sample); `None` if it is no 2-D convolution or product.
    pub fn of(node: &Node, rows: Rows, weights: &[usize], input: &[usize]) -> Option<Self> {
        let transposed = node.op_type == "ConvTranspose";
        if node.op_type != "Conv" && !transposed {
            let positions = input.iter().product::<usize>() / rows.depth;
            return Some(Self { rows, image: None, positions });
        }
        let (&[1, inputs, height, width], &[_, _, kh, kw]) = (input, weights) else { return None };
        let windows = if transposed { transposed_windows } else { windows };
        let [y, x]: [Window; 2] = windows(node, &[height, width], &[kh, kw]).ok()?.try_into().ok()?;
        let (positions, channels) = (y.output * x.output, inputs / rows.groups);
        Some(Self { rows, image: Some(Image { height, width, y, x, channels, transposed }), positions })
    }

    /// Output positions of one sample.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Appends the patches of group `group` at some positions of a sample.
    pub fn cut(&self, sample: &[f32], positions: &[usize], group: usize, out: &mut Vec<f32>) {
        let depth = self.rows.depth;
        match &self.image {
            None => positions.iter().for_each(|&position| out.extend_from_slice(&sample[position * depth..][..depth])),
            Some(image) => {
                let mut taps = Vec::new();
                for &position in positions {
                    image.taps(position, &mut taps);
                    for channel in group * image.channels..(group + 1) * image.channels {
                        let plane = &sample[channel * image.height * image.width..][..image.height * image.width];
                        out.extend(taps.iter().map(|&at| plane.get(at).copied().unwrap_or(0.0)));
                    }
                }
            }
        }
    }
}

impl Image {
    /// The indices in a plane `[height, width]` that an output position reads, tap after tap; `usize::MAX` in the padding.
    fn taps(&self, position: usize, out: &mut Vec<usize>) {
        const PADDING: usize = usize::MAX;
        let (oy, ox) = (position / self.x.output, position % self.x.output);
        // The input element that reaches an output with a tap, if there is one.
        let at = |window: &Window, output: usize, tap: usize, size: usize| {
            let input = match self.transposed {
                false => (output * window.stride + tap * window.dilation).checked_sub(window.pad_begin)?,
                true => {
                    let distance = (output + window.pad_begin).checked_sub(tap * window.dilation)?;
                    distance.is_multiple_of(window.stride).then(|| distance / window.stride)?
                }
            };
            Some(input).filter(|&i| i < size)
        };
        out.clear();
        for ky in 0..self.y.kernel {
            let y = at(&self.y, oy, ky, self.height);
            for kx in 0..self.x.kernel {
                let x = at(&self.x, ox, kx, self.width);
                out.push(y.zip(x).map_or(PADDING, |(y, x)| y * self.width + x));
            }
        }
    }
}
