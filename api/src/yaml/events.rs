//! The events of a document, from libyaml's reader, of which Go's is a translation: the same grammar, and the same words.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use libyaml_rs::{
    yaml_encoding_t, yaml_error_type_t, yaml_event_delete, yaml_event_t, yaml_event_type_t, yaml_parser_delete,
    yaml_parser_initialize, yaml_parser_parse, yaml_parser_set_encoding, yaml_parser_set_input_string, yaml_parser_t,
};

use super::Error;

/// What comes next.
#[derive(Debug)]
pub(super) enum Event {
    /// The document or the text begins, or a document ends.
    Mark,
    /// No document is left.
    End,
    Alias(String),
    Scalar {
        anchor: Option<String>,
        tag: Option<String>,
        text: String,
        implicit: bool,
    },
    List(Option<String>),
    ListEnd,
    Map(Option<String>),
    MapEnd,
}

/// A reader of events.
pub(super) struct Events<'a> {
    /// It points into itself, so it stays where it is.
    parser: Box<MaybeUninit<yaml_parser_t>>,
    text: PhantomData<&'a [u8]>,
}

impl<'a> Events<'a> {
    pub fn new(text: &'a [u8]) -> Result<Self, Error> {
        let mut parser = Box::new(MaybeUninit::uninit());
        let at: *mut yaml_parser_t = parser.as_mut_ptr();
        // SAFETY: `at` is memory of the right size, which is made a parser first; the text outlives the reader (`'a`).
        unsafe {
            if yaml_parser_initialize(at).fail {
                return Err(Error::of("yaml: no memory"));
            }
            yaml_parser_set_encoding(at, yaml_encoding_t::YAML_UTF8_ENCODING);
            yaml_parser_set_input_string(at, text.as_ptr(), text.len() as u64);
        }
        Ok(Self { parser, text: PhantomData })
    }

    /// The next event, and the line it begins at, counted from 0.
    pub fn pull(&mut self) -> Result<(Event, u64), Error> {
        let mut event = MaybeUninit::<yaml_event_t>::zeroed();
        // SAFETY: `new` made the parser; an event is read when there is one, and given back once.
        unsafe {
            if yaml_parser_parse(self.parser.as_mut_ptr(), event.as_mut_ptr()).fail {
                return Err(self.failure());
            }
            let line = (*event.as_ptr()).start_mark.line;
            let read = read(&*event.as_ptr());
            yaml_event_delete(event.as_mut_ptr());
            Ok((read, line))
        }
    }

    /// The scanner counts lines from 0, and so does the parser, whose lines Go tells as they are (`decode.go`, `fail`).
    fn failure(&self) -> Error {
        // SAFETY: `new` made the parser; its words are constants that end in a zero.
        let (problem, is_scanner, at, context) = unsafe {
            let parser = &*self.parser.as_ptr();
            let problem = parser.problem;
            let problem = if problem.is_null() { None } else { CStr::from_ptr(problem.cast()).to_str().ok() };
            let is_scanner = parser.error == yaml_error_type_t::YAML_SCANNER_ERROR;
            (problem, is_scanner, parser.problem_mark.line, parser.context_mark.line)
        };
        let problem = match problem {
            // Go spells it so.
            Some("did not find expected hexadecimal number") => "did not find expected hexdecimal number",
            problem => problem.unwrap_or("unknown problem parsing YAML content"),
        };
        match (at, context) {
            (0, 0) => Error::of(format!("yaml: {problem}")),
            (0, line) => Error { line: Some(line), message: problem.to_owned() },
            (line, _) => Error { line: Some(line + u64::from(is_scanner)), message: problem.to_owned() },
        }
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` made the parser, and nothing uses it any more.
        unsafe { yaml_parser_delete(self.parser.as_mut_ptr()) }
    }
}

/// # Safety
/// The event is one that libyaml made.
unsafe fn read(event: &yaml_event_t) -> Event {
    use yaml_event_type_t::{
        YAML_ALIAS_EVENT, YAML_MAPPING_END_EVENT, YAML_MAPPING_START_EVENT, YAML_SCALAR_EVENT, YAML_SEQUENCE_END_EVENT,
        YAML_SEQUENCE_START_EVENT, YAML_STREAM_END_EVENT,
    };
    // SAFETY: the type says which of the union's members is there; names in it are null, or end in a zero.
    unsafe {
        match event.type_ {
            YAML_ALIAS_EVENT => Event::Alias(name(event.data.alias.anchor).unwrap_or_default()),
            YAML_SCALAR_EVENT => {
                let scalar = &event.data.scalar;
                let bytes = ptr::slice_from_raw_parts(scalar.value, usize::try_from(scalar.length).unwrap_or(0));
                let text = if scalar.value.is_null() { String::new() } else { lossy(&*bytes) };
                let (anchor, tag) = (name(scalar.anchor), name(scalar.tag));
                Event::Scalar { anchor, tag, text, implicit: scalar.plain_implicit }
            }
            YAML_SEQUENCE_START_EVENT => Event::List(name(event.data.sequence_start.anchor)),
            YAML_SEQUENCE_END_EVENT => Event::ListEnd,
            YAML_MAPPING_START_EVENT => Event::Map(name(event.data.mapping_start.anchor)),
            YAML_MAPPING_END_EVENT => Event::MapEnd,
            YAML_STREAM_END_EVENT => Event::End,
            _ => Event::Mark,
        }
    }
}

/// # Safety
/// The name is null, or bytes that end in a zero.
unsafe fn name(name: *const u8) -> Option<String> {
    // SAFETY: as above.
    (!name.is_null()).then(|| lossy(unsafe { CStr::from_ptr(name.cast()) }.to_bytes()))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
