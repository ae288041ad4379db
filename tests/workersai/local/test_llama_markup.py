"""A conversation in Llama's chat template is read back, so that the small model answers it."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support import connection
from workersai import Client
from workersai.local import LocalServer
from workersai.local.llama_markup import messages_in
from workersai.protocol.template import MARKUP, rendered

contents = st.text(min_size=1).map(str.strip).filter(lambda text: text and not MARKUP.search(text))
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": contents}),
    min_size=1,
    max_size=5,
)


@given(messages, st.booleans())
def test_what_the_template_writes_is_read_back(conversation: list[dict[str, str]], begin: bool) -> None:
    prompt = "<|begin_of_text|>" * begin + rendered(conversation)
    assert [{"role": turn.role, "content": turn.content} for turn in messages_in(prompt)] == conversation


def test_any_other_prompt_is_none() -> None:
    for prompt in (
        "",
        "The sky is",
        "a<|eot_id|>",
        rendered([{"role": "user", "content": "hi"}]) + "Yes",
        "x" + rendered([]),
    ):
        assert messages_in(prompt) == ()


def test_a_batch_is_answered_by_the_small_model_as_single_calls_are(smollm: LocalServer) -> None:
    with Client(**connection(smollm), temperature=0, max_tokens=8) as client:
        (row,) = client.batch(["What is the capital of France?"], mode="batch", poll_interval=0.1)
        single = client.run("What is the capital of France?")
    assert row.completion is not None
    assert row.completion.text == single.text
