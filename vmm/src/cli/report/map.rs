//! A moment's zone tree as an SVG treemap: as much area as memory, groups around what is in them. Pure.
//!
//! Names are whatever a recording says: they are escaped, and cut where they would not fit.

#![forbid(unsafe_code)]

use super::tree::Tree;
use crate::plot::{Colour, Frame, escaped, squarify};
use balloon::control::host_trace::Moment;
use balloon::size::Size;
use balloon::zone::Kind;
use std::fmt::Write;

/// Of the map, in pixels of its own; the page makes it as wide as it is.
const FRAME: Frame = Frame { x: 0.0, y: 0.0, width: 1000.0, height: 480.0 };
/// Around what is in a node.
const MARGIN: f64 = 3.0;
/// Above it, with its name.
const HEADER: f64 = 18.0;
/// Size of letters, and what one takes of a line: those that may be wide are counted twice.
const LETTER: f64 = 13.0;
const LETTER_WIDTH: f64 = 7.6;
/// What is smaller than that cannot be seen.
const LEAST: f64 = 1.0;
/// The pool's free memory is drawn unless it would leave the rest less of the map than that.
const LEAST_HELD: f64 = 0.25;

/// What a rectangle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A group.
    Group,
    /// A microVM, or its own memory beside its zones.
    Vm,
    /// What of a microVM is never taken.
    Protected,
    /// A private zone of a microVM that has several.
    Zone,
    /// What microVMs share.
    Shared,
    /// What is left of microVMs that ended.
    Orphan,
    /// What no zone holds.
    Free,
}

impl Part {
    /// In a key.
    pub fn words(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Vm => "microVM",
            Self::Protected => "of it protected",
            Self::Zone => "one of several zones of a microVM",
            Self::Shared => "shared zone",
            Self::Orphan => "left of a microVM that has ended",
            Self::Free => "free",
        }
    }

    /// Attributes of its rectangle, which is at most so opaque.
    pub fn paint(self, most: f64) -> String {
        let (colour, opacity) = match self {
            Self::Group => (Colour::Black, 0.05),
            Self::Vm => (Colour::Sky, 0.45),
            Self::Protected => (Colour::Blue, 0.55),
            Self::Zone => (Colour::Orange, 0.45),
            Self::Shared => (Colour::Green, 0.45),
            Self::Orphan => (Colour::Grey, 0.5),
            Self::Free => (Colour::Black, 0.0),
        };
        let opacity = most.min(opacity);
        let dash = if self == Self::Free { " stroke-dasharray=\"4 4\"" } else { "" };
        let (fill, stroke) = (colour.hex(), Colour::Black.hex());
        format!(
            "fill=\"{fill}\" fill-opacity=\"{opacity}\" stroke=\"{stroke}\" stroke-opacity=\"0.35\"{dash}"
        )
    }
}

/// A map, and what is in it.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// The image.
    pub svg: String,
    /// Kinds of its rectangles, for the key; each once.
    pub parts: Vec<Part>,
    /// Free memory that is not drawn, as the rest would be too small.
    pub undrawn_bytes: u64,
}

/// Draws `moment`.
pub fn map(moment: &Moment) -> Map {
    let tree = Tree::new(&moment.nodes);
    let mut map = Map::default();
    let (width, height) = (FRAME.width, FRAME.height);
    // Memory takes whatever is written.
    let _ = writeln!(
        map.svg,
        "<svg class=\"map\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">"
    );
    let held = tree.charge(0);
    let free = (moment.pool.capacity_bytes as f64 - held).max(0.0);
    let is_free_drawn = held >= LEAST_HELD * (held + free);
    if !is_free_drawn {
        map.undrawn_bytes = free as u64;
    }
    let free = if is_free_drawn { free } else { 0.0 };
    let mut frames = map.inside(&tree, 0, free, FRAME.within(1.0, 1.0, 1.0, 1.0));
    if let Some(frame) = frames.pop().filter(|_| free > 0.0) {
        let size = Size::from_bytes(free as u64);
        map.rectangle(Part::Free, 1.0, frame, &format!("{size} are free"));
        map.words(frame, "free", Some(&size.to_string()));
    }
    map.svg.push_str("</svg>\n");
    map.parts.sort();
    map.parts.dedup();
    map
}

impl Map {
    /// Divides `frame` among what is in the node `at` and the rest of what it holds; the frame of that is the last.
    fn inside(&mut self, tree: &Tree<'_>, at: usize, rest: f64, frame: Frame) -> Vec<Frame> {
        let children: Vec<usize> = tree.children(at).filter(|child| tree.charge(*child) > 0.0).collect();
        let weights: Vec<f64> = children.iter().map(|child| tree.charge(*child)).chain([rest]).collect();
        let frames = squarify(&weights, frame);
        for (child, frame) in children.iter().zip(&frames) {
            self.node(tree, *child, *frame);
        }
        frames
    }

