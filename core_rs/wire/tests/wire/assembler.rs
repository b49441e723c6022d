//! Answers put together from streams: what a plain call would have said.
#![allow(
    missing_docs,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
use comptroller_wire::{AnswerAssembler, Code, FRAME_BYTES_MAX, Identity, parse_chat_answer};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const MIB: usize = 1 << 20;
const DONE: &str = "data: [DONE]\n\n";

fn assembler(choices: u32, bytes_max: usize) -> AnswerAssembler {
    let identity = Identity {
        id: "ours\"\u{1}".to_owned(),
        created_s: 7,
        model: "asked".to_owned(),
        choices,
    };
    AnswerAssembler::new(identity, bytes_max)
}

fn frame(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

fn delta(index: u32, delta: Value, finish_reason: Option<&str>) -> String {
    let choice = json!({"index": index, "delta": delta, "finish_reason": finish_reason});
    frame(&json!({"id": "c1", "created": 5, "model": "m", "choices": [choice], "usage": null}))
}

/// Put a whole stream together.
fn assembled(choices: u32, stream: &str) -> Value {
    let mut assembler = assembler(choices, MIB);
    assembler.feed(stream.as_bytes()).unwrap();
    serde_json::from_slice(&assembler.finish().unwrap()).unwrap()
}

fn message(stream: &[String]) -> Value {
    assembled(1, &(stream.concat() + DONE))["choices"][0]["message"].clone()
}

fn cut(assembler: &AnswerAssembler) -> Value {
    serde_json::from_slice(&assembler.finish_cut(11, 3)).unwrap()
}

#[test]
fn puts_an_ordinary_stream_together() {
    let usage =
        json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "x": [1.50]});
    let stream = [
        delta(
            0,
            json!({"role": "assistant", "content": "", "refusal": null}),
            None,
        ),
        delta(0, json!({"content": "Hel\"l"}), None),
        delta(0, json!({"content": "o\nwörld 🦀"}), None),
        delta(0, json!({}), Some("stop")),
        frame(
            &json!({"id": "c1", "choices": [], "usage": usage, "service_tier": "default",
            "system_fingerprint": "fp", "obfuscation": "x7", "object": "chat.completion.chunk"}),
        ),
        DONE.to_owned(),
    ]
    .concat();
    let message = json!({"role": "assistant", "content": "Hel\"lo\nwörld 🦀", "refusal": null});
    let expected = json!({
        "id": "c1", "object": "chat.completion", "created": 5, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage, "service_tier": "default", "system_fingerprint": "fp",
    });
    assert_eq!(assembled(1, &stream), expected);
}

#[test]
fn numbers_come_out_as_they_were_written() {
    let logprobs =
        r#"{"content":[{"token":"a","logprob":-0.10000000000000000555}],"refusal":null}"#;
    let stream = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"a\"}},\"logprobs\":{logprobs},\
         \"finish_reason\":\"stop\"}}],\"usage\":{{\"total_tokens\":1e2}}}}\n\n{DONE}"
    );
    let mut assembler = assembler(1, MIB);
    assembler.feed(stream.as_bytes()).unwrap();
    let json = String::from_utf8(assembler.finish().unwrap()).unwrap();
    assert!(json.contains(&format!("\"logprobs\":{logprobs}")), "{json}");
    assert!(json.contains("\"usage\":{\"total_tokens\":1e2}"), "{json}");
}

#[test]
fn tool_calls_are_matched_by_index_and_lose_it() {
    let call = |index: u32, id: &str, name: &str| {
        json!({"tool_calls": [{"index": index, "id": id, "type": "function",
            "function": {"name": name, "arguments": ""}}]})
    };
    let more = |index: u32, arguments: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]});
    let stream = [
        delta(0, json!({"role": "assistant", "content": null}), None),
        delta(0, call(1, "call_b", "time"), None),
        delta(0, call(0, "call_a", "get_"), None),
        delta(
            0,
            json!({"tool_calls": [{"index": 0, "id": "", "type": "function",
            "function": {"name": "weather", "arguments": "{\"a"}}]}),
            None,
        ),
        delta(0, more(1, "{}"), None),
        delta(0, more(0, "\":1}"), None),
        delta(0, json!({}), Some("tool_calls")),
    ];
    let function = |name: &str, arguments: &str| json!({"name": name, "arguments": arguments});
    assert_eq!(
        message(&stream),
        json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
            {"id": "call_a", "type": "function", "function": function("get_weather", "{\"a\":1}")},
            {"id": "call_b", "type": "function", "function": function("time", "{}")},
        ]})
    );
}

