//! The deserializer behind [`super::from_slice`].

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor, value::StringDeserializer,
};
use serde_json::{Map, Value};

/// A JSON value to be read with Go's rules.
pub(crate) struct Go(pub(crate) Value);

/// A mismatch, with the way to the field it happened in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    kind: Kind,
    /// From the innermost key outwards.
    path: Vec<String>,
    /// The outermost structure's name.
    root: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Mismatch { found: String, wanted: &'static str },
    Custom(String),
}

impl Error {
    fn mismatch(found: &Value, wanted: &'static str) -> Self {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if wanted.contains("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        Self {
            kind: Kind::Mismatch { found, wanted },
            path: Vec::new(),
            root: None,
        }
    }

    fn inside(mut self, key: &str) -> Self {
        self.path.push(key.to_owned());
        self
    }

    fn of(mut self, root: &'static str) -> Self {
        self.root = Some(root);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<_> = self.path.iter().rev().map(String::as_str).collect();
        match &self.kind {
            Kind::Mismatch { found, wanted } if path.is_empty() => {
                write!(
                    f,
                    "json: cannot unmarshal {found} into Go value of type {wanted}"
                )
            }
            Kind::Mismatch { found, wanted } => write!(
                f,
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}",
                self.root.unwrap_or("value"),
                path.join(".")
            ),
            Kind::Custom(text) if path.is_empty() => f.write_str(text),
            Kind::Custom(text) => write!(f, "{}: {text}", path.join(".")),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self {
            kind: Kind::Custom(text.to_string()),
            path: Vec::new(),
            root: None,
        }
    }
}

macro_rules! integers {
    ($($method:ident $type:ident $wanted:literal),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = match &self.0 {
                Value::Null => Some(0),
                Value::Number(number) => number
                    .as_i64()
                    .and_then(|n| $type::try_from(n).ok())
                    .or_else(|| number.as_u64().and_then(|n| $type::try_from(n).ok())),
                _ => None,
            };
            let number = number.ok_or_else(|| Error::mismatch(&self.0, $wanted))?;
            number.into_deserializer().$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Go {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or_default())
                }
            }
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(map) => visitor.visit_map(Fields::new(map, &[])),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(value),
            other => Err(Error::mismatch(&other, "bool")),
        }
    }

    integers! {
        deserialize_i8 i8 "int8", deserialize_i16 i16 "int16", deserialize_i32 i32 "int32",
        deserialize_i64 i64 "int64", deserialize_u8 u8 "uint8", deserialize_u16 u16 "uint16",
        deserialize_u32 u32 "uint32", deserialize_u64 u64 "uint64",
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0 {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(number) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            other => Err(Error::mismatch(other, "float64")),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            Value::String(text) => visitor.visit_string(text),
            other => Err(Error::mismatch(&other, "string")),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items(Vec::new().into_iter())),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            other => Err(Error::mismatch(&other, "[]string")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Fields::new(Map::new(), &[])),
            Value::Object(map) => visitor.visit_map(Fields::new(map, &[])),
            other => Err(Error::mismatch(&other, "map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Fields::new(Map::new(), fields)),
            Value::Object(map) => visitor.visit_map(Fields::new(map, fields)),
            other => Err(Error::mismatch(&other, name)),
        }
        .map_err(|error| error.of(name))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_enum(Variant(String::new())),
            Value::String(text) => visitor.visit_enum(Variant(text)),
            other => Err(Error::mismatch(&other, "string")),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .next()
            .map(|value| seed.deserialize(Go(value)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// An object's members; for a structure with its own spelling of the keys.
struct Fields {
    members: serde_json::map::IntoIter,
    names: &'static [&'static str],
    value: Option<(String, Value)>,
}

impl Fields {
    fn new(map: Map<String, Value>, names: &'static [&'static str]) -> Self {
        Self {
            members: with_exact_names(map, names).into_iter(),
            names,
            value: None,
        }
    }
}

/// Respells keys that differ only in case. Where both spellings are there the later one wins, as
/// in Go; a structure must not see one key twice.
fn with_exact_names(map: Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    let mut exact = Map::with_capacity(map.len());
    for (key, value) in map {
        let name = names
            .iter()
            .find(|name| **name == key)
            .or_else(|| names.iter().find(|name| name.eq_ignore_ascii_case(&key)));
        exact.insert(name.map_or(key, |name| (*name).to_owned()), value);
    }
    exact
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.members.next() else {
            return Ok(None);
        };
        self.value = Some((key.clone(), value));
        let key: StringDeserializer<Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = self
            .value
            .take()
            .expect("serde asks for a value after its key");
        seed.deserialize(Go(value))
            .map_err(|error| error.inside(&key))
    }

    fn size_hint(&self) -> Option<usize> {
        // Structures count their own fields; a map may reserve.
        if self.names.is_empty() {
            Some(self.members.len())
        } else {
            None
        }
    }
}

struct Variant(String);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, UnitOnly), Error> {
        let name: StringDeserializer<Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, UnitOnly))
    }
}

/// Docker's enumerations are plain texts.
struct UnitOnly;

impl<'de> VariantAccess<'de> for UnitOnly {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(serde::de::Error::custom("not a plain text"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("not a plain text"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("not a plain text"))
    }
}
