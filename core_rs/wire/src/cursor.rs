//! A strict, recursive reader of JSON text that never builds a tree.
//!
//! It accepts what RFC 8259 accepts, less what parsers disagree on: see the limits below and
//! [`crate::scan_object`]. Our own, because it must report spans, paths, and duplicate keys in one
//! pass at memory speed; measured on 1 MB it takes about a third of `serde_json`'s time.
use std::borrow::Cow;

use crate::error::{Code, WireError};
use crate::escapes::{parse_code_unit, unescape};
use crate::keys::{Place, SeenKey, find_duplicate};

/// Most levels of objects and lists.
pub const DEPTH_MAX: u32 = 64;
/// Most members of one object.
pub const MEMBERS_MAX: usize = 4096;
/// Longest number. A double needs 24 characters, an integer of 128 bits 40.
pub const NUMBER_BYTES_MAX: usize = 64;
/// Enough for the keys of an ordinary chunk, so that it costs one allocation.
const KEYS_USUAL: usize = 24;

type Checked<T = ()> = Result<T, WireError>;

/// A key of an object: its name after unescaping and the offset of its opening quote.
pub(crate) struct Key<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) start: usize,
}

/// A position in a JSON text.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// Keys of all objects that are open, innermost last.
    keys: Vec<SeenKey<'a>>,
}

impl<'a> Cursor<'a> {
    /// Check the encoding and stand at the first token.
    pub(crate) fn new(bytes: &'a [u8]) -> Checked<Self> {
        let text = std::str::from_utf8(bytes).map_err(|fault| {
            WireError::new(Code::MalformedJson, "not valid UTF-8", fault.valid_up_to())
        })?;
        Ok(Self::within(text, 0))
    }

    /// Stand inside a text at a value that was read before.
    pub(crate) fn within(text: &'a str, at: usize) -> Self {
        let mut cursor = Self {
            text,
            at,
            depth: 0,
            keys: Vec::with_capacity(KEYS_USUAL),
        };
        cursor.skip_space();
        cursor
    }