#[test]
fn whole_calls_that_are_all_numbered_0_stay_apart() {
    let whole = |id: &str, index: Option<u32>| {
        let mut call = json!({"id": id, "type": "function",
            "function": {"name": "f", "arguments": "{}"}});
        if let Some(index) = index {
            call["index"] = json!(index);
        }
        delta(0, json!({"tool_calls": [call]}), None)
    };
    for index in [Some(0), None] {
        let calls = &message(&[whole("a", index), whole("b", index)])["tool_calls"];
        assert_eq!(
            (&calls[0]["id"], &calls[1]["id"]),
            (&json!("a"), &json!("b"))
        );
        assert_eq!(calls.as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_call_whose_every_delta_has_a_new_id_is_one_call() {
    let part = |id: &str, function: Value| {
        delta(
            0,
            json!({"tool_calls": [{"index": 0, "id": id, "function": function}]}),
            None,
        )
    };
    let stream = [
        part("x1", json!({"name": "f"})),
        part("x2", json!({"name": null, "arguments": "{"})),
        part("x3", json!({"arguments": "}"})),
    ];
    let calls = &message(&stream)["tool_calls"];
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert_eq!(
        calls[0]["function"],
        json!({"name": "f", "arguments": "{}"})
    );
}

#[test]
fn keeps_fields_it_does_not_know() {
    let stream = [
        delta(
            0,
            json!({"reasoning_content": "hm", "x": {"score": 1, "note": "a"}}),
            None,
        ),
        delta(
            0,
            json!({"reasoning_content": "m", "x": {"score": 2, "note": "b"}, "y": [1]}),
            None,
        ),
        delta(
            0,
            json!({"content": "ok", "y": [{"z": 2}], "flag": true}),
            None,
        ),
        delta(
            0,
            json!({"reasoning_details": [{"index": 0, "type": "text", "text": "a"}]}),
            None,
        ),
        delta(
            0,
            json!({"reasoning_details": [{"index": 0, "type": "text", "text": "b"}]}),
            None,
        ),
        frame(
            &json!({"choices": [{"index": 0, "delta": null, "stop_reason": 7,
            "content_filter_results": {"hate": {"filtered": false}}}], "x_groq": {"id": "1"}}),
        ),
        frame(
            &json!({"choices": [{"index": 0, "delta": {}, "stop_reason": 8}], "x_groq": null,
            "id": "", "model": null}),
        ),
    ]
    .concat();
    let whole = assembled(1, &(stream + DONE));
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": "ok", "refusal": null, "reasoning_content": "hmm",
            "x": {"score": 2, "note": "ab"}, "y": [1, {"z": 2}], "flag": true,
            "reasoning_details": [{"index": 0, "type": "text", "text": "ab"}]})
    );
    assert_eq!(whole["choices"][0]["stop_reason"], json!(8));
    assert_eq!(
        whole["choices"][0]["content_filter_results"],
        json!({"hate": {"filtered": false}})
    );
    assert_eq!(
        (&whole["x_groq"], &whole["id"]),
        (&json!({"id": "1"}), &json!("c1"))
    );
    assert_eq!(whole["model"], json!("m"));
}

#[test]
fn a_usage_before_more_was_generated_is_not_shown() {
    let early = frame(&json!({"choices": [], "usage": {"total_tokens": 1}}));
    let stream = |frames: [&str; 3]| frames.concat() + DONE;
    let (first, last) = (
        delta(0, json!({"content": "a"}), None),
        delta(0, json!({"content": "b"}), Some("stop")),
    );
    assert_eq!(
        assembled(1, &stream([&first, &early, &last]))["usage"],
        Value::Null
    );
    assert_eq!(
        assembled(1, &stream([&first, &last, &early]))["usage"],
        json!({"total_tokens": 1})
    );
}

