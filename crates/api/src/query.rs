//! Query parameters, read as Go's `url.Values` and Docker's `httputils` read them.

use crate::error::{ApiError, ApiResult};

/// The parameters in the order given; a key may repeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the part behind the question mark.
    pub(crate) fn parse(raw: Option<&str>) -> ApiResult<Self> {
        let pairs = serde_urlencoded::from_str(raw.unwrap_or_default())
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        Ok(Self(pairs))
    }

    /// The first value, or nothing as an empty text, as Go's `Get` has it.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }

    /// All values of a key.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Whether the key is there, even without a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// The value unless it is empty.
    pub(crate) fn some(&self, key: &str) -> Option<String> {
        Some(self.get(key))
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    }

    /// Docker's lenient truth: anything but a few words is true.
    pub(crate) fn bool(&self, key: &str) -> bool {
        !matches!(
            self.get(key).trim().to_lowercase().as_str(),
            "" | "0" | "no" | "false" | "none"
        )
    }

    /// The same with a default for a missing key.
    pub(crate) fn bool_or(&self, key: &str, default: bool) -> bool {
        if self.has(key) {
            self.bool(key)
        } else {
            default
        }
    }

    /// Go's strict `ParseBool`, for the parameters that Docker reads with it. Missing is false.
    pub(crate) fn strict_bool(&self, key: &str) -> Result<bool, String> {
        match self.get(key) {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            other => Err(other.to_owned()),
        }
    }

    /// A whole number as Go's `Atoi` reads it, with its error text; missing is nothing.
    pub(crate) fn int(&self, key: &str) -> ApiResult<Option<i64>> {
        let text = self.get(key);
        if text.is_empty() {
            return Ok(None);
        }
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let syntax = digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit());
        let reason = if syntax {
            "invalid syntax"
        } else {
            "value out of range"
        };
        text.parse().map(Some).map_err(|_| {
            ApiError::invalid(format!(
                "strconv.Atoi: parsing {}: {reason}",
                go_quote(text)
            ))
        })
    }

    /// An unsigned 32-bit number that must be there, with Go's bare reasons as errors.
    pub(crate) fn uint32(&self, key: &str) -> Result<u32, &'static str> {
        let text = self.get(key);
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err("invalid syntax");
        }
        text.parse().map_err(|_| "value out of range")
    }

    /// The `version` of a swarm object that an update is based on.
    pub(crate) fn object_version(&self) -> Result<u64, String> {
        let text = self.get("version");
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!(
                "strconv.ParseUint: parsing {}: invalid syntax",
                go_quote(text)
            ));
        }
        text.parse().map_err(|_| {
            format!(
                "strconv.ParseUint: parsing {}: value out of range",
                go_quote(text)
            )
        })
    }
}

/// A text in quotes as Go's `%q` prints it.
pub(crate) fn go_quote(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_few_words_are_false() {
        let query = Query::parse(Some("a=0&b=no&c=False&d=none&e=&f&g=1&h=yes&i=2")).unwrap();
        for key in ["a", "b", "c", "d", "e", "f", "missing"] {
            assert!(!query.bool(key), "{key}");
        }
        for key in ["g", "h", "i"] {
            assert!(query.bool(key), "{key}");
        }
        assert!(query.bool_or("missing", true));
        assert!(!query.bool_or("f", true));
    }

    #[test]
    fn numbers_fail_with_gos_texts() {
        let query = Query::parse(Some("t=x&u=-3&v=99999999999&h=-1&w=40")).unwrap();
        assert_eq!(
            query.int("t").unwrap_err().message,
            "strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(query.int("u").unwrap(), Some(-3));
        assert_eq!(query.int("missing").unwrap(), None);
        assert_eq!(query.uint32("v"), Err("value out of range"));
        assert_eq!(query.uint32("h"), Err("value out of range"));
        assert_eq!(query.uint32("t"), Err("invalid syntax"));
        assert_eq!(query.uint32("w"), Ok(40));
    }

    #[test]
    fn plus_is_a_space_and_keys_repeat() {
        let query = Query::parse(Some("names=a%2Fb&names=c+d")).unwrap();
        assert_eq!(query.all("names"), ["a/b", "c d"]);
    }
}
