//! How values become bytes, and bytes values again.

#[cfg(feature = "postcard")]
use std::fmt;

#[cfg(any(feature = "json", feature = "postcard"))]
use serde::{Serialize, de::DeserializeOwned};

use crate::error::BoxError;

/// How a value is written to Redis and read from it.
///
/// What cannot be read is no value, and is overwritten by the next one: raise the version of the [`CacheKey`](crate::cache::CacheKey) when
/// a new form would be read as something else. A panic is an error.
pub trait Codec<V>: Send + Sync + 'static {
    /// Adds the bytes of a value.
    ///
    /// # Errors
    ///
    /// A value that has no such form. It stays in this process.
    fn encode(&self, value: &V, bytes: &mut Vec<u8>) -> Result<(), BoxError>;

    /// Makes a value of its bytes, all of them.
    ///
    /// # Errors
    ///
    /// Bytes that are no value.
    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError>;
}

/// Values that are bytes: `Vec<u8>`, `Arc<[u8]>`, `bytes::Bytes`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

/// Values as JSON, with the feature `json`. A field that is missing or too much is the value's own to allow.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

/// Values in the form of postcard, with the feature `postcard`: small and quick. It has no names of fields, so another form is another version of the key.
#[cfg(feature = "postcard")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

/// Bytes were left that belong to no value.
#[cfg(feature = "postcard")]
#[derive(Debug)]
struct TooMany;

impl<V: AsRef<[u8]> + From<Vec<u8>>> Codec<V> for Bytes {
    fn encode(&self, value: &V, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        bytes.extend_from_slice(value.as_ref());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        Ok(bytes.to_vec().into())
    }
}

#[cfg(feature = "json")]
impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    fn encode(&self, value: &V, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(bytes, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

#[cfg(feature = "postcard")]
impl<V: Serialize + DeserializeOwned> Codec<V> for Postcard {
    fn encode(&self, value: &V, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        *bytes = postcard::to_extend(value, std::mem::take(bytes))?;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        match postcard::take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            _ => Err(TooMany.into()),
        }
    }
}

#[cfg(feature = "postcard")]
impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there are bytes behind the value")
    }
}

#[cfg(feature = "postcard")]
impl std::error::Error for TooMany {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn again<V>(codec: &impl Codec<V>, value: &V) -> V {
        let mut bytes = b"before".to_vec();
        codec.encode(value, &mut bytes).unwrap();
        assert!(bytes.starts_with(b"before"), "what is there stays");
        codec.decode(&bytes[6..]).unwrap()
    }

    proptest! {
        #[test]
        fn bytes_are_the_same_again(bytes in vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(&again(&Bytes, &bytes), &bytes);
            let shared: Arc<[u8]> = bytes.into();
            prop_assert_eq!(again(&Bytes, &shared), shared);
        }

        #[cfg(feature = "json")]
        #[test]
        fn json_is_the_same_again(value in (any::<u64>(), ".{0,9}", vec(any::<i8>(), 0..9))) {
            prop_assert_eq!(again(&Json, &value), value);
        }

        #[cfg(feature = "postcard")]
        #[test]
        fn postcard_is_the_same_again(value in (any::<u64>(), ".{0,9}", vec(any::<i8>(), 0..9))) {
            prop_assert_eq!(again(&Postcard, &value), value);
        }
    }

    #[cfg(all(feature = "json", feature = "postcard"))]
    #[test]
    fn what_stands_behind_a_value_is_no_part_of_it() {
        assert!(Codec::<u8>::decode(&Json, b"7").is_ok() && Codec::<u8>::decode(&Json, b"7 8").is_err());
        assert!(Codec::<u8>::decode(&Postcard, &[7]).is_ok() && Codec::<u8>::decode(&Postcard, &[7, 8]).is_err());
        assert!(Codec::<u8>::decode(&Postcard, &[]).is_err());
    }
}
