//! The answer in one piece, made from a stream: for callers who asked for JSON.
use std::collections::BTreeMap;

use crate::completion::CHOICES_MAX;
use crate::cursor::{Cursor, DEPTH_MAX, MEMBERS_MAX};
use crate::error::{Code, WireError};
use crate::frames::{FrameEnds, frame_data, is_done_marker};
use crate::keys::Place;
use crate::merging::{EMPTY, Kept, Members, Node, Piece, Spot, write_key, write_text};
use crate::stream::{FRAME_BYTES_MAX, Failure};

/// Levels of `logprobs` that are put together: the object and its lists. Items stay as they are.
const LOGPROBS_LEVELS: u32 = 2;
/// Members of a chunk that a whole answer does not have, or that are read by themselves.
const NOT_KEPT: [&str; 4] = ["object", "choices", "obfuscation", "error"];
/// Members of the answer that are written by name.
const OF_ANSWER: [&str; 4] = ["id", "created", "model", "usage"];
/// Members that each message of a whole answer has, also where no delta names them.
const ROLE: &str = "role";
const CONTENT: &str = "content";
const REFUSAL: &str = "refusal";
/// Members of a choice that are written by name, or that no chunk has.
const OF_CHOICE: [&str; 3] = ["index", "message", "finish_reason"];

/// Which answer this is, where the provider does not say.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The answer's `id`.
    pub id: String,
    /// The answer's `created`, in seconds since the Unix epoch.
    pub created_s: u64,
    /// The answer's `model`.
    pub model: String,
    /// How many choices were asked for.
    pub choices: u32,
}

/// Puts the chunks of one chat completion together.
pub struct AnswerAssembler {
    identity: Identity,
    bytes_max: usize,
    ends: FrameEnds,
    /// The beginning of a frame whose end has not come yet.
    pending: Vec<u8>,
    is_done: bool,
    has_error: bool,
    failure: Option<WireError>,
    choices: BTreeMap<u32, Choice>,
    others: Members,
    kept: Kept,
}

/// One choice as far as it came.
#[derive(Default)]
struct Choice {
    message: Members,
    others: Members,
}

