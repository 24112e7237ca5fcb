//! What plots have in common: their size, their colours, the vertical axis and the legend.

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// What may go wrong while a plot is drawn.
pub(super) type Drawn<T> = Result<T, Box<dyn std::error::Error>>;
/// Where a plot is drawn.
pub(super) type Picture<B> = DrawingArea<B, Shift>;
/// A picture with its axes: groups to the right, GiB upwards.
type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What can be drawn on any kind of picture.
pub(super) trait Drawing {
    /// Draws it.
    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, picture: &Picture<B>) -> Drawn<()>;
}

/// Width and height of a picture.
pub(super) const SIZE: (u32, u32) = (860, 380);
/// Colours of the series, in order.
pub(super) const COLOURS: [RGBColor; 8] = [
    RGBColor(0x48, 0x78, 0xcf),
    RGBColor(0xe0, 0x82, 0x14),
    RGBColor(0x3a, 0x9d, 0x5d),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0xb8, 0x5c, 0x5c),
    RGBColor(0x2b, 0x9c, 0xa8),
    RGBColor(0xc9, 0xa2, 0x27),
    RGBColor(0x5a, 0x5f, 0x66),
];
/// Text and axes: readable on white and on black, since the picture has no background of its own.
pub(super) const GREY: RGBColor = RGBColor(0x80, 0x86, 0x8c);
/// Share of a group's width that its bars take.
pub(super) const FILL: f64 = 0.8;

/// Text of so many pixels.
pub(super) fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&GREY)
}

/// The axes: `groups` values from left to right, and up to `top` GiB of what `counter` says. `below` pixels are left for what is written under them.
pub(super) fn axes<'a, B: DrawingBackend<ErrorType: 'static>>(
    picture: &Picture<B>,
    groups: usize,
    top: f64,
    below: u32,
    counter: &str,
) -> Drawn<Chart<'a, B>> {
    let mut chart = ChartBuilder::on(picture)
        .margin(8)
        .margin_top(34)
        .x_label_area_size(below)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..groups.max(1) as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc(format!("{counter} [GiB]"))
        // As many digits as the step between two labels has, and no more.
        .y_label_formatter(&|gib| ((gib * 1000.0).round() / 1000.0).to_string())
        .label_style(text(16))
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.35))
        .light_line_style(TRANSPARENT)
        .draw()?;
    Ok(chart)
}

/// What each colour means, in a row at the top, with `gap` pixels for a colour and what lies around it.
pub(super) fn legend<B: DrawingBackend<ErrorType: 'static>>(
    picture: &Picture<B>,
    entries: impl Iterator<Item = (String, RGBAColor)>,
    gap: i32,
) -> Drawn<()> {
    let mut x = 68;
    for (name, colour) in entries {
        // A letter is about 7 pixels wide at this size, of which the back end draws four fifths.
        let width = gap + 7 * name.len() as i32;
        picture.draw(&Rectangle::new([(x, 12), (x + 12, 24)], colour.filled()))?;
        picture.draw(&Text::new(name, (x + 18, 11), text(16)))?;
        x += width;
    }
    Ok(())
}
