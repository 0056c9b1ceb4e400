//! A picture of a probe: how many of the known nodes it had reached after which time.

use std::fmt::Write;

use mosaik_api::document::Probe;

/// The whole picture, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Where the axes lie in it.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 690.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 340.0;

/// Draws the share of known nodes that were reached, over the time: half of each round trip.
pub(super) fn svg(report: &Probe) -> String {
    let times: Vec<f64> = report.answers.iter().map(|answer| answer.propagation_ms).collect();
    let longest_ms = times.last().copied().unwrap_or(0.0);
    let tick_ms = tick(longest_ms);
    let ticks = (longest_ms / tick_ms).ceil().max(1.0);
    let x = |ms: f64| LEFT + (RIGHT - LEFT) * ms / (ticks * tick_ms);
    let y = |share: f64| BOTTOM - (BOTTOM - TOP) * share;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{} of {} known nodes reached</text>\n",
        report.answered, report.known
    );
    // Nothing is written to a string but it fits.
    for step in 0..=ticks as u32 {
        let ms = f64::from(step) * tick_ms;
        let (at, below) = (x(ms), BOTTOM + 18.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            number(ms)
        );
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at, left) = (y(share), LEFT - 8.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
             <text x=\"{left}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            at + 4.0,
            share * 100.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">milliseconds after the sending \
         (half the round trip)</text>",
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 42.0
    );
    if let Some(of) = report.propagation_ms {
        let marks = [("p50", of.p50), ("p75", of.p75), ("p90", of.p90), ("p99", of.p99)];
        for (at, (name, ms)) in marks.into_iter().enumerate() {
            // One below the other: they may be close.
            let (across, down) = (x(ms), BOTTOM - 60.0 + 15.0 * at as f64);
            let (anchor, text) = match across > f64::midpoint(LEFT, RIGHT) {
                true => ("end", across - 4.0),
                false => ("start", across + 4.0),
            };
            let _ = writeln!(
                svg,
                "<path d=\"M{across:.1} {TOP}V{BOTTOM}\" stroke=\"#c60\" stroke-dasharray=\"4 3\"/>\
                 <text x=\"{text:.1}\" y=\"{down:.1}\" text-anchor=\"{anchor}\" fill=\"#c60\">\
                 {name} {}</text>",
                number(ms)
            );
        }
    }
    let _ = writeln!(
        svg,
        "<path d=\"{}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>\n</svg>",
        steps(&times, report.known, x, y)
    );
    svg
}

/// A line that rises by one node at each time, and stays after the last.
fn steps(times: &[f64], known: u64, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = format!("M{LEFT} {BOTTOM}");
    for (at, ms) in times.iter().enumerate() {
        let share = (at + 1) as f64 / known.max(1) as f64;
        let _ = write!(path, "H{:.1}V{:.1}", x(*ms), y(share));
    }
    let _ = write!(path, "H{RIGHT}");
    path
}

/// A round number of which at most ten make `longest`: 1, 2 or 5 and zeros.
fn tick(longest: f64) -> f64 {
    let rough = (longest / 8.0).max(0.01);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough);
    power * factor.unwrap_or(10.0)
}

/// A time with no more digits than it needs.
fn number(ms: f64) -> String {
    let text = format!("{ms:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::report, *};

    #[test]
    fn the_line_rises_once_for_each_answer_and_ends_at_the_share_that_was_reached() {
        let mut seen = report(&[2.0, 4.0, 40.0]);
        seen.known = 4;
        let drawn = svg(&seen);
        assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
        assert!(drawn.contains(">3 of 4 known nodes reached<"), "{drawn}");
        assert!(drawn.contains(">p99 20<"), "{drawn}");
        let line = drawn.lines().rev().nth(1).expect("the line is the last but one");
        // From 0 ms and 0 % over a quarter a node: 1, 2 and 20 ms of 20.
        assert!(line.contains("\"M60 340H91.5V267.5H123.0V195.0H690.0V122.5H690\""), "{line}");
        assert_eq!(drawn.matches('<').count(), drawn.matches('>').count());
    }

    #[test]
    fn a_picture_without_answers_has_axes_all_the_same() {
        let drawn = svg(&report(&[]));
        assert!(drawn.contains("0 of 0 known nodes") && drawn.contains("100 %"), "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn ticks_are_round_and_few() {
        for longest in [0.0, 0.03, 1.0, 7.9, 8.1, 33.0, 99_999.0] {
            let tick = tick(longest);
            assert!((longest / tick).ceil() <= 10.0, "{longest} by {tick}");
            assert!(longest < 0.05 || longest / tick > 2.0, "{longest} by {tick}");
        }
        assert_eq!([number(2.5), number(20.0), number(0.0)], ["2.5", "20", "0"]);
    }
}
