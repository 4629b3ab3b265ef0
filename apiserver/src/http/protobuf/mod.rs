//! Bodies and answers in `application/vnd.kubernetes.protobuf`, which Go clients speak.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown`: type, raw object, encoding (apimachinery
//! `runtime/serializer/protobuf`). The object is turned into the JSON document it stands for, and goes on as any other.
//!
//! Go writes fields that are not pointers even when they are zero, so a zero says nothing unless the field is a pointer, or one
//! that Go writes in JSON too: the table of numbers tells which.

mod discovery;
mod encode;
mod numbers;

pub use discovery::aggregated;
pub use encode::{encode, encode_as, envelope, envelope_head, frame, is_offered, length_of, list_meta, message};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::clock::{rfc3339, rfc3339_micro};
use coracle_api::json::{Map, Value};
use coracle_api::schema::{self, Field, Kind, Scalar, TypeRef, ValueRef};
use coracle_api::{Gvk, Status};
use jiff::Timestamp;
use numbers::{Either, NUMBERS, Numbers};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// How deep structures may nest; upstream's deepest type is JSONSchemaProps, which has no bound.
const MAX_DEPTH: usize = 64;

/// Second 0 of year 1: Go's zero time.
const ZERO_TIME: i64 = -62_135_596_800;

/// What is wrong with a body.
#[derive(Debug, PartialEq, Eq)]
struct Malformed(&'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// Reads a body: the kind it says it is, and the document.
///
/// # Errors
/// 400 for what is no such body, 415 for a type that has no field numbers.
pub fn decode(body: &[u8], expected: &Gvk) -> std::result::Result<Value, Status> {
    let wrong = |Malformed(why): Malformed| Status::bad_request(format!("unable to decode protobuf: {why}"));
    let unknown = body
        .strip_prefix(MAGIC)
        .ok_or(Malformed("provided data does not appear to be a protobuf message, expected prefix k8s\\0"))
        .map_err(wrong)?;
    let (version, kind, raw) = open_envelope(unknown).map_err(wrong)?;
    let gvk = if kind.is_empty() {
        expected.clone()
    } else {
        Gvk::parse(&version, &kind).unwrap_or_else(|| expected.clone())
    };
    let ty = schema::of(&gvk)
        .ok_or_else(|| Status::bad_request(format!("no kind {kind:?} is registered for version {version:?}")))?;
    let mut object = Map::new();
    object.insert("kind", gvk.kind.to_string().into());
    object.insert("apiVersion", gvk.api_version().into());
    structure(raw, ty, &mut object, 0).map_err(wrong)?;
    Ok(Value::Object(object))
}

/// apiVersion, kind and the object's bytes.
fn open_envelope(bytes: &[u8]) -> Result<(String, String, &[u8])> {
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &bytes[..0]);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(Malformed("encoded objects are not supported"));
            }
            _ => {}
        }
    }
    Ok((version, kind, raw))
}

/// One value on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, as they come.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Wire<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(
                self.take(8)?.try_into().map_err(|_| Malformed("a number is cut short"))?,
            )),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed("a length is too large"))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(
                self.take(4)?.try_into().map_err(|_| Malformed("a number is cut short"))?,
            )),
            _ => return Err(Malformed("an unknown wire type")),
        };
        Ok((key >> 3, value))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed("a number is cut short"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.0.len() {
            return Err(Malformed("the message is cut short"));
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }
}

fn utf8(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("text is not UTF-8"))
}

/// A message of a type, into its JSON fields.
fn structure(bytes: &[u8], ty: TypeRef<'static>, object: &mut Map, depth: usize) -> Result<()> {
    match NUMBERS.get(ty.full_name()) {
        Some(numbers) => fields(bytes, numbers, ty, object, depth),
        // A type without fields.
        None if bytes.is_empty() => Ok(()),
        None => Err(Malformed("a type without field numbers")),
    }
}

fn fields(bytes: &[u8], numbers: &Numbers, ty: TypeRef<'static>, object: &mut Map, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Malformed("nested too deeply"));
    }
    for field in Fields(bytes) {
        let (number, wire) = field?;
        if let (Some(inner), Wire::Bytes(bytes)) = (numbers.embedded.get(&number), wire) {
            fields(bytes, inner, ty, object, depth + 1)?;
            continue;
        }
        // What this version does not know is dropped, as protobuf has it.
        let Some(numbered) = numbers.fields.get(&number) else { continue };
        let Some(field) = ty.field(numbered.name) else { continue };
        match numbered.either {
            Some(form) => add_either(object, field, wire, form, ty, depth)?,
            None => add(object, field, wire, numbered.zero, depth)?,
        }
    }
    Ok(())
}