    /// Give the offset of the next token, or the end of the last one right after reading it.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Give the text between two offsets.
    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end).unwrap_or_default()
    }

    /// Look at the byte here.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Refuse anything but white space up to the end.
    pub(crate) fn end(&mut self) -> Checked {
        self.skip_space();
        if self.peek().is_some() {
            Err(self.malformed("text after the end of the JSON"))
        } else {
            Ok(())
        }
    }

    /// Make an `invalid_value` at this offset.
    pub(crate) fn invalid(&self, message: impl Into<Cow<'static, str>>) -> WireError {
        WireError::new(Code::InvalidValue, message, self.at)
    }

    /// Read any value and drop it.
    pub(crate) fn skip(&mut self, place: Place) -> Checked {
        match self.peek() {
            Some(b'"') => self.raw_string().map(drop),
            Some(b'{') => self.object(place, MEMBERS_MAX, |cursor, key| {
                cursor.skip(place.member(&key.name))
            }),
            Some(b'[') => self.array(|cursor, _| cursor.skip(place.item())),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => self.literal(),
        }
    }

    /// Read any value and hand each string in it to `take`; members named in `passed` are dropped.
    pub(crate) fn texts(&mut self, passed: &[&str], take: &mut dyn FnMut(&str)) -> Checked {
        match self.peek() {
            Some(b'"') => self.string().map(|text| take(&text)),
            Some(b'{') => self.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
                if passed.contains(&key.name.as_ref()) {
                    return cursor.skip(Place::Exact);
                }
                cursor.texts(passed, take)
            }),
            Some(b'[') => self.array(|cursor, _| cursor.texts(passed, take)),
            _ => self.skip(Place::Exact),
        }
    }

    /// Read an object; `visit` reads the value of each key, at which the cursor then stands.
    pub(crate) fn object<F>(&mut self, place: Place, members_max: usize, mut visit: F) -> Checked
    where
        F: FnMut(&mut Self, &Key<'a>) -> Checked,
    {
        self.enter()?;
        let keys_before = self.keys.len();
        let mut is_first = true;
        while self.has_next(b'}', is_first)? {
            is_first = false;
            let key = self.key()?;
            if self.keys.len().saturating_sub(keys_before) >= members_max {
                return Err(self.invalid(format!("more than {members_max} members in an object")));
            }
            self.keys.push(SeenKey {
                comparable: place.comparable(&key.name),
                start: key.start,
            });
            visit(self, &key).map_err(|error| error.within_key(&key.name))?;
        }
        self.leave_object(keys_before)
    }

    /// Read a list; `visit` reads each item, given its index.
    pub(crate) fn array<F>(&mut self, mut visit: F) -> Checked
    where
        F: FnMut(&mut Self, usize) -> Checked,
    {
        self.enter()?;
        let mut index = 0_usize;
        while self.has_next(b']', index == 0)? {
            visit(self, index).map_err(|error| error.within_item(index))?;
            index = index.saturating_add(1);
        }
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    /// Read a string and unescape it; borrowed if it has no escapes.
    pub(crate) fn string(&mut self) -> Checked<Cow<'a, str>> {
        let start = self.at.saturating_add(1);
        let has_escapes = self.raw_string()?;
        let raw = self.slice(start, self.at.saturating_sub(1));
        Ok(if has_escapes {
            Cow::Owned(unescape(raw))
        } else {
            Cow::Borrowed(raw)
        })
    }

    /// Read a number and give it as written.
    pub(crate) fn number(&mut self) -> Checked<&'a str> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        let has_exponent = self.take(b'e') || self.take(b'E');
        if has_exponent {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let number = self.slice(start, self.at);
        check_number(number, has_exponent, start).map(|()| number)
    }

    /// Read `null` if it stands here.
    pub(crate) fn take_null(&mut self) -> bool {
        self.take_word(b"null")
    }

    fn literal(&mut self) -> Checked {
        if self.take_word(b"true") || self.take_word(b"false") || self.take_word(b"null") {
            return Ok(());
        }
        Err(self.malformed(match self.peek() {
            None => "the JSON ends too early",
            Some(_) => "a JSON value was expected",
        }))
    }

    fn take_word(&mut self, word: &[u8]) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let is_here = rest.starts_with(word);
        if is_here {
            self.step(word.len());
        }
        is_here
    }

    fn enter(&mut self) -> Checked {
        self.depth = self.depth.saturating_add(1);
        if self.depth > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(WireError::new(Code::JsonTooDeep, message, self.at));
        }
        self.step(1);
        Ok(())
    }

    fn leave_object(&mut self, keys_before: usize) -> Checked {
        let keys = self.keys.get_mut(keys_before..).unwrap_or_default();
        if let Some(key) = find_duplicate(keys) {
            let error = WireError::new(Code::DuplicateField, "the field is given twice", key.start);
            return Err(error.within_key(&key.comparable));
        }
        self.keys.truncate(keys_before);
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    /// Stand at the next member or item; false if `close` was read instead.
    fn has_next(&mut self, close: u8, is_first: bool) -> Checked<bool> {
        self.skip_space();
        if self.take(close) {
            return Ok(false);
        }
        if is_first {
            return Ok(true);
        }
        if !self.take(b',') {
            return Err(self.malformed("a comma or the end of a list or object was expected"));
        }
        self.skip_space();
        Ok(true)
    }

    fn key(&mut self) -> Checked<Key<'a>> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.malformed("a key in double quotes was expected"));
        }
        let name = self.string()?;
        if has_control(&name) {
            return Err(WireError::new(
                Code::InvalidValue,
                "a key has a control character",
                start,
            ));
        }
        self.skip_space();
        if !self.take(b':') {
            return Err(self.malformed("a colon was expected"));
        }
        self.skip_space();
        Ok(Key { name, start })
    }

    /// Read a string without unescaping it; true if it has escapes.
    fn raw_string(&mut self) -> Checked<bool> {
        self.step(1);
        let mut has_escapes = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let Some(run_len) = memchr::memchr2(b'"', b'\\', rest) else {
                return Err(self.malformed("a string is not closed"));
            };
            let run = rest.get(..run_len).unwrap_or_default();
            #[expect(
                clippy::needless_bitwise_bool,
                reason = "without an early exit the compiler uses vector instructions"
            )]
            let has_control = run.iter().fold(false, |found, byte| found | (*byte < 0x20));
            if has_control {
                return Err(self.malformed("a control character in a string must be escaped"));
            }
            self.step(run_len);
            if self.take(b'"') {
                return Ok(has_escapes);
            }
            has_escapes = true;
            self.escape()?;
        }
    }

    fn escape(&mut self) -> Checked {
        self.step(1);
        let escaped = self.peek();
        self.step(1);
        match escaped {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => self.unicode_escape(),
            _ => Err(self.malformed("an unknown escape in a string")),
        }
    }

    fn unicode_escape(&mut self) -> Checked {
        let unit = self.code_unit()?;
        let is_whole = match unit {
            0xD800..=0xDBFF => {
                self.take_word(b"\\u") && matches!(self.code_unit()?, 0xDC00..=0xDFFF)
            }
            0xDC00..=0xDFFF => false,
            _ => true,
        };
        if is_whole {
            Ok(())
        } else {
            Err(self.malformed("a lone surrogate in a string"))
        }
    }

    fn code_unit(&mut self) -> Checked<u32> {
        let digits = self
            .text
            .get(self.at..self.at.saturating_add(4))
            .unwrap_or_default();
        let unit = parse_code_unit(digits)
            .ok_or_else(|| self.malformed("a unicode escape needs four hexadecimal digits"))?;
        self.step(4);
        Ok(unit)
    }

    fn digits(&mut self) -> Checked {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.step(1);
        }
        if self.at == start {
            Err(self.malformed("a digit was expected"))
        } else {
            Ok(())
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_here = self.peek() == Some(byte);
        if is_here {
            self.step(1);
        }
        is_here
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.step(1);
        }
    }

    fn step(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    fn malformed(&self, message: &'static str) -> WireError {
        WireError::new(Code::MalformedJson, message, self.at.min(self.text.len()))
    }
}

/// C0, DEL and C1. Nearly all keys are ASCII, where looking at bytes is enough.
fn has_control(name: &str) -> bool {
    name.bytes().any(|byte| byte.is_ascii_control())
        || !name.is_ascii() && name.chars().any(char::is_control)
}

/// Without an exponent 64 characters cannot leave the range of a double.
fn check_number(number: &str, has_exponent: bool, start: usize) -> Checked {
    let refuse = |message| Err(WireError::new(Code::InvalidValue, message, start));
    if number.len() > NUMBER_BYTES_MAX {
        return refuse("a number is too long");
    }
    if has_exponent && !number.parse::<f64>().is_ok_and(f64::is_finite) {
        return refuse("a number is out of range");
    }
    Ok(())
}
