//! Few colours for a small picture.

use std::collections::BTreeMap;

/// A picture as indices into a palette.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    /// Colours, the darkest first.
    pub(super) palette: Vec<[u8; 3]>,
    /// An index into the palette for each pixel, in the pixels' order.
    pub(super) indices: Vec<u8>,
}

/// A colour with how many pixels have it.
type Weighted = ([f64; 3], f64);

/// Rounds of moving each palette colour to the mean of the pixels nearest to it.
const REFINEMENTS: usize = 8;

/// Reduces `pixels` to at most `colors` (2 to 256) colours: exactly when they have no more, else
/// by cutting the box of greatest squared error at its mean until there are enough (Wu's variant
/// of median cut), then by k-means from there. No randomness: equal pixels give an equal result.
pub(super) fn quantise(pixels: &[[u8; 3]], colors: usize) -> Indexed {
    let mut histogram: BTreeMap<[u8; 3], f64> = BTreeMap::new();
    for pixel in pixels {
        *histogram.entry(*pixel).or_default() += 1.0;
    }
    let palette = if histogram.len() <= colors {
        histogram.keys().copied().collect()
    } else {
        let weighted: Vec<Weighted> =
            histogram.iter().map(|(color, &weight)| (color.map(f64::from), weight)).collect();
        let centres = refine(cut(weighted.clone(), colors), &weighted);
        centres.into_iter().map(|centre| centre.map(|v| v.round() as u8)).collect()
    };
    let palette = ordered(palette);
    let nearest: BTreeMap<[u8; 3], u8> =
        histogram.into_keys().map(|color| (color, nearest(&palette, &color) as u8)).collect();
    let indices = pixels.iter().map(|pixel| nearest[pixel]).collect();
    Indexed { palette, indices }
}

/// Distinct colours by brightness, so that neighbouring indices look alike.
fn ordered(mut palette: Vec<[u8; 3]>) -> Vec<[u8; 3]> {
    palette.sort_by_key(|color| {
        let [red, green, blue] = color.map(u32::from);
        (2 * red + 5 * green + blue, *color)
    });
    palette.dedup();
    palette
}

/// The index of the palette colour nearest to `color`, the first of equals.
fn nearest<T: Copy + Into<f64>>(palette: &[[T; 3]], color: &[T; 3]) -> usize {
    let mut best = (0, f64::INFINITY);
    for (index, candidate) in palette.iter().enumerate() {
        let distance: f64 = (0..3).map(|c| (candidate[c].into() - color[c].into()).powi(2)).sum();
        if distance < best.1 {
            best = (index, distance);
        }
    }
    best.0
}

/// The means of `colors` boxes, cut one from another.
fn cut(all: Vec<Weighted>, colors: usize) -> Vec<[f64; 3]> {
    let mut boxes = vec![all];
    while boxes.len() < colors {
        let errors = boxes.iter().map(|members| error(members).iter().sum::<f64>());
        let widest = errors
            .enumerate()
            .fold((0, 0.0), |best, (at, error)| if error > best.1 { (at, error) } else { best });
        if widest.1 == 0.0 {
            break;
        }
        let members = boxes.swap_remove(widest.0);
        let (error, mean) = (error(&members), mean(&members));
        let channel = (1..3).fold(0, |best, c| if error[c] > error[best] { c } else { best });
        let (low, high) =
            members.into_iter().partition(|(color, _)| color[channel] <= mean[channel]);
        boxes.push(low);
        boxes.push(high);
    }
    boxes.iter().map(|members| mean(members)).collect()
}

/// K-means over the histogram, from `centres`.
fn refine(mut centres: Vec<[f64; 3]>, colors: &[Weighted]) -> Vec<[f64; 3]> {
    for _ in 0..REFINEMENTS {
        let mut members: Vec<Vec<Weighted>> = vec![Vec::new(); centres.len()];
        for color in colors {
            members[nearest(&centres, &color.0)].push(*color);
        }
        for (centre, members) in centres.iter_mut().zip(&members) {
            if !members.is_empty() {
                *centre = mean(members);
            }
        }
    }
    centres
}

/// The weighted mean; `members` is not empty.
fn mean(members: &[Weighted]) -> [f64; 3] {
    let weight: f64 = members.iter().map(|(_, weight)| weight).sum();
    std::array::from_fn(|c| {
        members.iter().map(|(color, weight)| color[c] * weight).sum::<f64>() / weight
    })
}

/// The weighted squared distance from the mean, by channel.
fn error(members: &[Weighted]) -> [f64; 3] {
    let mean = mean(members);
    std::array::from_fn(|c| {
        members.iter().map(|(color, weight)| (color[c] - mean[c]).powi(2) * weight).sum()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::quantise;

    #[test]
    fn a_picture_with_few_colours_keeps_them_exactly() {
        let pixels = [[255, 255, 255], [9, 9, 9], [200, 0, 0], [255, 255, 255]];
        let indexed = quantise(&pixels, 3);
        let back: Vec<[u8; 3]> =
            indexed.indices.iter().map(|&i| indexed.palette[usize::from(i)]).collect();
        assert_eq!(back, pixels);
        assert_eq!(indexed.palette, [[9, 9, 9], [200, 0, 0], [255, 255, 255]]);
    }

    #[test]
    fn two_clouds_of_colours_become_their_means() {
        let pixels = [[0, 0, 0], [2, 0, 0], [4, 0, 0], [250, 9, 9], [252, 9, 9], [254, 9, 9]];
        assert_eq!(quantise(&pixels, 2).palette, [[2, 0, 0], [252, 9, 9]]);
    }

    proptest! {
        #[test]
        fn the_palette_is_never_too_long_and_every_index_is_in_it(
            pixels in prop::collection::vec(any::<[u8; 3]>(), 1..200),
            colors in 2_usize..40,
        ) {
            let indexed = quantise(&pixels, colors);
            prop_assert!(!indexed.palette.is_empty() && indexed.palette.len() <= colors);
            prop_assert_eq!(indexed.indices.len(), pixels.len());
            prop_assert!(indexed.indices.iter().all(|&i| usize::from(i) < indexed.palette.len()));
            prop_assert_eq!(&indexed, &quantise(&pixels, colors));
        }
    }
}
