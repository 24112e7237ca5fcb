//! Grouped bars in GiB, with a line for what the GPU holds.

use plotters::coord::CoordTranslate;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::frame::{COLOURS, Drawing, Drawn, FILL, Picture, axes, legend, text};

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
    /// Whether the case fits. One that does not is an outline up to what it needs, marked `oom`, with the figure in it.
    pub fits: bool,
}

impl Drawing for Bars {
    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, root: &Picture<B>) -> Drawn<()> {
        let bars = self;
        let all = bars.bars.iter().flatten().flatten();
        let fitting = all.clone().filter(|bar| bar.fits).map(|bar| bar.gib).fold(bars.capacity.unwrap_or(0.0), f64::max);
        let tallest = if fitting > 0.0 { fitting } else { all.map(|bar| bar.gib).fold(1.0, f64::max) };
        let top = tallest * 1.15;
        let mut chart = axes(root, bars.groups.len(), top, 28, bars.counter)?;

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
                if !bar.fits {
                    let within = text(14).pos(Pos::new(HPos::Center, VPos::Top));
                    let at = (f64::midpoint(left, right), height);
                    chart.draw_series([Text::new(format!("{:.1}", bar.gib), at, within)])?;
                }
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
        let series = bars.series.iter().cloned().zip(COLOURS.iter().copied().cycle());
        let capacity = bars.capacity.map(|capacity| (format!("capacity {capacity:.2} GiB"), RED));
        legend(root, series.chain(capacity).map(|(name, colour)| (name, colour.mix(1.0))), 40)
    }
}