    fn node(&mut self, tree: &Tree<'_>, at: usize, frame: Frame) {
        if frame.width < LEAST || frame.height < LEAST {
            return;
        }
        let Some(node) = tree.node(at) else { return };
        let zones = tree.children(at).filter(|child| tree.charge(*child) > 0.0).count();
        let part = match (node.kind, node.orphan) {
            (_, true) => Part::Orphan,
            (Kind::Pool | Kind::Group, _) => Part::Group,
            (Kind::Vm, _) => Part::Vm,
            (Kind::Shared, _) => Part::Shared,
            (Kind::Zone, _) => Part::Zone,
        };
        let size = Size::from_bytes(tree.charge(at) as u64 >> 10 << 10).to_string();
        let is_box = part == Part::Group || part == Part::Vm && zones > 1;
        // What is in a box is tinted again.
        let opacity = if is_box { 0.06 } else { 1.0 };
        self.rectangle(part, opacity, frame, &tree.words(at));
        let name = tree.name(at);
        if !is_box {
            self.protected(node.protected_bytes as f64 / tree.charge(at), frame);
            return self.words(frame, &name, Some(&size));
        }
        // What is too small has no name, and all its room goes to what is in it.
        let has_header = frame.height > 3.0 * HEADER && frame.width > 4.0 * LETTER_WIDTH;
        if has_header {
            let line = Frame { height: HEADER, ..frame };
            self.words(line, &format!("{name}  {size}"), None);
        }
        let top = if has_header { HEADER } else { MARGIN };
        let rest = tree.own(at);
        self.inside(tree, at, rest, frame.within(MARGIN, top, MARGIN, MARGIN));
    }

    /// A rectangle, at most so opaque, of which a pointer shows `words`.
    fn rectangle(&mut self, part: Part, opacity: f64, frame: Frame, words: &str) {
        self.parts.push(part);
        let Frame { x, y, width, height } = frame.within(0.5, 0.5, 0.5, 0.5);
        let _ = writeln!(
            self.svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {}><title>{}</title></rect>",
            part.paint(opacity),
            escaped(words)
        );
    }

    /// At the lower edge of a microVM's `frame`, as much as is protected. A pointer looks through it.
    fn protected(&mut self, share: f64, frame: Frame) {
        if !(share > 0.0 && frame.width > 2.0) {
            return;
        }
        self.parts.push(Part::Protected);
        let bar = frame.within(1.0, (1.0 - share.min(1.0)) * frame.height, 1.0, 1.0);
        let Frame { x, y, width, height } = bar;
        let _ = writeln!(
            self.svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{}\" \
             fill-opacity=\"0.35\" pointer-events=\"none\"/>",
            Colour::Blue.hex()
        );
    }

    /// `first`, and `second` below it, as far as there is room: an image of its own cuts off what the guess of its width
    /// was too low for.
    fn words(&mut self, frame: Frame, first: &str, second: Option<&str>) {
        let room = frame.within(5.0, 0.0, 3.0, 0.0);
        if room.height < LETTER + 3.0 {
            return;
        }
        let mut lines: Vec<String> = cut(first, room.width).into_iter().collect();
        // Half a number would be another.
        let second = second.filter(|text| room.height > 2.0 * LETTER + 8.0 && length(text) <= room.width);
        lines.extend(second.map(String::from));
        if lines.is_empty() {
            return;
        }
        let Frame { x, y, width, height } = room;
        let _ = write!(
            self.svg,
            "<svg x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" pointer-events=\"none\">"
        );
        for (line, below) in lines.iter().zip([14.0, 30.0]) {
            let _ = write!(
                self.svg,
                "<text x=\"0\" y=\"{below}\" font-size=\"{LETTER}\" fill=\"{}\" xml:space=\"preserve\">{}</text>",
                Colour::Black.hex(),
                escaped(line)
            );
        }
        self.svg.push_str("</svg>\n");
    }
}

/// The most that a letter takes of a line, but for the widest.
fn wide(letter: char) -> f64 {
    if letter.is_ascii() { LETTER_WIDTH } else { 2.0 * LETTER_WIDTH }
}

fn length(text: &str) -> f64 {
    text.chars().map(wide).sum()
}

