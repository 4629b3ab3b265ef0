//! What the client wants to be answered with.

use super::{pretty, protobuf};
use coracle_api::Status;
use http::{HeaderMap, HeaderValue, header};

/// What an answer's objects look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    #[default]
    Object,
    /// Table of meta.k8s.io
    Table,
    /// PartialObjectMetadata of meta.k8s.io
    Partial,
    /// PartialObjectMetadataList of meta.k8s.io
    Partials,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// The negotiated answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    pub shape: Shape,
    pub format: Format,
    /// JSON is laid out for people.
    pub pretty: bool,
    /// The version of what is neither the object nor its list.
    pub meta: Meta,
}

/// A version of meta.k8s.io; both are the same but for their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Meta {
    #[default]
    V1,
    V1beta1,
}

impl Meta {
    /// As objects say it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What decides which clause comes first.
#[derive(Clone, Copy)]
struct Rank {
    /// In thousandths.
    quality: u32,
    wildcards: u8,
}

impl Rank {
    fn is_before(self, other: Self) -> bool {
        self.quality > other.quality || self.wildcards < other.wildcards
    }
}

/// One of the things that a client takes.
pub struct Clause<'h> {
    /// `application/json`, `*/*`
    pub range: &'h str,
    pub kind: &'h str,
    pub group: &'h str,
    pub version: &'h str,
    pub pretty: bool,
    rank: Rank,
}

impl<'h> Clause<'h> {
    fn read(text: &'h str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let range = parts.next()?;
        let wildcards = u8::from(range.starts_with("*/")) + u8::from(range.ends_with("/*"));
        let rank = Rank { quality: 1000, wildcards };
        let mut clause = Self { range, kind: "", group: "", version: "", pretty: false, rank };
        for part in parts {
            match part.split_once('=')? {
                ("as", value) => clause.kind = value,
                ("g", value) => clause.group = value,
                ("v", value) => clause.version = value,
                ("pretty", value) => clause.pretty = value == "1",
                ("q", value) => clause.rank.quality = (value.parse::<f32>().ok()?.clamp(0.0, 1.0) * 1000.0) as u32,
                _ => {}
            }
        }
        Some(clause)
    }
}

/// Whether a client does not say what it takes.
pub fn is_silent(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().all(|value| value.to_str().map_or(true, |value| value.trim().is_empty()))
}

/// What the first clause of the Accept header comes to that comes to anything.
pub fn first<T>(headers: &HeaderMap, read: impl Fn(&Clause<'_>) -> Option<T>) -> Option<T> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut taken: Vec<(Rank, T)> = Vec::new();
    for clause in values.flat_map(|value| value.split(',')).filter_map(Clause::read) {
        let Some(answer) = read(&clause) else { continue };
        // A better quality comes first, and so does what is more exact, whichever of the two is seen first: that is no order
        // that could be sorted by, so the clauses are put in as Go's sort does with a few (goautoneg, `Less`).
        let behind = taken.iter().rposition(|known| !clause.rank.is_before(known.0)).map_or(0, |at| at + 1);
        taken.insert(behind, (clause.rank, answer));
    }
    taken.into_iter().next().map(|(_, answer)| answer)
}

/// What the server can write.
pub const OFFERED: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

impl Accept {
    /// `protobuf`: tells whether what is asked for has a protobuf form. Takes the first clause of the Accept header that the server can
    /// satisfy, in the order of their qualities, what is exact before what is not (apiserver `endpoints/handlers/negotiation`).
    ///
    /// # Errors
    /// 406 when there is none.
    pub fn negotiate(headers: &HeaderMap, protobuf: impl Fn() -> bool) -> Result<Self, Status> {
        if headers.get(header::ACCEPT).is_none_or(|first| first == OFFERED[0]) {
            // What most clients say: nothing can come before it.
            return Ok(Self::default());
        }
        if is_silent(headers) {
            return Ok(Self::default());
        }
        // The list names what servers write of any resource.
        first(headers, |clause| Self::of(clause, &protobuf)).ok_or_else(|| Status::not_acceptable(&OFFERED))
    }

    fn of(clause: &Clause<'_>, protobuf: impl Fn() -> bool) -> Option<Self> {
        let format = match clause.range {
            "*/*" | "application/*" | "application/json" => Format::Json,
            "application/yaml" => Format::Yaml,
            protobuf::MEDIA_TYPE => Format::Protobuf,
            _ => return None,
        };
        let shape = match (clause.kind, clause.group) {
            ("", _) => Shape::Object,
            ("Table", "meta.k8s.io") => Shape::Table,
            ("PartialObjectMetadata", "meta.k8s.io") => Shape::Partial,
            ("PartialObjectMetadataList", "meta.k8s.io") => Shape::Partials,
            _ => return None,
        };
        let meta = match clause.version {
            "v1beta1" => Meta::V1beta1,
            "v1" => Meta::V1,
            _ if shape == Shape::Object => Meta::V1,
            _ => return None,
        };
        // Tables have no protobuf form; metadata has one, whatever it is of.
        if format == Format::Protobuf && (shape == Shape::Table || shape == Shape::Object && !protobuf()) {
            return None;
        }
        Some(Self { shape, format, pretty: clause.pretty, meta })
    }

    /// The same, laid out for people if a request wants that.
    pub fn laid_out(self, query: Option<&str>, headers: &HeaderMap) -> Self {
        Self { pretty: self.pretty || pretty::is_wanted(query, headers), ..self }
    }

    /// The answer's content type.
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => protobuf::MEDIA_TYPE,
        })
    }

    /// A stream's content type: frames are JSON or protobuf, never YAML.
    pub fn stream_type(&self) -> HeaderValue {
        HeaderValue::from_static(match self.format {
            Format::Json | Format::Yaml => "application/json",
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        })
    }
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && parameters.trim().trim_start_matches("q=").trim() != "0"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept: &str) -> Result<Accept, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Accept::negotiate(&headers, || true).map_err(|status| status.code)
    }

    #[test]
    fn the_first_clause_that_can_be_satisfied() {
        let of = |shape, format| Ok(Accept { shape, format, ..Accept::default() });
        let rows = [
            ("", of(Shape::Object, Format::Json)),
            ("*/*", of(Shape::Object, Format::Json)),
            ("application/vnd.kubernetes.protobuf,application/json", of(Shape::Object, Format::Protobuf)),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                of(Shape::Object, Format::Json),
            ),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", of(Shape::Table, Format::Json)),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json",
                of(Shape::Table, Format::Json).map(|accept| Accept { meta: Meta::V1beta1, ..accept }),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io, application/json", of(Shape::Object, Format::Json)),
            ("application/json;as=Table;v=v1;g=x", Err(406)),
            ("application/json;q=0.1,application/yaml", of(Shape::Object, Format::Yaml)),
            ("*/*, application/yaml", of(Shape::Object, Format::Yaml)),
            ("application/*, application/yaml", of(Shape::Object, Format::Yaml)),
            // As upstream has it.
            ("application/yaml;q=0.5, */*", of(Shape::Object, Format::Json)),
            ("*/*, application/yaml;q=0.5", of(Shape::Object, Format::Yaml)),
            (
                "application/json;pretty=1",
                of(Shape::Object, Format::Json).map(|accept| Accept { pretty: true, ..accept }),
            ),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", of(Shape::Partials, Format::Json)),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", Err(406)),
            ("application/cbor", Err(406)),
            ("text/html", Err(406)),
        ];
        for (accept, expected) in rows {
            assert_eq!(negotiate(accept), expected, "{accept}");
        }
    }
}
