//! The meter of one chat-completions SSE stream: what to relay, what was used.
use std::collections::BTreeMap;

use crate::completion::{Completion, Cut, Envelope, Shape};
use crate::error::{Code, WireError};
use crate::frames::{Data, FrameEnds, frame_data, is_done_marker, with_data, without};
use crate::tokens::Vocabulary;
use crate::usage::{Usage, UsageFault};

/// Longest frame, and so longest line and longest unfinished rest.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Why nothing more is relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The data of a frame is no JSON object.
    MalformedFrame,
    /// A frame is longer than [`FRAME_BYTES_MAX`].
    FrameTooLarge,
    /// The stream ended inside a frame.
    TruncatedFrame,
}

impl Failure {
    /// Give the word that stands for it in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedFrame => "malformed_frame",
            Self::FrameTooLarge => "frame_too_large",
            Self::TruncatedFrame => "truncated_frame",
        }
    }

    pub(crate) fn error(self) -> WireError {
        let (code, message) = match self {
            Self::MalformedFrame => (
                Code::UpstreamBadResponse,
                "a frame of the stream is no JSON",
            ),
            Self::FrameTooLarge => (
                Code::UpstreamResponseTooLarge,
                "a frame of the stream is over 1 MiB",
            ),
            Self::TruncatedFrame => (Code::UpstreamBadResponse, "the stream ended inside a frame"),
        };
        WireError::new(code, message, 0)
    }
}

/// What to relay for a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Relay {
    /// The chunk as it came.
    Chunk,
    /// These bytes, maybe none.
    Bytes(Vec<u8>),
}

/// What becomes of a complete frame.
enum Verdict {
    Keep,
    Drop,
    /// The frame without a part of one line; it ends as it was sent.
    Shorten(Vec<u8>),
    /// The frame written anew, line ends included.
    Rewrite(Vec<u8>),
}

/// Meters one stream. Feed every chunk, relay what comes back.
pub struct StreamMeter {
    strips_usage: bool,
    completion: Completion,
    ends: FrameEnds,
    /// The beginning of a frame whose end has not come yet.
    pending: Vec<u8>,
    /// Whether a line feed torn off the end of the last frame goes through too.
    is_last_ending_kept: bool,
    is_done: bool,
    failure: Option<Failure>,
}

impl StreamMeter {
    /// Start a stream; with `strips_usage` the caller sees no usage.
    pub fn new(strips_usage: bool, vocabulary: Option<Vocabulary>) -> Self {
        Self {
            strips_usage,
            completion: Completion::new(vocabulary),
            ends: FrameEnds::default(),
            pending: Vec::new(),
            is_last_ending_kept: true,
            is_done: false,
            failure: None,
        }
    }