#[test]
fn a_stream_that_is_not_whole_is_no_answer() {
    let finished = delta(0, json!({"content": "a"}), Some("stop"));
    let open = delta(0, json!({"content": "a"}), None);
    let error = frame(&json!({"error": {"message": "m"}}));
    for stream in [
        open.clone(),
        finished.clone() + &error + DONE,
        String::new(),
    ] {
        let mut assembler = assembler(1, MIB);
        assembler.feed(stream.as_bytes()).unwrap();
        assert_eq!(
            assembler.finish().unwrap_err().code,
            Code::UpstreamBadResponse
        );
    }
    // As for streams: the end is `[DONE]`, or a reason for every choice that was asked for.
    assert_eq!(
        assembled(1, &finished)["choices"][0]["finish_reason"],
        json!("stop")
    );
    assert_eq!(
        assembled(1, &(open + DONE))["choices"][0]["finish_reason"],
        Value::Null
    );
    let mut two = assembler(2, MIB);
    two.feed(finished.as_bytes()).unwrap();
    assert_eq!(two.finish().unwrap_err().code, Code::UpstreamBadResponse);
}

#[test]
fn a_last_frame_may_lack_its_empty_line() {
    let stream = delta(0, json!({"content": "a"}), Some("stop"));
    assert_eq!(
        assembled(1, stream.trim_end())["choices"][0]["message"]["content"],
        json!("a")
    );
    let mut torn = assembler(1, MIB);
    torn.feed(&stream.as_bytes()[..stream.len() - 5]).unwrap();
    assert_eq!(torn.finish().unwrap_err().code, Code::UpstreamBadResponse);
}

#[test]
fn a_frame_that_cannot_be_trusted_adds_nothing_and_stops_the_rest() {
    let good = delta(0, json!({"content": "a"}), None);
    let bad: [&[u8]; 7] = [
        b"{\"choices\":[{\"delta\":{\"content\":\"x\"}}]",
        b"[]",
        b"{\"choices\":[{\"delta\":{\"content\":\"x\"}},7]}",
        b"{\"usage\":1,\"usage\":2}",
        b"\xff",
        b"{\"choices\":[{\"delta\":{\"content\":\"\\ud800\"}}]}",
        b"{\"choices\":[{\"delta\":{\"content\":\"x\",\"content\":\"y\"}}]}",
    ];
    for data in bad {
        let stream = [good.as_bytes(), b"data: ", data, b"\n\n", good.as_bytes()].concat();
        let mut assembler = assembler(1, MIB);
        assert_eq!(
            assembler.feed(&stream).unwrap_err().code,
            Code::UpstreamBadResponse
        );
        assert_eq!(
            assembler.feed(b"").unwrap_err().code,
            Code::UpstreamBadResponse
        );
        assert_eq!(
            assembler.finish().unwrap_err().code,
            Code::UpstreamBadResponse
        );
        assert_eq!(
            cut(&assembler)["choices"][0]["message"]["content"],
            json!("a")
        );
    }
}

#[test]
fn a_cut_answer_says_length_and_counts_our_tokens() {
    let mut assembler = assembler(3, MIB);
    let usage = frame(&json!({"choices": [], "usage": {"prompt_tokens": 1}}));
    let stream = delta(0, json!({"content": "a"}), None)
        + &delta(1, json!({"content": "b"}), Some("stop"))
        + &usage
        + "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"not whole\"";
    assembler.feed(stream.as_bytes()).unwrap();
    let choice = |index: u32, content: Value, reason: &str| {
        json!({"index": index, "finish_reason": reason,
            "message": {"role": "assistant", "content": content, "refusal": null}})
    };
    assert_eq!(
        cut(&assembler),
        json!({
            "id": "c1", "object": "chat.completion", "created": 5, "model": "m",
            "choices": [choice(0, json!("a"), "length"), choice(1, json!("b"), "stop"),
                choice(2, Value::Null, "length")],
            "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
        })
    );
}

