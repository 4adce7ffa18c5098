//! All ramps as an SVG image: what of the host is used and how long requests take, over the number of microVMs. Pure.

use super::figures::{FIRST, Ramp};
use super::kind::Kind;
use super::step::{Age, Step};
use vmm::plot::{Axis, Colour, Error, Legend, Line, Panel, draw};

/// Draws it.
///
/// # Errors
/// It cannot be drawn.
pub fn plot(ramps: &[Ramp]) -> Result<String, Error> {
    let most = ramps.iter().map(|ramp| ramp.steps.len()).fold(FIRST, usize::max) as f64 + 0.5;
    let of_steps = |value: &dyn Fn(&Ramp, &Step) -> Option<f64>| -> Vec<Line> {
        let line = |(ramp, colour): (&Ramp, Colour)| {
            let points = ramp.steps.iter().filter_map(|step| Some((step.vms as f64, value(ramp, step)?)));
            Line { has_dots: true, ..Line::new(ramp.arm.name(), colour, points.collect()) }
        };
        ramps.iter().zip(Colour::ALL).map(line).collect()
    };
    let p99 = |kind: Kind| {
        of_steps(&move |ramp, step| {
            ramp.p99_us(step.vms, kind, Age::Settled).map(|us| f64::from(us) / 1000.0)
        })
    };
    let panel = |height, words, unit, lines: Vec<Line>| {
        let values = lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
        let highest = values.fold(0.1, f64::max) * 1.1;
        Panel { lines, ..Panel::new(height, Axis::new(words, 0.5..most), Axis::new(unit, 0.0..highest)) }
    };
    let used = of_steps(&|_, step| Some((step.used_bytes >> 20) as f64));
    let panels = [
        Panel {
            title: "One host, more and more microVMs".into(),
            legend: Some(Legend::Left),
            ..panel(420, "", "used of the host, MiB", used)
        },
        panel(220, "", "settled services, p99, ms", p99(Kind::Idle)),
        panel(240, "microVMs", "settled stores, p99, ms", p99(Kind::Store)),
    ];
    draw(1000, &panels, true)
}

#[cfg(test)]
mod tests {
    use super::super::arm::Arm;
    use super::super::figures::tests::ramp;
    use super::*;

    #[test]
    fn every_step_has_its_dot_in_every_panel_that_has_it() {
        let svg = plot(&[ramp(Arm::Reporting, 12, |_| 100), ramp(Arm::Ballast, 24, |_| 130)]).unwrap();
        // The first service has settled with the fifth microVM, the first store with the sixth.
        let with_requests = (12 - 4) + (24 - 4) + (12 - 5) + (24 - 5);
        assert_eq!(svg.matches("<circle").count(), 12 + 24 + with_requests);
        assert!(svg.contains("reporting") && svg.contains("ballast"));
    }
}
