//! What presses all microVMs of a host, in words. Pure.

use balloon::control::fleet::HostDocument;
use balloon::size::Size;

/// What stands before by how much ages are divided, behind how much is lacking, and for starts that are refused.
pub(super) const IN_FULL: [&str; 3] = ["ages divided by", "too much in use", "starts are refused"];
/// The same where there is little room.
pub(super) const IN_SHORT: [&str; 3] = ["ages /", "too much", "no starts"];

/// A clause for each thing that presses them, in these words; none where nothing does.
pub(super) fn pressure(host: &HostDocument, [divided, too_much, refused]: [&str; 3]) -> Vec<String> {
    let (whole, tenth) = (host.lambda_permille / 1000, host.lambda_permille % 1000 / 100);
    let clauses = [
        (host.lambda_permille > 1000, format!("{divided} {whole}.{tenth}")),
        (host.deficit_bytes > 0, format!("{} {too_much}", Size::from_bytes(host.deficit_bytes))),
        (host.refuses, refused.to_owned()),
    ];
    clauses.into_iter().filter_map(|(presses, clause)| presses.then_some(clause)).collect()
}
