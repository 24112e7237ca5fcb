//! Plots as PNG, for documents that take no SVG: the same drawing, on white, with [`SCALE`] times as many pixels each way. The font is ours, so that a picture is the
//! same on every machine.

use std::sync::Once;

use plotters::prelude::*;
use plotters::style::register_font;
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};

use super::frame::{Drawing, Drawn, SIZE};

/// Letters are as sharp as paper and dense screens show them.
const SCALE: u32 = 2;
/// Letters of the font are wider than those that most viewers of an SVG take.
const NARROWER: f64 = 0.9;
const FONT: &[u8] = include_bytes!("../../fonts/DejaVuSans-Latin.ttf");

/// Has plotters know the font: the sizes of texts come from it in SVG too.
pub(super) fn know_font() {
    static KNOWN: Once = Once::new();
    KNOWN.call_once(|| drop(register_font("sans-serif", FontStyle::Normal, FONT)));
}

/// A drawing as a PNG file.
pub(super) fn png(drawing: &impl Drawing) -> Drawn<Vec<u8>> {
    know_font();
    let (width, height) = (SIZE.0 * SCALE, SIZE.1 * SCALE);
    let mut pixels = vec![u8::MAX; (width * height * 3) as usize];
    {
        let canvas = Scaled(BitMapBackend::with_buffer(&mut pixels, (width, height))).into_drawing_area();
        drawing.draw(&canvas)?;
        canvas.present()?;
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(file)
}

/// A back end whose every length is [`SCALE`] times as long.
struct Scaled<'a>(BitMapBackend<'a>);

type Answer<'a> = Result<(), DrawingErrorKind<<BitMapBackend<'a> as DrawingBackend>::ErrorType>>;

fn place((x, y): BackendCoord) -> BackendCoord {
    (x * SCALE as i32, y * SCALE as i32)
}

fn style(style: &impl BackendStyle) -> ShapeStyle {
    ShapeStyle { color: colour(style.color()), filled: true, stroke_width: style.stroke_width() * SCALE }
}

fn colour(colour: BackendColor) -> RGBAColor {
    let (red, green, blue) = colour.rgb;
    RGBAColor(red, green, blue, colour.alpha)
}

impl<'a> DrawingBackend for Scaled<'a> {
    type ErrorType = <BitMapBackend<'a> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        SIZE
    }

    fn ensure_prepared(&mut self) -> Answer<'a> {
        self.0.ensure_prepared()
    }

    fn present(&mut self) -> Answer<'a> {
        self.0.present()
    }

    fn draw_pixel(&mut self, point: BackendCoord, colour: BackendColor) -> Answer<'a> {
        let (x, y) = place(point);
        let end = SCALE as i32 - 1;
        self.0.draw_rect((x, y), (x + end, y + end), &self::colour(colour), true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Answer<'a> {
        self.0.draw_path([place(from), place(to)], &self::style(style))
    }

    fn draw_rect<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S, fill: bool) -> Answer<'a> {
        if fill {
            return self.0.draw_rect(place(from), place(to), &self::style(style), true);
        }
        let [(left, top), (right, bottom)] = [place(from), place(to)];
        let corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)];
        self.0.draw_path(corners, &self::style(style))
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Answer<'a> {
        self.0.draw_path(path.into_iter().map(place), &self::style(style))
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, corners: I, style: &S) -> Answer<'a> {
        self.0.fill_polygon(corners.into_iter().map(place), &self::style(style))
    }

    fn draw_text<T: BackendTextStyle>(&mut self, text: &str, style: &T, at: BackendCoord) -> Answer<'a> {
        let font = FontDesc::new(style.family(), style.size() * f64::from(SCALE) * NARROWER, style.style()).transform(style.transform());
        let scaled = TextStyle { font, color: style.color(), pos: style.anchor() };
        self.0.draw_text(text, &scaled, place(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::frame::{COLOURS, Picture, text};

    struct Bar;

    impl Drawing for Bar {
        fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, picture: &Picture<B>) -> Drawn<()> {
            picture.draw(&Rectangle::new([(10, 20), (30, 40)], COLOURS[0].filled()))?;
            Ok(picture.draw(&Text::new("level 3", (100, 100), text(16)))?)
        }
    }

    #[test]
    fn a_png_has_the_drawing_and_its_text_on_white() {
        let file = png(&Bar).expect("a picture");
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let frame = reader.next_frame(&mut pixels).expect("a picture");
        assert_eq!((frame.width, frame.height), (2 * SIZE.0, 2 * SIZE.1));
        let pixel = |x: u32, y: u32| <[u8; 3]>::try_from(&pixels[((y * frame.width + x) * 3) as usize..][..3]).expect("three bytes");
        let (RGBColor(red, green, blue), white) = (COLOURS[0], [255; 3]);
        assert_eq!([pixel(21, 41), pixel(59, 79), pixel(15, 41)], [[red, green, blue], [red, green, blue], white]);
        let letters = (200..320).flat_map(|x| (195..240).map(move |y| (x, y))).filter(|&(x, y)| pixel(x, y) != white).count();
        assert!(letters > 200, "{letters} pixels of text");
    }
}
