//! Grouped bars in GiB, with a line for what the GPU holds.

use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Bars in groups: a group a value of the horizontal axis, a bar a series.
pub(super) struct Bars {
    /// What the groups are called, left to right.
    pub groups: Vec<String>,
    /// What the series are called.
    pub series: Vec<String>,
    /// For each group, a bar for each series; empty where there is no case.
    pub bars: Vec<Vec<Option<Bar>>>,
    /// What the vertical axis counts.
    pub counter: &'static str,
    /// What the GPU holds, in GiB.
    pub capacity: Option<f64>,
}

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bar {
    /// Its height in GiB.
    pub gib: f64,
    /// Whether the case fits. One that does not is an outline up to what it needs at least, marked `oom`.
    pub fits: bool,
}

/// Width and height of a picture.
pub(super) const SIZE: (u32, u32) = (860, 380);
/// Colours of the series, in order.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0x48, 0x78, 0xcf),
    RGBColor(0xe0, 0x82, 0x14),
    RGBColor(0x3a, 0x9d, 0x5d),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0xb8, 0x5c, 0x5c),
    RGBColor(0x2b, 0x9c, 0xa8),
    RGBColor(0xc9, 0xa2, 0x27),
];
/// Text and axes: readable on white and on black, since the picture has no background of its own.
pub(super) const GREY: RGBColor = RGBColor(0x80, 0x86, 0x8c);
/// Share of a group's width that its bars take.
pub(super) const FILL: f64 = 0.8;

/// Draws the bars as SVG.
pub(super) fn draw(bars: &Bars) -> Result<String, String> {
    let mut svg = String::new();
    try_draw(bars, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn try_draw(bars: &Bars, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let all = bars.bars.iter().flatten().flatten();
    let fitting = all.clone().filter(|bar| bar.fits).map(|bar| bar.gib).fold(bars.capacity.unwrap_or(0.0), f64::max);
    let tallest = if fitting > 0.0 { fitting } else { all.map(|bar| bar.gib).fold(1.0, f64::max) };
    let top = tallest * 1.15;
    let text = |size: u32| ("sans-serif", size).into_font().color(&GREY);

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .margin_top(34)
        .x_label_area_size(28)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..bars.groups.len().max(1) as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc(format!("{} [GiB]", bars.counter))
        .y_label_formatter(&|gib| format!("{gib:.0}"))
        .label_style(text(16))
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.35))
        .light_line_style(TRANSPARENT)
        .draw()?;

    let width = FILL / bars.series.len().max(1) as f64;
    for (group, row) in bars.bars.iter().enumerate() {
        for (series, bar) in row.iter().enumerate() {
            let Some(bar) = bar else { continue };
            let left = group as f64 + (1.0 - FILL) / 2.0 + series as f64 * width;
            let right = left + width * 0.92;
            let colour = COLOURS[series % COLOURS.len()];
            let corners = [(left, 0.0), (right, bar.gib.min(top))];
            let style = if bar.fits { colour.filled() } else { colour.stroke_width(1) };
            chart.draw_series([Rectangle::new(corners, style)])?;
            let label = if bar.fits { format!("{:.1}", bar.gib) } else { "oom".into() };
            let above = text(14).pos(Pos::new(HPos::Center, VPos::Bottom));
            let height = bar.gib.min(top * 0.96);
            chart.draw_series([Text::new(label, (f64::midpoint(left, right), height), above)])?;
        }
    }
    if let Some(capacity) = bars.capacity {
        let ends = [(0.0, capacity), (bars.groups.len() as f64, capacity)];
        chart.draw_series([PathElement::new(ends, RED.mix(0.8).stroke_width(2))])?;
    }

    let below = text(16).pos(Pos::new(HPos::Center, VPos::Top));
    for (group, name) in bars.groups.iter().enumerate() {
        let (x, y) = chart.as_coord_spec().translate(&(group as f64 + 0.5, 0.0));
        root.draw(&Text::new(name.as_str(), (x, y + 8), below.clone()))?;
    }
    let mut x = 68;
    let mut entries: Vec<(String, RGBColor)> = bars.series.iter().cloned().zip(COLOURS.iter().copied().cycle()).collect();
    entries.extend(bars.capacity.map(|capacity| (format!("capacity {capacity:.2} GiB"), RED)));
    for (name, colour) in entries {
        root.draw(&Rectangle::new([(x, 12), (x + 12, 24)], colour.filled()))?;
        root.draw(&Text::new(name.clone(), (x + 18, 11), text(16)))?;
        // A letter is about 7 pixels wide at this size, of which the back end draws four fifths.
        x += 40 + 7 * name.len() as i32;
    }
    root.present()?;
    Ok(())
}
