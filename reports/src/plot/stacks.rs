//! Stacked bars in GiB, in groups.

use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::bars::{COLOURS, FILL, GREY, SIZE};

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

/// Draws the stacks as SVG.
pub(super) fn draw(stacks: &Stacks) -> Result<String, String> {
    let mut svg = String::new();
    try_draw(stacks, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn try_draw(stacks: &Stacks, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let all = stacks.stacks.iter().flatten().flatten();
    let tallest = all.clone().map(|stack| stack.gib.iter().sum::<f64>()).fold(0.0, f64::max);
    let top = if tallest > 0.0 { tallest * 1.12 } else { 1.0 };
    let text = |size: u32| ("sans-serif", size).into_font().color(&GREY);

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .margin_top(34)
        .x_label_area_size(46)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..stacks.groups.len().max(1) as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc(format!("{} [GiB]", stacks.counter))
        .y_label_formatter(&|gib| if top < 4.0 { format!("{gib:.1}") } else { format!("{gib:.0}") })
        .label_style(text(16))
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.35))
        .light_line_style(TRANSPARENT)
        .draw()?;

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
            root.draw(&Text::new(title.as_str(), (x, y + 6), below(12)))?;
        }
        let (x, y) = at(group as f64 + 0.5);
        root.draw(&Text::new(title.as_str(), (x, y + 24), below(16)))?;
    }

    // Only what can be seen somewhere.
    let is_there = |layer: &usize| all.clone().any(|stack| stack.gib.get(*layer).is_some_and(|gib| *gib > 0.0));
    let mut x = 68;
    for layer in (0..stacks.layers.len()).filter(is_there) {
        let name = &stacks.layers[layer];
        root.draw(&Rectangle::new([(x, 12), (x + 12, 24)], colour(layer).filled()))?;
        root.draw(&Text::new(name.clone(), (x + 18, 11), text(16)))?;
        // A letter is about 7 pixels wide at this size.
        x += 34 + 7 * name.len() as i32;
    }
    root.present()?;
    Ok(())
}
