//! A scene: what it shows, how it is drawn, how it is said.

/// The box that scenes are drawn in: left, top, width, height.
pub(super) const VIEW_BOX: [f32; 4] = [0.0, 0.0, 96.0, 96.0];

/// Half the side of a large and of a small shape.
const HALVES: [f32; 2] = [10.5, 7.0];

/// Between the middles of two neighbours.
const STEP: f32 = 23.0;

/// How far from the middle of the box shapes stand, and their companion at the other side.
const ASIDE: f32 = 24.0;

/// Half the side of a companion.
const COMPANION: f32 = 10.0;

/// Two colours.
#[derive(Debug)]
pub(super) struct Palette {
    pub(super) name: &'static str,
    ink: &'static str,
    paper: &'static str,
}

/// The palettes. Paper and ink of one differ in brightness, so that shapes are seen in all of them.
pub(super) const PALETTES: [Palette; 4] = [
    Palette { name: "night", ink: "#ffe066", paper: "#1b2a4a" },
    Palette { name: "rose", ink: "#c2185b", paper: "#fde7ef" },
    Palette { name: "forest", ink: "#d7f5c8", paper: "#1f5130" },
    Palette { name: "sea", ink: "#0b5fa5", paper: "#d9f3ff" },
];

/// What shapes are filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texture {
    Filled,
    Outlined,
    Striped,
}

/// All textures.
pub(super) const TEXTURES: [Texture; 3] = [Texture::Filled, Texture::Outlined, Texture::Striped];

impl Texture {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Filled => "filled",
            Self::Outlined => "outlined",
            Self::Striped => "striped",
        }
    }
}

/// How a scene is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phrasing {
    Plain,
    List,
    Question,
    Telegram,
}

/// All phrasings.
pub(super) const PHRASINGS: [Phrasing; 4] =
    [Phrasing::Plain, Phrasing::List, Phrasing::Question, Phrasing::Telegram];

impl Phrasing {
    /// Its private variety of English.
    pub(super) const fn language(self) -> &'static str {
        match self {
            Self::Plain => "en-x-plain",
            Self::List => "en-x-list",
            Self::Question => "en-x-question",
            Self::Telegram => "en-x-telegram",
        }
    }
}

const SHAPES: [&str; 5] = ["circle", "square", "triangle", "diamond", "cross"];
const SIZES: [&str; 2] = ["large", "small"];
const COUNTS: [&str; 4] = ["one", "two", "three", "four"];
const PLACES: [&str; 4] = ["left", "right", "top", "bottom"];
const COMPANIONS: [&str; 4] = ["nothing", "star", "arrow", "bar"];

/// Equal shapes in a row, and what stands at the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scene {
    shape: usize,
    size: usize,
    /// One less than their number.
    count: usize,
    place: usize,
    companion: usize,
}

impl Scene {
    /// Every scene once.
    pub(super) fn all() -> Vec<Self> {
        let lengths = [SHAPES.len(), SIZES.len(), COUNTS.len(), PLACES.len(), COMPANIONS.len()];
        let scene = |number: usize| {
            // The digits of a number whose places have these bases, the last one first.
            let mut rest = number;
            let mut digits = lengths;
            for (digit, length) in digits.iter_mut().zip(lengths).rev() {
                (rest, *digit) = (rest / length, rest % length);
            }
            let [shape, size, count, place, companion] = digits;
            Self { shape, size, count, place, companion }
        };
        (0..lengths.iter().product()).map(scene).collect()
    }

    /// Values of the first five label columns.
    pub(super) fn labels(&self) -> [&'static str; 5] {
        let companion = COMPANIONS[self.companion];
        [SHAPES[self.shape], SIZES[self.size], COUNTS[self.count], PLACES[self.place], companion]
    }

    /// A name that no other scene has.
    pub(super) fn name(&self) -> String {
        self.labels().join("-")
    }

