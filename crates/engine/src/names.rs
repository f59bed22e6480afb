//! Container names and ids.

use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use crate::error::{EngineError, Result};

/// First halves of generated names.
const MOODS: &[&str] = &[
    "agile", "amber", "ample", "apt", "avid", "bold", "brave", "bright", "brisk", "busy", "calm",
    "candid", "clear", "clever", "cosy", "crisp", "curious", "daring", "deft", "eager", "earnest",
    "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "handy",
    "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid",
    "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite",
    "prompt", "proud", "quick", "quiet", "ready", "serene", "sharp", "sincere", "smart", "snug",
    "steady", "sunny", "swift", "tidy", "upbeat", "valiant", "vivid", "warm", "wise", "witty",
    "zesty",
];

/// Second halves: people of science and engineering.
const PEOPLE: &[&str] = &[
    "agnesi",
    "allen",
    "ampere",
    "anning",
    "archimedes",
    "babbage",
    "banach",
    "bartik",
    "bell",
    "bernoulli",
    "blackwell",
    "bohr",
    "boole",
    "bose",
    "brahe",
    "carson",
    "cauchy",
    "cerf",
    "chandra",
    "church",
    "clarke",
    "cori",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "easley",
    "edison",
    "einstein",
    "elion",
    "engelbart",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goodall",
    "hamilton",
    "hawking",
    "hopper",
    "hypatia",
    "johnson",
    "joliot",
    "kalam",
    "kepler",
    "knuth",
    "lamarr",
    "lamport",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mayer",
    "mcclintock",
    "meitner",
    "mendel",
    "mirzakhani",
    "newton",
    "nobel",
    "noether",
    "pascal",
    "pasteur",
    "perlman",
    "planck",
    "raman",
    "ramanujan",
    "ride",
    "ritchie",
    "rubin",
    "shannon",
    "sinoussi",
    "snyder",
    "somerville",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wiles",
    "wilson",
    "wing",
    "wozniak",
    "wu",
    "yonath",
];

/// A fresh id: 64 hexadecimal digits that are not all decimal, because clients read those as
/// numbers.
pub fn random_id() -> String {
    loop {
        let mut bytes = [0_u8; 32];
        rand::rng().fill(&mut bytes);
        let id = hex::encode(bytes);
        if id[..12].bytes().any(|digit| !digit.is_ascii_digit()) {
            return id;
        }
    }
}

/// A generated name; `attempt` 1 and up adds a digit.
pub(crate) fn random_name(attempt: u32) -> String {
    let mut rng = rand::rng();
    let mood = MOODS.choose(&mut rng).copied().unwrap_or("calm");
    let person = PEOPLE.choose(&mut rng).copied().unwrap_or("hopper");
    if attempt == 0 {
        format!("{mood}_{person}")
    } else {
        format!("{mood}_{person}{}", rng.random_range(0..10))
    }
}

/// Docker's rule for names: a letter or digit, then letters, digits, `_`, `.` and `-`; at least two.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Checks a name a user gave and takes its optional leading slash away.
pub(crate) fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if is_valid(bare) {
        return Ok(bare);
    }
    Err(EngineError::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// The first twelve digits, which is what is shown.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["web", "/web", "a1", "0x", "a.b-c_d"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "-a", "_a", "a b", "a/b", "//ab", "é1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(
            check("a b").unwrap_err().message,
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
    }

    #[test]
    fn generated_names_are_valid() {
        for attempt in 0..50 {
            assert!(is_valid(&random_name(attempt)));
        }
        assert_eq!(random_id().len(), 64);
    }
}
