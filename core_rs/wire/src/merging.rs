//! Putting together a JSON value that came as deltas.
//!
//! What a delta says is added to what is there: strings are continued, objects are filled in, items
//! of lists are matched by their `index` or appended. Anything else replaces, and null says nothing.
//! Strings are kept as they were written: two checked insides of strings, joined, are one again.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::cursor::{Cursor, MEMBERS_MAX};
use crate::error::WireError;
use crate::keys::Place;

/// Members whose strings name something; a later one is said again, not continued.
const NAMES: [&str; 5] = ["role", "id", "type", "index", "format"];
/// What a value costs beside its text: its place in a map or list, and what allocators round up.
const VALUE_BYTES: usize = 160;
/// An empty string as it is written.
pub(crate) const EMPTY: &str = "\"\"";

/// A value of a delta, as it stands in its frame.
#[derive(Debug)]
pub(crate) enum Piece<'t> {
    Null,
    /// A number, a boolean, or any value below the levels that are looked at.
    Literal(&'t str),
    /// The inside of a string, escapes as written.
    Text(&'t str),
    List(Vec<Piece<'t>>),
    Object(Vec<(String, Piece<'t>)>),
}

/// A value as far as it was put together.
#[derive(Debug)]
pub(crate) enum Node {
    Null,
    Literal(Box<str>),
    Text(String),
    List(Items),
    Object(Members),
}

/// Members of an object, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(crate) struct Members {
    by_key: BTreeMap<Box<str>, (usize, Node)>,
}

/// Items of a list, and which of them continues under which `index`.
#[derive(Debug, Default)]
pub(crate) struct Items {
    items: Vec<(u32, Node)>,
    by_index: BTreeMap<u32, usize>,
}

/// What is kept, and how much text has been added.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Bytes of everything that is kept.
    pub(crate) bytes: usize,
    /// Bytes of strings that were added to or begun.
    pub(crate) text_bytes: usize,
}

/// Where in a message a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The message itself.
    Message,
    /// `tool_calls`: an item without `index` is matched by its position.
    Calls,
    /// A tool call, whose `index` a whole message does not have.
    Call,
    Inner,
}

impl Spot {
    fn member(self, key: &str) -> Self {
        match (self, key) {
            (Self::Message, "tool_calls") => Self::Calls,
            _ => Self::Inner,
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Calls => Self::Call,
            _ => Self::Inner,
        }
    }
}

impl<'t> Piece<'t> {
    /// Read a value; what lies deeper than so many levels is taken as it is written.
    pub(crate) fn read(cursor: &mut Cursor<'t>, levels: u32) -> Result<Self, WireError> {
        let start = cursor.at();
        let inner = levels.saturating_sub(1);
        match cursor.peek() {
            Some(b'{') if levels > 0 => Self::read_object(cursor, inner),
            Some(b'[') if levels > 0 => Self::read_list(cursor, inner),
            first => {
                cursor.skip(Place::Exact)?;
                let text = cursor.slice(start, cursor.at());
                Ok(match first {
                    Some(b'n') => Self::Null,
                    Some(b'"') if levels > 0 => Self::Text(inside(text)),
                    _ => Self::Literal(text),
                })
            }
        }
    }

    /// Look up a member of an object.
    fn get(&self, wanted: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let found = members.iter().find(|(key, _)| key == wanted);
        found.map(|(_, value)| value)
    }

    fn text(&self) -> Option<&'t str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn index(&self) -> Option<u32> {
        match self.get("index") {
            Some(Self::Literal(number)) => number.parse().ok(),
            _ => None,
        }
    }

    fn read_object(cursor: &mut Cursor<'t>, levels: u32) -> Result<Self, WireError> {
        let mut members = Vec::new();
        cursor.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
            members.push((key.name.to_string(), Self::read(cursor, levels)?));
            Ok(())
        })?;
        Ok(Self::Object(members))
    }

    fn read_list(cursor: &mut Cursor<'t>, levels: u32) -> Result<Self, WireError> {
        let mut items = Vec::new();
        cursor.array(|cursor, _| {
            items.push(Self::read(cursor, levels)?);
            Ok(())
        })?;
        Ok(Self::List(items))
    }
}

