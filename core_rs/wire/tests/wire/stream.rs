//! The stream meter: what is relayed, what is seen, what stops it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
use comptroller_wire::{
    Code, FRAME_BYTES_MAX, Failure, Relay, StreamMeter, Usage, UsageFault, Vocabulary,
};
use proptest::prelude::*;

const O200K: Option<Vocabulary> = Some(Vocabulary::O200kBase);
const DONE: &str = "data: [DONE]\n\n";

fn content(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        "data: {{\"id\":\"c1\",\"model\":\"gpt-4o-2024\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}},\
         \"finish_reason\":null}}],\"usage\":null}}\n\n"
    )
}

fn usage_frame(usage: &str) -> String {
    format!("data: {{\"id\":\"c1\",\"choices\":[],\"usage\":{usage}}}\n\n")
}

fn ordinary() -> String {
    let usage = r#"{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,
        "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
        "completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":0,"rejected_prediction_tokens":0}}"#
        .replace('\n', "");
    [
        content("Hello"),
        content(" wörld"),
        usage_frame(&usage),
        DONE.to_owned(),
    ]
    .concat()
}

fn fed(meter: &mut StreamMeter, chunk: &[u8]) -> Vec<u8> {
    match meter.feed(chunk).unwrap() {
        Relay::Chunk => chunk.to_vec(),
        Relay::Bytes(bytes) => bytes,
    }
}

/// Relay a stream in the given pieces until it fails or ends.
fn relayed<'a>(meter: &mut StreamMeter, chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut bytes = Vec::new();
    for chunk in chunks {
        if meter.failure().is_none() {
            bytes.extend(fed(meter, chunk));
        }
    }
    bytes.extend(meter.finish().unwrap_or_default());
    String::from_utf8(bytes).unwrap()
}

fn whole(strips_usage: bool, stream: &str) -> (StreamMeter, String) {
    let mut meter = StreamMeter::new(strips_usage, O200K);
    let relayed = relayed(&mut meter, [stream.as_bytes()]);
    (meter, relayed)
}

#[test]
fn relays_whole_frames_without_copying() {
    let mut meter = StreamMeter::new(false, None);
    assert_eq!(meter.feed(ordinary().as_bytes()), Ok(Relay::Chunk));
    assert_eq!(meter.feed(b": a comment\n\n"), Ok(Relay::Chunk));
    assert_eq!(meter.feed(b""), Ok(Relay::Chunk));
}

#[test]
fn sees_what_the_stream_says_about_itself() {
    let (mut meter, relayed) = whole(false, &ordinary());
    assert_eq!(relayed, ordinary());
    let expected = Usage {
        input_tokens: 9,
        output_tokens: 3,
        cache_read_tokens: 4,
        reasoning_tokens: 1,
        ..Usage::default()
    };
    assert_eq!((meter.usage(), meter.usage_fault()), (Some(expected), None));
    assert_eq!(
        (meter.model(), meter.is_done()),
        (Some("gpt-4o-2024"), true)
    );
    assert_eq!(meter.generated_bytes(), 12);
    assert_eq!(
        meter.generated_tokens(),
        Vocabulary::O200kBase.count("Hello wörld")
    );
    assert_eq!((meter.upstream_error(), meter.failure()), (None, None));
}

#[test]
fn strips_usage_the_caller_did_not_ask_for() {
    let (meter, relayed) = whole(true, &ordinary());
    let stripped = [content("Hello"), content(" wörld"), DONE.to_owned()].concat();
    assert_eq!(relayed, stripped.replace(",\"usage\":null", ""));
    assert_eq!(meter.usage().unwrap().output_tokens, 3);
}