#[test]
fn an_answer_that_is_cut_before_it_began_has_a_name() {
    let whole = cut(&assembler(1, MIB));
    assert_eq!(
        (&whole["id"], &whole["created"], &whole["model"]),
        (&json!("ours\"\u{1}"), &json!(7), &json!("asked"))
    );
    assert_eq!(whole["choices"][0]["finish_reason"], json!("length"));
}

#[test]
fn an_answer_may_be_as_large_as_its_maximum_and_no_larger() {
    let piece = delta(0, json!({"content": "x".repeat(1_000)}), None);
    let mut unbounded = assembler(1, MIB);
    for _ in 0..10 {
        unbounded.feed(piece.as_bytes()).unwrap();
    }
    let bytes = unbounded.kept_bytes();
    for (bytes_max, is_kept) in [(bytes, true), (bytes - 1, false)] {
        let mut assembler = assembler(1, bytes_max);
        for _ in 0..9 {
            assembler.feed(piece.as_bytes()).unwrap();
        }
        let fed = assembler.feed(piece.as_bytes()).map_err(|error| error.code);
        let expected = if is_kept {
            Ok(())
        } else {
            Err(Code::UpstreamResponseTooLarge)
        };
        assert_eq!(fed, expected);
    }
}

#[test]
fn what_is_said_again_takes_no_more_memory() {
    let mut assembler = assembler(1, MIB);
    let again = frame(
        &json!({"id": "c1", "x": [1, 2, 3], "choices": [{"index": 0, "stop_reason": 5,
        "delta": {"role": "assistant", "n": 12}}]}),
    );
    assembler.feed(again.as_bytes()).unwrap();
    let bytes = assembler.kept_bytes();
    for _ in 0..100 {
        assembler.feed(again.as_bytes()).unwrap();
    }
    assert_eq!(assembler.kept_bytes(), bytes);
}

#[test]
fn limits_frames_and_choices() {
    let longer = format!(": {}\n\n", "x".repeat(FRAME_BYTES_MAX - 3));
    for piece in [1_000, longer.len()] {
        let mut assembler = assembler(1, MIB);
        let fed = longer
            .as_bytes()
            .chunks(piece)
            .try_for_each(|it| assembler.feed(it));
        assert_eq!(fed.unwrap_err().code, Code::UpstreamResponseTooLarge);
    }
    let mut assembler = assembler(1, MIB);
    for index in 0..256 {
        assembler
            .feed(delta(index, json!({}), Some("stop")).as_bytes())
            .unwrap();
    }
    let beyond = assembler.feed(delta(256, json!({}), Some("stop")).as_bytes());
    assert_eq!(beyond.unwrap_err().code, Code::UpstreamBadResponse);
}

#[test]
fn takes_wide_deltas_in_linear_time() {
    // 30 MB; minutes, if members and calls were looked up one by one.
    let members: Map<_, _> = (0..4_000)
        .map(|at| (format!("k{at}"), json!("x")))
        .collect();
    let wide = delta(0, Value::Object(members), None);
    let calls: Vec<_> = (0..4_000)
        .map(|at| json!({"index": at, "id": "i"}))
        .collect();
    let many = delta(0, json!({"tool_calls": calls}), None);
    let mut assembler = assembler(1, 64 * MIB);
    for _ in 0..200 {
        assembler.feed(wide.as_bytes()).unwrap();
        assembler.feed(many.as_bytes()).unwrap();
    }
    assert!(!assembler.finish_cut(0, 0).is_empty());
}

/// A text and where it is cut into deltas.
fn any_text() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-zé漢🦀 \\n\"\\\\/\u{1}]{0,9}", 1..6)
}

fn any_logprobs() -> impl Strategy<Value = Option<Vec<i32>>> {
    prop::option::of(prop::collection::vec(-900..0, 0..5))
}