impl Node {
    /// Add what a delta says.
    pub(crate) fn merge(&mut self, piece: Piece<'_>, spot: Spot, is_name: bool, kept: &mut Kept) {
        match (&mut *self, piece) {
            (_, Piece::Null) | (Self::Literal(_), Piece::Literal(EMPTY)) => {}
            // Providers repeat a name, or send it empty where they have no more to say.
            (Self::Text(held), Piece::Text(text)) if is_name => {
                if !text.is_empty() {
                    kept.replace(held.len(), text.len());
                    text.clone_into(held);
                }
            }
            (Self::Text(held), Piece::Text(text)) => {
                kept.write(text);
                held.push_str(text);
            }
            (Self::Object(held), Piece::Object(members)) => held.merge(members, spot, kept),
            (Self::List(held), Piece::List(items)) => held.merge(items, spot, kept),
            (_, piece) => {
                kept.replace(self.bytes(), 0);
                *self = Self::begun(piece, spot, is_name, kept);
            }
        }
    }

    /// Write it as JSON.
    pub(crate) fn write(&self, json: &mut String) {
        match self {
            Self::Null => json.push_str("null"),
            Self::Literal(text) => json.push_str(text),
            Self::Text(text) => {
                json.push('"');
                json.push_str(text);
                json.push('"');
            }
            Self::List(items) => items.write(json),
            Self::Object(members) => {
                json.push('{');
                members.write(&[], json);
                json.push('}');
            }
        }
    }

    fn begun(piece: Piece<'_>, spot: Spot, is_name: bool, kept: &mut Kept) -> Self {
        match piece {
            Piece::Null => Self::Null,
            Piece::Literal(text) => {
                kept.replace(0, text.len());
                Self::Literal(Box::from(text))
            }
            Piece::Text(text) => {
                if is_name {
                    kept.replace(0, text.len());
                } else {
                    kept.write(text);
                }
                Self::Text(String::from(text))
            }
            Piece::List(items) => {
                let mut begun = Items::default();
                begun.merge(items, spot, kept);
                Self::List(begun)
            }
            Piece::Object(members) => {
                let mut begun = Members::default();
                begun.merge(members, spot, kept);
                Self::Object(begun)
            }
        }
    }

    /// What it was counted at, when it is thrown away.
    fn bytes(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Literal(text) => text.len(),
            Self::Text(text) => text.len(),
            Self::List(held) => held.items.iter().fold(0_usize, |sum, (_, item)| {
                sum.saturating_add(item.bytes()).saturating_add(VALUE_BYTES)
            }),
            Self::Object(held) => held.bytes(),
        }
    }

    fn member(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(key),
            _ => None,
        }
    }
}

