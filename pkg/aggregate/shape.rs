//! The names that a type has for serde: what an enum's variants are called.

use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{self, Impossible, Serialize, Serializer};

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

/// The name of the variant that a value of an externally tagged enum is, as serde knows it.
///
/// Nothing is serialized: what is in the variant is not looked at.
pub(crate) fn variant_of<T: Serialize>(value: &T) -> Option<&'static str> {
    match value.serialize(Naming) {
        Err(Name::Variant(name)) => Some(name),
        Ok(()) | Err(Name::Other) => None,
    }
}

/// Takes note of the variant.
struct Naming;

#[derive(Debug)]
enum Name {
    Variant(&'static str),
    Other,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing is serialized here")
    }
}

impl std::error::Error for Name {}

impl ser::Error for Name {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }
}

/// Whatever is no variant has no name.
macro_rules! nameless {
    ($($method:ident($($kind:ty)?)),* $(,)?) => {
        $(fn $method(self, $(_: $kind)?) -> Result<(), Name> {
            Err(Name::Other)
        })*
    };
}

impl Serializer for Naming {
    type Ok = ();
    type Error = Name;
    type SerializeSeq = Impossible<(), Name>;
    type SerializeTuple = Impossible<(), Name>;
    type SerializeTupleStruct = Impossible<(), Name>;
    type SerializeTupleVariant = Impossible<(), Name>;
    type SerializeMap = Impossible<(), Name>;
    type SerializeStruct = Impossible<(), Name>;
    type SerializeStructVariant = Impossible<(), Name>;

    nameless! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32),
        serialize_i64(i64), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32),
        serialize_u64(u64), serialize_f32(f32), serialize_f64(f64), serialize_char(char),
        serialize_str(&str), serialize_bytes(&[u8]), serialize_none(), serialize_unit(),
        serialize_unit_struct(&'static str),
    }

    fn serialize_some<T: ?Sized + Serialize>(self, _: &T) -> Result<(), Name> {
        Err(Name::Other)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Name> {
        Err(Name::Variant(variant))
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Name> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: &T,
    ) -> Result<(), Name> {
        Err(Name::Variant(variant))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Name> {
        Err(Name::Other)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Name> {
        Err(Name::Other)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Name> {
        Err(Name::Other)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Name> {
        Err(Name::Variant(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Name> {
        Err(Name::Other)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Name> {
        Err(Name::Other)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Name> {
        Err(Name::Variant(variant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[allow(dead_code)]
    enum Plain {
        Opened {
            owner: String,
        },
        #[serde(rename = "MoneyDeposited")]
        Deposited(u32),
        Closed,
    }

    #[derive(Serialize, Deserialize)]
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
        let opened = Plain::Opened {
            owner: "Kim".into(),
        };
        assert_eq!(variant_of(&opened), Some("Opened"));
        assert_eq!(
            variant_of(&Wrapped(Plain::Deposited(5))),
            Some("MoneyDeposited")
        );
        assert_eq!(variant_of(&Plain::Closed), Some("Closed"));
    }

    #[test]
    fn what_is_no_externally_tagged_enum_has_none() {
        assert_eq!(variants_of::<Tagged>(), None);
        assert_eq!(variants_of::<String>(), None);
        assert_eq!(variants_of::<Option<Plain>>(), None);
        assert_eq!(variant_of(&"Opened"), None);
        assert_eq!(variant_of(&Some(Plain::Closed)), None);
    }
}