    /// The scene in words. Each factor has a word of its own, so that their order tells nothing.
    pub(super) fn caption(&self, phrasing: Phrasing) -> String {
        let [shape, size, count, place, companion] = self.labels();
        let beside = match companion {
            "nothing" => companion.to_owned(),
            "arrow" => "an arrow".to_owned(),
            _ => format!("a {companion}"),
        };
        let many = match (self.count, shape) {
            (0, shape) => shape.to_owned(),
            (_, "cross") => "crosses".to_owned(),
            (_, shape) => format!("{shape}s"),
        };
        let is = if self.count == 0 { "is" } else { "are" };
        match phrasing {
            Phrasing::Plain => format!("{count} {size} {many} at the {place} beside {beside}"),
            Phrasing::List => {
                format!(
                    "shape : {shape} ; size : {size} ; number : {count} ; {place} ; {companion}"
                )
            }
            Phrasing::Question => {
                format!("where {is} the {count} {size} {many} with {beside} ? look {place}")
            }
            Phrasing::Telegram => {
                format!("{place} stop {size} {many} stop {count} in all stop {companion} stop")
            }
        }
    }

    /// The scene as SVG elements within [`VIEW_BOX`], moved by a shift along each axis.
    pub(super) fn drawing(&self, palette: &Palette, texture: Texture, shift: [f32; 2]) -> String {
        let Palette { ink, paper, .. } = palette;
        let fill = match texture {
            Texture::Filled => *ink,
            Texture::Outlined => "none",
            Texture::Striped => "url(#stripes)",
        };
        let mut body = format!(
            "<defs><pattern id=\"stripes\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\">\
             <rect width=\"5\" height=\"2.5\" fill=\"{ink}\"/></pattern></defs>\
             <rect width=\"96\" height=\"96\" fill=\"{paper}\"/>\
             <g fill=\"{fill}\" stroke=\"{ink}\" stroke-width=\"2.5\">"
        );
        let aside = if self.place.is_multiple_of(2) { -ASIDE } else { ASIDE };
        for number in 0..=self.count {
            let along = 48.0 + (number as f32 - self.count as f32 / 2.0) * STEP;
            // Shapes at the left and at the right stand below one another.
            let (x, y) = if self.place < 2 { (48.0 + aside, along) } else { (along, 48.0 + aside) };
            let middle = (x + shift[0], y + shift[1]);
            body.push_str(&outline(SHAPES[self.shape], middle, HALVES[self.size]));
        }
        if self.companion > 0 {
            let (x, y) = if self.place < 2 { (48.0 - aside, 48.0) } else { (48.0, 48.0 - aside) };
            let middle = (x + shift[0], y + shift[1]);
            body.push_str(&outline(COMPANIONS[self.companion], middle, COMPANION));
        }
        body + "</g>"
    }
}

/// A shape around a middle, as far as `half` to each side.
fn outline(shape: &str, (x, y): (f32, f32), half: f32) -> String {
    let polygon = |points: &[(f32, f32)]| {
        let point = |(dx, dy): &(f32, f32)| format!("{:.2},{:.2}", x + dx * half, y + dy * half);
        let points: Vec<String> = points.iter().map(point).collect();
        format!("<polygon points=\"{}\"/>", points.join(" "))
    };
    match shape {
        "circle" => format!("<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{half}\"/>"),
        "square" => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        "triangle" => polygon(&[(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)]),
        "diamond" => polygon(&[(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)]),
        "star" => {
            let ray = |point: u8| {
                let turn = f32::from(point) * std::f32::consts::PI / 5.0;
                let length = if point.is_multiple_of(2) { 1.0 } else { 0.42 };
                (length * turn.sin(), -length * turn.cos())
            };
            polygon(&(0..10).map(ray).collect::<Vec<_>>())
        }
        "arrow" => polygon(&[
            (0.0, -1.0),
            (0.8, -0.1),
            (0.3, -0.1),
            (0.3, 1.0),
            (-0.3, 1.0),
            (-0.3, -0.1),
            (-0.8, -0.1),
        ]),
        "bar" => polygon(&[(-1.0, -0.3), (1.0, -0.3), (1.0, 0.3), (-1.0, 0.3)]),
        _ => {
            let arm = 0.32;
            let quarter = [(-arm, -1.0), (arm, -1.0), (arm, -arm)];
            // The other quarters are turns of the first by a right angle each.
            let turned = (0..4).flat_map(|turns| {
                quarter.map(|point| (0..turns).fold(point, |(dx, dy), _| (-dy, dx)))
            });
            polygon(&turned.collect::<Vec<_>>())
        }
    }
}
