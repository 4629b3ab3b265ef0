//! How an OpenAPI document is put into protobuf: messages as tables of their fields, and the wire format's few forms.

use coracle_api::json::Value;

/// What a field holds, in one version of OpenAPI.
pub(super) trait Holds: Copy + 'static {
    /// Appends a field with this number.
    fn put(self, out: &mut Vec<u8>, number: u32, value: &Value);
}

/// A message: its fields, and the number under which extensions (`x-…`) stand.
pub(super) struct Message<H: Holds> {
    /// The JSON name, the number, and what the field holds.
    pub fields: &'static [(&'static str, u32, H)],
    pub extensions: u32,
}

impl<H: Holds> Message<H> {
    /// The message of an object; what it has no field for is left out.
    pub fn encode(&self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(map) = value.as_object() else { return out };
        for (name, number, holds) in self.fields {
            if let Some(value) = map.get(name) {
                holds.put(&mut out, *number, value);
            }
        }
        for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            bytes(&mut out, self.extensions, &named(name, &any(value)));
        }
        out
    }
}

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(super) fn flag(out: &mut Vec<u8>, number: u32, value: bool) {
    varint(out, u64::from(number) << 3);
    out.push(u8::from(value));
}

/// The texts of a list.
pub(super) fn texts(out: &mut Vec<u8>, number: u32, value: &Value) {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).for_each(|text| bytes(out, number, text.as_bytes()));
}

pub(super) fn wrap(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 6);
    bytes(&mut out, number, value);
    out
}

pub(super) fn any(value: &Value) -> Vec<u8> {
    // JSON is YAML.
    wrap(2, format!("{value}\n").as_bytes())
}

pub(super) fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = wrap(1, name.as_bytes());
    bytes(&mut out, 2, value);
    out
}

/// A map: repeated messages of a name and a value, each under `number`.
pub(super) fn map(number: u32, value: &Value, make: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut inner = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        bytes(&mut inner, number, &named(name, &make(value)));
    }
    inner
}
