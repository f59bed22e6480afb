//! Signals by name and number.

use crate::error::{EngineError, Result};

/// Linux' names without "SIG".
const NAMES: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// SIGKILL's number.
pub(crate) const KILL: i32 = 9;
/// SIGTERM's number.
pub(crate) const TERM: i32 = 15;

/// A signal's number from "9", "KILL", "SIGKILL" or "sigrtmin+3".
pub(crate) fn parse(text: &str) -> Result<i32> {
    let bad = || EngineError::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if number > 0 && number <= RTMAX {
            Ok(number)
        } else {
            Err(bad())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(number);
    }
    realtime(name)
        .filter(|number| (RTMIN..=RTMAX).contains(number))
        .ok_or_else(bad)
}

fn realtime(name: &str) -> Option<i32> {
    match name {
        "RTMIN" => Some(RTMIN),
        "RTMAX" => Some(RTMAX),
        _ => {
            if let Some(offset) = name.strip_prefix("RTMIN+") {
                Some(RTMIN + offset.parse::<u8>().ok().map(i32::from)?)
            } else {
                let offset = name.strip_prefix("RTMAX-")?;
                Some(RTMAX - offset.parse::<u8>().ok().map(i32::from)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["0", "-1", "65", "NOPE", "SIG", "RTMAX-60", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("NOPE").unwrap_err().message, "invalid signal: NOPE");
    }
}