/// Adds one occurrence of a field, of which a zero may count.
fn add(object: &mut Map, field: Field<'static>, wire: Wire, zero: bool, depth: usize) -> Result<()> {
    let name = field.name();
    match field.value().kind() {
        Kind::List(item) => {
            let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Err(Malformed("a list that is none")) };
            list.push(self::value(wire, item, depth + 1)?.unwrap_or_else(|| zero_of(item)));
        }
        Kind::Map(item) => {
            let (key, found) = entry(wire)?;
            let found = found.map(|wire| value(wire, item, depth + 1)).transpose()?.flatten();
            map_of(object, name)?.insert(key, found.unwrap_or_else(|| zero_of(item)));
        }
        kind => {
            if let Some(found) = value(wire, field.value(), depth + 1)?
                && (zero || !says_nothing(&found, kind))
            {
                object.insert(name.to_owned(), found);
            }
        }
    }
    Ok(())
}

/// Whether a value is a zero. What is a number or a name is a pointer nearly everywhere (`maxUnavailable: 0`), and where it is
/// none, Go's JSON shows its zero too.
fn says_nothing(found: &Value, kind: Kind<'_>) -> bool {
    match (kind, found) {
        (Kind::Scalar(Scalar::Any | Scalar::RawObject | Scalar::IntOrString), _) => false,
        (_, Value::String(text)) => text.is_empty(),
        (_, Value::Bool(is)) => !is,
        (_, Value::Number(number)) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

/// Adds one occurrence of a field that may be one of two things.
fn add_either(
    object: &mut Map,
    field: Field<'static>,
    wire: Wire,
    form: Either,
    schema: TypeRef<'static>,
    depth: usize,
) -> Result<()> {
    if let Kind::Map(_) = field.value().kind() {
        let (key, found) = entry(wire)?;
        let found = found.map(|wire| either(wire, form, schema, depth + 1)).transpose()?;
        map_of(object, field.name())?.insert(key, found.unwrap_or(Value::Null));
    } else {
        object.insert(field.name().to_owned(), either(wire, form, schema, depth + 1)?);
    }
    Ok(())
}

fn either(wire: Wire, form: Either, schema: TypeRef<'static>, depth: usize) -> Result<Value> {
    let Wire::Bytes(bytes) = wire else { return Err(Malformed("a field has another type than it should")) };
    let (mut single, mut list, mut is) = (None, Vec::new(), false);
    for field in Fields(bytes) {
        match (field?, form) {
            ((1, wire), Either::Schemas | Either::Strings) | ((2, wire), Either::Bool) => {
                single = value(wire, schema.value(), depth + 1)?;
            }
            ((2, wire), Either::Schemas) => list.extend(value(wire, schema.value(), depth + 1)?),
            ((2, Wire::Bytes(text)), Either::Strings) => list.push(utf8(text)?.into()),
            ((1, Wire::Varint(number)), Either::Bool) => is = number != 0,
            _ => {}
        }
    }
    Ok(match (single, form) {
        _ if !list.is_empty() => Value::Array(list),
        (Some(schema), _) => schema,
        (None, Either::Bool) => is.into(),
        (None, _) => Value::Null,
    })
}

/// Key and value of a map's entry.
fn entry(wire: Wire<'_>) -> Result<(String, Option<Wire<'_>>)> {
    let Wire::Bytes(entry) = wire else { return Err(Malformed("a map's entry is no message")) };
    let (mut key, mut found) = (String::new(), None);
    for field in Fields(entry) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => found = Some(wire),
            _ => {}
        }
    }
    Ok((key, found))
}

/// The map that a field holds, or will.
fn map_of<'o>(object: &'o mut Map, name: &str) -> Result<&'o mut Map> {
    let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
    map.as_object_mut().ok_or(Malformed("a map that is none"))
}

/// What an entry without a value stands for.
fn zero_of(value: ValueRef<'static>) -> Value {
    match value.kind() {
        Kind::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Number) => 0.into(),
        Kind::Scalar(Scalar::Bool) => false.into(),
        Kind::Scalar(Scalar::Any | Scalar::RawObject) => Value::Null,
        Kind::Scalar(_) => "".into(),
        Kind::List(_) => Value::Array(Vec::new()),
        Kind::Object(_) | Kind::Map(_) => Value::Object(Map::new()),
    }
}

