//! Where SSE frames end and what their data is.
//!
//! Format: WHATWG HTML, "Server-sent events": lines end with LF, CR or CRLF, an empty line ends a
//! frame, `data` lines of one frame are joined with LF, lines that start with a colon are comments.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Finds the ends of frames in a stream that may be split anywhere.
#[derive(Default)]
pub(crate) struct FrameEnds {
    line_has_bytes: bool,
    /// The last byte was a CR inside a frame: an LF that follows belongs to it.
    is_after_cr: bool,
    /// The last byte was a CR that ended a frame: an LF that follows belongs to that frame.
    is_after_frame_cr: bool,
}

impl FrameEnds {
    /// Take the LF of a CRLF that was torn apart right at the end of a frame.
    pub(crate) fn takes_torn_line_feed(&mut self, chunk: &[u8]) -> bool {
        let is_torn = self.is_after_frame_cr && chunk.first() == Some(&b'\n');
        self.is_after_frame_cr &= chunk.is_empty();
        is_torn
    }

    /// Give the offset behind the frame that is open at `from`; None if it ends in a later chunk.
    pub(crate) fn next(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            let rest = chunk.get(at..).filter(|rest| !rest.is_empty())?;
            if std::mem::take(&mut self.is_after_cr) && rest.first() == Some(&b'\n') {
                at = at.saturating_add(1);
                continue;
            }
            let Some(line_len) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.line_has_bytes = true;
                return None;
            };
            let is_empty = line_len == 0 && !self.line_has_bytes;
            let is_cr = rest.get(line_len) == Some(&b'\r');
            at = at.saturating_add(line_len).saturating_add(1);
            self.line_has_bytes = false;
            if is_empty {
                return Some(self.frame_end(chunk, at, is_cr));
            }
            self.is_after_cr = is_cr;
        }
    }

    fn frame_end(&mut self, chunk: &[u8], at: usize, is_cr: bool) -> usize {
        let follower = chunk.get(at);
        self.is_after_frame_cr = is_cr && follower.is_none();
        at.saturating_add(usize::from(is_cr && follower == Some(&b'\n')))
    }
}

/// The data of a frame.
pub(crate) enum Data<'a> {
    /// One line, and where it starts in the frame.
    Line { start: usize, bytes: &'a [u8] },
    /// Several lines, joined.
    Joined(Vec<u8>),
}

impl Data<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Line { bytes, .. } => bytes,
            Self::Joined(bytes) => bytes,
        }
    }

    /// Add a line in place: a frame of ten thousand lines must not be copied as many times.
    fn joined(self, line: &[u8]) -> Self {
        let mut joined = match self {
            Self::Line { bytes, .. } => bytes.to_vec(),
            Self::Joined(bytes) => bytes,
        };
        joined.push(b'\n');
        joined.extend_from_slice(line);
        Self::Joined(joined)
    }
}

/// Read the data of a frame; None if it has no data line.
pub(crate) fn frame_data(frame: &[u8]) -> Option<Data<'_>> {
    let mut data: Option<Data<'_>> = None;
    for (start, line) in lines(frame) {
        let Some((skipped, bytes)) = data_of_line(line) else {
            continue;
        };
        data = Some(match data {
            None => Data::Line {
                start: start.saturating_add(skipped),
                bytes,
            },
            Some(earlier) => earlier.joined(bytes),
        });
    }
    data
}

/// Write a frame again with other data, keeping its other lines.
pub(crate) fn with_data(frame: &[u8], data: &[u8]) -> Vec<u8> {
    let kept = lines(frame).map(|(_, line)| line);
    let kept = kept.filter(|line| !line.is_empty() && data_of_line(line).is_none());
    let mut written = Vec::with_capacity(frame.len());
    for line in kept {
        written.extend_from_slice(line);
        written.push(b'\n');
    }
    for line in data.split(|byte| *byte == b'\n') {
        written.extend_from_slice(b"data: ");
        written.extend_from_slice(line);
        written.push(b'\n');
    }
    written.push(b'\n');
    written
}

/// Give the data of a line and how many bytes stand before it; None for other fields.
fn data_of_line(line: &[u8]) -> Option<(usize, &[u8])> {
    // A mark is only allowed before the first line, but overlooking data because of one would
    // leave it uncounted.
    let unmarked = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    let rest = unmarked.strip_prefix(b"data")?;
    let value = match rest.split_first() {
        None => rest,
        Some((b':', value)) => value.strip_prefix(b" ").unwrap_or(value),
        Some(_) => return None,
    };
    Some((line.len().saturating_sub(value.len()), value))
}

/// Split at LF, CR and CRLF; each line with its offset. The empty part of a CRLF is harmless.
fn lines(frame: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = Some((0_usize, frame));
    std::iter::from_fn(move || {
        let (start, bytes) = rest?;
        let Some(line_len) = memchr::memchr2(b'\n', b'\r', bytes) else {
            rest = None;
            return Some((start, bytes));
        };
        let (line, ending) = bytes.split_at_checked(line_len).unwrap_or((bytes, &[]));
        let skipped = line_len.saturating_add(1);
        rest = Some((
            start.saturating_add(skipped),
            ending.get(1..).unwrap_or_default(),
        ));
        Some((start, line))
    })
}

/// Tell whether data is the marker that ends a chat-completions stream.
pub(crate) fn is_done_marker(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// Cut a range out of bytes.
pub(crate) fn without(bytes: &[u8], start: usize, end: usize) -> Vec<u8> {
    let before = bytes.get(..start).unwrap_or_default();
    let after = bytes.get(end..).unwrap_or_default();
    [before, after].concat()
}
