//! The names that a type has for serde: what an enum's variants are called.

use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The names of an enum's variants as serde knows them, renames included; `None` for a type that is no
/// enum, or one that is tagged in another way than externally (serde's default).
///
/// Nothing is deserialized: the type is asked for what it expects and refused it.
pub(crate) fn variants_of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    match T::deserialize(Asking) {
        Err(Answer::Variants(names)) => Some(names),
        Ok(_) | Err(Answer::Other) => None,
    }
}

/// Takes note of what is asked for.
struct Asking;

#[derive(Debug)]
enum Answer {
    Variants(&'static [&'static str]),
    Other,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing is deserialized here")
    }
}

impl std::error::Error for Answer {}

impl de::Error for Answer {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }
}

impl<'de> Deserializer<'de> for Asking {
    type Error = Answer;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Answer> {
        Err(Answer::Other)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Answer> {
        Err(Answer::Variants(variants))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Answer> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Plain {
        Opened { owner: String },
        #[serde(rename = "MoneyDeposited")]
        Deposited(u32),
        Closed,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Wrapped(Plain);

    #[derive(Deserialize)]
    #[serde(tag = "type")]
    #[allow(dead_code)]
    enum Tagged {
        Opened { owner: String },
    }

    #[test]
    fn variants_have_their_serde_names() {
        let names: &[&str] = &["Opened", "MoneyDeposited", "Closed"];
        assert_eq!(variants_of::<Plain>(), Some(names));
        assert_eq!(variants_of::<Wrapped>(), Some(names));
    }

    #[test]
    fn what_is_no_externally_tagged_enum_has_none() {
        assert_eq!(variants_of::<Tagged>(), None);
        assert_eq!(variants_of::<String>(), None);
        assert_eq!(variants_of::<Option<Plain>>(), None);
    }
}
