//! Colours that are told apart by those who see few of them too (Okabe and Ito), and what becomes of them on a dark page.
//! Pure.

#![forbid(unsafe_code)]

use plotters::style::{BLACK, RGBColor, WHITE};
use std::fmt::Write;

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Colour {
    Vermilion,
    Blue,
    Green,
    Purple,
    Sky,
    Orange,
    Black,
    Grey,
}

impl Colour {
    /// All of them, in the order in which lines have them.
    pub const ALL: [Self; 8] = [
        Self::Vermilion,
        Self::Blue,
        Self::Green,
        Self::Purple,
        Self::Sky,
        Self::Orange,
        Self::Black,
        Self::Grey,
    ];

    pub(super) fn rgb(self) -> RGBColor {
        match self {
            Self::Vermilion => RGBColor(213, 94, 0),
            Self::Blue => RGBColor(0, 114, 178),
            Self::Green => RGBColor(0, 158, 115),
            Self::Purple => RGBColor(204, 121, 167),
            Self::Sky => RGBColor(86, 180, 233),
            Self::Orange => RGBColor(230, 159, 0),
            Self::Black => BLACK,
            Self::Grey => RGBColor(150, 150, 150),
        }
    }

    /// The same on a dark page.
    fn dark(self) -> RGBColor {
        match self {
            Self::Vermilion => RGBColor(255, 140, 66),
            Self::Blue => RGBColor(79, 172, 233),
            Self::Green => RGBColor(52, 201, 156),
            Self::Purple => RGBColor(226, 150, 192),
            Self::Black => RGBColor(222, 226, 230),
            Self::Sky | Self::Orange | Self::Grey => self.rgb(),
        }
    }

    /// As it stands in an SVG file.
    #[must_use]
    pub fn hex(self) -> String {
        hex(self.rgb())
    }
}

/// The background of a dark page.
const DARK: RGBColor = RGBColor(24, 26, 30);

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// Rules of CSS that give drawings their colours on a dark page: style goes before the attributes that plots have.
#[must_use]
pub fn dark_style() -> String {
    let mut rules = String::new();
    let paper = (hex(WHITE), hex(DARK));
    for (light, dark) in
        Colour::ALL.map(|colour| (hex(colour.rgb()), hex(colour.dark()))).into_iter().chain([paper])
    {
        for property in ["fill", "stroke"] {
            // Memory takes whatever is written.
            let _ = writeln!(rules, "svg [{property}=\"{light}\"] {{ {property}: {dark} }}");
        }
    }
    rules
}
