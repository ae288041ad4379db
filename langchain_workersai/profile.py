"""What LangChain wants to know of a model, from our catalog."""

from langchain_core.language_models import ModelProfile

from workersai.catalog import model_card


def profile_of(model: str) -> ModelProfile | None:
    """The model's profile, or None for one that the catalog doesn't list."""
    card = model_card(model)
    if card is None:
        return None
    return ModelProfile(
        name=card.name,
        max_input_tokens=card.context_window,
        max_output_tokens=card.context_window,
        text_inputs=True,
        image_inputs=False,
        image_url_inputs=False,
        pdf_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        image_tool_message=False,
        pdf_tool_message=False,
        text_outputs=True,
        image_outputs=False,
        audio_outputs=False,
        video_outputs=False,
        reasoning_output=False,
        tool_calling=card.function_calling,
        tool_choice=card.function_calling,
        tool_call_streaming=card.function_calling,
        structured_output=card.json_mode,
        temperature=True,
    )