/// A choice of a plain answer, and the deltas of it.
fn any_choice() -> impl Strategy<Value = (Value, Vec<Value>)> {
    let calls = prop::collection::vec(("[a-z_]{1,9}", any_text()), 1..4);
    let reason = prop::sample::select(vec!["stop", "length", "tool_calls", "content_filter"]);
    prop_oneof![
        (
            any_text(),
            prop::option::of(any_text()),
            any_logprobs(),
            reason.clone()
        )
            .prop_map(|(text, thought, logprobs, reason)| spoken(&text, thought, logprobs, reason)),
        (calls, reason.clone()).prop_map(|(calls, reason)| called(&calls, reason)),
        (any_text(), reason).prop_map(|(arguments, reason)| called_the_old_way(&arguments, reason)),
    ]
}

fn opened(delta: Value) -> Value {
    json!({"delta": delta, "logprobs": null, "finish_reason": null})
}

fn closed(reason: &str) -> Value {
    json!({"delta": {}, "logprobs": null, "finish_reason": reason})
}

fn spoken(
    text: &[String],
    thought: Option<Vec<String>>,
    logprobs: Option<Vec<i32>>,
    reason: &str,
) -> (Value, Vec<Value>) {
    let mut message = json!({"role": "assistant", "content": text.concat(), "refusal": null});
    let first = json!({"role": "assistant", "content": "", "refusal": null});
    let mut deltas = vec![opened(first)];
    if let Some(thought) = thought {
        message["reasoning_content"] = json!(thought.concat());
        deltas.extend(
            thought
                .iter()
                .map(|it| opened(json!({"reasoning_content": it}))),
        );
    }
    let mut whole = Value::Null;
    for (at, piece) in text.iter().enumerate() {
        let mut delta = opened(json!({"content": piece}));
        if let Some(logprobs) = &logprobs {
            let items: Vec<_> = logprobs
                .iter()
                .map(|it| json!({"logprob": it, "at": at}))
                .collect();
            delta["logprobs"] = json!({"content": items, "refusal": null});
            if whole.is_null() {
                whole = json!({"content": [], "refusal": null});
            }
            whole["content"].as_array_mut().unwrap().extend(items);
        }
        deltas.push(delta);
    }
    deltas.push(closed(reason));
    (
        json!({"message": message, "logprobs": whole, "finish_reason": reason}),
        deltas,
    )
}

fn called(calls: &[(String, Vec<String>)], reason: &str) -> (Value, Vec<Value>) {
    let mut deltas = vec![opened(json!({"role": "assistant", "content": null}))];
    let mut whole = Vec::new();
    for (index, (name, arguments)) in calls.iter().enumerate() {
        let id = format!("call_{index}");
        let call = |arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let mut first = call("");
        first["index"] = json!(index);
        deltas.push(opened(json!({"tool_calls": [first]})));
        for piece in arguments {
            let more = json!({"index": index, "function": {"arguments": piece}});
            deltas.push(opened(json!({"tool_calls": [more]})));
        }
        whole.push(call(&arguments.concat()));
    }
    deltas.push(closed(reason));
    let message =
        json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": whole});
    (
        json!({"message": message, "logprobs": null, "finish_reason": reason}),
        deltas,
    )
}

fn called_the_old_way(arguments: &[String], reason: &str) -> (Value, Vec<Value>) {
    let function = |arguments: &str| json!({"name": "f", "arguments": arguments});
    let first = json!({"role": "assistant", "content": null, "function_call": function("")});
    let mut deltas = vec![opened(first)];
    for piece in arguments {
        deltas.push(opened(json!({"function_call": {"arguments": piece}})));
    }
    deltas.push(closed(reason));
    let called = function(&arguments.concat());
    let message =
        json!({"role": "assistant", "content": null, "refusal": null, "function_call": called});
    (
        json!({"message": message, "logprobs": null, "finish_reason": reason}),
        deltas,
    )
}