/// A single value; None for one that stands for nothing, as a zero time.
fn value(wire: Wire, value: ValueRef<'static>, depth: usize) -> Result<Option<Value>> {
    match (value.kind(), wire) {
        (Kind::Object(ty), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            structure(bytes, ty, &mut object, depth)?;
            Ok(Some(Value::Object(object)))
        }
        // A list inside a map or list is a message with one repeated field (ExtraValue, Verbs).
        (Kind::List(item), Wire::Bytes(bytes)) => {
            let mut list = Vec::new();
            for field in Fields(bytes) {
                if let (1, wire) = field? {
                    list.push(self::value(wire, item, depth + 1)?.unwrap_or_else(|| zero_of(item)));
                }
            }
            Ok(Some(Value::Array(list)))
        }
        (Kind::Scalar(scalar), wire) => self::scalar(wire, scalar),
        _ => Err(Malformed("a field has another type than it should")),
    }
}

fn scalar(wire: Wire, scalar: Scalar) -> Result<Option<Value>> {
    // Signed numbers are written in two's complement.
    Ok(Some(match (scalar, wire) {
        (Scalar::String, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (Scalar::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Scalar::Bool, Wire::Varint(number)) => (number != 0).into(),
        (Scalar::Int32 | Scalar::Int64 | Scalar::Number, Wire::Varint(number)) => number.cast_signed().into(),
        (Scalar::Number, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Scalar::Number, Wire::Fixed32(bits)) => f64::from(f32::from_bits(bits)).into(),
        (Scalar::Quantity, Wire::Bytes(bytes)) => match member(bytes, 1)? {
            Some(Wire::Bytes(text)) => utf8(text)?.into(),
            _ => return Ok(None),
        },
        (Scalar::IntOrString, Wire::Bytes(bytes)) => match (member(bytes, 1)?, member(bytes, 2)?, member(bytes, 3)?) {
            (Some(Wire::Varint(1)), _, Some(Wire::Bytes(text))) => utf8(text)?.into(),
            (_, Some(Wire::Varint(number)), _) => number.cast_signed().into(),
            _ => 0.into(),
        },
        (Scalar::Time | Scalar::MicroTime, Wire::Bytes(bytes)) => return time(bytes, scalar == Scalar::MicroTime),
        (Scalar::Any | Scalar::RawObject, Wire::Bytes(bytes)) => match member(bytes, 1)? {
            Some(Wire::Bytes(json)) if !json.is_empty() => {
                serde_json::from_slice(json).map_err(|_| Malformed("embedded JSON is broken"))?
            }
            _ => return Ok(None),
        },
        _ => return Err(Malformed("a field has another type than it should")),
    }))
}

/// The last occurrence of a field.
fn member(bytes: &[u8], number: u64) -> Result<Option<Wire<'_>>> {
    let mut found = None;
    for field in Fields(bytes) {
        let (at, wire) = field?;
        if at == number {
            found = Some(wire);
        }
    }
    Ok(found)
}

fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>> {
    let number = |wire: Option<Wire>| match wire {
        Some(Wire::Varint(number)) => number.cast_signed(),
        _ => 0,
    };
    let seconds = number(member(bytes, 1)?);
    let nanos = i32::try_from(number(member(bytes, 2)?)).unwrap_or(0);
    if seconds == ZERO_TIME || bytes.is_empty() {
        return Ok(None);
    }
    let time =
        Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|_| Malformed("a time is out of range"))?;
    Ok(Some(if micro { rfc3339_micro(time) } else { rfc3339(time) }.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    /// A field of bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
    }

    fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn a_secret_and_an_embedded_source() {
        let secret = Gvk::of("", "v1", "Secret");
        let metadata = [field(1, b"a"), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &metadata), field(2, &entry), field(3, b"")].concat();
        let object = decode(&body("v1", "Secret", &raw), &secret).unwrap();
        assert_eq!(
            object,
            json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "dg=="}})
        );

        let host_path = field(1, b"/x");
        let volume = [field(1, b"v"), field(2, &field(1, &host_path))].concat();
        let raw = field(2, &field(1, &volume));
        let pod = decode(&body("v1", "Pod", &raw), &Gvk::of("", "v1", "Pod")).unwrap();
        assert_eq!(pod["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/x"}}]));
    }

    #[test]
    fn zeros_count_only_in_pointers() {
        // spec.replicas = 0, spec.minReadySeconds = 0
        let raw = field(2, &[1 << 3, 0, 5 << 3, 0]);
        let object = decode(&body("apps/v1", "Deployment", &raw), &Gvk::of("apps", "v1", "Deployment")).unwrap();
        assert_eq!(object["spec"], json!({"replicas": 0}));
    }

    /// The document that a message of a kind stands for, without kind and apiVersion.
    fn read(group: &'static str, version: &'static str, kind: &'static str, raw: &[u8]) -> Value {
        let gvk = Gvk::of(group, version, kind);
        let mut object = decode(&body(&gvk.api_version(), kind, raw), &gvk).unwrap();
        for known in ["apiVersion", "kind"] {
            object.as_object_mut().unwrap().remove(known);
        }
        object
    }

    /// The tags of k8s.io/api v1.36: a pointer or a field without `omitempty` keeps its zero, in one type and not in the next.
    #[test]
    fn zeros_count_by_type() {
        let zero = |number: u8| vec![number << 3, 0];
        // PriorityClass.value has no omitempty; globalDefault has.
        let class = [zero(2), zero(3)].concat();
        assert_eq!(read("scheduling.k8s.io", "v1", "PriorityClass", &class), json!({"value": 0}));
        // All numbers of the status of a PodDisruptionBudget but observedGeneration.
        let status = [zero(1), zero(3), zero(4), zero(5), zero(6)].concat();
        assert_eq!(
            read("policy", "v1", "PodDisruptionBudget", &field(3, &status))["status"],
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
        );
        // Lease.spec.holderIdentity is a pointer to text: given up, not unknown.
        assert_eq!(
            read("coordination.k8s.io", "v1", "Lease", &field(2, &field(1, b"")))["spec"],
            json!({"holderIdentity": ""})
        );
        // spec.replicas of an autoscaling Scale is no pointer, its status.replicas shows always.
        let scale = [field(2, &zero(1)), field(3, &zero(1))].concat();
        assert_eq!(read("autoscaling", "v1", "Scale", &scale), json!({"spec": {}, "status": {"replicas": 0}}));
        // spec.replicas of a Deployment is one, its status.replicas is not shown.
        let deployment = [field(2, &zero(1)), field(3, &zero(2))].concat();
        assert_eq!(read("apps", "v1", "Deployment", &deployment), json!({"spec": {"replicas": 0}, "status": {}}));
        // An attribute of a device that is false, and one that is 0.
        let attribute = |name: &[u8], zero: Vec<u8>| field(2, &[field(1, name), field(2, &zero)].concat());
        let device = [field(1, b"d"), attribute(b"on", zero(3)), attribute(b"slot", zero(2))].concat();
        assert_eq!(
            read("resource.k8s.io", "v1", "ResourceSlice", &field(2, &field(6, &device)))["spec"]["devices"],
            json!([{"name": "d", "attributes": {"on": {"bool": false}, "slot": {"int": 0}}}])
        );
    }

    /// What the digest of an image volume is told in: numbers of v1.36.
    #[test]
    fn the_status_of_an_image_volume() {
        let mount = [field(1, b"v"), field(5, &field(1, &field(1, b"sha256:1")))].concat();
        let status = field(8, &[field(1, b"c"), field(12, &mount)].concat());
        assert_eq!(
            read("", "v1", "Pod", &field(3, &status))["status"]["containerStatuses"][0]["volumeMounts"],
            json!([{"name": "v", "volumeStatus": {"image": {"imageRef": "sha256:1"}}}])
        );
    }

    #[test]
    fn broken_bodies_are_refused() {
        let gvk = Gvk::of("", "v1", "Pod");
        let good = body("v1", "Pod", &field(2, &field(1, &field(1, b"v"))));
        assert!(decode(&good, &gvk).is_ok());
        for cut in 0..good.len() {
            let _ = decode(&good[..cut], &gvk);
        }
        for broken in [&b""[..], b"k8s", b"k8s\0\xff", b"k8s\0\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"{}"] {
            assert_eq!(decode(broken, &gvk).map_err(|status| status.code).unwrap_err(), 400, "{broken:?}");
        }
        assert_eq!(decode(&body("v9", "Pod", b""), &gvk).unwrap_err().code, 400);
    }
}