/// A choice of one chunk.
struct ChoicePiece<'t> {
    index: u32,
    members: Vec<(String, Piece<'t>)>,
    delta: Vec<(String, Piece<'t>)>,
}

impl AnswerAssembler {
    /// Start an answer that may take so many bytes of memory.
    pub fn new(identity: Identity, bytes_max: usize) -> Self {
        Self {
            identity,
            bytes_max,
            ends: FrameEnds::default(),
            pending: Vec::new(),
            is_done: false,
            has_error: false,
            failure: None,
            choices: BTreeMap::new(),
            others: Members::default(),
            kept: Kept::default(),
        }
    }

    /// Take a chunk of the stream, split anywhere.
    ///
    /// # Errors
    /// `upstream_bad_response` for a frame that cannot be trusted, `upstream_response_too_large`
    /// for one over [`FRAME_BYTES_MAX`] or an answer over its maximum. What came before stays.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), WireError> {
        self.check()?;
        self.read_frames(chunk).map_err(|error| self.failed(error))
    }

    /// Say that the stream ended, and give the answer as one JSON document.
    ///
    /// # Errors
    /// As [`Self::feed`], and `upstream_bad_response` if the stream held an error, or ended inside
    /// a frame or before the answer did.
    pub fn finish(&mut self) -> Result<Vec<u8>, WireError> {
        self.check()?;
        self.read_last_frame().map_err(|error| self.failed(error))?;
        if self.has_error {
            return Err(bad_response("the provider ended the stream with an error"));
        }
        if !self.is_done && self.finished_choices() < self.identity.choices {
            return Err(bad_response("the stream ended before the answer did"));
        }
        Ok(self.written(None))
    }

    /// Give what was generated so far: choices that have not ended say `length`, and the usage
    /// counts these tokens.
    ///
    /// What cannot be read is left out, so that this works on a stream that failed, too.
    pub fn finish_cut(&self, input_tokens: u64, output_tokens: u64) -> Vec<u8> {
        let total = input_tokens.saturating_add(output_tokens);
        self.written(Some(format!(
            "{{\"prompt_tokens\":{input_tokens},\"completion_tokens\":{output_tokens},\
             \"total_tokens\":{total}}}"
        )))
    }

    /// Bytes that are kept of the answer; text counts as written, each value a little more.
    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes
    }

    fn check(&self) -> Result<(), WireError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn failed(&mut self, error: WireError) -> WireError {
        self.failure.insert(error).clone()
    }

    fn read_frames(&mut self, chunk: &[u8]) -> Result<(), WireError> {
        let mut start = usize::from(self.ends.takes_torn_line_feed(chunk));
        while let Some(end) = self.ends.next(chunk, start) {
            let ending = chunk.get(start..end).unwrap_or_default();
            if self.pending.is_empty() {
                self.read_frame(ending)?;
            } else {
                let mut frame = std::mem::take(&mut self.pending);
                frame.extend_from_slice(ending);
                self.read_frame(&frame)?;
            }
            start = end;
        }
        self.pending
            .extend_from_slice(chunk.get(start..).unwrap_or_default());
        check_frame_size(self.pending.len())
    }

    /// Read a last frame that lacks its empty line.
    fn read_last_frame(&mut self) -> Result<(), WireError> {
        let frame = std::mem::take(&mut self.pending);
        self.read_frame(&frame)
            .map_err(|_| Failure::TruncatedFrame.error())
    }

    fn read_frame(&mut self, frame: &[u8]) -> Result<(), WireError> {
        check_frame_size(frame.len())?;
        let Some(data) = frame_data(frame).filter(|data| !data.bytes().trim_ascii().is_empty())
        else {
            return Ok(());
        };
        if is_done_marker(data.bytes()) {
            self.is_done = true;
            return Ok(());
        }
        let malformed = Failure::MalformedFrame.error();
        let text = std::str::from_utf8(data.bytes()).map_err(|_| malformed.clone())?;
        self.read_chunk(text).map_err(|_| malformed)?;
        if self.kept.bytes > self.bytes_max {
            let message = "the answer put together is over its maximum";
            return Err(WireError::new(Code::UpstreamResponseTooLarge, message, 0));
        }
        Ok(())
    }

    fn read_chunk(&mut self, text: &str) -> Result<(), WireError> {
        let mut cursor = Cursor::within(text, 0);
        if cursor.peek() != Some(b'{') {
            return Err(cursor.invalid("an object was expected"));
        }
        let mut choices = Vec::new();
        let mut members = Vec::new();
        cursor.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
            if key.name == "choices" {
                return read_choices(cursor, &mut choices);
            }
            members.push((key.name.to_string(), Piece::read(cursor, 0)?));
            Ok(())
        })?;
        cursor.end()?;
        // Only now is it certain that the frame can be trusted.
        self.merge(choices, members)
            .map_err(|message| cursor.invalid(message))
    }

    fn merge(
        &mut self,
        choices: Vec<ChoicePiece<'_>>,
        mut members: Vec<(String, Piece<'_>)>,
    ) -> Result<(), &'static str> {
        let text_bytes = self.kept.text_bytes;
        for piece in choices {
            let is_known = self.choices.contains_key(&piece.index);
            if !is_known && self.choices.len() >= CHOICES_MAX as usize {
                return Err("too many choices");
            }
            let choice = self.choices.entry(piece.index).or_default();
            choice.merge(piece, &mut self.kept);
        }
        let is_said = |(key, piece): &(String, Piece<'_>), wanted| {
            key == wanted && !matches!(piece, Piece::Null)
        };
        self.has_error |= members.iter().any(|member| is_said(member, "error"));
        let has_usage = members.iter().any(|member| is_said(member, "usage"));
        if self.kept.text_bytes > text_bytes && !has_usage {
            // A usage reported before more was generated is not the last word.
            self.others.remove("usage", &mut self.kept);
        }
        members.retain(|(key, _)| !NOT_KEPT.contains(&key.as_str()));
        self.others.merge(members, Spot::Inner, &mut self.kept);
        Ok(())
    }

    fn finished_choices(&self) -> u32 {
        let finished = self.choices.values().filter(|choice| choice.is_finished());
        u32::try_from(finished.count()).unwrap_or(u32::MAX)
    }

    /// Write the answer; with a usage it is one that was cut.
    fn written(&self, cut_usage: Option<String>) -> Vec<u8> {
        let mut json = String::with_capacity(self.kept.bytes.saturating_add(512));
        json.push_str("{\"id\":");
        self.write_identity("id", &mut json, |it, json| write_text(&it.id, json));
        json.push_str(",\"object\":\"chat.completion\",\"created\":");
        self.write_identity("created", &mut json, |it, json| {
            json.push_str(&it.created_s.to_string());
        });
        json.push_str(",\"model\":");
        self.write_identity("model", &mut json, |it, json| write_text(&it.model, json));
        write_key("choices", &mut json);
        self.write_choices(cut_usage.is_some(), &mut json);
        write_key("usage", &mut json);
        match (cut_usage, self.others.get("usage")) {
            (Some(usage), _) => json.push_str(&usage),
            (None, Some(usage)) => usage.write(&mut json),
            (None, None) => json.push_str("null"),
        }
        self.others.write(&OF_ANSWER, &mut json);
        json.push('}');
        json.into_bytes()
    }

    fn write_identity(&self, key: &str, json: &mut String, write: fn(&Identity, &mut String)) {
        match self.others.get(key) {
            None | Some(Node::Null) => write(&self.identity, json),
            Some(node) => node.write(json),
        }
    }

    fn write_choices(&self, is_cut: bool, json: &mut String) {
        let unseen = Choice::default();
        let asked = if is_cut { self.identity.choices } else { 0 };
        let mut choices: BTreeMap<_, _> = (0..asked).map(|index| (index, &unseen)).collect();
        choices.extend(self.choices.iter().map(|(index, choice)| (*index, choice)));
        json.push('[');
        for (position, (index, choice)) in choices.into_iter().enumerate() {
            if position > 0 {
                json.push(',');
            }
            choice.write(index, is_cut, json);
        }
        json.push(']');
    }
}

