//! Answers in one piece.
#![allow(missing_docs, clippy::unwrap_used)]
use comptroller_wire::{Code, UsageFault, Vocabulary, parse_chat_answer};

const O200K: Option<Vocabulary> = Some(Vocabulary::O200kBase);

#[test]
fn reads_an_ordinary_answer_and_does_not_count_it() {
    let body = br#"{"id":"c","model":"gpt-4o-2024","choices":[
        {"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"},
        {"index":1,"message":{"role":"assistant","content":"Hi"},"finish_reason":"length"}],
        "usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#;
    let answer = parse_chat_answer(body, O200K).unwrap();
    let usage = answer.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (7, 2));
    assert_eq!(
        (answer.model.as_deref(), answer.generated_tokens),
        (Some("gpt-4o-2024"), None)
    );
    let reasons: Vec<_> = answer.finish_reasons.into_iter().collect();
    assert_eq!(reasons, [(0, "stop".to_owned()), (1, "length".to_owned())]);
    assert_eq!(answer.generated_bytes, 7);
}

#[test]
fn counts_an_answer_without_usage_that_can_be_believed() {
    let message = r#"{"content":"Hello world","annotations":[{"url":"x"}],"tool_calls":[
        {"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]}"#;
    for (usage, fault) in [
        ("null", None),
        (r#"{"prompt_tokens":-1}"#, Some(UsageFault::Negative)),
    ] {
        let body = format!(r#"{{"choices":[{{"message":{message}}}],"usage":{usage}}}"#);
        let answer = parse_chat_answer(body.as_bytes(), O200K).unwrap();
        assert_eq!((answer.usage, answer.usage_fault), (None, fault));
        assert_eq!(answer.generated_tokens, Some(2 + 1 + 1 + 8));
        let closed = parse_chat_answer(body.as_bytes(), None).unwrap();
        assert_eq!(
            (closed.generated_tokens, closed.generated_bytes),
            (Some(14), 14)
        );
    }
}

#[test]
fn shows_an_error_of_the_provider() {
    let answer = parse_chat_answer(br#"{"error": {"code": "x"}}"#, None).unwrap();
    assert_eq!(answer.upstream_error.as_deref(), Some(r#"{"code": "x"}"#));
}

#[test]
fn refuses_what_is_no_object() {
    for body in [
        "",
        "[]",
        "<html>",
        "{\"choices\":[",
        "{} {}",
        "{\"model\":1,\"model\":2}",
    ] {
        let error = parse_chat_answer(body.as_bytes(), None).unwrap_err();
        assert_eq!(error.code, Code::UpstreamBadResponse, "{body}");
    }
    assert!(parse_chat_answer(b"{\"a\":\"\xff\"}", None).is_err());
}
