//! Token counts against published figures and a naive BPE.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
use std::collections::HashMap;
use std::sync::LazyLock;

use comptroller_wire::{ChatInput, Vocabulary, chat_facts, count_chat_tokens};
use proptest::prelude::*;

use Vocabulary::{Cl100kBase, O200kBase};

/// The messages of the `OpenAI` cookbook, "How to count tokens with tiktoken", section 6.
const COOKBOOK_MESSAGES: &str = r#"[
 {"role": "system", "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."},
 {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
 {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
 {"role": "system", "name": "example_user", "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."},
 {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
 {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."}
]"#;

fn input(messages: &str) -> ChatInput<'_> {
    ChatInput {
        messages: messages.as_bytes(),
        tools_bytes: None,
        response_format_bytes: None,
    }
}

#[test]
fn counts_as_the_cookbook_does() {
    // Section 5, "Comparing encodings".
    let published = [
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("tiktoken is great!", 6, 6),
        ("", 0, 0),
    ];
    for (text, cl100k, o200k) in published {
        assert_eq!(
            (Cl100kBase.count(text), O200kBase.count(text)),
            (cl100k, o200k),
            "{text}"
        );
    }
}

#[test]
fn counts_the_messages_of_the_cookbook_and_one_more_each() {
    // The API billed 129 and 124, at 3 a message; we allow 4 for the older form.
    assert_eq!(
        count_chat_tokens(Cl100kBase, input(COOKBOOK_MESSAGES)),
        Ok(129 + 6)
    );
    assert_eq!(
        count_chat_tokens(O200kBase, input(COOKBOOK_MESSAGES)),
        Ok(124 + 6)
    );
}

#[test]
fn finds_the_vocabulary_of_each_family() {
    let o200k = [
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4o-2024-08-06",
        "gpt-4.1",
        "gpt-4.1-nano",
        "gpt-4.5-preview",
        "gpt-5",
        "gpt-5-mini",
        "gpt-5.1",
        "o1",
        "o1-pro",
        "o3",
        "o3-mini",
        "o4-mini",
        "chatgpt-4o-latest",
        "ft:gpt-4o-mini:acme",
    ];
    for model in o200k {
        assert_eq!(Vocabulary::of_model(model), Some(O200kBase), "{model}");
    }
    for model in [
        "gpt-4",
        "gpt-4-turbo",
        "gpt-4-0613",
        "gpt-3.5-turbo",
        "gpt-35-turbo",
    ] {
        assert_eq!(Vocabulary::of_model(model), Some(Cl100kBase), "{model}");
    }
    let closed = [
        "claude-sonnet-4",
        "gemini-2.5-pro",
        "gpt-4.9",
        "gpt-40",
        "o10",
        "gpt-oss-20b",
        "GPT-4o",
        "",
    ];
    for model in closed {
        assert_eq!(Vocabulary::of_model(model), None, "{model}");
    }
}

#[test]
fn knows_only_its_two_names() {
    for vocabulary in [O200kBase, Cl100kBase] {
        assert_eq!(Vocabulary::named(vocabulary.name()), Ok(vocabulary));
    }
    assert!(Vocabulary::named("p50k_base").is_err());
}

static RANKS: LazyLock<HashMap<Vec<u8>, u32>> = LazyLock::new(|| {
    let bpe = &bpe_openai::o200k_base().bpe;
    let count = u32::try_from(bpe.num_tokens()).unwrap();
    (0..count)
        .map(|rank| (bpe.token_bytes(rank).to_vec(), rank))
        .collect()
});

/// BPE as first described: merge the pair of lowest rank until none is left. Quadratic.
fn naive_count(piece: &[u8]) -> usize {
    let mut parts: Vec<Vec<u8>> = piece.iter().map(|byte| vec![*byte]).collect();
    loop {
        let pairs = parts.windows(2).enumerate();
        let ranked =
            pairs.filter_map(|(at, pair)| RANKS.get(&pair.concat()).map(|rank| (*rank, at)));
        let Some((_, at)) = ranked.min() else {
            return parts.len();
        };
        let second = parts.remove(at + 1);
        parts[at].extend(second);
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z ,.'\n]{0,60}",
        "([a-z]{1,9} ?){0,12}",
        "[\\u4e00-\\u4fff\\u3042-\\u3060。 ]{0,20}",
        any::<String>(),
    ]
}

proptest! {
    // Failures are reported, not written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_like_naive_bpe(text in any_text()) {
        let expected: usize = bpe_openai::o200k_base().split(&text).map(|p| naive_count(p.as_bytes())).sum();
        prop_assert_eq!(O200kBase.count(&text), u64::try_from(expected).unwrap());
    }

    #[test]
    fn bytes_bound_the_exact_count(texts in prop::collection::vec(any_text(), 1..5), named: bool) {
        let message = |text: &String| {
            let mut message = serde_json::json!({"role": "user", "content": text});
            if named { message["name"] = text.clone().into(); }
            message
        };
        let messages = serde_json::Value::from(texts.iter().map(message).collect::<Vec<_>>()).to_string();
        let bound = chat_facts(input(&messages)).unwrap().input_tokens_max;
        for vocabulary in [O200kBase, Cl100kBase] {
            let exact = count_chat_tokens(vocabulary, input(&messages)).unwrap();
            let texts: u64 = texts.iter().map(|text| vocabulary.count(text)).sum();
            prop_assert!(texts < exact && exact <= bound, "{} < {} <= {}", texts, exact, bound);
        }
    }
}