    /// Take a chunk and give what to relay now.
    ///
    /// If a frame in it cannot be trusted, what came before is given and [`Self::failure`] is set.
    ///
    /// # Errors
    /// `upstream_bad_response`, `upstream_response_too_large` if the stream had failed before.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Relay, WireError> {
        if let Some(failure) = self.failure {
            return Err(failure.error());
        }
        let mut output = Output {
            chunk,
            untouched: 0,
            written: None,
        };
        if let Err(failure) = self.relay_frames(chunk, &mut output) {
            self.failure = Some(failure);
        }
        Ok(output.relay())
    }

    /// Say that the stream ended and give the last bytes to relay.
    ///
    /// A last frame that lacks only its empty line is closed.
    ///
    /// # Errors
    /// As [`Self::feed`], and `upstream_bad_response` if the stream ended inside a frame.
    pub fn finish(&mut self) -> Result<Vec<u8>, WireError> {
        if let Some(failure) = self.failure {
            return Err(failure.error());
        }
        let mut frame = std::mem::take(&mut self.pending);
        if frame.is_empty() {
            return Ok(frame);
        }
        frame.extend_from_slice(b"\n\n");
        match self.judge(&frame) {
            Ok(Verdict::Keep) => Ok(frame),
            Ok(Verdict::Drop) => Ok(Vec::new()),
            Ok(Verdict::Shorten(bytes) | Verdict::Rewrite(bytes)) => Ok(bytes),
            Err(_) => Err(self.failure.insert(Failure::TruncatedFrame).error()),
        }
    }

    /// Why nothing more is relayed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// The last usage that could be believed.
    pub fn usage(&self) -> Option<Usage> {
        self.completion.usage
    }

    /// Why a usage was not taken, if one was not.
    pub fn usage_fault(&self) -> Option<UsageFault> {
        self.completion.usage_fault
    }

    /// Whether `[DONE]` was seen.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// The JSON of the first `error` in the stream.
    pub fn upstream_error(&self) -> Option<&str> {
        self.completion.upstream_error.as_deref()
    }

    /// The model the answer names.
    pub fn model(&self) -> Option<&str> {
        self.completion.model.as_deref()
    }

    /// Finish reason by choice index, as far as seen.
    pub fn finish_reasons(&self) -> &BTreeMap<u32, String> {
        &self.completion.finish_reasons
    }

    /// UTF-8 bytes of text, refusals, reasoning and tool calls so far.
    pub fn generated_bytes(&self) -> u64 {
        self.completion.generated.bytes()
    }

    /// Bytes that the next call of [`Self::generated_tokens`] has to count.
    pub fn uncounted_bytes(&self) -> usize {
        self.completion.generated.kept_bytes()
    }

    /// Count the visible tokens so far; costs what is new since the last call.
    pub fn generated_tokens(&mut self) -> u64 {
        self.completion.generated.tokens()
    }

    fn relay_frames(&mut self, chunk: &[u8], output: &mut Output<'_>) -> Result<(), Failure> {
        let mut start = 0;
        if self.ends.takes_torn_line_feed(chunk) {
            start = 1;
            if self.is_last_ending_kept {
                output.keep(0, 1);
            }
        }
        while let Some(end) = self.ends.next(chunk, start) {
            self.relay_frame(start, end, output)?;
            start = end;
        }
        self.pending
            .extend_from_slice(chunk.get(start..).unwrap_or_default());
        if self.pending.len() > FRAME_BYTES_MAX {
            Err(Failure::FrameTooLarge)
        } else {
            Ok(())
        }
    }

    fn relay_frame(
        &mut self,
        start: usize,
        end: usize,
        output: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let ending = output.chunk.get(start..end).unwrap_or_default();
        if self.pending.is_empty() {
            match self.judge(ending)? {
                Verdict::Keep => output.keep(start, end),
                Verdict::Drop => {}
                Verdict::Shorten(bytes) | Verdict::Rewrite(bytes) => output.write(&bytes),
            }
            return Ok(());
        }
        let mut frame = std::mem::take(&mut self.pending);
        frame.extend_from_slice(ending);
        match self.judge(&frame)? {
            Verdict::Keep => output.write(&frame),
            Verdict::Drop => {}
            Verdict::Shorten(bytes) | Verdict::Rewrite(bytes) => output.write(&bytes),
        }
        Ok(())
    }

    fn judge(&mut self, frame: &[u8]) -> Result<Verdict, Failure> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(Failure::FrameTooLarge);
        }
        let verdict = self.read_frame(frame)?;
        self.is_last_ending_kept = matches!(verdict, Verdict::Keep | Verdict::Shorten(_));
        Ok(verdict)
    }

    fn read_frame(&mut self, frame: &[u8]) -> Result<Verdict, Failure> {
        let Some(data) = frame_data(frame).filter(|data| !data.bytes().trim_ascii().is_empty())
        else {
            return Ok(Verdict::Keep);
        };
        if is_done_marker(data.bytes()) {
            self.is_done = true;
            return Ok(Verdict::Keep);
        }
        let text = std::str::from_utf8(data.bytes()).map_err(|_| Failure::MalformedFrame)?;
        let envelope = self.completion.read(text, Shape::Chunk);
        let envelope = envelope.map_err(|_| Failure::MalformedFrame)?;
        Ok(if self.strips_usage {
            strip(frame, &data, &envelope)
        } else {
            Verdict::Keep
        })
    }
}

fn strip(frame: &[u8], data: &Data<'_>, envelope: &Envelope) -> Verdict {
    if envelope.is_usage_only {
        return Verdict::Drop;
    }
    let Some(Cut { start, end }) = envelope.usage_cut else {
        return Verdict::Keep;
    };
    match data {
        Data::Line { start: offset, .. } => Verdict::Shorten(without(
            frame,
            start.saturating_add(*offset),
            end.saturating_add(*offset),
        )),
        Data::Joined(bytes) => Verdict::Rewrite(with_data(frame, &without(bytes, start, end))),
    }
}

/// Collects what to relay; copies nothing as long as the chunk goes through as it is.
struct Output<'c> {
    chunk: &'c [u8],
    /// So many bytes of the chunk go through, if nothing was written.
    untouched: usize,
    written: Option<Vec<u8>>,
}

impl Output<'_> {
    fn keep(&mut self, start: usize, end: usize) {
        if self.written.is_none() && self.untouched == start {
            self.untouched = end;
            return;
        }
        let chunk = self.chunk;
        self.write(chunk.get(start..end).unwrap_or_default());
    }

    fn write(&mut self, bytes: &[u8]) {
        let untouched = self.chunk.get(..self.untouched).unwrap_or_default();
        self.written
            .get_or_insert_with(|| untouched.to_vec())
            .extend_from_slice(bytes);
    }

    fn relay(self) -> Relay {
        match self.written {
            Some(bytes) => Relay::Bytes(bytes),
            None if self.untouched == self.chunk.len() => Relay::Chunk,
            None => Relay::Bytes(
                self.chunk
                    .get(..self.untouched)
                    .unwrap_or_default()
                    .to_vec(),
            ),
        }
    }
}
