//! Behaviour of the strict scan: each kind of bad input, limits at the limit, spans.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
use comptroller_wire::{
    Code, DEPTH_MAX, MEMBERS_MAX, NUMBER_BYTES_MAX, TOP_MEMBERS_MAX, scan_object,
};
use proptest::prelude::*;
use serde_json::Value;

#[track_caller]
fn refused(body: impl AsRef<[u8]>) -> (Code, String) {
    let error = scan_object(body.as_ref()).unwrap_err();
    (error.code, error.param)
}

#[track_caller]
fn accepted(body: &str) -> Vec<(String, String)> {
    let members = scan_object(body.as_bytes()).unwrap();
    members
        .into_iter()
        .map(|m| (m.name, String::from(&body[m.start..m.end])))
        .collect()
}

fn nested(levels: usize) -> String {
    format!(
        r#"{{"a":{}{}}}"#,
        "[".repeat(levels - 1),
        "]".repeat(levels - 1)
    )
}

fn members(count: usize) -> String {
    let members: Vec<_> = (0..count).map(|i| format!("\"k{i}\":0")).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn gives_names_unescaped_and_values_as_sent() {
    let found =
        accepted(" {\"mod\\u0065l\" : \"gpt\\n\" ,\"n\":-1.5e+3, \"x\":[ 1 ], \"e\":{} } \n");
    let expected = [
        ("model", "\"gpt\\n\""),
        ("n", "-1.5e+3"),
        ("x", "[ 1 ]"),
        ("e", "{}"),
    ];
    assert_eq!(
        found,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn refuses_what_is_not_json() {
    let bodies: [&[u8]; 37] = [
        b"",
        b" ",
        b"{",
        b"{\"a\"",
        b"{\"a\":",
        b"{\"a\":1",
        b"{\"a\":1,",
        b"{\"a\":1,}",
        b"{,}",
        b"{\"a\":1}}",
        b"{\"a\":1} x",
        b"{}{}",
        b"{a:1}",
        b"{'a':1}",
        b"{\"a\" 1}",
        b"{\"a\":[1,]}",
        b"{\"a\":[1 2]}",
        b"{\"a\":NaN}",
        b"{\"a\":Infinity}",
        b"{\"a\":-Infinity}",
        b"{\"a\":nul}",
        b"{\"a\":True}",
        b"{\"a\":01}",
        b"{\"a\":+1}",
        b"{\"a\":.5}",
        b"{\"a\":1.}",
        b"{\"a\":1e}",
        b"{\"a\":0x1}",
        b"{\"a\":\"\x01\"}",
        b"{\"a\":\"\n\"}",
        b"{\"a\":\"\\x\"}",
        b"{\"a\":\"\\u12g4\"}",
        b"{\"a\":\"\\u+123\"}",
        b"{\"a\":\"\\u12",
        b"{\"a\":\"open}",
        b"/* */{}",
        b"{\"a\":1}\0",
    ];
    for body in bodies {
        assert_eq!(
            refused(body).0,
            Code::MalformedJson,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}

#[test]
fn refuses_wrong_encodings_and_says_where() {
    let error = scan_object(b"{\"a\":\"\xff\"}").unwrap_err();
    assert_eq!((error.code, error.offset), (Code::MalformedJson, 6));
    assert_eq!(refused(b"\xef\xbb\xbf{}").0, Code::MalformedJson);
    assert_eq!(refused(b"\xff\xfe{\0}\0").0, Code::MalformedJson);
    // A surrogate written in UTF-8 and an overlong form.
    assert_eq!(refused(b"{\"a\":\"\xed\xa0\x80\"}").0, Code::MalformedJson);
    assert_eq!(refused(b"{\"a\":\"\xc0\xaf\"}").0, Code::MalformedJson);
}

#[test]
fn refuses_lone_surrogates_but_takes_pairs() {
    for escape in [
        "\\ud800",
        "\\udc00",
        "\\ud800\\ud800",
        "\\ud800x",
        "\\ud83d\\u0041",
    ] {
        let body = format!(r#"{{"m":[{{"c":"{escape}"}}]}}"#);
        assert_eq!(
            refused(body),
            (Code::MalformedJson, "m[0].c".to_owned()),
            "{escape}"
        );
    }
    assert_eq!(accepted(r#"{"\ud83d\ude00":1}"#)[0].0, "😀");
}

#[test]
fn refuses_a_top_that_is_no_object() {
    for body in ["[]", "null", "\"a\"", "1", "-1", "true", "false"] {
        assert_eq!(refused(body), (Code::InvalidValue, String::new()), "{body}");
    }
}

#[test]
fn refuses_numbers_that_parsers_read_differently() {
    let long = "1".repeat(NUMBER_BYTES_MAX + 1);
    for number in ["1e400", "-1e400", "1E+309", &long, &"9".repeat(5000)] {
        let body = format!(r#"{{"max_tokens":{number}}}"#);
        assert_eq!(refused(body), (Code::InvalidValue, "max_tokens".to_owned()));
    }
    let longest = format!(r#"{{"a":{}}}"#, "1".repeat(NUMBER_BYTES_MAX));
    assert_eq!(accepted(&longest).len(), 1);
    assert_eq!(
        accepted(r#"{"a":[0,-0,1e308,1e-400,18446744073709551616]}"#).len(),
        1
    );
}

#[test]
fn nests_up_to_the_limit() {
    let levels = usize::try_from(DEPTH_MAX).unwrap();
    assert_eq!(accepted(&nested(levels)).len(), 1);
    assert_eq!(refused(nested(levels + 1)).0, Code::JsonTooDeep);
    assert_eq!(refused("{\"a\":".repeat(1_000_000)).0, Code::JsonTooDeep);
}

#[test]
fn limits_members_at_the_top_and_below() {
    assert_eq!(accepted(&members(TOP_MEMBERS_MAX)).len(), TOP_MEMBERS_MAX);
    assert_eq!(refused(members(TOP_MEMBERS_MAX + 1)).0, Code::InvalidValue);
    assert_eq!(
        accepted(&format!(r#"{{"a":{}}}"#, members(MEMBERS_MAX))).len(),
        1
    );
    let (code, param) = refused(format!(r#"{{"a":{}}}"#, members(MEMBERS_MAX + 1)));
    assert_eq!((code, param), (Code::InvalidValue, "a".to_owned()));
}

#[test]
fn refuses_keys_with_control_characters() {
    for key in ["model\\u0000", "\\u0000", "a\\nb", "\\u007f", "\\u0085"] {
        assert_eq!(
            refused(format!(r#"{{"{key}":1}}"#)).0,
            Code::InvalidValue,
            "{key}"
        );
    }
}

#[test]
fn refuses_keys_that_are_equal_after_unescaping_and_folding() {
    let pairs = [
        ("max_tokens", "max_tokens"),
        ("max_tokens", "max_toke\\u006es"),
        ("max_tokens", "Max_Tokens"),
        ("max_tokens", "MAX_TOKENS"),
        // U+017F folds to s, U+212A to k: Go's encoding/json takes both as equal.
        ("max_tokens", "max_token\u{17f}"),
        ("max_tokens", "max_to\u{212a}ens"),
        ("stra\u{df}e", "STRASSE"),
        ("\u{3c3}", "\u{3c2}"),
        ("", ""),
    ];
    for (first, second) in pairs {
        let object = format!(r#"{{"{first}":1,"{second}":2}}"#);
        assert_eq!(refused(&object).0, Code::DuplicateField, "{object}");
        let deep = format!(r#"{{"messages":[{{"content":[{object}]}}]}}"#);
        assert_eq!(refused(&deep).0, Code::DuplicateField, "{deep}");
    }
}

#[test]
fn names_the_duplicate_and_where_it_stands() {
    let body = br#"{"model":"a","messages":[{"role":"user"},{"role":"user","Role":"system"}]}"#;
    let error = scan_object(body).unwrap_err();
    assert_eq!(error.param, "messages[1].role");
    assert!(body[error.offset..].starts_with(b"\"Role\""));
}

#[test]
fn finds_a_duplicate_among_many_keys() {
    let many = members(MEMBERS_MAX - 1);
    let body = format!(r#"{{"a":{},"K7":1}}}}"#, &many[..many.len() - 1]);
    let error = scan_object(body.as_bytes()).unwrap_err();
    assert_eq!(
        (error.code, error.param.as_str()),
        (Code::DuplicateField, "a.k7")
    );
    assert!(body[error.offset..].starts_with("\"K7\""));
}

#[test]
fn keeps_keys_that_differ_in_case_in_maps_of_the_caller() {
    let twins = r#"{"id":1,"ID":2,"x":{"a":1,"A":2}}"#;
    let places = [
        (r#"{"metadata":"#, "}"),
        (r#"{"tools":[{},{"function":{"parameters":"#, "}}]}"),
        (r#"{"functions":[{"parameters":"#, "}]}"),
        (r#"{"response_format":{"json_schema":{"schema":"#, "}}}"),
    ];
    for (before, after) in places {
        assert_eq!(
            accepted(&format!("{before}{twins}{after}")).len(),
            1,
            "{before}"
        );
        let doubled = format!(r#"{before}{{"id":1,"i\u0064":2}}{after}"#);
        assert_eq!(refused(doubled).0, Code::DuplicateField, "{before}");
    }
    for elsewhere in [
        r#"{"tools":[{"function":"#,
        r#"{"parameters":"#,
        r#"{"x":{"metadata":"#,
    ] {
        let closing = elsewhere.replace(|c| c != '{' && c != '[', "");
        let closing: String = closing
            .chars()
            .rev()
            .map(|c| if c == '{' { '}' } else { ']' })
            .collect();
        let body = format!("{elsewhere}{twins}{closing}");
        assert_eq!(refused(&body).0, Code::DuplicateField, "{body}");
    }
}

#[test]
fn bounds_the_path_in_an_error() {
    let key = "k".repeat(10_000);
    let (_, param) = refused(format!(r#"{{"{key}":{{"{key}":{{"{key}":nope}}}}}}"#));
    assert!(param.len() <= 300 && param.contains("kkk"), "{param}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            object_of(inner).prop_map(Value::Object),
        ]
    })
}

fn object_of(
    inner: impl Strategy<Value = Value>,
) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let key = prop_oneof!["[a-z_]{0,6}", "[a-z\\\\\"é漢😀/]{0,4}"];
    prop::collection::btree_map(key, inner, 0..6).prop_map(|map| map.into_iter().collect())
}

/// JSON text with one byte changed, removed, doubled, or the end cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let alphabet = prop::sample::select(b"{}[]\",:\\/u0e+-.19 \n\x00\xff\xc3aNI".to_vec());
    (
        object_of(any_json()),
        any::<prop::sample::Index>(),
        0..4,
        alphabet,
    )
        .prop_map(|(map, at, kind, byte)| {
            let mut body = serde_json::to_vec(&map).unwrap();
            let at = at.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => drop(body.remove(at)),
                2 => body.insert(at, byte),
                _ => body.truncate(at),
            }
            body
        })
}

proptest! {
    // Failures are reported, not written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn takes_what_serde_json_writes_and_gives_its_spans(map in object_of(any_json()), pretty: bool) {
        let body = if pretty { serde_json::to_string_pretty(&map) } else { serde_json::to_string(&map) };
        let body = body.unwrap();
        let members = scan_object(body.as_bytes()).unwrap();
        let read: Vec<(String, Value)> = members
            .into_iter()
            .map(|m| (m.name, serde_json::from_str(&body[m.start..m.end]).unwrap()))
            .collect();
        let written: Vec<(String, Value)> = serde_json::from_str::<serde_json::Map<_, _>>(&body)
            .unwrap().into_iter().collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn accepts_damaged_text_only_where_serde_json_does(body in damaged()) {
        let theirs = serde_json::from_slice::<Value>(&body);
        match scan_object(&body) {
            Ok(_) => prop_assert!(theirs.is_ok_and(|value| value.is_object())),
            Err(error) if error.code == Code::MalformedJson => prop_assert!(theirs.is_err()),
            Err(_) => {}
        }
    }

    #[test]
    fn never_panics_on_any_bytes(body in prop::collection::vec(any::<u8>(), 0..64)) {
        let ours = scan_object(&body).is_ok();
        prop_assert!(!ours || serde_json::from_slice::<Value>(&body).is_ok());
    }
}
