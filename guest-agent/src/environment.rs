//! The workload's environment, and where its program is looked for.
//!
//! Pure. Defaults and search are docker's and execvp(3)'s.

#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Adds the variables that every workload has where they are not given.
pub fn complete(given: Vec<CString>, home: &[u8], hostname: &str, has_terminal: bool) -> Vec<CString> {
    let mut env = given;
    let mut default = |name: &str, value: &[u8]| {
        if value_of(&env, name).is_none()
            && let Ok(entry) = CString::new([name.as_bytes(), b"=", value].concat())
        {
            env.push(entry);
        }
    };
    default("PATH", DEFAULT_PATH.as_bytes());
    default("HOSTNAME", hostname.as_bytes());
    default("HOME", home);
    if has_terminal {
        default("TERM", b"xterm");
    }
    env
}

/// `own` with `given` in addition, or in place of variables of the same names.
pub fn replace(own: &[CString], given: Vec<CString>) -> Vec<CString> {
    let name = |entry: &CString| entry.to_bytes().split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    let is_given = |entry: &CString| given.iter().any(|other| name(other) == name(entry));
    let mut env: Vec<_> = own.iter().filter(|entry| !is_given(entry)).cloned().collect();
    env.extend(given);
    env
}

/// The paths at which the program may be, in the order of trying.
pub fn candidates(program: &CStr, env: &[CString]) -> Vec<CString> {
    let name = program.to_bytes();
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return vec![program.to_owned()];
    }
    value_of(env, "PATH")
        .unwrap_or_default()
        .split(|byte| *byte == b':')
        // An empty entry is the working directory.
        .map(|directory| if directory.is_empty() { b"." } else { directory })
        .filter_map(|directory| CString::new([directory, b"/", name].concat()).ok())
        .collect()
}

fn value_of<'a>(env: &'a [CString], name: &str) -> Option<&'a [u8]> {
    env.iter().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(entries: &[&str]) -> Vec<CString> {
        entries.iter().map(|entry| CString::new(*entry).unwrap()).collect()
    }

    #[test]
    fn defaults_fill_gaps_and_replace_nothing() {
        let complete_env = complete(env(&["PATHS=/x", "HOME=", "A=b"]), b"/root", "box", false);
        assert_eq!(
            complete_env,
            env(&["PATHS=/x", "HOME=", "A=b", &format!("PATH={DEFAULT_PATH}"), "HOSTNAME=box"])
        );
        let with_terminal = complete(env(&["PATH=/bin", "TERM=vt100"]), b"/home/a", "box", true);
        assert_eq!(with_terminal, env(&["PATH=/bin", "TERM=vt100", "HOSTNAME=box", "HOME=/home/a"]));
        assert!(complete(vec![], b"/", "box", true).contains(&env(&["TERM=xterm"])[0]));
    }

    #[test]
    fn given_variables_replace_and_add() {
        let own = env(&["A=1", "AB=2", "PATH=/bin"]);
        assert_eq!(replace(&own, env(&["A=", "C=3"])), env(&["AB=2", "PATH=/bin", "A=", "C=3"]));
    }

    #[test]
    fn a_program_is_looked_for_in_path_unless_it_is_a_path() {
        let path = env(&["PATH=/bin::/usr/bin"]);
        assert_eq!(candidates(c"ls", &path), env(&["/bin/ls", "./ls", "/usr/bin/ls"]));
        assert_eq!(candidates(c"./ls", &path), env(&["./ls"]));
        assert_eq!(candidates(c"/bin/ls", &[]), env(&["/bin/ls"]));
        assert_eq!(candidates(c"", &path), env(&[]));
    }
}
