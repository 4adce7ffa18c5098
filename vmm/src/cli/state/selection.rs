//! Which microVM a word means: its name, its ID, or the beginning of an ID. Pure.

#![forbid(unsafe_code)]

use super::Known;

/// A word that does not mean one microVM.
#[derive(Debug, PartialEq, Eq)]
pub enum NotOne {
    /// It means none.
    None,
    /// It is the beginning of the IDs of those with these names.
    Several(Vec<String>),
}

/// The microVM that `word` means. A name wins over an ID, and a whole ID over a beginning.
///
/// # Errors
/// It means none, or several.
pub fn pick(mut all: Vec<Known>, word: &str) -> Result<Known, NotOne> {
    let exact =
        all.iter().position(|vm| vm.name == word).or_else(|| all.iter().position(|vm| vm.id() == word));
    if let Some(at) = exact {
        return Ok(all.swap_remove(at));
    }
    all.retain(|vm| !word.is_empty() && vm.id().starts_with(word));
    match all.len() {
        0 => Err(NotOne::None),
        1 => Ok(all.swap_remove(0)),
        _ => Err(NotOne::Several(all.into_iter().map(|vm| vm.name).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;

    #[test]
    fn names_win_and_beginnings_must_be_of_one() {
        let vm = |name: &str, id: &str| Known {
            name: name.into(),
            record: Some(Record::new(id.into(), "bb".into(), Vec::new(), 0)),
            exit: None,
            pid: None,
            directory: "/nowhere".into(),
            socket: "/nowhere".into(),
        };
        let all = || vec![vm("web", "aab0"), vm("aab", "c000"), vm("db", "aac0"), vm("c1", "c100")];
        let picked = |word: &str| pick(all(), word).map(|vm| vm.name);
        assert_eq!(picked("web").as_deref(), Ok("web"));
        assert_eq!(picked("aab").as_deref(), Ok("aab"), "a name before an ID");
        assert_eq!(picked("aab0").as_deref(), Ok("web"));
        assert_eq!(picked("aac").as_deref(), Ok("db"));
        assert_eq!(picked("aa"), Err(NotOne::Several(vec!["web".into(), "db".into()])));
        assert_eq!(picked("we"), Err(NotOne::None), "no beginnings of names");
        assert_eq!(picked(""), Err(NotOne::None));
    }
}