impl Choice {
    fn merge(&mut self, piece: ChoicePiece<'_>, kept: &mut Kept) {
        self.message.merge(piece.delta, Spot::Message, kept);
        self.others.merge(piece.members, Spot::Inner, kept);
    }

    fn is_finished(&self) -> bool {
        matches!(self.others.get("finish_reason"), Some(Node::Literal(_)))
    }

    fn write(&self, index: u32, is_cut: bool, json: &mut String) {
        json.push_str("{\"index\":");
        json.push_str(&index.to_string());
        json.push_str(",\"message\":{\"role\":");
        match self.message.get(ROLE) {
            Some(role @ Node::Text(_)) => role.write(json),
            _ => json.push_str("\"assistant\""),
        }
        for key in [CONTENT, REFUSAL] {
            write_key(key, json);
            self.message.get(key).unwrap_or(&Node::Null).write(json);
        }
        self.message.write(&[ROLE, CONTENT, REFUSAL], json);
        json.push('}');
        write_key("finish_reason", json);
        match self.others.get("finish_reason") {
            Some(reason @ Node::Literal(_)) => reason.write(json),
            _ if is_cut => json.push_str("\"length\""),
            _ => json.push_str("null"),
        }
        self.others.write(&OF_CHOICE, json);
        json.push('}');
    }
}

fn read_choices<'t>(
    cursor: &mut Cursor<'t>,
    choices: &mut Vec<ChoicePiece<'t>>,
) -> Result<(), WireError> {
    if cursor.peek() != Some(b'[') {
        return cursor.skip(Place::Exact);
    }
    cursor.array(|cursor, position| {
        if cursor.peek() != Some(b'{') {
            return Err(cursor.invalid("a choice must be an object"));
        }
        choices.push(read_choice(
            cursor,
            u32::try_from(position).unwrap_or(u32::MAX),
        )?);
        Ok(())
    })
}

fn read_choice<'t>(cursor: &mut Cursor<'t>, position: u32) -> Result<ChoicePiece<'t>, WireError> {
    let mut choice = ChoicePiece {
        index: position,
        members: Vec::new(),
        delta: Vec::new(),
    };
    cursor.object(Place::Exact, MEMBERS_MAX, |cursor, key| {
        let levels = match key.name.as_ref() {
            "delta" => DEPTH_MAX,
            "logprobs" => LOGPROBS_LEVELS,
            _ => 0,
        };
        match (key.name.as_ref(), Piece::read(cursor, levels)?) {
            ("delta", Piece::Object(delta)) => choice.delta = delta,
            ("index", Piece::Literal(index)) => {
                choice.index = index.parse().unwrap_or(position);
            }
            // An empty one is what some send instead of null.
            ("delta" | "index", _) | ("finish_reason", Piece::Literal(EMPTY)) => {}
            (name, piece) => choice.members.push((name.to_owned(), piece)),
        }
        Ok(())
    })?;
    Ok(choice)
}

fn check_frame_size(bytes: usize) -> Result<(), WireError> {
    if bytes > FRAME_BYTES_MAX {
        return Err(Failure::FrameTooLarge.error());
    }
    Ok(())
}

fn bad_response(message: &'static str) -> WireError {
    WireError::new(Code::UpstreamBadResponse, message, 0)
}