/// As much of `text` as so much room has, with a sign of what is missing; nothing where that would say nothing.
fn cut(text: &str, width: f64) -> Option<String> {
    if length(text) <= width {
        return Some(text.into());
    }
    let mut left = width - LETTER_WIDTH * 1.5;
    let fits = |letter: &char| {
        left -= wide(*letter);
        left >= 0.0
    };
    let kept: String = text.chars().take_while(fits).collect();
    (kept.chars().count() >= 2).then(|| kept + "\u{2026}")
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{read, recording};
    use super::*;
    use balloon::control::host_trace::{Node, PoolState};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn drawn(nodes: Vec<Node>, capacity_bytes: u64) -> Map {
        let pool = PoolState { capacity_bytes, ..PoolState::default() };
        map(&Moment { pool, nodes, ..Moment::default() })
    }

    fn node(depth: u64, kind: Kind, name: &str, charge_bytes: u64) -> Node {
        Node { charge_bytes, ..Node::new(depth, kind, name) }
    }

    #[test]
    fn all_that_is_held_is_there_and_says_what_it_is() {
        let map = map(read(&recording()).unwrap().last.as_ref().unwrap());
        for words in [
            "<title>ci, group: 500 MiB held",
            "<title>ci/test, VM: 270 MiB held",
            "<title>ci/test/cache, zone: 69 MiB held",
            "<title>web, VM: 260 MiB held, 64 MiB of it protected\nmin 64 MiB, low -, high -, max -",
            "<title>244 MiB are free</title>",
        ] {
            assert!(map.svg.contains(words), "no '{words}' in {}", map.svg);
        }
        let parts =
            [Part::Group, Part::Vm, Part::Protected, Part::Zone, Part::Shared, Part::Orphan, Part::Free];
        assert_eq!(map.parts, parts);
    }

    #[test]
    fn a_name_is_no_markup_and_fits() {
        let hostile = "</title></svg><script>alert(1)</script>\"'&\u{1b}[31m\u{202e}\u{fffe}";
        let nodes = vec![node(0, Kind::Pool, "", 100), node(1, Kind::Vm, hostile, 100)];
        let map = drawn(nodes, 100);
        assert!(map.svg.contains("&lt;/title&gt;&lt;/svg&gt;&lt;script&gt;") && !map.svg.contains("<script"));
        assert!(!map.svg.contains(['\u{1b}', '\u{202e}', '\u{fffe}']));
        assert_eq!(cut("abc", 100.0).unwrap(), "abc");
        assert_eq!(cut("abcdefghijkl", 60.0).unwrap(), "abcdef\u{2026}");
        assert_eq!(
            cut("\u{4e2d}\u{4e2d}\u{4e2d}\u{4e2d}", 60.0).unwrap(),
            "\u{4e2d}\u{4e2d}\u{4e2d}\u{2026}"
        );
        assert_eq!(cut("abc", 20.0), None);
    }

    #[test]
    fn what_is_free_does_not_crowd_the_rest_out() {
        let nodes = || vec![node(0, Kind::Pool, "", 10 * MIB), node(1, Kind::Vm, "web", 10 * MIB)];
        assert_eq!(drawn(nodes(), 20 * MIB).undrawn_bytes, 0);
        let map = drawn(nodes(), 1000 * MIB);
        assert_eq!((map.undrawn_bytes, map.parts), (990 * MIB, vec![Part::Vm]));
        assert_eq!(drawn(vec![], 20 * MIB).undrawn_bytes, 20 * MIB);
    }

    proptest! {
        /// Whatever a recording says is an image whose elements are closed, within the frame.
        #[test]
        fn any_tree_is_drawn(
            nodes in prop::collection::vec((0..6u64, 0..5usize, ".{0,12}", any::<u64>(), any::<bool>()), 0..60),
            capacity_bytes: u64,
        ) {
            let kinds = [Kind::Pool, Kind::Group, Kind::Vm, Kind::Zone, Kind::Shared];
            let nodes = nodes.into_iter().map(|(depth, kind, name, charge, orphan)| Node {
                orphan,
                ..node(depth, kinds[kind], &name, charge >> (charge % 64))
            });
            let svg = drawn(nodes.collect(), capacity_bytes).svg;
            for element in ["svg", "title", "text"] {
                let open = svg.matches(&format!("<{element}")).count();
                prop_assert_eq!(open, svg.matches(&format!("</{element}>")).count());
            }
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{}", svg);
            for rectangle in svg.split("<rect x=\"").skip(1) {
                let numbers: Vec<f64> = rectangle.split('"').step_by(2).take(4).map(|text| text.parse().unwrap()).collect();
                prop_assert!(numbers[0] >= 0.0 && numbers[0] + numbers[2] <= 1000.1, "{:?}", numbers);
                prop_assert!(numbers[1] >= 0.0 && numbers[1] + numbers[3] <= 480.1, "{:?}", numbers);
            }
        }
    }
}
