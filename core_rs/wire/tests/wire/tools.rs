//! Which tools are let through.
#![allow(missing_docs, clippy::unwrap_used)]
use comptroller_wire::{Code, MESSAGES_MAX, check_tools};

#[test]
fn takes_tools_that_the_caller_runs() {
    let tools = [
        "null",
        "[]",
        r#"[{"type":"function","function":{"name":"f","parameters":{"properties":{"id":{},"ID":{}}}}},
            {"custom":{"name":"c"},"type":"cust\u006fm","cache_control":{"type":"ephemeral"}}]"#,
    ];
    for tools in tools {
        assert_eq!(check_tools(tools.as_bytes()), Ok(()), "{tools}");
    }
}

#[test]
fn refuses_tools_that_the_provider_runs_and_names_the_place() {
    let cases = [
        (r#"[{"type":"web_search"}]"#, "tools[0].type"),
        (
            r#"[{"type":"function"},{"type":"code_interpreter","container":{}}]"#,
            "tools[1].type",
        ),
        (
            r#"[{"type":"builtin_function","function":{"name":"$web_search"}}]"#,
            "tools[0].type",
        ),
        (r#"[{"type":"Function"}]"#, "tools[0].type"),
    ];
    for (tools, param) in cases {
        let error = check_tools(tools.as_bytes()).unwrap_err();
        assert_eq!(
            (error.code, error.param.as_str()),
            (Code::CostNotBounded, param),
            "{tools}"
        );
    }
}

#[test]
fn refuses_tools_of_another_form() {
    let too_many = format!(
        "[{}]",
        vec![r#"{"type":"function"}"#; MESSAGES_MAX + 1].join(",")
    );
    let cases = [
        ("{}", Code::InvalidValue, "tools"),
        ("[1]", Code::InvalidValue, "tools[0]"),
        ("[{}]", Code::InvalidValue, "tools[0].type"),
        (r#"[{"type":1}]"#, Code::InvalidValue, "tools[0].type"),
        (
            r#"[{"Type":"web_search"}]"#,
            Code::InvalidValue,
            "tools[0].type",
        ),
        (
            r#"[{"type":"function","web_search":{}}]"#,
            Code::UnsupportedParameter,
            "tools[0].web_search",
        ),
        (&too_many, Code::InvalidValue, "tools[4096]"),
    ];
    for (tools, code, param) in cases {
        let error = check_tools(tools.as_bytes()).unwrap_err();
        assert_eq!((error.code, error.param.as_str()), (code, param), "{tools}");
    }
}
