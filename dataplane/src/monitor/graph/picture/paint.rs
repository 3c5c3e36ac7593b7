//! Marks on a surface: as SVG, or as the pixels of a PNG.

use super::super::glyphs::Fonts;
use super::{Rgb, WHITE};
use anyhow::{Context, Result, anyhow};
use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Polygon, Rectangle};
use plotters::prelude::{DrawingBackend, IntoFont, IntoTextStyle, RGBColor, ShapeStyle};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Coordinates are whole numbers to `plotters`: they are so many times finer than the picture's own.
const FINE: f64 = 4.0;
/// So many of these make a pixel of a PNG, each way, which so has two for each of the picture's own.
const SAMPLES: usize = 2;
/// By which `plotters` divides the size of a font for SVG.
const FONT: f64 = 1.24;

/// Something to draw.
pub(super) enum Mark {
    /// Rectangles side by side: the edges between them, and where each begins and ends.
    Steps { xs: Vec<f64>, lower: Vec<f64>, upper: Vec<f64>, colour: Rgb, alpha: f64 },
    /// A line, broken into dashes and spaces of one length if one is given.
    Line { points: Vec<(f64, f64)>, colour: Rgb, width: f64, dash: Option<f64> },
    /// Letters.
    Text(Text),
}

impl Mark {
    pub(super) fn line(points: Vec<(f64, f64)>, colour: Rgb, width: f64) -> Self {
        Self::Line { points, colour, width, dash: None }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

/// Letters, whose middle is at `y`.
pub(super) struct Text {
    x: f64,
    y: f64,
    size: f64,
    colour: Rgb,
    bold: bool,
    anchor: Anchor,
    text: String,
}

impl Text {
    pub(super) fn new(x: f64, y: f64, size: f64, colour: Rgb, text: &str) -> Self {
        Self { x, y, size, colour, bold: false, anchor: Anchor::Left, text: text.into() }
    }

    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) fn middle(self) -> Self {
        Self { anchor: Anchor::Middle, ..self }
    }

    pub(super) fn right(self) -> Self {
        Self { anchor: Anchor::Right, ..self }
    }

    pub(super) fn mark(self) -> Mark {
        Mark::Text(self)
    }
}

fn fine(value: f64) -> i32 {
    (value * FINE).round() as i32
}

fn points(of: &[(f64, f64)]) -> Vec<(i32, i32)> {
    of.iter().map(|(x, y)| (fine(*x), fine(*y))).collect()
}

/// The pieces of a line.
fn dashes(points: &[(f64, f64)], dash: Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let (Some(dash), &[(left, y), (right, _)]) = (dash, points) else { return vec![points.to_vec()] };
    let n = ((right - left) / (2.0 * dash)).ceil() as usize;
    let piece = |i: usize| {
        let from = left + i as f64 * 2.0 * dash;
        vec![(from, y), ((from + dash).min(right), y)]
    };
    (0..n).map(piece).collect()
}

/// The whole picture as SVG.
pub(super) fn svg(marks: &[Mark], (width, height): (f64, f64)) -> Result<String> {
    let mut out = String::new();
    let size = (fine(width) as u32, fine(height) as u32);
    {
        let area = SVGBackend::with_string(&mut out, size).into_drawing_area();
        let draw = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            area.fill(&colour(WHITE))?;
            for mark in marks {
                match mark {
                    Mark::Steps { xs, lower, upper, colour: rgb, alpha } => {
                        let edge = |ys: &[f64]| -> Vec<(f64, f64)> {
                            ys.iter().enumerate().flat_map(|(i, y)| [(xs[i], *y), (xs[i + 1], *y)]).collect()
                        };
                        let mut outline = edge(upper);
                        outline.extend(edge(lower).into_iter().rev());
                        area.draw(&Polygon::new(points(&outline), colour(*rgb).mix(*alpha)))?;
                    }
                    Mark::Line { points: line, colour: rgb, width, dash } => {
                        let stroke = stroke(*rgb, *width);
                        for piece in dashes(line, *dash) {
                            area.draw(&PathElement::new(points(&piece), stroke))?;
                        }
                    }
                    Mark::Text(text) => letters(&area, text)?,
                }
            }
            area.present()?;
            Ok(())
        };
        draw().map_err(|error| anyhow!("could not draw: {error}"))?;
    }
    // As large as it is meant, with the finer coordinates inside.
    let fine_size = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    Ok(out.replacen(&fine_size, &format!("width=\"{width}\" height=\"{height}\""), 1))
}

fn letters<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    text: &Text,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    B::ErrorType: 'static,
{
    let font = ("sans-serif", text.size * FINE * FONT).into_font();
    let font = if text.bold { font.style(plotters::style::FontStyle::Bold) } else { font };
    let horizontal = match text.anchor {
        Anchor::Left => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::Right => HPos::Right,
    };
    let ink = colour(text.colour);
    let style = font.into_text_style(area).color(&ink).pos(Pos::new(horizontal, VPos::Center));
    area.draw_text(&text.text, &style, (fine(text.x), fine(text.y)))?;
    Ok(())
}

