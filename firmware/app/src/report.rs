//! What the application says, and how: as text, or through defmt.

use core::fmt::{self, Write};

use crate::board::{Memory, Unit};
use crate::error::Error;

/// One thing to say.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event<'a> {
    /// The plan was accepted.
    Plan {
        /// Number of operators.
        operators: usize,
        /// Bytes of the plan.
        plan: usize,
        /// Bytes of the images.
        images: usize,
        /// Bytes of arena, scratch included.
        arena: usize,
        /// Bytes of the whole program.
        memory: Memory,
    },
    /// An image was classified.
    Prediction {
        /// Index of the image.
        image: usize,
        /// The class found.
        class: u16,
        /// Its probability, 0 to 1.
        confidence: f32,
        /// The class expected.
        label: Option<u16>,
        /// Cost of the inference.
        count: u64,
        /// What `count` counts.
        unit: Unit,
    },
    /// All images were classified.
    Score {
        /// Number that agree with their label.
        correct: usize,
        /// Number that have a label.
        labelled: usize,
    },
    /// The cost of one layer.
    Layer {
        /// Position in execution order.
        index: usize,
        /// Kind of operator.
        kind: &'static str,
        /// Name in the model, if the plan keeps names.
        name: &'a str,
        /// Multiply-accumulates.
        macs: u32,
        /// Cost of one run.
        count: u64,
        /// What `count` counts.
        unit: Unit,
    },
    /// The sum over all layers.
    Layers {
        /// Multiply-accumulates.
        macs: u64,
        /// Cost of one run.
        count: u64,
        /// What `count` counts.
        unit: Unit,
    },
    /// The application stops.
    Error(#[cfg_attr(feature = "defmt", defmt(Display2Format))] Error),
}

/// Where events go.
pub trait Log {
    /// Says it.
    fn log(&mut self, event: &Event<'_>);
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Plan { operators, plan, images, arena, memory } => write!(
                f,
                "{operators} operators; arena {arena} B\n\
                 flash {} B: plan {plan} B, images {images} B, program {} B; static RAM {} B\n",
                memory.flash,
                (memory.flash as usize).saturating_sub(plan).saturating_sub(images),
                memory.ram,
            ),
            Self::Prediction { image, class, confidence, label, count, unit } => {
                write!(f, "image {image:>2}: class {class}, {} %, ", Hundredths((confidence * 10_000.0) as u64))?;
                match label {
                    Some(label) if label == class => write!(f, "expected {label}: right, ")?,
                    Some(label) => write!(f, "expected {label}: wrong, ")?,
                    None => {}
                }
                write!(f, "{count} {}", unit.name())
            }
            Self::Score { correct, labelled } => {
                writeln!(f, "{correct} of {labelled} labelled images classified as expected")
            }
            Self::Layer { index, kind, name, macs, count, .. } => {
                write!(
                    f,
                    "{index:>3} {kind:<15} {macs:>9} MAC {count:>11}  {} per MAC  {name}",
                    per_mac(count, macs.into())
                )
            }
            Self::Layers { macs, count, unit } => {
                write!(
                    f,
                    "sum                 {macs:>9} MAC {count:>11}  {} per MAC  ({})",
                    per_mac(count, macs),
                    unit.name()
                )
            }
            Self::Error(ref error) => write!(f, "error: {error}"),
        }
    }
}

/// `count / macs` in hundredths.
fn per_mac(count: u64, macs: u64) -> Hundredths {
    Hundredths(count.saturating_mul(100).checked_div(macs).unwrap_or(0))
}

/// A number given in hundredths: integer formatting is a tenth of the size of f32's.
struct Hundredths(u64);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Longest piece of text handed on at once.
const LINE: usize = 120;

/// Events as text, one line each, in pieces of up to 120 bytes: a piece is one call of the host.
#[derive(Debug, Default)]
pub struct Text<W>(pub W);

impl<W: Write> Log for Text<W> {
    fn log(&mut self, event: &Event<'_>) {
        let mut line = Line::new(&mut self.0);
        // A log that cannot be written has nowhere to say so.
        let _ = writeln!(line, "{event}");
        let _ = line.flush();
    }
}

/// Collects a line, which [`Line::flush`] hands on.
pub(crate) struct Line<'w, W> {
    text: heapless::String<LINE>,
    out: &'w mut W,
}

impl<'w, W: Write> Line<'w, W> {
    pub(crate) fn new(out: &'w mut W) -> Self {
        Self { text: heapless::String::new(), out }
    }

    pub(crate) fn flush(&mut self) -> fmt::Result {
        let done = self.out.write_str(&self.text);
        self.text.clear();
        done
    }
}

impl<W: Write> Write for Line<'_, W> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.text.push_str(s).is_ok() {
            return Ok(());
        }
        self.flush()?;
        self.text.push_str(s).or_else(|_| self.out.write_str(s))
    }
}

/// Events through defmt's global logger.
#[cfg(feature = "defmt")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Defmt;

#[cfg(feature = "defmt")]
impl Log for Defmt {
    fn log(&mut self, event: &Event<'_>) {
        match event {
            Event::Error(_) => defmt::error!("{}", event),
            _ => defmt::info!("{}", event),
        }
    }
}

/// The host's standard output, through semihosting.
#[cfg(feature = "semihosting")]
#[derive(Debug)]
pub struct Stdout(Option<semihosting::io::Stdout>);

#[cfg(feature = "semihosting")]
impl Stdout {
    /// Opens it; where there is no host, what is written is lost.
    pub fn open() -> Self {
        Self(semihosting::io::stdout().ok())
    }
}

#[cfg(feature = "semihosting")]
impl Write for Stdout {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        use semihosting::io::Write as _;
        self.0.as_mut().map_or(Ok(()), |out| out.write_all(s.as_bytes())).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: Event<'_>) -> String {
        let mut log = Text(String::new());
        log.log(&event);
        log.0
    }

    #[test]
    fn predictions_read_well() {
        let event = Event::Prediction {
            image: 3,
            class: 9,
            confidence: 0.98765,
            label: Some(9),
            count: 123,
            unit: Unit::Instructions,
        };
        assert_eq!(text(event), "image  3: class 9,  98.76 %, expected 9: right, 123 instructions\n");
    }

    #[test]
    fn long_lines_arrive_whole() {
        let name = "n".repeat(500);
        let layer = Event::Layer { index: 1, kind: "Conv2d", name: &name, macs: 200, count: 700, unit: Unit::Cycles };
        let said = text(layer);
        assert!(said.contains("3.50 per MAC") && said.ends_with(&format!("{name}\n")), "{said}");
    }
}
