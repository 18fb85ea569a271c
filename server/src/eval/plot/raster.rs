//! A canvas of pixels that plotters draws on, and its PNG. Lines and circles are cut into pixels by plotters; letters come
//! from a table of small pictures (Noto Sans Mono), because a server has no font files. One face, two sizes, Latin letters;
//! any other character is a question mark.

use std::convert::Infallible;
use std::io::{self, Write};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters::prelude::DrawingBackend;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, DrawingErrorKind};

/// Bytes of a pixel: red, green, blue.
const RGB: usize = 3;
/// The first bytes of a PNG.
const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// The canvas, white at first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    size: (u32, u32),
    bytes: Vec<u8>,
}

impl Picture {
    pub(super) fn new(size: (u32, u32)) -> Self {
        Self {
            size,
            bytes: vec![u8::MAX; size.0 as usize * size.1 as usize * RGB],
        }
    }

    /// Row by row.
    #[cfg(test)]
    pub(super) fn pixels(&self) -> Vec<[u8; RGB]> {
        self.bytes.chunks(RGB).map(|p| [p[0], p[1], p[2]]).collect()
    }

    /// The file: the rows of pixels as they are, deflated.
    pub(super) fn png(&self) -> io::Result<Vec<u8>> {
        let (width, height) = self.size;
        let mut head = [width.to_be_bytes(), height.to_be_bytes()].concat();
        // Eight bits a channel, colours without alpha, and the only ways to deflate, filter and order there are.
        head.extend([8, 2, 0, 0, 0]);
        let mut rows = ZlibEncoder::new(Vec::new(), Compression::default());
        for row in self.bytes.chunks(width as usize * RGB) {
            // Each row says how it is filtered: not.
            rows.write_all(&[0])?;
            rows.write_all(row)?;
        }
        let mut file = SIGNATURE.to_vec();
        for (name, content) in [(b"IHDR", head), (b"IDAT", rows.finish()?), (b"IEND", Vec::new())] {
            let length = u32::try_from(content.len()).map_err(io::Error::other)?;
            let mut sum = Crc::new();
            sum.update(name);
            sum.update(&content);
            file.extend(length.to_be_bytes());
            file.extend(name);
            file.extend(content);
            file.extend(sum.sum().to_be_bytes());
        }
        Ok(file)
    }

    /// What is drawn outside is cut off.
    fn blend(&mut self, (x, y): BackendCoord, color: BackendColor, cover: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            return;
        };
        if x >= self.size.0 || y >= self.size.1 {
            return;
        }
        let first = (y as usize * self.size.0 as usize + x as usize) * RGB;
        let (r, g, b) = color.rgb;
        let alpha = (color.alpha * cover).clamp(0.0, 1.0);
        for (byte, new) in self.bytes[first..first + RGB].iter_mut().zip([r, g, b]) {
            let mixed = f64::from(*byte) * (1.0 - alpha) + f64::from(new) * alpha;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between two bytes"
            )]
            {
                *byte = mixed.round() as u8;
            }
        }
    }
}

/// A canvas while it is drawn on.
pub(super) struct Canvas<'a>(pub(super) &'a mut Picture);

/// The nearest size that there is.
fn height(of: f64) -> RasterHeight {
    if of > 17.0 {
        RasterHeight::Size20
    } else {
        RasterHeight::Size16
    }
}

