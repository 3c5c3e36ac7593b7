//! Letters on a bitmap: from a font that is part of the program, and where that lacks some, from what the machine has.

use ab_glyph::{Font, FontRef, FontVec, PxScale, ScaleFont, point};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where systems keep their fonts.
const PLACES: [&str; 2] = ["/usr/share/fonts", "/usr/local/share/fonts"];
/// Fonts that are looked at, at the most.
const FILES: usize = 2000;

/// Fonts, and what they are asked for.
pub(super) struct Fonts {
    regular: FontRef<'static>,
    bold: FontRef<'static>,
    other: Option<FontVec>,
    /// Letters that no font has.
    pub(super) missing: String,
}

impl Fonts {
    /// Fonts in which nothing can be drawn but what the program's own has; enough to measure.
    pub(super) fn own() -> Result<Self> {
        let font = |bytes| FontRef::try_from_slice(bytes).context("the program's font can't be read");
        let (regular, bold) = (font(dejavu::sans::regular())?, font(dejavu::sans::bold())?);
        Ok(Self { regular, bold, other: None, missing: String::new() })
    }

    /// Fonts for this text, as far as this machine has them.
    pub(super) fn for_text(text: &str) -> Result<Self> {
        let mut this = Self::own()?;
        let lacks = |c: &char| this.regular.glyph_id(*c).0 == 0;
        let mut wanted: Vec<char> = text.chars().filter(lacks).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(this);
        }
        let has = |font: &FontVec| wanted.iter().filter(|c| font.glyph_id(**c).0 != 0).count();
        let mut best = 0;
        for file in files() {
            let Ok(bytes) = std::fs::read(&file) else { continue };
            let Ok(font) = FontVec::try_from_vec(bytes) else { continue };
            let count = has(&font);
            if count > best {
                (best, this.other) = (count, Some(font));
            }
            if best == wanted.len() {
                break;
            }
        }
        let lacks = |c: &char| this.other.as_ref().is_none_or(|font| font.glyph_id(*c).0 == 0);
        this.missing = wanted.into_iter().filter(lacks).collect();
        Ok(this)
    }

    /// How wide a text is.
    pub(super) fn width(&self, text: &str, size: f32, bold: bool) -> f32 {
        text.chars().map(|c| self.advance(c, size, bold)).sum()
    }

    fn advance(&self, c: char, size: f32, bold: bool) -> f32 {
        let own = if bold { &self.bold } else { &self.regular };
        match &self.other {
            Some(other) if own.glyph_id(c).0 == 0 => scaled_advance(other, c, size),
            _ => scaled_advance(own, c, size),
        }
    }

    /// Hands out the pixels of a text with how much of each is covered; `y` is the middle of its small letters.
    pub(super) fn draw(
        &self,
        text: &str,
        size: f32,
        bold: bool,
        (x, y): (f32, f32),
        mut pixel: impl FnMut(i32, i32, f32),
    ) {
        let own = if bold { &self.bold } else { &self.regular };
        let mut x = x;
        // The x-height of the program's own font, halved.
        let baseline = y + 0.547 * size / 2.0;
        for c in text.chars() {
            let outlined = match &self.other {
                Some(other) if own.glyph_id(c).0 == 0 => outline(other, c, size, (x, baseline)),
                _ => outline(own, c, size, (x, baseline)),
            };
            if let Some(outlined) = outlined {
                let bounds = outlined.px_bounds();
                let (left, top) = (bounds.min.x as i32, bounds.min.y as i32);
                outlined.draw(|dx, dy, covered| pixel(left + dx as i32, top + dy as i32, covered));
            }
            x += self.advance(c, size, bold);
        }
    }
}

/// The scale at which an em has so many pixels.
fn scale(font: &impl Font, size: f32) -> PxScale {
    PxScale::from(size * font.height_unscaled() / font.units_per_em().unwrap_or(1000.0))
}

fn scaled_advance(font: &impl Font, c: char, size: f32) -> f32 {
    font.as_scaled(scale(font, size)).h_advance(font.glyph_id(c))
}

fn outline(font: &impl Font, c: char, size: f32, (x, y): (f32, f32)) -> Option<ab_glyph::OutlinedGlyph> {
    font.outline_glyph(font.glyph_id(c).with_scale_and_position(scale(font, size), point(x, y)))
}

/// The font files of this machine.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut places: Vec<PathBuf> = PLACES.iter().map(Into::into).collect();
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(&place).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => places.push(entry.path()),
                Ok(_) if is_font(&entry.path()) => found.push(entry.path()),
                _ => {}
            }
        }
        if found.len() > FILES {
            break;
        }
    }
    found.sort();
    found.truncate(FILES);
    found
}

fn is_font(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "ttf" | "otf" | "ttc"))
}
