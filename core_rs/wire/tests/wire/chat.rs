//! Facts of a chat input and the messages that are refused.
#![allow(missing_docs, clippy::unwrap_used)]
use comptroller_wire::{ChatFacts, ChatInput, Code, MESSAGES_MAX, WireError, chat_facts};

fn facts(messages: &str) -> Result<ChatFacts, WireError> {
    let messages = messages.as_bytes();
    chat_facts(ChatInput {
        messages,
        tools_bytes: None,
        response_format_bytes: None,
    })
}

fn list(item: &str, count: usize) -> String {
    format!("[{}]", vec![item; count].join(","))
}

#[test]
fn bounds_the_tokens_by_bytes_and_allowances() {
    let messages = r#"[{"role":"user","content":"hi"}]"#;
    let plain = facts(messages).unwrap();
    let bytes = u64::try_from(messages.len()).unwrap();
    assert_eq!(
        (plain.message_count, plain.input_tokens_max),
        (1, bytes + 4 + 3)
    );
    assert!(plain.unbounded_parts.is_empty());
    let input = ChatInput {
        messages: messages.as_bytes(),
        tools_bytes: Some(100),
        response_format_bytes: Some(50),
    };
    let whole = chat_facts(input).unwrap();
    assert_eq!(
        whole.input_tokens_max,
        plain.input_tokens_max + 100 + 256 + 50 + 64
    );
}

#[test]
fn takes_every_form_of_content() {
    let messages = r#"[{"role":"system","content":""},{"role":"user","content":[]},
        {"role":"user","content":[{"type":"text","text":"a"}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"1"}],"audio":null},
        {"role":"assistant","content":[{"type":"refusal","refusal":"no"}]},{"role":"tool"}]"#;
    let facts = facts(messages).unwrap();
    assert_eq!(facts.message_count, 6);
    assert!(facts.unbounded_parts.is_empty());
}

#[test]
fn reports_parts_whose_tokens_bytes_do_not_bound() {
    let messages = r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}},
        {"type":"text","text":"a"},{"input_audio":{},"type":"input_audio"},{"type":"file"},{"type":"file"}]},
        {"role":"assistant","audio":{"id":"audio_1"}},{"role":"user","content":[{"type":"a\u0000"}]}]"#;
    let found: Vec<_> = facts(messages)
        .unwrap()
        .unbounded_parts
        .into_iter()
        .collect();
    assert_eq!(
        found,
        ["audio", "file", "image_url", "input_audio", "unknown"]
    );
}

#[test]
fn refuses_messages_of_another_form_and_names_the_place() {
    let cases = [
        ("{}", "messages"),
        ("\"hi\"", "messages"),
        ("null", "messages"),
        ("[]", "messages"),
        ("[1]", "messages[0]"),
        ("[null]", "messages[0]"),
        ("[{}]", "messages[0].role"),
        (r#"[{"content":"a"}]"#, "messages[0].role"),
        (r#"[{"Role":"user","content":"a"}]"#, "messages[0].role"),
        (r#"[{"role":"user"},{"role":1}]"#, "messages[1].role"),
        (r#"[{"role":null}]"#, "messages[0].role"),
        (r#"[{"role":"user","content":1}]"#, "messages[0].content"),
        (
            r#"[{"role":"user","content":{"type":"text"}}]"#,
            "messages[0].content",
        ),
        (
            r#"[{"role":"user","content":["a"]}]"#,
            "messages[0].content[0]",
        ),
        (
            r#"[{"role":"user","content":[{"text":"a"}]}]"#,
            "messages[0].content[0].type",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text"},{"type":7}]}]"#,
            "messages[0].content[1].type",
        ),
    ];
    for (messages, param) in cases {
        let error = facts(messages).unwrap_err();
        assert_eq!(
            (error.code, error.param.as_str()),
            (Code::InvalidValue, param),
            "{messages}"
        );
    }
}

#[test]
fn limits_messages_and_parts() {
    assert_eq!(
        facts(&list(r#"{"role":"u"}"#, MESSAGES_MAX))
            .unwrap()
            .message_count,
        MESSAGES_MAX
    );
    let error = facts(&list(r#"{"role":"u"}"#, MESSAGES_MAX + 1)).unwrap_err();
    assert_eq!(
        (error.code, error.param.as_str()),
        (Code::InvalidValue, "messages[4096]")
    );
    let parts = |count| {
        format!(
            r#"[{{"role":"u","content":{}}}]"#,
            list(r#"{"type":"text"}"#, count)
        )
    };
    assert!(facts(&parts(MESSAGES_MAX)).is_ok());
    assert_eq!(
        facts(&parts(MESSAGES_MAX + 1)).unwrap_err().param,
        "messages[0].content[4096]"
    );
}

#[test]
fn takes_the_fields_that_answers_of_providers_have_when_they_are_sent_back() {
    let messages = r#"[{"role":"assistant","content":"a","name":"n","refusal":null,"annotations":[],
        "tool_calls":null,"function_call":null,"reasoning_content":"r","reasoning":"r","prefix":true,
        "audio":null},{"role":"tool","content":"1","tool_call_id":"1"},
        {"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}]"#;
    assert!(facts(messages).unwrap().unbounded_parts.is_empty());
}

#[test]
fn refuses_fields_that_could_carry_what_nobody_priced() {
    let cases = [
        (
            r#"[{"role":"user","content":"a","images":["…"]}]"#,
            "messages[0].images",
        ),
        // A parser that ignores case would read this content, which was not looked at.
        (
            r#"[{"role":"user","Content":[{"type":"image_url"}]}]"#,
            "messages[0].Content",
        ),
        (
            r#"[{"role":"user","content":[{"image_url":{"url":"x"},"type":"text","text":"a"}]}]"#,
            "messages[0].content[0].image_url",
        ),
        (
            r#"[{"role":"user","content":[{"type":"text","Text":"a"}]}]"#,
            "messages[0].content[0].Text",
        ),
    ];
    for (messages, param) in cases {
        let error = facts(messages).unwrap_err();
        assert_eq!(
            (error.code, error.param.as_str()),
            (Code::UnsupportedParameter, param),
            "{messages}"
        );
    }
}
