//! What quantizing each layer alone does: predicted from noise, and measured.

use serde::Serialize;

use super::{Energy, Judge, NoiseLaw, NoiseModel, NoiseProbe, Widths, predict};
use crate::exec;

/// How the noise of one layer reaches the outputs: noise power there, relative to their signal power, for each unit of
/// noise power at the layer's own output. QReg's squared Jacobian, found by noise.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Gain {
    /// Of noise that rounding weights makes: the same at all positions.
    pub weights: f64,
    /// Of noise that rounding the input makes: different at each.
    pub activations: f64,
}

/// The gain of each of the judge's layers, from noise as strong as rounding to 6 bits, drawn `draws` times (two are
/// enough to rank by). `advance` is told of every run of the model; there are `2 · draws` for each layer.
///
/// # Errors
///
/// The first error of the samples or the executor.
pub fn gains(
    judge: &Judge<'_>,
    energies: &[Energy],
    draws: u32,
    advance: &dyn Fn(usize),
) -> Result<Vec<Gain>, exec::Error> {
    // Few enough bits to be seen, enough for noise to be as small as the model has it.
    let (weights, activations) =
        (Widths { weights: 6, activations: Widths::FLOAT }, Widths { weights: Widths::FLOAT, activations: 6 });
    let options = vec![vec![weights, activations]; energies.len()];
    let probe = NoiseProbe::new(judge, &options, NoiseLaw::Uniform, NoiseModel::Error);
    let mut gains = Vec::with_capacity(energies.len());
    for (i, (layer, energy)) in judge.layers().iter().zip(energies).enumerate() {
        let of = |bits| predict(judge.graph(), layer, energy, judge.rounding(), bits, NoiseModel::Error);
        let mut damage = [0.0; 2];
        for (option, damage) in damage.iter_mut().enumerate() {
            let mut probabilities = vec![vec![0.0; 2]; energies.len()];
            probabilities[i][option] = 1.0;
            for draw in 0..draws {
                *damage += probe.damage(&probabilities, draw.into())? / f64::from(draws);
                advance(1);
            }
        }
        let per = |damage: f64, noise: f64| if noise > 0.0 { damage / noise } else { 0.0 };
        gains.push(Gain {
            weights: per(damage[0], of(weights).weights),
            activations: per(damage[1], of(activations).activations),
        });
    }
    Ok(gains)
}

/// What quantizing one layer does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerDamage {
    /// The layer's node.
    pub node: String,
    /// The widths.
    pub bits: Widths,
    /// Predicted noise power at the layer's output, relative to its signal power.
    pub local: f64,
    /// Predicted noise power at the model's outputs, relative to their signal power.
    pub predicted: f64,
    /// Measured noise power at the model's outputs, relative to their signal power.
    pub measured: f64,
}

/// The damage of each of the judge's layers at each of these widths: layer by layer, in graph order. `advance` is told of
/// every run of the model; there is one for each layer and width.
///
/// # Errors
///
/// The first error of the samples or the executor.
pub fn rank(
    judge: &Judge<'_>,
    energies: &[Energy],
    gains: &[Gain],
    bits: &[Widths],
    advance: &dyn Fn(usize),
) -> Result<Vec<LayerDamage>, exec::Error> {
    let mut ranking = Vec::with_capacity(energies.len() * bits.len());
    for (i, ((layer, energy), gain)) in judge.layers().iter().zip(energies).zip(gains).enumerate() {
        for &bits in bits {
            let noise = predict(judge.graph(), layer, energy, judge.rounding(), bits, NoiseModel::Error);
            ranking.push(LayerDamage {
                node: layer.node.clone(),
                bits,
                local: noise.damage(),
                predicted: gain.weights * noise.weights + gain.activations * noise.activations,
                measured: judge.damage(&[(i, bits)])?,
            });
            advance(1);
        }
    }
    Ok(ranking)
}