/// Width and height of a text.
fn extent(text: &str, height: RasterHeight) -> (i32, i32) {
    let letters = i32::try_from(text.chars().count()).unwrap_or(i32::MAX);
    let width = i32::try_from(get_raster_width(FontWeight::Regular, height)).unwrap_or_default();
    let height = i32::try_from(height.val()).unwrap_or_default();
    (letters.saturating_mul(width), height)
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.0.size
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn draw_pixel(&mut self, at: BackendCoord, color: BackendColor) -> Result<(), DrawingErrorKind<Infallible>> {
        self.0.blend(at, color, 1.0);
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let (height, color, turn, anchor) = (height(style.size()), style.color(), style.transform(), style.anchor());
        let (wide, high) = extent(text, height);
        let left = match anchor.h_pos {
            HPos::Left => 0,
            HPos::Center => -wide / 2,
            HPos::Right => -wide,
        };
        let top = match anchor.v_pos {
            VPos::Top => 0,
            VPos::Center => -high / 2,
            VPos::Bottom => -high,
        };
        let mut x = left;
        for letter in text.chars() {
            let known = get_raster(letter, FontWeight::Regular, height);
            let Some(raster) = known.or_else(|| get_raster('?', FontWeight::Regular, height)) else {
                continue;
            };
            for (y, row) in (top..).zip(raster.rows()) {
                for (x, cover) in (x..).zip(row) {
                    if *cover > 0 {
                        let (dx, dy) = turn.transform(x, y);
                        let place = (at.0 + dx, at.1 + dy);
                        self.0.blend(place, color, f64::from(*cover) / f64::from(u8::MAX));
                    }
                }
            }
            x += i32::try_from(raster.width()).unwrap_or_default();
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let (wide, high) = extent(text, height(style.size()));
        Ok((wide.unsigned_abs(), high.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use plotters::prelude::*;

    use super::*;

    fn pixel(picture: &Picture, x: usize, y: usize) -> [u8; RGB] {
        let first = (y * picture.size.0 as usize + x) * RGB;
        picture.bytes[first..first + RGB].try_into().unwrap()
    }

    #[test]
    fn what_is_drawn_is_there_and_what_is_outside_is_cut_off() {
        let mut picture = Picture::new((40, 30));
        {
            let area = Canvas(&mut picture).into_drawing_area();
            let red = RGBColor(255, 0, 0);
            area.draw(&Rectangle::new([(10, 10), (19, 19)], red.filled())).unwrap();
            area.draw(&Circle::new((39, 29), 30, red.mix(0.5).filled())).unwrap();
            area.draw(&PathElement::new([(-50, 5), (500, 5)], BLACK)).unwrap();
            area.present().unwrap();
        }
        assert_eq!(pixel(&picture, 15, 12), [255, 0, 0]);
        assert_eq!(pixel(&picture, 2, 2), [255, 255, 255]);
        assert_eq!(pixel(&picture, 39, 29), [255, 128, 128]);
        assert_eq!(pixel(&picture, 0, 5), [0, 0, 0]);
    }

    #[test]
    fn the_file_holds_the_pixels() {
        let mut picture = Picture::new((300, 2));
        picture.blend(
            (299, 1),
            BackendColor {
                alpha: 1.0,
                rgb: (1, 2, 3),
            },
            1.0,
        );
        let file = picture.png().unwrap();
        let mut rest = file.strip_prefix(&SIGNATURE).unwrap();
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk().unwrap();
            let (named, after) = after.split_at(4 + u32::from_be_bytes(*length) as usize);
            let (sum, after) = after.split_first_chunk().unwrap();
            let mut crc = Crc::new();
            crc.update(named);
            assert_eq!(crc.sum(), u32::from_be_bytes(*sum));
            parts.push(named);
            rest = after;
        }
        let names: Vec<&[u8]> = parts.iter().map(|part| &part[..4]).collect();
        assert_eq!(names, [b"IHDR", b"IDAT", b"IEND"]);
        assert_eq!(parts[0][4..], [0, 0, 1, 44, 0, 0, 0, 2, 8, 2, 0, 0, 0]);
        let mut rows = Vec::new();
        io::copy(&mut flate2::read::ZlibDecoder::new(&parts[1][4..]), &mut rows).unwrap();
        assert_eq!(rows.len(), 2 * (1 + 300 * RGB));
        assert_eq!(rows[rows.len() - 4..], [255, 1, 2, 3]);
    }

    #[test]
    fn letters_are_drawn_upright_and_turned_and_unknown_ones_are_question_marks() {
        let drawn = |text: &str, turned: bool| {
            let mut picture = Picture::new((60, 60));
            let area = Canvas(&mut picture).into_drawing_area();
            let style = ("sans-serif", 14).into_text_style(&area);
            let style = if turned {
                style.transform(FontTransform::Rotate90)
            } else {
                style
            };
            area.draw_text(text, &style, (30, 30)).unwrap();
            drop(area);
            picture
        };
        assert_eq!(drawn("\u{4f60}", false), drawn("?", false));
        assert_ne!(drawn("L", false), drawn("?", false));
        // A quarter turn around (30, 30): right becomes down.
        let (upright, turned) = (drawn("L", false), drawn("L", true));
        let mut dark = 0;
        for y in 0..16 {
            for x in 0..8 {
                assert_eq!(
                    pixel(&upright, 30 + x, 30 + y),
                    pixel(&turned, 30 - y, 30 + x),
                    "{x}, {y}"
                );
                dark += usize::from(pixel(&upright, 30 + x, 30 + y)[0] < 128);
            }
        }
        assert!(dark > 10, "{dark}");
    }
}
