//! From findings to text. Pure.

use super::judge::{Finding, Status};
use crate::cli::format::printable;
use serde::Serialize;

/// The machine-readable report.
#[derive(Serialize)]
struct Document<'a> {
    ready: bool,
    checks: &'a [Finding],
}

/// One JSON document and a line feed.
pub(super) fn json(findings: &[Finding]) -> serde_json::Result<String> {
    let document = Document { ready: Finding::all_ready(findings), checks: findings };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// A line a finding, and below it what to do. `colour` is for terminals.
pub(super) fn table(findings: &[Finding], colour: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (word, code) = match finding.status {
            Status::Ok => ("ok  ", "32"),
            Status::Warn => ("warn", "33"),
            Status::Fail => ("FAIL", "31"),
        };
        let word = if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
        // Errors may have lines of their own, and names of files whatever their owner put there.
        let mut lines = finding.found.lines().map(printable);
        text.push_str(&format!("{word}  {:width$}  {}\n", finding.check, lines.next().unwrap_or_default()));
        let remedy = finding.remedy.iter().map(|remedy| format!("-> {}", printable(remedy)));
        for line in lines.chain(remedy) {
            text.push_str(&format!("      {:width$}  {}\n", "", line.trim_start()));
        }
    }
    let against = findings.iter().filter(|finding| finding.status == Status::Fail).count();
    text.push_str(&match against {
        0 => "\nNothing stands against `ballast run`.\n".to_owned(),
        1 => "\nOne thing stands against `ballast run`.\n".to_owned(),
        _ => format!("\n{against} things stand against `ballast run`.\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let finding = |check, status, found: &str, remedy: Option<&str>| Finding {
            check,
            status,
            found: found.into(),
            remedy: remedy.map(str::to_owned),
        };
        vec![
            finding("kvm", Status::Ok, "works", None),
            finding("mkfs.erofs", Status::Fail, "missing\n  looked\x1b[2J", Some("install it")),
            finding("swap", Status::Warn, "none", Some("add some")),
        ]
    }

    #[test]
    fn the_table_is_aligned_and_says_what_to_do() {
        let expected = "\
ok    kvm         works
FAIL  mkfs.erofs  missing
                  looked\u{fffd}[2J
                  -> install it
warn  swap        none
                  -> add some

One thing stands against `ballast run`.
";
        assert_eq!(table(&findings(), false), expected);
    }

    #[test]
    fn colour_changes_nothing_but_the_status() {
        let plain = table(&findings(), true).replace("\x1b[32m", "").replace("\x1b[33m", "");
        assert_eq!(plain.replace("\x1b[31m", "").replace("\x1b[0m", ""), table(&findings(), false));
    }

    #[test]
    fn json_has_the_verdict_and_every_check() {
        let value: serde_json::Value = serde_json::from_str(&json(&findings()).unwrap()).unwrap();
        assert_eq!(value["ready"], false);
        assert_eq!(value["checks"][1]["status"], "fail");
        assert_eq!(value["checks"][1]["remedy"], "install it");
        assert!(value["checks"][0].get("remedy").is_none());
        let fine: serde_json::Value = serde_json::from_str(&json(&findings()[..1]).unwrap()).unwrap();
        assert_eq!(fine["ready"], true);
    }
}
