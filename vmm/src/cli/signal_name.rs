//! Signals as people write them: `TERM`, `SIGTERM`, `15`. Pure.

#![forbid(unsafe_code)]

/// Those of signal(7) that have a name on x86-64, by number from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const FIRST_REAL_TIME: u8 = 34;
const LAST: u8 = 64;

/// The number of the signal that `text` names.
///
/// # Errors
/// It names none; the message says how to.
pub fn parse(text: &str) -> Result<u8, String> {
    let refusal = || format!("'{text}' is no signal: write TERM, SIGTERM or 15, or RTMIN+n");
    if let Ok(number) = text.parse() {
        return if (1..=LAST).contains(&number) { Ok(number) } else { Err(refusal()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = (1..).zip(NAMES).find_map(|(number, other)| (other == name).then_some(number)) {
        return Ok(number);
    }
    let above = match name.strip_prefix("RTMIN") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix('+').and_then(|rest| rest.parse::<u8>().ok()),
        None => None,
    };
    above
        .and_then(|above| FIRST_REAL_TIME.checked_add(above))
        .filter(|number| *number <= LAST)
        .ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("1", 1),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for bad in ["", "0", "65", "TERMS", "SIG", "RTMIN+31", "RTMIN-1", "-9"] {
            assert!(parse(bad).unwrap_err().contains("no signal"), "{bad}");
        }
    }
}
