//! Stacked bars in GiB, in groups.

use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::frame::{COLOURS, Drawing, Drawn, FILL, GREY, Picture, axes, legend, text};

/// Stacks in groups: a group a value of the horizontal axis, a stack a name, a layer a series.
pub(super) struct Stacks {
    /// What the groups are called, left to right.
    pub groups: Vec<String>,
    /// What the stacks of each group are called.
    pub names: Vec<String>,
    /// What the layers are called, from the ground up. The last one is what is left over, and grey.
    pub layers: Vec<String>,
    /// For each group, a stack for each name; empty where there is no case.
    pub stacks: Vec<Vec<Option<Stack>>>,
    /// What the vertical axis counts.
    pub counter: &'static str,
}

/// One stack.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stack {
    /// The height of each layer in GiB.
    pub gib: Vec<f64>,
    /// What is written above it.
    pub label: String,
}

impl Drawing for Stacks {
    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, root: &Picture<B>) -> Drawn<()> {
        let stacks = self;
        let all = stacks.stacks.iter().flatten().flatten();
        let tallest = all.clone().map(|stack| stack.gib.iter().sum::<f64>()).fold(0.0, f64::max);
        let top = if tallest > 0.0 { tallest * 1.12 } else { 1.0 };
        let mut chart = axes(root, stacks.groups.len(), top, 46, stacks.counter)?;

        let colour = |layer: usize| if layer + 1 == stacks.layers.len() { GREY.mix(0.45) } else { COLOURS[layer % COLOURS.len()].mix(1.0) };
        let width = FILL / stacks.names.len().max(1) as f64;
        let left_of = |group: usize, name: usize| group as f64 + (1.0 - FILL) / 2.0 + name as f64 * width;
        for (group, row) in stacks.stacks.iter().enumerate() {
            for (name, stack) in row.iter().enumerate() {
                let Some(stack) = stack else { continue };
                let left = left_of(group, name);
                let right = left + width * 0.92;
                let mut bottom = 0.0;
                for (layer, gib) in stack.gib.iter().enumerate().filter(|(_, gib)| **gib > 0.0) {
                    chart.draw_series([Rectangle::new([(left, bottom), (right, bottom + gib)], colour(layer).filled())])?;
                    bottom += gib;
                }
                let above = text(14).pos(Pos::new(HPos::Center, VPos::Bottom));
                chart.draw_series([Text::new(stack.label.clone(), (f64::midpoint(left, right), bottom), above)])?;
            }
        }

        let below = |size| text(size).pos(Pos::new(HPos::Center, VPos::Top));
        for (group, title) in stacks.groups.iter().enumerate() {
            let at = |x: f64| chart.as_coord_spec().translate(&(x, 0.0));
            for (name, title) in stacks.names.iter().enumerate() {
                let (x, y) = at(left_of(group, name) + width * 0.46);
                root.draw(&Text::new(title.as_str(), (x, y + 6), below(11)))?;
            }
            let (x, y) = at(group as f64 + 0.5);
            root.draw(&Text::new(title.as_str(), (x, y + 24), below(16)))?;
        }

        // Only what can be seen somewhere.
        let is_there = |layer: &usize| all.clone().any(|stack| stack.gib.get(*layer).is_some_and(|gib| *gib > 0.0));
        let shown = (0..stacks.layers.len()).filter(is_there);
        legend(root, shown.map(|layer| (stacks.layers[layer].clone(), colour(layer))), 34)
    }
}