/// A plain answer and the stream of it, its choices mixed.
fn any_answer() -> impl Strategy<Value = (Value, String)> {
    let usage = prop::option::of((0_u32..9, 0_u32..9));
    let line_end = prop::sample::select(vec!["\n", "\r\n", "\r"]);
    let order = prop::collection::vec(any::<prop::sample::Index>(), 100);
    (
        prop::collection::vec(any_choice(), 1..4),
        usage,
        order,
        line_end,
    )
        .prop_map(|(choices, usage, order, line_end)| {
            let head = json!({"id": "c1", "created": 5, "model": "m", "system_fingerprint": "fp"});
            let usage = usage.map_or(Value::Null, |(input, output)| {
                json!({"prompt_tokens": input, "completion_tokens": output, "d": {"r": 1}})
            });
            let stream = streamed(&head, &usage, &choices, &order);
            let choices = choices
                .into_iter()
                .enumerate()
                .map(|(index, (mut choice, _))| {
                    choice["index"] = json!(index);
                    choice
                });
            let mut plain = head;
            plain["object"] = json!("chat.completion");
            plain["choices"] = choices.collect();
            plain["usage"] = usage;
            (plain, stream.replace('\n', line_end))
        })
}

fn streamed(
    head: &Value,
    usage: &Value,
    choices: &[(Value, Vec<Value>)],
    order: &[prop::sample::Index],
) -> String {
    let mut left: Vec<_> = choices.iter().map(|(_, deltas)| deltas.iter()).collect();
    let mut stream = String::new();
    let mut order = order.iter().cycle();
    while left.iter().any(|deltas| deltas.len() > 0) {
        let index = order.next().unwrap().index(left.len());
        let open = (0..left.len()).map(|step| (index + step) % left.len());
        let index = open.into_iter().find(|at| left[*at].len() > 0).unwrap();
        let mut choice = left[index].next().unwrap().clone();
        choice["index"] = json!(index);
        let mut chunk = head.clone();
        chunk["choices"] = json!([choice]);
        chunk["usage"] = Value::Null;
        stream += &frame(&chunk);
    }
    let mut last = head.clone();
    last["choices"] = json!([]);
    last["usage"] = usage.clone();
    stream + &frame(&last) + DONE
}

proptest! {
    // Failures are reported, not written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_answer_put_together_is_the_plain_one_however_the_stream_is_split(
        (plain, stream) in any_answer(), cuts in prop::collection::vec(1_usize..400, 1..20),
    ) {
        let choices = u32::try_from(plain["choices"].as_array().unwrap().len()).unwrap();
        let mut assembler = assembler(choices, MIB);
        let mut rest = stream.as_bytes();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            assembler.feed(chunk).unwrap();
            rest = after;
        }
        let json = assembler.finish().unwrap();
        let whole: Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(whole, plain);
        prop_assert!(parse_chat_answer(&json, None).is_ok());
    }

    #[test]
    fn a_stream_cut_anywhere_gives_an_answer((plain, stream) in any_answer(), at: prop::sample::Index) {
        let mut assembler = assembler(1, MIB);
        let end = at.index(stream.len());
        assembler.feed(&stream.as_bytes()[..end]).unwrap();
        let json = assembler.finish_cut(1, 2);
        let read = parse_chat_answer(&json, None).unwrap();
        prop_assert_eq!(read.usage.unwrap().output_tokens, 2);
        let whole: Value = serde_json::from_slice(&json).unwrap();
        for choice in whole["choices"].as_array().unwrap() {
            prop_assert!(choice["finish_reason"].is_string());
            let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            let said = choice["message"]["content"].as_str().unwrap_or_default();
            let all = plain["choices"][index]["message"]["content"].as_str().unwrap_or_default();
            prop_assert!(all.starts_with(said));
        }
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "[\\PC\n]{0,200}") {
        let mut assembler = assembler(1, 1_000);
        let _ = assembler.feed(&bytes);
        let _ = assembler.feed(format!("data: {text}\n\n").as_bytes());
        let _ = assembler.finish();
        prop_assert!(serde_json::from_slice::<Value>(&assembler.finish_cut(0, 0)).is_ok());
    }
}
