//! How rules write durations: `1s 500ms`; a bare number is seconds.

pub(super) mod duration {
    use std::time::Duration;

    use jiff::SignedDuration;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(f64),
        Text(String),
    }

    pub(in crate::rule) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let time = SignedDuration::try_from(*time).unwrap_or(SignedDuration::MAX);
        serializer.serialize_str(&format!("{time:#}"))
    }

    pub(in crate::rule) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map_err(D::Error::custom),
            Written::Text(text) => {
                let time: SignedDuration = text.parse().map_err(D::Error::custom)?;
                Duration::try_from(time).map_err(|_| D::Error::custom("a duration must not be negative"))
            }
        }
    }
}
