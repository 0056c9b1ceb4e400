//! A network id as a QR code, for a phone or a board that is held before a screen.
//!
//! Two rows of modules are one line of half blocks. On a terminal the code brings its own black and
//! white, so that it is dark on light whatever the terminal's colours are; elsewhere it is drawn for a
//! dark background.

use std::io::{self, IsTerminal};

use qrcode::{Color, EcLevel, QrCode};

use super::{Failed, output::print};

/// Modules of light around the code. ISO/IEC 18004, section 6.3.8.
const QUIET: usize = 4;

/// Black on white, also where "white" is a grey; and back.
const DARK_ON_LIGHT: &str = "\u{1b}[30;107m";
const AS_BEFORE: &str = "\u{1b}[0m";

/// Prints `text` as a QR code to stdout.
pub(super) fn print_qr(text: &str) -> Result<(), Failed> {
    let is_seen = io::stdout().is_terminal();
    // Low: an id that is damaged in reading is refused by its own checksum, and a small code is
    // easier to hold into a camera's view.
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| anyhow::anyhow!("this id makes no QR code: {error}"))?;
    for line in half_blocks(&code, is_seen) {
        match is_seen {
            true => print(format!("{DARK_ON_LIGHT}{line}{AS_BEFORE}"))?,
            false => print(line)?,
        }
    }
    Ok(())
}

/// The code with its quiet zone, two rows a line. `ink` says whether blocks are its dark modules or
/// its light ones.
fn half_blocks(code: &QrCode, ink: bool) -> Vec<String> {
    let side = code.width() + 2 * QUIET;
    let is_drawn = |x: usize, y: usize| {
        let (x, y) = (x.checked_sub(QUIET), y.checked_sub(QUIET));
        let is_dark = match (x, y) {
            (Some(x), Some(y)) if x < code.width() && y < code.width() => {
                code[(x, y)] == Color::Dark
            }
            _ => false,
        };
        is_dark == ink
    };
    let block = |x: usize, y: usize| match (is_drawn(x, y), y + 1 < side && is_drawn(x, y + 1)) {
        (true, true) => '\u{2588}',
        (true, false) => '\u{2580}',
        (false, true) => '\u{2584}',
        (false, false) => ' ',
    };
    (0..side).step_by(2).map(|y| (0..side).map(|x| block(x, y)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modules that the lines show, dark ones true, without the quiet zone.
    fn modules(lines: &[String], ink: bool, width: usize) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in lines {
            let halves = |c| match c {
                '\u{2588}' => [true, true],
                '\u{2580}' => [true, false],
                '\u{2584}' => [false, true],
                _ => [false, false],
            };
            let both: Vec<[bool; 2]> = line.chars().map(halves).collect();
            for half in 0..2 {
                rows.push(both.iter().map(|module| module[half] == ink).collect::<Vec<_>>());
            }
        }
        let inner = QUIET..QUIET + width;
        rows[inner.clone()].iter().map(|row| row[inner.clone()].to_vec()).collect()
    }

    #[test]
    fn both_ways_of_drawing_show_every_module_and_a_quiet_zone() {
        let id = format!("mnet1{}", "q".repeat(112));
        let code = QrCode::with_error_correction_level(&id, EcLevel::L).expect("it fits");
        let width = code.width();
        let dark: Vec<bool> = code.to_colors().iter().map(|color| *color == Color::Dark).collect();
        for ink in [true, false] {
            let lines = half_blocks(&code, ink);
            assert!(lines.iter().all(|line| line.chars().count() == width + 2 * QUIET));
            assert_eq!(modules(&lines, ink, width).concat(), dark);
            // A secret id fits into the 80 columns and 24 lines of a plain terminal, but for a line.
            assert!(width + 2 * QUIET <= 80 && lines.len() <= 25, "{width}, {}", lines.len());
            let quiet = if ink { ' ' } else { '\u{2588}' };
            assert!(lines[..QUIET / 2].iter().all(|line| line.chars().all(|c| c == quiet)));
            assert!(lines.iter().all(|line| {
                line.chars().take(QUIET).all(|c| c == quiet || line == &lines[lines.len() - 1])
            }));
        }
    }
}
