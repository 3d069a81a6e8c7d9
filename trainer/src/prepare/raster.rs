//! From a drawing to a square PNG.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// Draws the SVG elements of `body` into a square PNG of `size` x `size` pixels (RGBA, 8 bits,
/// transparent background). `view_box` is left, top, width and height of the drawing in its own units;
/// one that is not square is centred, never stretched.
///
/// # Errors
/// Says in words what is wrong with the drawing: not SVG, without an extent, or nothing visible.
pub(super) fn rasterise(body: &str, view_box: [f32; 4], size: u32) -> Result<Vec<u8>, String> {
    let [left, top, width, height] = view_box;
    let has_extent = width > 0.0 && height > 0.0 && view_box.iter().all(|v| v.is_finite());
    if !has_extent {
        return Err(format!("its box of {width} x {height} has no extent"));
    }
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
         width=\"{width}\" height=\"{height}\" viewBox=\"{left} {top} {width} {height}\">{body}</svg>"
    );
    let tree = Tree::from_str(&svg, &Options::default()).map_err(|e| format!("not SVG: {e}"))?;
    let mut pixels = Pixmap::new(size, size).ok_or("its picture has no extent")?;
    let side = size as f32;
    let scale = side / width.max(height);
    let transform = Transform::from_scale(scale, scale)
        .post_translate((side - width * scale) / 2.0, (side - height * scale) / 2.0);
    resvg::render(&tree, transform, &mut pixels.as_mut());
    if pixels.pixels().iter().all(|pixel| pixel.alpha() == 0) {
        return Err("nothing of it is visible".to_owned());
    }
    encode(&pixels.take_demultiplied(), size).map_err(|e| format!("cannot be written as PNG: {e}"))
}

/// `rgba`: rows of straight (not premultiplied) RGBA bytes.
fn encode(rgba: &[u8], size: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size, size);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgba)?;
    writer.finish()?;
    Ok(bytes)
}
