//! Bits of each layer, and what else could be had at other costs.

use std::fmt::Write as _;

use super::{code, escape, heading, rows};
use crate::report::svg::{self, Dot};
use crate::report::{Mixed, numbers};

pub(super) fn mixed(out: &mut String, mixed: &Mixed) {
    heading(out, "Bits of each layer");
    let _ = writeln!(out, "<p>Within a budget of {}.</p>", escape(&mixed.budget));
    let tried = mixed.tried.iter().map(|tried| {
        vec![
            escape(tried.method),
            numbers::count(tried.cost as u64),
            numbers::decibels(tried.predicted_db),
            numbers::decibels(tried.measured_db),
        ]
    });
    rows(out, 1, &["chosen by", "cost", "SQNR predicted", "SQNR measured"], tried);
    let dot = |x: f64, y: f64, title: String, class| Dot { x, y, title, class };
    let line: Vec<Dot> = mixed
        .front
        .iter()
        .map(|point| dot(point.allocation.cost, point.allocation.damage, "predicted".to_owned(), "front"))
        .collect();
    let measured: Vec<Dot> = mixed
        .tried
        .iter()
        .map(|tried| dot(tried.cost, tried.added_noise, format!("{}, measured", tried.method), "measured"))
        .collect();
    let cost = |x: f64| numbers::count(x as u64);
    let noise = |y: f64| format!("{y:.0e}");
    out.push_str(&svg::front("noise added to the outputs, against cost", &line, &measured, cost, noise));
    let layers = mixed.table.layers.iter().zip(&mixed.layers).map(|(layer, (name, bits))| {
        let options = layer.options.iter().map(|option| format!("{} {:.1e}", option.label, option.damage));
        vec![code(name), escape(bits), escape(&options.collect::<Vec<_>>().join(", "))]
    });
    rows(out, 3, &["layer", "bits", "noise each option adds alone"], layers);
}