impl Members {
    /// Look up a member.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.by_key.get(key).map(|(_, node)| node)
    }

    /// Add what a delta says of several members.
    pub(crate) fn merge(&mut self, members: Vec<(String, Piece<'_>)>, spot: Spot, kept: &mut Kept) {
        for (key, piece) in members {
            if spot != Spot::Call || key != "index" {
                self.merge_member(&key, piece, spot, kept);
            }
        }
    }

    /// Add what a delta says of one member.
    pub(crate) fn merge_member(
        &mut self,
        key: &str,
        piece: Piece<'_>,
        spot: Spot,
        kept: &mut Kept,
    ) {
        let is_name = NAMES.contains(&key);
        if let Some((_, node)) = self.by_key.get_mut(key) {
            node.merge(piece, spot.member(key), is_name, kept);
            return;
        }
        kept.replace(0, key.len().saturating_add(VALUE_BYTES));
        let node = Node::begun(piece, spot.member(key), is_name, kept);
        let place = self.by_key.len();
        self.by_key.insert(Box::from(key), (place, node));
    }

    /// Forget a member.
    pub(crate) fn remove(&mut self, key: &str, kept: &mut Kept) {
        if let Some((_, node)) = self.by_key.get_mut(key) {
            // Its place stays, because the places of the others were counted with it.
            kept.replace(node.bytes(), 0);
            *node = Node::Null;
        }
    }

    /// Write the members but some, each with a comma before it if anything stands there already.
    pub(crate) fn write(&self, passed: &[&str], json: &mut String) {
        let mut members: Vec<_> = self.by_key.iter().collect();
        members.sort_unstable_by_key(|(_, (place, _))| *place);
        for (key, (_, node)) in members {
            if !passed.contains(&key.as_ref()) {
                write_key(key, json);
                node.write(json);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.by_key.iter().fold(0_usize, |sum, (key, (_, node))| {
            sum.saturating_add(key.len())
                .saturating_add(VALUE_BYTES)
                .saturating_add(node.bytes())
        })
    }
}

impl Items {
    fn merge(&mut self, items: Vec<Piece<'_>>, spot: Spot, kept: &mut Kept) {
        for (position, piece) in items.into_iter().enumerate() {
            let position = u32::try_from(position).ok().filter(|_| spot == Spot::Calls);
            self.merge_item(piece, position, spot, kept);
        }
    }

    fn merge_item(&mut self, piece: Piece<'_>, position: Option<u32>, spot: Spot, kept: &mut Kept) {
        let index = piece.index().or(position);
        let known = index.and_then(|index| self.by_index.get(&index));
        if let Some((_, node)) = known.and_then(|at| self.items.get_mut(*at))
            && !is_another_call(node, &piece)
        {
            node.merge(piece, spot.item(), false, kept);
            return;
        }
        kept.replace(0, VALUE_BYTES);
        let at = self.items.len();
        let node = Node::begun(piece, spot.item(), false, kept);
        self.items.push((index.unwrap_or(u32::MAX), node));
        if let Some(index) = index {
            self.by_index.insert(index, at);
        }
    }

    /// Write the items in the order of their `index`; those without one last, as they came.
    fn write(&self, json: &mut String) {
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by_key(|(index, _)| *index);
        json.push('[');
        for (at, (_, node)) in items.into_iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            node.write(json);
        }
        json.push(']');
    }
}

impl Kept {
    fn write(&mut self, text: &str) {
        self.bytes = self.bytes.saturating_add(text.len());
        self.text_bytes = self.text_bytes.saturating_add(text.len());
    }

    fn replace(&mut self, old: usize, new: usize) {
        self.bytes = self.bytes.saturating_sub(old).saturating_add(new);
    }
}

/// Write a key with its colon, and a comma before it if anything stands there already.
pub(crate) fn write_key(key: &str, json: &mut String) {
    if !json.is_empty() && !json.ends_with(['{', '[']) {
        json.push(',');
    }
    write_text(key, json);
    json.push(':');
}

/// Write a plain string as JSON (RFC 8259, section 7: what must be escaped).
pub(crate) fn write_text(text: &str, json: &mut String) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..='\u{1f}' => {
                // Writing to a string cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(character));
            }
            _ => json.push(character),
        }
    }
    json.push('"');
}

/// Whether a tool call that says an `index` again is a new one.
///
/// Some compatible interfaces number all calls of an answer 0, and send each whole; others make
/// up a new id for every delta of one call, but name its function only once.
fn is_another_call(held: &Node, piece: &Piece<'_>) -> bool {
    let names_function = piece
        .get("function")
        .and_then(|function| function.get("name"))
        .is_some_and(|name| name.text().is_some());
    let Some(id) = piece.get("id").and_then(Piece::text) else {
        return false;
    };
    match held.member("id") {
        Some(Node::Text(held)) => names_function && !held.is_empty() && held != id,
        _ => false,
    }
}

/// Take the quotes off a string.
fn inside(text: &str) -> &str {
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or_default()
}
