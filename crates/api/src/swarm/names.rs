//! Names for services that were created without one.

use rand::seq::IndexedRandom as _;

const QUALITIES: &[&str] = &[
    "amber", "bold", "brisk", "calm", "clever", "crisp", "dapper", "eager", "fleet", "gentle",
    "hardy", "jolly", "keen", "lively", "mellow", "nimble", "patient", "quick", "quiet", "ready",
    "sly", "steady", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "zesty",
];
const KEEPERS: &[&str] = &[
    "aristotle",
    "butler",
    "columella",
    "crane",
    "dzierzon",
    "frisch",
    "gould",
    "hruschka",
    "huber",
    "janscha",
    "karl",
    "langstroth",
    "lindauer",
    "miller",
    "nickel",
    "prokopovich",
    "quinby",
    "root",
    "schirach",
    "seeley",
    "swammerdam",
    "tew",
    "varro",
    "virgil",
    "warre",
    "winston",
    "worlidge",
    "zander",
    "zeidler",
    "zoubareff",
];

/// A quality and a bee-keeper.
pub(crate) fn random() -> String {
    let mut rng = rand::rng();
    let mut pick =
        |words: &[&'static str]| *words.choose(&mut rng).expect("the lists are not empty");
    format!("{}_{}", pick(QUALITIES), pick(KEEPERS))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_two_words_that_services_may_have() {
        let name = super::random();
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{name}"
        );
        assert_eq!(name.split('_').count(), 2);
    }
}