/// The whole picture as PNG.
pub(super) fn png(marks: &[Mark], (width, height): (f64, f64), fonts: &Fonts) -> Result<Vec<u8>> {
    let size = (fine(width) as usize, fine(height) as usize);
    let mut fine_pixels = vec![255; size.0 * size.1 * 3];
    {
        let area = BitMapBackend::with_buffer(&mut fine_pixels, (size.0 as u32, size.1 as u32)).into_drawing_area();
        let draw = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            for mark in marks {
                match mark {
                    Mark::Steps { xs, lower, upper, colour: rgb, alpha } => {
                        for (i, (lower, upper)) in lower.iter().zip(upper).enumerate() {
                            // The lower right corner is not drawn: what is seen through is not darker where two meet.
                            let (left, right) = (fine(xs[i]), fine(xs[i + 1]));
                            let (top, bottom) = (fine(*upper), fine(*lower));
                            if left < right && top < bottom {
                                let style = colour(*rgb).mix(*alpha).filled();
                                area.draw(&Rectangle::new([(left, top), (right, bottom)], style))?;
                            }
                        }
                    }
                    Mark::Line { points: line, colour: rgb, width, dash } => {
                        for piece in dashes(line, *dash) {
                            for ends in piece.windows(2) {
                                segment(&area, ends[0], ends[1], *rgb, *width)?;
                            }
                        }
                    }
                    Mark::Text(_) => {}
                }
            }
            area.present()?;
            Ok(())
        };
        draw().map_err(|error| anyhow!("could not draw: {error}"))?;
    }
    let (width, height) = (size.0 / SAMPLES, size.1 / SAMPLES);
    let mut pixels = coarser(&fine_pixels, size.0, (width, height));
    for mark in marks {
        if let Mark::Text(text) = mark {
            write(&mut pixels, (width, height), text, fonts);
        }
    }
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().context("could not write the PNG")?;
    writer.write_image_data(&pixels).context("could not write the PNG")?;
    writer.finish().context("could not write the PNG")?;
    Ok(out)
}

/// A piece of a line. One along an axis is a rectangle that reaches half its width beyond its ends, so that corners are whole.
fn segment<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (x0, y0): (f64, f64),
    (x1, y1): (f64, f64),
    rgb: Rgb,
    width: f64,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    B::ErrorType: 'static,
{
    if x0 != x1 && y0 != y1 {
        area.draw(&PathElement::new(points(&[(x0, y0), (x1, y1)]), stroke(rgb, width)))?;
        return Ok(());
    }
    let half = width / 2.0;
    let (left, right) = (fine(x0.min(x1) - half), fine(x0.max(x1) + half));
    let (top, bottom) = (fine(y0.min(y1) - half), fine(y0.max(y1) + half));
    area.draw(&Rectangle::new([(left, top), (right, bottom)], colour(rgb).filled()))?;
    Ok(())
}

/// Averages of squares of pixels.
fn coarser(pixels: &[u8], row: usize, (width, height): (usize, usize)) -> Vec<u8> {
    let mut out = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let sample = |i: usize| {
                    let (x, y) = (x * SAMPLES + i % SAMPLES, y * SAMPLES + i / SAMPLES);
                    u32::from(pixels[(y * row + x) * 3 + channel])
                };
                let sum: u32 = (0..SAMPLES * SAMPLES).map(sample).sum();
                out.push((sum / (SAMPLES * SAMPLES) as u32) as u8);
            }
        }
    }
    out
}

fn write(pixels: &mut [u8], (width, height): (usize, usize), text: &Text, fonts: &Fonts) {
    let scale = (FINE / SAMPLES as f64) as f32;
    let size = text.size as f32 * scale;
    let wide = fonts.width(&text.text, size, text.bold);
    let left = text.x as f32 * scale;
    let x = match text.anchor {
        Anchor::Left => left,
        Anchor::Middle => left - wide / 2.0,
        Anchor::Right => left - wide,
    };
    let rgb = [text.colour.0, text.colour.1, text.colour.2];
    fonts.draw(&text.text, size, text.bold, (x, text.y as f32 * scale), |x, y, covered| {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x >= width || y >= height {
            return;
        }
        for (pixel, ink) in pixels[(y * width + x) * 3..][..3].iter_mut().zip(rgb) {
            let (paper, ink) = (f32::from(*pixel), f32::from(ink));
            *pixel = (paper + (ink - paper) * covered.clamp(0.0, 1.0)) as u8;
        }
    });
}

fn colour((red, green, blue): Rgb) -> RGBColor {
    RGBColor(red, green, blue)
}

fn stroke(rgb: Rgb, width: f64) -> ShapeStyle {
    colour(rgb).stroke_width((width * FINE).round() as u32)
}