#[test]
fn cuts_usage_out_wherever_it_stands() {
    let choice = r#""choices":[{"index":0}]"#;
    let used = r#"{"prompt_tokens":1,"completion_tokens":2}"#;
    let cases = [
        (
            format!(r#"{{"usage":null,{choice}}}"#),
            format!("{{{choice}}}"),
        ),
        (
            format!(r#"{{"usage" : {used} , {choice}}}"#),
            format!("{{{choice}}}"),
        ),
        (
            format!(r#"{{{choice}, "usage":{used} }}"#),
            format!("{{{choice} }}"),
        ),
        (
            format!(r#"{{"id":1,"usage":null,{choice}}}"#),
            format!(r#"{{"id":1,{choice}}}"#),
        ),
        (r#"{"usage":null}"#.to_owned(), "{}".to_owned()),
        // The first frame of some providers has no choices but is not the usage frame.
        (
            r#"{"choices":[],"usage":null}"#.to_owned(),
            r#"{"choices":[]}"#.to_owned(),
        ),
        (
            r#"{"x":{"usage":null}}"#.to_owned(),
            r#"{"x":{"usage":null}}"#.to_owned(),
        ),
    ];
    for (sent, expected) in cases {
        let (_, relayed) = whole(true, &format!("id: 7\ndata:{sent}\r\n\r\n"));
        assert_eq!(relayed, format!("id: 7\ndata:{expected}\r\n\r\n"), "{sent}");
    }
}

#[test]
fn reads_and_strips_data_in_several_lines() {
    let stream = "event: m\ndata: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}],\ndata: \"usage\":\ndata: null}\nid: 1\n\n";
    let (meter, relayed) = whole(true, stream);
    assert_eq!(
        relayed,
        "event: m\nid: 1\ndata: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\n\n"
    );
    assert_eq!(meter.generated_bytes(), 2);
}

#[test]
fn drops_a_torn_line_feed_of_a_frame_that_was_written_anew() {
    let stream = "data: {\"a\":\r\ndata: 1,\"usage\":null}\r\n\r\n";
    let (before, after) = stream.as_bytes().split_at(stream.len() - 1);
    let relayed = relayed(&mut StreamMeter::new(true, None), [before, after]);
    assert_eq!(relayed, "data: {\"a\":\ndata: 1}\n\n");
}

#[test]
fn reads_data_behind_a_byte_order_mark() {
    let mut meter = StreamMeter::new(true, None);
    let marked = format!("\u{feff}{}", content("ab"));
    assert_eq!(
        fed(&mut meter, marked.as_bytes()),
        marked.replace(",\"usage\":null", "").as_bytes()
    );
    assert_eq!(meter.generated_bytes(), 2);
}

#[test]
fn reads_a_frame_of_very_many_lines_in_linear_time() {
    let frame = format!("data: {{\n{}data: }}\n\n", "data:\n".repeat(150_000));
    assert_eq!(
        StreamMeter::new(false, None).feed(frame.as_bytes()),
        Ok(Relay::Chunk)
    );
}

#[test]
fn takes_usage_from_a_last_chunk_with_choices() {
    let frame = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
                 \"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6,\"prompt_tokens_details\":null}}\n\n";
    let (meter, relayed) = whole(false, frame);
    assert_eq!(
        (
            meter.usage().unwrap().input_tokens,
            meter.usage().unwrap().output_tokens
        ),
        (5, 6)
    );
    assert_eq!(meter.finish_reasons().get(&0).unwrap(), "stop");
    assert_eq!(relayed, frame);
}

#[test]
fn keeps_the_last_usage_of_a_running_count() {
    let usage = |count| {
        usage_frame(&format!(
            r#"{{"prompt_tokens":1,"completion_tokens":{count}}}"#
        ))
    };
    let (meter, _) = whole(false, &[usage(0), usage(7), usage(9)].concat());
    assert_eq!(meter.usage().unwrap().output_tokens, 9);
}

#[test]
fn counts_what_only_the_total_shows_as_output() {
    let usage = r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":40,
        "completion_tokens_details":{"reasoning_tokens":25}}"#;
    let (meter, _) = whole(false, &usage_frame(&usage.replace('\n', "")));
    assert_eq!(meter.usage().unwrap().output_tokens, 30);
}

#[test]
fn does_not_take_usage_that_cannot_be_true() {
    let absurd = format!(
        r#"{{"prompt_tokens":{},"completion_tokens":1}}"#,
        (1_u64 << 40) + 1
    );
    let cases = [
        ("7", UsageFault::Malformed),
        ("{}", UsageFault::Malformed),
        (r#"{"prompt_tokens":1}"#, UsageFault::Malformed),
        (
            r#"{"prompt_tokens":1,"completion_tokens":null}"#,
            UsageFault::Malformed,
        ),
        (
            r#"{"prompt_tokens":"1","completion_tokens":1}"#,
            UsageFault::Malformed,
        ),
        (
            r#"{"prompt_tokens":1.5,"completion_tokens":1}"#,
            UsageFault::Malformed,
        ),
        (
            r#"{"prompt_tokens":1e3,"completion_tokens":1}"#,
            UsageFault::Malformed,
        ),
        (
            r#"{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":[]}"#,
            UsageFault::Malformed,
        ),
        (
            r#"{"prompt_tokens":1,"completion_tokens":-1}"#,
            UsageFault::Negative,
        ),
        (&absurd, UsageFault::Absurd),
        (
            r#"{"prompt_tokens":1,"completion_tokens":99999999999999999999}"#,
            UsageFault::Absurd,
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":3,"total_tokens":5}"#,
            UsageFault::Contradictory,
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}"#,
            UsageFault::Contradictory,
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":4}}"#,
            UsageFault::Contradictory,
        ),
        (
            r#"{"prompt_tokens":3,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":-4}}"#,
            UsageFault::Negative,
        ),
    ];
    for (usage, fault) in cases {
        let (meter, relayed) = whole(false, &usage_frame(usage));
        assert_eq!(
            (meter.usage(), meter.usage_fault()),
            (None, Some(fault)),
            "{usage}"
        );
        assert_eq!(relayed, usage_frame(usage));
    }
    let limit = format!(
        r#"{{"prompt_tokens":{},"completion_tokens":1}}"#,
        1_u64 << 40
    );
    assert_eq!(
        whole(false, &usage_frame(&limit))
            .0
            .usage()
            .unwrap()
            .input_tokens,
        1 << 40
    );
}

#[test]
fn stops_at_a_frame_that_is_no_json_object_and_relays_what_came_before() {
    let bad: [&[u8]; 8] = [
        b"{\"choices\":[",
        b"oops",
        b"[]",
        b"null",
        b"{\"a\":1}{}",
        b"{\"usage\":1,\"usage\":2}",
        b"\xff",
        b"{\"choices\":[7]}",
    ];
    for data in bad {
        let stream = [
            content("a").as_bytes(),
            b"data: ",
            data,
            b"\n\n",
            content("b").as_bytes(),
        ]
        .concat();
        let mut meter = StreamMeter::new(false, None);
        assert_eq!(fed(&mut meter, &stream), content("a").as_bytes());
        assert_eq!(meter.failure(), Some(Failure::MalformedFrame));
        assert_eq!(
            meter.feed(b"x").unwrap_err().code,
            Code::UpstreamBadResponse
        );
        assert_eq!(meter.finish().unwrap_err().code, Code::UpstreamBadResponse);
        assert_eq!(meter.generated_bytes(), 1);
    }
}

#[test]
fn limits_the_length_of_a_frame() {
    let longest = format!(": {}\n\n", "x".repeat(FRAME_BYTES_MAX - 4));
    assert_eq!(
        StreamMeter::new(false, None).feed(longest.as_bytes()),
        Ok(Relay::Chunk)
    );
    let longer = format!("x{longest}");
    for piece in [1_000, FRAME_BYTES_MAX, longer.len()] {
        let mut meter = StreamMeter::new(false, None);
        assert_eq!(relayed(&mut meter, longer.as_bytes().chunks(piece)), "");
        assert_eq!(meter.failure(), Some(Failure::FrameTooLarge));
        assert_eq!(
            meter.feed(b"").unwrap_err().code,
            Code::UpstreamResponseTooLarge
        );
    }
}

#[test]
fn closes_a_last_frame_that_lacks_only_its_end() {
    for cut in [0, 1, 2] {
        let (meter, relayed) = whole(true, &ordinary()[..ordinary().len() - cut]);
        assert!(
            meter.is_done() && relayed.contains("data: [DONE]\n"),
            "{relayed}"
        );
    }
    let (meter, relayed) = whole(true, ordinary().trim_end().strip_suffix("[DONE]").unwrap());
    assert_eq!((meter.is_done(), meter.failure()), (false, None));
    assert!(!relayed.contains("usage"));
}

#[test]
fn reports_a_stream_that_ends_inside_a_frame() {
    let mut meter = StreamMeter::new(false, None);
    assert_eq!(fed(&mut meter, &content("a").as_bytes()[..40]), b"");
    assert_eq!(meter.finish().unwrap_err().code, Code::UpstreamBadResponse);
    assert_eq!(meter.failure(), Some(Failure::TruncatedFrame));
}

#[test]
fn relays_an_error_of_the_provider_and_shows_it() {
    let stream = content("a")
        + "event: error\ndata: {\"error\":{\"message\":\"m\"}}\n\ndata: {\"error\":null}\n\n";
    let (meter, relayed) = whole(false, &stream);
    assert_eq!(meter.upstream_error(), Some("{\"message\":\"m\"}"));
    assert_eq!(relayed, stream);
}

#[test]
fn counts_each_text_of_each_choice_by_itself() {
    let delta = |index: u32, delta: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{delta},\"index\":{index}}}]}}\n\n")
    };
    let call = |index: u32, function: &str| {
        format!(
            r#"{{"role":"assistant","tool_calls":[{{"index":{index},"id":"call_1","type":"function","function":{function}}}]}}"#
        )
    };
    let stream = [
        delta(0, r#"{"content":"Hel"}"#),
        delta(1, r#"{"refusal":"No"}"#),
        delta(0, r#"{"content":"lo"}"#),
        delta(1, r#"{"reasoning_content":"hm"}"#),
        delta(0, &call(0, r#"{"name":"get_weather","arguments":""}"#)),
        delta(0, &call(1, r#"{"name":"get_time","arguments":"{\"a"}"#)),
        delta(0, &call(0, r#"{"arguments":"{\"city\":1}"}"#)),
        delta(0, &call(1, r#"{"arguments":"\":2}"}"#)),
        delta(
            0,
            r#"{"function_call":{"name":"f","arguments":"{}"},"content":null}"#,
        ),
    ]
    .concat();
    let (mut meter, _) = whole(false, &stream);
    let texts = [
        "Hello",
        "No",
        "hm",
        "{\"city\":1}{}",
        "{\"a\":2}",
        "get_weatherf",
        "get_time",
    ];
    let counted: u64 = texts
        .iter()
        .map(|text| Vocabulary::O200kBase.count(text))
        .sum();
    assert_eq!(meter.generated_tokens(), counted + 2 * 8);
    assert_eq!(meter.generated_bytes(), texts.concat().len() as u64);
}

#[test]
fn counts_bytes_without_a_vocabulary() {
    let mut meter = StreamMeter::new(false, None);
    let _ = fed(&mut meter, content("Hello wörld").as_bytes());
    assert_eq!((meter.generated_tokens(), meter.uncounted_bytes()), (12, 0));
}

#[test]
fn counts_bytes_beyond_what_it_keeps() {
    let mut meter = StreamMeter::new(false, O200K);
    let piece = content(&"word ".repeat(100_000));
    for _ in 0..20 {
        let _ = fed(&mut meter, piece.as_bytes());
    }
    // 16 pieces of 500,000 bytes fit into 8 MiB; the words of four count by bytes.
    assert_eq!(meter.uncounted_bytes(), 8_000_000);
    let kept = meter.generated_tokens() - 4 * 500_000;
    assert!((1_600_000..=1_600_032).contains(&kept), "{kept}");
    assert!(meter.uncounted_bytes() < 16);
}

#[test]
fn survives_many_choices_and_long_names() {
    let mut meter = StreamMeter::new(false, O200K);
    for index in 0..3_000 {
        let frame = format!(
            "data: {{\"model\":\"{}\",\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"ab\"}},\"finish_reason\":\"stop\"}}]}}\n\n",
            "m".repeat(1_000)
        );
        let _ = fed(&mut meter, frame.as_bytes());
    }
    assert_eq!(
        (meter.finish_reasons().len(), meter.model().unwrap().len()),
        (256, 256)
    );
    assert_eq!(meter.generated_tokens(), 1024 + (3_000 - 1024) * 2);
}

fn any_frame() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zé漢 \\n\"]{0,9}".prop_map(|text| content(&text)),
        Just(usage_frame(r#"{"prompt_tokens":3,"completion_tokens":4}"#)),
        Just(usage_frame("null")),
        Just(usage_frame("-1")),
        Just(DONE.to_owned()),
        Just(": comment\n\n".to_owned()),
        Just("\n".to_owned()),
        Just("event: x\nid\ndata:\n\n".to_owned()),
        Just("data: {\"a\":\ndata:1,\"usage\":null}\nretry: 3\n\n".to_owned()),
        Just("data: {\"error\":{\"code\":1}}\n\n".to_owned()),
    ]
}

/// Some frames, a rare broken one among them, with one kind of line end.
fn any_stream() -> impl Strategy<Value = String> {
    let broken =
        prop_oneof![9 => Just(""), 1 => Just("data: {oops\n\n"), 1 => Just("data: {\"cut")];
    let line_end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    (
        prop::collection::vec(any_frame(), 0..6),
        broken,
        prop::collection::vec(any_frame(), 0..3),
        line_end,
    )
        .prop_map(|(before, broken, after, line_end)| {
            format!("{}{broken}{}", before.concat(), after.concat()).replace('\n', line_end)
        })
}

type Seen = (
    String,
    Option<Usage>,
    Option<UsageFault>,
    bool,
    Option<Failure>,
    u64,
    u64,
);

fn seen<'a>(strips_usage: bool, chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut meter = StreamMeter::new(strips_usage, O200K);
    let text = relayed(&mut meter, chunks);
    let tokens = meter.generated_tokens();
    let (usage, fault) = (meter.usage(), meter.usage_fault());
    (
        text,
        usage,
        fault,
        meter.is_done(),
        meter.failure(),
        meter.generated_bytes(),
        tokens,
    )
}

proptest! {
    // Failures are reported, not written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn relays_the_same_however_the_stream_is_split(
        stream in any_stream(), strips_usage: bool, size in 1_usize..40,
    ) {
        let bytes = stream.as_bytes();
        let expected = seen(strips_usage, [bytes]);
        for at in 0..=bytes.len() {
            prop_assert_eq!(&seen(strips_usage, [&bytes[..at], &bytes[at..]]), &expected, "split at {}", at);
        }
        prop_assert_eq!(&seen(strips_usage, bytes.chunks(size)), &expected);
    }

    #[test]
    fn relays_everything_of_a_good_stream_when_usage_is_asked_for(
        frames in prop::collection::vec(any_frame(), 0..8), size in 1_usize..40,
    ) {
        let stream = frames.concat();
        prop_assert_eq!(seen(false, stream.as_bytes().chunks(size)).0, stream);
    }

    #[test]
    fn counts_in_steps_what_the_whole_text_counts(
        pieces in prop::collection::vec(
            prop_oneof!["[a-zA-Z]{1,7}", "[ .,'\n0-9-]{1,3}", "[漢字。あア가é́]{1,3}", any::<String>()], 0..40),
    ) {
        let mut meter = StreamMeter::new(false, O200K);
        let mut last = 0;
        for piece in &pieces {
            let _ = fed(&mut meter, content(piece).as_bytes());
            last = meter.generated_tokens();
        }
        prop_assert_eq!(last, Vocabulary::O200kBase.count(&pieces.concat()));
    }

    #[test]
    fn never_counts_less_in_long_runs_without_spaces(text in "[a-z]{1500,3000}", size in 1_usize..1500) {
        let mut meter = StreamMeter::new(false, O200K);
        for piece in text.as_bytes().chunks(size) {
            let _ = fed(&mut meter, content(std::str::from_utf8(piece).unwrap()).as_bytes());
            meter.generated_tokens();
        }
        prop_assert!(meter.generated_tokens() >= Vocabulary::O200kBase.count(&text));
    }
}
